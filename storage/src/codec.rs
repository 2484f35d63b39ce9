//! The one place that knows the serialisation library (bincode 1.x, which is no longer maintained).
//!
//! Everything is bounded: encoding and decoding both refuse what is over the limit they are given, decoding
//! reads from a slice only, so it can never allocate more than a small multiple of that slice, and bytes left
//! over are an error. Integers are encoded with variable length.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a value could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CodecError(String);

fn options(limit_bytes: usize) -> impl Options {
    // A usize always fits in a u64 on the platforms Rust's standard library supports for us.
    bincode::DefaultOptions::new().with_limit(limit_bytes as u64)
}

/// Encodes `value`, refusing more than `limit_bytes`.
pub(crate) fn encode<T: Serialize>(value: &T, limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    options(limit_bytes)
        .serialize(value)
        .map_err(|error| CodecError(error.to_string()))
}

/// As [`encode`], behind what `bytes` already holds. After an error a part of the value may be there.
pub(crate) fn encode_into<T: Serialize>(
    value: &T,
    limit_bytes: usize,
    bytes: &mut Vec<u8>,
) -> Result<(), CodecError> {
    bytes.reserve_exact(encoded_len(value, limit_bytes)?);
    options(limit_bytes)
        .serialize_into(bytes, value)
        .map_err(|error| CodecError(error.to_string()))
}

/// The length that `encode` would give, or an error over `limit_bytes`.
pub(crate) fn encoded_len<T: Serialize>(value: &T, limit_bytes: usize) -> Result<usize, CodecError> {
    let length = options(limit_bytes)
        .serialized_size(value)
        .map_err(|error| CodecError(error.to_string()))?;
    usize::try_from(length).map_err(|error| CodecError(error.to_string()))
}

/// Decodes all of `bytes`, refusing more than `limit_bytes` and anything left over.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], limit_bytes: usize) -> Result<T, CodecError> {
    if bytes.len() > limit_bytes {
        return Err(CodecError(format!(
            "{} bytes are over the limit of {limit_bytes}",
            bytes.len()
        )));
    }
    options(limit_bytes)
        .deserialize(bytes)
        .map_err(|error| CodecError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, encoded_len};

    #[test]
    fn a_length_that_the_bytes_do_not_back_is_refused_without_allocating_it() {
        // 253 announces a u64: a vector of 2^63 bytes, in nine bytes of input.
        let claims_too_much = [253, 0, 0, 0, 0, 0, 0, 0, 0x80];
        assert!(decode::<Vec<u8>>(&claims_too_much, 1024).is_err());
    }

    #[test]
    fn what_is_over_the_limit_or_left_over_is_refused() {
        let encoded = encode(&vec![1_u8, 2, 3], 16).unwrap();
        assert_eq!(encoded_len(&vec![1_u8, 2, 3], 16).unwrap(), encoded.len());
        assert_eq!(decode::<Vec<u8>>(&encoded, encoded.len()).unwrap(), [1, 2, 3]);
        assert!(encode(&vec![0_u8; 17], 16).is_err());
        assert!(decode::<Vec<u8>>(&encoded, 3).is_err());
        assert!(decode::<Vec<u8>>(&[encoded, vec![0]].concat(), 16).is_err());
    }
}
