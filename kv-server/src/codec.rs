//! The only place of this crate that knows how values become bytes.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not a value of the type they were read as.
pub(crate) type CodecError = bincode::Error;

/// Bounds what a length prefix can make the decoder allocate, and refuses bytes left over, so that every
/// value has exactly one encoding that is accepted.
fn options(limit_bytes: usize) -> impl Options {
    bincode::DefaultOptions::new()
        .with_limit(limit_bytes as u64)
        .reject_trailing_bytes()
}

/// Appends the encoding of `value` to `out`.
pub(crate) fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::DefaultOptions::new().serialize_into(out, value)
}

/// Reads back what [`encode_into`] wrote. Refuses more than `limit_bytes`, and bytes behind the value.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], limit_bytes: usize) -> Result<T, CodecError> {
    options(limit_bytes).deserialize(bytes)
}
