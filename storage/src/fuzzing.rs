//! The decoders of what stands on disk, as functions of any bytes: for fuzzing, see `sim/tests/decoders`. No part of
//! the API.
//!
//! Checksums would turn away nearly everything that a fuzzer thinks of. So the contents are also decoded as if their
//! checksums were right, as they would be if it was the writer that erred.

use raft_core::{Entry, LogIndex, Payload, Term};

use crate::codec;
use crate::hard_state::{HardStateRecord, Root, SMALL_RECORD_LIMIT_BYTES, SnapshotRecord};
use crate::record::{Assembly, Content, LogRecord, MAX_RECORD_BYTES, RecordKey};

pub use crate::journal::fuzzing::{journal_record, journal_record_seeds};
pub use crate::snapshot_file::fuzzing::{snapshot_parts, snapshot_parts_seeds};

/// A record of the log: its key, the record in its envelope, and what is in the envelope.
pub fn log_record(bytes: &[u8]) {
    let key = RecordKey::from_bytes(bytes).unwrap_or(RecordKey::new(LogIndex(1), 0));
    let _ = LogRecord::unseal(key, bytes);
    let Ok(record) = codec::decode::<LogRecord>(bytes, MAX_RECORD_BYTES) else {
        return;
    };
    if let Content::Fragment { count, piece } = record.content {
        let mut assembly = Assembly::default();
        let _ = assembly.add(count, &piece);
        let _ = assembly.add(count, &piece);
    }
}

/// Records of the log as good as any.
#[must_use]
pub fn log_record_seeds() -> Vec<Vec<u8>> {
    let entry = |index: u64| Entry {
        term: Term(3),
        index: LogIndex(index),
        payload: Payload::Command(vec![7; 40].into()),
    };
    let contents = [
        Content::Entries(vec![entry(9), entry(10)]),
        Content::Fragment {
            count: 2,
            piece: vec![1; 300].into(),
        },
    ];
    let encoded = contents.into_iter().map(|content| {
        let record = LogRecord {
            serial: 12,
            previous_serial: 11,
            content,
        };
        codec::encode(&record, MAX_RECORD_BYTES)
    });
    encoded.filter_map(Result::ok).collect()
}

/// The small records: hard state, snapshot, root.
pub fn small_records(bytes: &[u8]) {
    let _ = codec::decode::<HardStateRecord>(bytes, SMALL_RECORD_LIMIT_BYTES);
    let _ = codec::decode::<SnapshotRecord>(bytes, SMALL_RECORD_LIMIT_BYTES);
    let _ = codec::decode::<Root>(bytes, SMALL_RECORD_LIMIT_BYTES);
}
