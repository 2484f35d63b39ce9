//! The decoders of what stands on disk, as functions of any bytes: for fuzzing, see `sim/tests/decoders`. No part of
//! the API.
//!
//! Checksums would turn away nearly everything that a fuzzer thinks of. So the contents are also decoded as if their
//! checksums were right, as they would be if it was the writer that erred.
//!
//! Each function yields the names of the kinds of things that it took the bytes for.

use raft_core::{
    Configuration, Entry, HardState, Incarnation, Leadership, LogIndex, NodeId, Payload, SnapshotMeta,
    Standing, Term, TermStart,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::directory::{MARKER_FILE, Marker, Stage, StoreId};
use crate::hard_state::{
    HARD_STATE_KEY, HardStateRecord, IDENTITY_KEY, Identity, Owner, ROOT_KEY, Root, SMALL_RECORD_LIMIT_BYTES,
    SNAPSHOT_KEY, SnapshotRecord,
};
use crate::high_water::{SLOT_PLACES, decode_slot, encode_slot};
use crate::record::{Assembly, Content, LogRecord, MAX_RECORD_BYTES, RecordKey};
use crate::sealed;

pub use crate::journal::fuzzing::{journal_file, journal_file_seeds, journal_record, journal_record_seeds};
pub use crate::snapshot_file::fuzzing::{snapshot_parts, snapshot_parts_seeds};

/// Where a record is taken to stand if its key is not what is decoded.
const SOME_KEY: RecordKey = RecordKey {
    first_index: LogIndex(1),
    fragment: 0,
};

/// A record of the log: its key, the record in its envelope, and what is in the envelope.
#[must_use]
pub fn log_record(bytes: &[u8]) -> Vec<&'static str> {
    let key = RecordKey::from_bytes(bytes);
    let mut kinds: Vec<_> = key.map(|_| "key").into_iter().collect();
    if LogRecord::unseal(key.unwrap_or(SOME_KEY), bytes).is_ok() {
        kinds.push("sealed record");
    }
    let Ok(record) = codec::decode::<LogRecord>(bytes, MAX_RECORD_BYTES) else {
        return kinds;
    };
    match record.content {
        Content::Entries(_) => kinds.push("entries"),
        Content::Fragment { count, piece } => {
            kinds.push("fragment");
            let mut assembly = Assembly::default();
            if [(); 2]
                .iter()
                .any(|()| matches!(assembly.add(count, &piece), Ok(Some(_))))
            {
                kinds.push("entry in fragments");
            }
        }
    }
    kinds
}

/// Records of the log as good as any.
#[must_use]
pub fn log_record_seeds() -> Vec<Vec<u8>> {
    let entry = |index: u64, payload| Entry {
        term: Term(3),
        index: LogIndex(index),
        payload,
    };
    let noop = Payload::Noop {
        leader_id: NodeId(2),
        leadership: Leadership(70),
    };
    let command = Payload::Command(vec![7; 40].into());
    let members = Payload::Configuration(configuration());
    let whole = codec::encode(&entry(12, command.clone()), MAX_RECORD_BYTES).unwrap_or_default();
    let fragment = |count, piece: Vec<u8>| Content::Fragment {
        count,
        piece: piece.into(),
    };
    let contents = [
        Content::Entries(vec![entry(9, noop), entry(10, command), entry(11, members)]),
        fragment(2, vec![1; 300]),
        fragment(1, whole),
    ];
    let records = contents.map(|content| LogRecord {
        serial: 12,
        previous_serial: 11,
        content,
    });
    let bare = records
        .iter()
        .map(|record| codec::encode(record, MAX_RECORD_BYTES));
    let sealed = records.iter().map(|record| {
        let mut sealed = Vec::new();
        record.seal_into(SOME_KEY, &mut sealed).map(|()| sealed)
    });
    let mut seeds: Vec<Vec<u8>> = bare.chain(sealed).filter_map(Result::ok).collect();
    seeds.push(RecordKey::new(LogIndex(70_000), 3).to_bytes().to_vec());
    seeds
}

fn configuration() -> Configuration {
    Configuration::of_voters([1, 2, 3].map(NodeId))
        .with_incarnation(NodeId(1), Incarnation(0x0123_4567_89ab_cdef))
        .founded_by(Incarnation(0x0123_4567_89ab_cdef))
}

/// The small records and the marker: without their envelopes, and in them.
#[must_use]
pub fn small_records(bytes: &[u8]) -> Vec<&'static str> {
    let kinds = [
        small::<HardStateRecord>(bytes, HARD_STATE_KEY, ["hard state", "sealed hard state"]),
        small::<SnapshotRecord>(bytes, SNAPSHOT_KEY, ["snapshot", "sealed snapshot"]),
        small::<Root>(bytes, ROOT_KEY, ["root", "sealed root"]),
        small::<Owner>(bytes, IDENTITY_KEY, ["identity", "sealed identity"]),
        small::<Marker>(bytes, MARKER_FILE.as_bytes(), ["marker", "sealed marker"]),
    ];
    kinds.into_iter().flatten().flatten().collect()
}

/// What the bytes are of: a `T` as it is, and one in its envelope.
fn small<T: DeserializeOwned>(
    bytes: &[u8],
    place: &[u8],
    [bare, sealed]: [&'static str; 2],
) -> [Option<&'static str>; 2] {
    let is_bare = codec::decode::<T>(bytes, SMALL_RECORD_LIMIT_BYTES).is_ok();
    let is_sealed = sealed::unseal::<T>(place, bytes, SMALL_RECORD_LIMIT_BYTES).is_ok();
    [is_bare.then_some(bare), is_sealed.then_some(sealed)]
}

/// Small records as good as any.
#[must_use]
pub fn small_records_seeds() -> Vec<Vec<u8>> {
    let hard_state = HardStateRecord {
        serial: 300,
        hard_state: HardState {
            current_term: Term(9),
            voted_for: Some(NodeId(2)),
            standing: Standing::Member,
        },
    };
    let snapshot = SnapshotRecord {
        serial: 270,
        snapshot: SnapshotMeta {
            last_included_index: LogIndex(70_000),
            last_included_term: Term(8),
            terms: vec![TermStart {
                index: LogIndex(69_000),
                term: Term(8),
                leadership: Some(Leadership(70)),
            }],
            configuration: configuration(),
            size_bytes: 100_000,
            checksum: 0x89ab_cdef,
        },
    };
    let root = Root {
        batch: 500,
        last_serial: 301,
        hard_state_serial: 300,
        snapshot_serial: 270,
        first_index: LogIndex(69_000),
        last_index: LogIndex(70_300),
        last_record_serial: 299,
    };
    let identity = Identity {
        cluster_id: "demo".to_owned(),
        node_id: NodeId(1),
    };
    let incarnation = Incarnation(0x0123_4567_89ab_cdef);
    let owner = Owner {
        identity: identity.clone(),
        incarnation,
    };
    let marker = Marker {
        stage: Stage::Ready,
        identity,
        store: StoreId {
            incarnation,
            joins: false,
        },
    };
    let seeds = [
        both(&hard_state, HARD_STATE_KEY),
        both(&snapshot, SNAPSHOT_KEY),
        both(&root, ROOT_KEY),
        both(&owner, IDENTITY_KEY),
        both(&marker, MARKER_FILE.as_bytes()),
    ];
    seeds.into_iter().flatten().filter_map(Result::ok).collect()
}

/// Without its envelope, and in it.
fn both<T: Serialize>(value: &T, place: &[u8]) -> [Result<Vec<u8>, codec::CodecError>; 2] {
    [
        codec::encode(value, SMALL_RECORD_LIMIT_BYTES),
        sealed::seal(place, value, SMALL_RECORD_LIMIT_BYTES),
    ]
}

/// A slot of the high-water file.
#[must_use]
pub fn high_water(bytes: &[u8]) -> Vec<&'static str> {
    let kinds = SLOT_PLACES.into_iter().zip(["first slot", "second slot"]);
    let found = kinds.filter(|(place, _)| decode_slot(place, bytes).is_some());
    found.map(|(_, kind)| kind).collect()
}

/// Both slots, as good as any.
#[must_use]
pub fn high_water_seeds() -> Vec<Vec<u8>> {
    let slots = SLOT_PLACES.into_iter().zip([500, 70_001]);
    slots.map(|(place, batch)| encode_slot(place, batch)).collect()
}
