//! The envelope around every record in the database and every small file: version and checksum.
//!
//! ```text
//! | version: u8 | CRC-32 of (place, version, content): u32, big endian | content |
//! ```
//!
//! *Place* is the record's key, or the file's name. It goes into the checksum and not into the bytes, so a
//! record that turns up under another key (a misdirected write, two records swapped) does not verify.

use crc32fast::Hasher;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, CodecError};

/// The version of every record and small file that this program writes, and the only one that it reads.
pub(crate) const FORMAT_VERSION: u8 = 7;

/// Bytes of version and checksum in front of the content.
pub(crate) const ENVELOPE_BYTES: usize = 5;

/// What is wrong with sealed bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("it is cut short to {0} bytes")]
    Short(usize),
    #[error("its checksum does not match")]
    Checksum,
    #[error("it has format version {0}, which this program does not read")]
    Version(u8),
    #[error("its content cannot be read ({0})")]
    Content(#[from] CodecError),
}

fn checksum(place: &[u8], version: u8, content: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(place);
    hasher.update(&[version]);
    hasher.update(content);
    hasher.finalize()
}

/// Seals `value` for `place`. `limit_bytes` bounds the content.
pub(crate) fn seal<T: Serialize>(place: &[u8], value: &T, limit_bytes: usize) -> Result<Vec<u8>, CodecError> {
    let mut sealed = Vec::new();
    seal_into(place, value, limit_bytes, &mut sealed)?;
    Ok(sealed)
}

/// As [`seal`], in the place of what is in `sealed`.
pub(crate) fn seal_into<T: Serialize>(
    place: &[u8],
    value: &T,
    limit_bytes: usize,
    sealed: &mut Vec<u8>,
) -> Result<(), CodecError> {
    sealed.clear();
    sealed.push(FORMAT_VERSION);
    sealed.resize(ENVELOPE_BYTES, 0);
    codec::encode_into(value, limit_bytes, sealed)?;
    let (envelope, content) = sealed.split_at_mut(ENVELOPE_BYTES);
    envelope[1..].copy_from_slice(&checksum(place, FORMAT_VERSION, content).to_be_bytes());
    Ok(())
}

/// Verifies and opens what [`seal`] made for the same `place`.
pub(crate) fn unseal<T: DeserializeOwned>(
    place: &[u8],
    sealed: &[u8],
    limit_bytes: usize,
) -> Result<T, Flaw> {
    Ok(codec::decode(verify(place, sealed)?, limit_bytes)?)
}

/// Verifies what [`seal`] made for the same `place`; yields the content, encoded.
pub(crate) fn verify<'a>(place: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Flaw> {
    let [version, c0, c1, c2, c3, content @ ..] = sealed else {
        return Err(Flaw::Short(sealed.len()));
    };
    // The checksum first: a version that is itself a flipped bit is damage, not another version.
    if checksum(place, *version, content) != u32::from_be_bytes([*c0, *c1, *c2, *c3]) {
        return Err(Flaw::Checksum);
    }
    if *version != FORMAT_VERSION {
        return Err(Flaw::Version(*version));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::{FORMAT_VERSION, Flaw, checksum, seal, unseal};

    #[test]
    fn a_sealed_value_opens_only_at_its_own_place() {
        let sealed = seal(b"here", &7_u64, 64).unwrap();
        assert_eq!(unseal::<u64>(b"here", &sealed, 64), Ok(7));
        assert_eq!(unseal::<u64>(b"there", &sealed, 64), Err(Flaw::Checksum));
    }

    #[test]
    fn every_flipped_bit_and_every_shortening_is_noticed() {
        let sealed = seal(b"here", &(7_u64, "text".to_owned()), 64).unwrap();
        for position in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[position / 8] ^= 1 << (position % 8);
            assert!(
                unseal::<(u64, String)>(b"here", &flipped, 64).is_err(),
                "bit {position}"
            );
        }
        for length in 0..sealed.len() {
            assert!(
                unseal::<(u64, String)>(b"here", &sealed[..length], 64).is_err(),
                "length {length}"
            );
        }
    }

    #[test]
    fn an_intact_record_of_another_version_is_told_from_damage() {
        let other = FORMAT_VERSION + 1;
        let mut sealed = vec![other];
        sealed.extend_from_slice(&checksum(b"here", other, b"").to_be_bytes());
        assert_eq!(unseal::<u64>(b"here", &sealed, 64), Err(Flaw::Version(other)));
    }
}
