//! See [`crate::fuzzing`].

use super::frame::{Found, Place, SECTOR_BYTES, encode, find, seal};
use crate::overlay::{Batch, Change};

const PLACE: Place = Place {
    generation: 3,
    salt: 5,
};

/// A record of the journal: as it is, and with a checksum that fits.
pub fn journal_record(bytes: &[u8]) {
    decode(bytes);
    let mut sealed = bytes.to_vec();
    sealed.resize(bytes.len().max(1).next_multiple_of(SECTOR_BYTES), 0);
    seal(&mut sealed, PLACE, 1);
    decode(&sealed);
}

fn decode(bytes: &[u8]) {
    if let Found::Record(frame) = find(bytes, PLACE) {
        let _ = frame.decode();
    }
}

/// Records as good as any.
#[must_use]
pub fn journal_record_seeds() -> Vec<Vec<u8>> {
    let change = |value: Option<Vec<u8>>, existed| Change { value, existed };
    let batch = Batch {
        number: 7,
        changes: [
            (b"added".to_vec(), change(Some(vec![1; 100]), false)),
            (b"removed".to_vec(), change(None, true)),
            (b"replaced".to_vec(), change(Some(vec![2; 700]), true)),
        ]
        .into(),
    };
    let mut record = Vec::new();
    if encode(&batch, &mut record).is_err() {
        return Vec::new();
    }
    seal(&mut record, PLACE, 1);
    vec![record]
}
