//! The limits of keys and values, checked before anything is sent.

use bytes::Bytes;
use rpc::client::InvalidArgument;
use rpc::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

use crate::outcome::Error;

/// A key that may be sent.
pub(crate) fn key(key: &[u8]) -> Result<Bytes, Error> {
    if key.is_empty() {
        return Err(InvalidArgument::KeyEmpty.into());
    }
    bound(key)
}

/// A bound of a range: a key, or nothing.
pub(crate) fn bound(key: &[u8]) -> Result<Bytes, Error> {
    if key.len() > MAX_KEY_BYTES {
        return Err(InvalidArgument::KeyTooLong {
            len: key.len() as u64,
        }
        .into());
    }
    Ok(Bytes::copy_from_slice(key))
}

/// A value that may be sent.
pub(crate) fn value(value: &[u8]) -> Result<Bytes, Error> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(InvalidArgument::ValueTooLong {
            len: value.len() as u64,
        }
        .into());
    }
    Ok(Bytes::copy_from_slice(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_taken_up_to_their_limits_and_refused_beyond() {
        assert!(key(&[1]).is_ok());
        assert!(key(&vec![0; MAX_KEY_BYTES]).is_ok());
        assert!(value(&[]).is_ok());
        assert!(value(&vec![0; MAX_VALUE_BYTES]).is_ok());

        let messages = [
            key(&[]).unwrap_err().to_string(),
            key(&vec![0; MAX_KEY_BYTES + 1]).unwrap_err().to_string(),
            value(&vec![0; MAX_VALUE_BYTES + 1]).unwrap_err().to_string(),
        ];
        assert_eq!(
            messages,
            [
                "the key is empty: it must have 1 to 4096 bytes",
                "the key has 4097 bytes: the limit is 4096",
                "the value has 1048577 bytes: the limit is 1048576",
            ]
        );
    }
}
