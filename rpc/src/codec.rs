//! Values to bytes and back: the one module that knows bincode.
//!
//! The encoding is bincode 1.3 with variable-length integers. Terms, indexes, lengths and enum tags are
//! small numbers almost always, so a log entry's frame costs some ten bytes instead of forty; the few
//! cycles for it are paid back by the smaller socket writes.
//!
//! Every call states a limit. A value that would pass it is refused before a byte is written, bytes that
//! pass it are refused before anything is allocated, and bytes left over behind the value are an error.
//! Decoding reads from a slice only: from a stream, bincode would allocate whatever the sender claims.

use bincode::{DefaultOptions, ErrorKind, Options};
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why a value could not be encoded or decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The value is longer than allowed. Split it, or send less.
    #[error("the encoded value is longer than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// The bytes are not a value of the expected type: they are damaged, or another version wrote them.
    #[error("the bytes are not a valid value: {detail}")]
    Malformed {
        /// What was wrong.
        detail: String,
    },
}

/// Encodes `value` into at most `limit_bytes`.
///
/// # Errors
///
/// [`CodecError::TooLarge`] when the encoded value would be longer than `limit_bytes`.
pub fn encode<T: Serialize + ?Sized>(value: &T, limit_bytes: usize) -> Result<BytesMut, CodecError> {
    let mut bytes = BytesMut::new();
    encode_into(value, limit_bytes, &mut bytes)?;
    Ok(bytes)
}

/// Encodes `value` behind what `bytes` already holds, adding at most `limit_bytes`.
///
/// # Errors
///
/// As [`encode`]; `bytes` is then as it was.
pub fn encode_into<T: Serialize + ?Sized>(
    value: &T,
    limit_bytes: usize,
    bytes: &mut BytesMut,
) -> Result<(), CodecError> {
    let start = bytes.len();
    options(limit_bytes)
        .serialize_into(bytes.writer(), value)
        .map_err(|error| {
            bytes.truncate(start);
            explain(&error, limit_bytes)
        })
}

/// Decodes a value that fills `bytes` from the first to the last.
///
/// # Errors
///
/// [`CodecError::TooLarge`] when `bytes` is longer than `limit_bytes`, and [`CodecError::Malformed`] when it
/// is not exactly one value of type `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit_bytes: usize) -> Result<T, CodecError> {
    if bytes.len() > limit_bytes {
        return Err(CodecError::TooLarge { limit_bytes });
    }
    options(limit_bytes)
        .deserialize(bytes)
        .map_err(|error| explain(&error, limit_bytes))
}

fn options(limit_bytes: usize) -> impl Options {
    DefaultOptions::new()
        .with_varint_encoding()
        .reject_trailing_bytes()
        .with_limit(limit_bytes as u64)
}

fn explain(error: &ErrorKind, limit_bytes: usize) -> CodecError {
    match error {
        ErrorKind::SizeLimit => CodecError::TooLarge { limit_bytes },
        other => CodecError::Malformed {
            detail: other.to_string(),
        },
    }
}
