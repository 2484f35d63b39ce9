use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use raft_core::{Configuration, Leadership, NodeId};
use rpc::client::{Found, InvalidArgument, ScanReply, ScanRequest, Sequence, WriteId};
use rpc::limits::{MAX_SCAN_BYTES, MAX_SCAN_ITEMS, MAX_VALUE_BYTES};

use super::*;

const TERM: Term = Term(3);

/// A state machine that is fed one command after the other.
struct Fed {
    machine: StateMachine,
    session: SessionId,
    sequence: u64,
}

impl Fed {
    fn new() -> Self {
        let mut machine = StateMachine::new();
        let opened = apply_one(&mut machine, &Command::OpenSession { secret: 77 });
        let Reply::SessionOpened(session) = opened else {
            panic!("{opened:?}")
        };
        Self {
            machine,
            session,
            sequence: 0,
        }
    }

    fn id(&self, sequence: u64) -> WriteId {
        WriteId {
            session: self.session,
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(sequence),
        }
    }

    fn write(&mut self, op: Operation) -> Result<Outcome, KvError> {
        self.sequence += 1;
        let id = self.id(self.sequence);
        self.write_as(id, op)
    }

    fn write_as(&mut self, id: WriteId, op: Operation) -> Result<Outcome, KvError> {
        match apply_one(&mut self.machine, &Command::Write { id, op }) {
            Reply::Written(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> Result<Outcome, KvError> {
        self.write(put(key, value))
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        self.machine
            .reader()
            .get(key.as_bytes(), TERM)
            .found
            .map(|found| found.value)
    }
}

fn put(key: &'static str, value: &'static str) -> Operation {
    Operation::Put {
        key: key.into(),
        value: value.into(),
    }
}

fn append(key: &'static str, value: impl Into<Bytes>) -> Operation {
    Operation::Append {
        key: key.into(),
        value: value.into(),
    }
}

fn delete(key: &'static str) -> Operation {
    Operation::Delete { key: key.into() }
}

fn entry(index: u64, payload: Payload) -> Entry {
    Entry {
        term: TERM,
        index: LogIndex(index),
        payload,
    }
}

fn noop() -> Payload {
    Payload::Noop {
        leader_id: NodeId(1),
        leadership: Leadership(70),
    }
}

fn apply_one(machine: &mut StateMachine, command: &Command) -> Reply {
    let next = machine.last_applied().next().get();
    let mut applied = machine
        .apply_batch(&[entry(next, Payload::Command(command.encode()))])
        .unwrap();
    assert_eq!(applied.len(), 1);
    applied.remove(0).reply
}

#[test]
fn a_write_answers_with_its_log_index_as_version() {
    let mut fed = Fed::new();
    assert_eq!(fed.put("a", "1"), Ok(Outcome::Stored { version: LogIndex(2) }));
    assert_eq!(
        fed.write(append("a", "2")),
        Ok(Outcome::Stored { version: LogIndex(3) })
    );
    let expected = GetReply {
        found: Some(Found {
            value: "12".into(),
            version: LogIndex(3),
        }),
        applied_index: LogIndex(3),
        term: Term(9),
    };
    assert_eq!(fed.machine.reader().get(b"a", Term(9)), expected);
}

#[test]
fn a_long_value_is_copied_for_a_snapshot_once_and_not_for_each_append() {
    let mut fed = Fed::new();
    let append_to = |fed: &mut Fed, suffix: Vec<u8>| {
        fed.write(append("a", suffix)).unwrap();
        fed.value("a").unwrap().as_ptr()
    };
    append_to(&mut fed, vec![7; 500_000]);
    let at = append_to(&mut fed, vec![1]);
    assert_eq!(append_to(&mut fed, vec![2]), at);
    let (snapshot, hash) = (fed.machine.snapshot(), fed.machine.state_hash());
    let copied_to = append_to(&mut fed, vec![3]);
    assert_ne!(copied_to, at);
    assert_eq!(append_to(&mut fed, vec![4]), copied_to);
    assert_eq!(snapshot.hash(), hash);
    assert_eq!(fed.value("a").unwrap()[500_000..], [1, 2, 3, 4]);
}

#[test]
fn append_to_a_missing_key_counts_it_as_empty() {
    let mut fed = Fed::new();
    fed.write(append("a", "x")).unwrap();
    assert_eq!(fed.value("a"), Some("x".into()));
}

#[test]
fn delete_says_whether_the_key_was_there() {
    let mut fed = Fed::new();
    fed.put("a", "1").unwrap();
    assert_eq!(fed.write(delete("a")), Ok(Outcome::Deleted { existed: true }));
    assert_eq!(fed.write(delete("a")), Ok(Outcome::Deleted { existed: false }));
    assert_eq!(fed.value("a"), None);
    assert_eq!(fed.machine.reader().keys(), 0);
}

#[test]
fn a_write_that_stands_in_the_log_twice_takes_effect_once() {
    let mut fed = Fed::new();
    let id = fed.id(1);
    let first = fed.write_as(id, append("a", "x"));
    assert_eq!(fed.write_as(id, append("a", "x")), first);
    assert_eq!(fed.value("a"), Some("x".into()));
}

#[test]
fn an_append_past_the_value_limit_is_refused_and_the_refusal_remembered() {
    let mut fed = Fed::new();
    fed.write(append("a", vec![0; MAX_VALUE_BYTES])).unwrap();
    let id = fed.id(9);
    let refused = Err(KvError::InvalidArgument(InvalidArgument::ValueTooLong {
        len: 1_048_577,
    }));
    assert_eq!(fed.write_as(id, append("a", "x")), refused);
    fed.machine.map.write(|list| list.clear());
    assert_eq!(fed.write_as(id, append("a", "x")), refused);
    assert_eq!(fed.value("a"), None);
}

#[test]
fn limits_are_checked_again_when_a_write_is_applied() {
    let mut fed = Fed::new();
    assert_eq!(
        fed.put("", "x"),
        Err(KvError::InvalidArgument(InvalidArgument::KeyEmpty))
    );
    assert_eq!(fed.machine.reader().keys(), 0);
}

#[test]
fn a_read_through_the_log_sees_exactly_what_stands_before_it() {
    let mut fed = Fed::new();
    let id = fed.id(1);
    let commands = [
        Command::Get { key: "a".into() },
        Command::Write {
            id,
            op: put("a", "1"),
        },
        Command::Get { key: "a".into() },
        Command::Write {
            id: fed.id(2),
            op: put("a", "2"),
        },
    ];
    let entries: Vec<_> = commands
        .iter()
        .zip(2..)
        .map(|(command, index)| entry(index, Payload::Command(command.encode())))
        .collect();
    let applied = fed.machine.apply_batch(&entries).unwrap();
    let read = |found, index| {
        Reply::Read(GetReply {
            found,
            applied_index: LogIndex(index),
            term: TERM,
        })
    };
    assert_eq!(applied[0].reply, read(None, 2));
    assert_eq!(
        applied[2].reply,
        read(
            Some(Found {
                value: "1".into(),
                version: LogIndex(3)
            }),
            4
        )
    );
}

#[test]
fn entries_of_raft_itself_change_nothing_but_the_index() {
    let mut machine = StateMachine::new();
    let entries = [
        entry(1, noop()),
        entry(2, Payload::Configuration(Configuration::default())),
    ];
    let applied = machine.apply_batch(&entries).unwrap();
    assert!(
        applied
            .iter()
            .all(|applied| applied.reply == Reply::Nothing && applied.term == TERM)
    );
    assert_eq!(
        (machine.last_applied(), machine.last_applied_term()),
        (LogIndex(2), TERM)
    );
    assert_eq!(machine.reader().applied_index(), LogIndex(2));
}

#[test]
fn an_entry_that_cannot_be_decoded_stops_the_node_before_anything_of_its_batch_is_applied() {
    let mut machine = StateMachine::new();
    let good = entry(1, Payload::Command(Command::OpenSession { secret: 1 }.encode()));
    let error = machine
        .apply_batch(&[good, entry(2, Payload::Command("?".into()))])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "entry 2 of the log cannot be applied: the command has format 63, this program reads format 1: \
         run the release that wrote the log, or a newer one"
    );
    assert_eq!(
        (machine.last_applied(), machine.reader().sessions()),
        (LogIndex::ZERO, 0)
    );
}

#[test]
#[should_panic(expected = "entry 3 cannot be applied after entry 1")]
fn a_gap_in_the_log_is_a_bug() {
    let mut machine = StateMachine::new();
    let _ = machine.apply_batch(&[entry(1, noop()), entry(3, noop())]);
}

#[test]
#[should_panic(expected = "entry 1 cannot be applied after entry 1")]
fn an_entry_is_never_applied_twice() {
    let mut machine = StateMachine::new();
    machine.apply_batch(&[entry(1, noop())]).unwrap();
    let _ = machine.apply_batch(&[entry(1, noop())]);
}

fn filled(count: u64, value_len: usize) -> StateMachine {
    let machine = StateMachine::new();
    machine.map.write(|list| {
        for number in 0..count {
            let value = Bytes::from(vec![b'v'; value_len]).into();
            list.insert(
                format!("{number:05}").into_bytes().into(),
                Versioned {
                    value,
                    version: LogIndex(number),
                },
            );
        }
    });
    machine
}

fn request(from: &'static str, to: Option<&'static str>, limit: u32) -> ScanRequest {
    ScanRequest {
        from: from.into(),
        to: to.map(Into::into),
        limit,
        ..ScanRequest::default()
    }
}

fn keys(reply: &ScanReply) -> Vec<&str> {
    reply
        .items
        .iter()
        .map(|item| std::str::from_utf8(&item.key).unwrap())
        .collect()
}

#[test]
fn a_scan_gives_the_half_open_range_in_order() {
    let reader = filled(10, 1).reader();
    let page = reader.scan(&request("00003", Some("00006"), 100), TERM);
    assert_eq!((keys(&page), page.more), (vec!["00003", "00004", "00005"], false));
    assert_eq!(
        keys(&reader.scan(&request("00008", None, 100), TERM)),
        ["00008", "00009"]
    );
    for empty in [
        request("5", None, 9),
        request("00003", Some("00003"), 9),
        request("00003", Some("0"), 9),
    ] {
        let page = reader.scan(&empty, TERM);
        assert!(page.items.is_empty() && !page.more);
    }
}

#[test]
fn a_page_ends_at_the_limit_asked_for_and_says_whether_more_follows() {
    let reader = filled(10, 1).reader();
    let more = |limit| {
        let page = reader.scan(&request("", None, limit), TERM);
        (page.items.len(), page.more)
    };
    assert_eq!(
        [more(0), more(1), more(9), more(10), more(11)],
        [(1, true), (1, true), (9, true), (10, false), (10, false)]
    );
}

#[test]
fn a_page_ends_at_the_limits_of_the_service() {
    let page = filled(1_001, 1).reader().scan(&request("", None, u32::MAX), TERM);
    assert_eq!((page.items.len(), page.more), (MAX_SCAN_ITEMS, true));
    let page = filled(3, MAX_SCAN_BYTES / 2 - 5)
        .reader()
        .scan(&request("", None, 10), TERM);
    assert_eq!((page.items.len(), page.more), (2, true));
    let page = filled(3, MAX_SCAN_BYTES / 2 - 4)
        .reader()
        .scan(&request("", None, 10), TERM);
    assert_eq!((page.items.len(), page.more), (1, true));
}

#[test]
fn one_item_fits_a_page_however_large() {
    let page = filled(2, MAX_VALUE_BYTES)
        .reader()
        .scan(&request("", None, 10), TERM);
    assert_eq!((page.items.len(), page.more), (1, true));
}

#[test]
fn a_scan_of_keys_alone_leaves_values_out() {
    let all = ScanRequest {
        keys_only: true,
        ..request("", None, 1_000)
    };
    let page = filled(1_000, 10_000).reader().scan(&all, TERM);
    assert_eq!((page.items.len(), page.more), (1_000, false));
    assert!(page.items.iter().all(|item| item.value.is_empty()));
}

#[test]
fn a_reader_never_sees_half_a_batch_or_an_index_that_is_not_the_data_s() {
    let mut machine = StateMachine::new();
    apply_one(&mut machine, &Command::OpenSession { secret: 1 });
    let (reader, done) = (machine.reader(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let page = reader.scan(&request("", None, 10), TERM);
                let versions: Vec<_> = page.items.iter().map(|item| item.version.get()).collect();
                // Each batch ends with the write of "b": the last index that the page may claim.
                let expected = versions.get(1).copied().unwrap_or(1);
                assert_eq!(
                    (page.applied_index.get(), versions.len() % 2),
                    (expected, 0),
                    "{versions:?}"
                );
            }
        });
        for round in 1..2_000_u64 {
            let sequences = [round * 2 - 1, round * 2];
            let entries: Vec<_> = ["a", "b"]
                .into_iter()
                .zip(sequences)
                .map(|(key, sequence)| {
                    let session = SessionId {
                        opened_at: LogIndex(1),
                        secret: 1,
                    };
                    let id = WriteId {
                        session,
                        sequence: Sequence(sequence),
                        lowest_outstanding: Sequence(sequence),
                    };
                    entry(
                        sequence + 1,
                        Payload::Command(
                            Command::Write {
                                id,
                                op: put(key, "x"),
                            }
                            .encode(),
                        ),
                    )
                })
                .collect();
            machine.apply_batch(&entries).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reading.join().unwrap();
    });
}

#[test]
fn readers_follow_an_installed_snapshot_and_what_is_applied_after_it() {
    let mut leader = Fed::new();
    leader.put("a", "1").unwrap();
    let mut follower = StateMachine::new();
    let reader = follower.reader();
    let mut file = Vec::new();
    leader.machine.snapshot().write_to(&mut file).unwrap();
    let _ = follower.install(StateMachine::read_from(&mut file.as_slice()).unwrap());
    assert_eq!(
        (reader.applied_index(), reader.keys(), reader.sessions()),
        (LogIndex(2), 1, 1)
    );
    let id = leader.id(2);
    apply_one(
        &mut follower,
        &Command::Write {
            id,
            op: put("b", "2"),
        },
    );
    assert_eq!((reader.applied_index(), reader.keys()), (LogIndex(3), 2));
    assert_eq!(follower.reader().applied_index(), LogIndex(3));
    // Nor does the second one lose them.
    for key in ["b", "c", "d"] {
        leader.put(key, "2").unwrap();
    }
    let mut file = Vec::new();
    leader.machine.snapshot().write_to(&mut file).unwrap();
    let _ = follower.install(StateMachine::read_from(&mut file.as_slice()).unwrap());
    assert_eq!((reader.applied_index(), reader.keys()), (LogIndex(5), 4));
}

#[test]
#[should_panic(expected = "a snapshot of entry 0 cannot replace the state of entry 1")]
fn an_older_snapshot_is_never_installed() {
    let mut machine = StateMachine::new();
    machine.apply_batch(&[entry(1, noop())]).unwrap();
    let _ = machine.install(StateMachine::new());
}

#[derive(Clone, Debug)]
struct ModelWrite {
    op: u8,
    key: u8,
    value: Vec<u8>,
    repeat: bool,
}

fn model_write() -> impl Strategy<Value = ModelWrite> {
    (
        0_u8..3,
        0_u8..6,
        proptest::collection::vec(any::<u8>(), 0..5),
        proptest::bool::weighted(0.2),
    )
        .prop_map(|(op, key, value, repeat)| ModelWrite {
            op,
            key,
            value,
            repeat,
        })
}

fn operation(write: &ModelWrite) -> Operation {
    let (key, value) = (
        Bytes::from(vec![b'a' + write.key]),
        Bytes::from(write.value.clone()),
    );
    match write.op {
        0 => Operation::Put { key, value },
        1 => Operation::Append { key, value },
        _ => Operation::Delete { key },
    }
}

proptest! {
    #[test]
    fn replicas_agree_with_a_plain_map_and_each_other_however_the_log_is_cut_into_batches(
        writes in proptest::collection::vec(model_write(), 1..60),
        batch in 1_usize..20,
    ) {
        let session = SessionId { opened_at: LogIndex(1), secret: 5 };
        let mut entries = vec![entry(1, Payload::Command(Command::OpenSession { secret: 5 }.encode()))];
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut sequence = 0;
        for (write, index) in writes.iter().zip(2..) {
            if !write.repeat || sequence == 0 {
                sequence += 1;
                let value = model.entry(vec![b'a' + write.key]).or_default();
                match write.op {
                    0 => value.clone_from(&write.value),
                    1 => value.extend(&write.value),
                    _ => drop(model.remove(&vec![b'a' + write.key])),
                }
            }
            let id = WriteId { session, sequence: Sequence(sequence), lowest_outstanding: Sequence(1) };
            entries.push(entry(index, Payload::Command(Command::Write { id, op: operation(write) }.encode())));
        }
        let (mut one, mut other) = (StateMachine::new(), StateMachine::new());
        let whole = one.apply_batch(&entries).unwrap();
        let in_parts: Vec<_> = entries.chunks(batch).flat_map(|part| other.apply_batch(part).unwrap()).collect();
        prop_assert_eq!(whole, in_parts);
        prop_assert_eq!(one.state_hash(), other.state_hash());
        let page = one.reader().scan(&request("", None, 1_000), TERM);
        let held: BTreeMap<Vec<u8>, Vec<u8>> =
            page.items.iter().map(|item| (item.key.to_vec(), item.value.to_vec())).collect();
        prop_assert_eq!(held, model);
    }
}
