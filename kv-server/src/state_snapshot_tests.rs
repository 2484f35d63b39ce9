use proptest::prelude::*;
use raft_core::{Entry, Payload};
use rpc::client::{SessionId, WriteId};

use super::*;
use crate::command::{Command, Operation};
use crate::state_machine::Reply;

/// A few sessions with remembered answers of every kind, and `keys` keys.
fn example(keys: u64) -> StateMachine {
    let mut machine = StateMachine::with_session_cap(50);
    let mut next_index = 1..;
    let mut apply = |command: Command| {
        let index = LogIndex(next_index.next().unwrap());
        let entry = Entry {
            term: Term(4),
            index,
            payload: Payload::Command(command.encode()),
        };
        machine.apply_batch(&[entry]).unwrap()
    };
    apply(Command::OpenSession { secret: u64::MAX });
    apply(Command::OpenSession { secret: 9 });
    let session = SessionId {
        opened_at: LogIndex(2),
        secret: 9,
    };
    let mut operations = vec![
        Operation::Delete { key: "none".into() },
        Operation::Put {
            key: Bytes::new(),
            value: Bytes::new(),
        },
        Operation::Put {
            key: vec![0; 5_000].into(),
            value: Bytes::new(),
        },
        Operation::Put {
            key: "long".into(),
            value: vec![0; MAX_VALUE_BYTES + 1].into(),
        },
        Operation::Put {
            key: "".into(),
            value: "".into(),
        },
    ];
    operations.extend((0..keys).map(|key| Operation::Put {
        key: format!("key-{key}").into(),
        value: vec![7; 40].into(),
    }));
    for (op, sequence) in operations.into_iter().zip(1..) {
        let id = WriteId {
            session,
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(1),
        };
        let applied = apply(Command::Write { id, op });
        assert!(matches!(applied[0].reply, Reply::Written(_)));
    }
    machine
}

fn file_of(machine: &StateMachine) -> Vec<u8> {
    let mut file = Vec::new();
    machine.snapshot().write_to(&mut file).unwrap();
    file
}

fn read(mut file: &[u8]) -> Result<StateMachine, StateError> {
    StateMachine::read_from(&mut file)
}

fn damage(file: &[u8]) -> String {
    read(file).unwrap_err().to_string()
}

/// A file of the given parts, each a number of 1, 4 or 8 bytes or raw bytes.
fn build(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn header(last_applied: u64) -> Vec<u8> {
    build(&[
        b"KV-STATE",
        &[1],
        &last_applied.to_le_bytes(),
        &4_u64.to_le_bytes(),
        &50_u32.to_le_bytes(),
    ])
}

#[test]
fn a_state_that_is_read_back_is_the_same_and_goes_on_alike() {
    let mut machine = example(100);
    let mut restored = read(&file_of(&machine)).unwrap();
    assert_eq!(restored.state_hash(), machine.state_hash());
    assert_eq!(restored.sessions.cap(), 50);
    let session = SessionId {
        opened_at: LogIndex(2),
        secret: 9,
    };
    let entries: Vec<_> = (1..=105_u64)
        .map(|sequence| {
            let id = WriteId {
                session,
                sequence: Sequence(sequence),
                lowest_outstanding: Sequence(1),
            };
            let command = Command::Write {
                id,
                op: Operation::Delete { key: "key-1".into() },
            };
            let index = LogIndex(machine.last_applied().get() + sequence);
            Entry {
                term: Term(4),
                index,
                payload: Payload::Command(command.encode()),
            }
        })
        .collect();
    assert_eq!(
        restored.apply_batch(&entries).unwrap(),
        machine.apply_batch(&entries).unwrap()
    );
    assert_eq!(restored.state_hash(), machine.state_hash());
}

#[test]
fn the_bytes_of_format_1_never_change() {
    let mut machine = StateMachine::with_session_cap(50);
    let id = WriteId {
        session: SessionId {
            opened_at: LogIndex(1),
            secret: 9,
        },
        sequence: Sequence(1),
        lowest_outstanding: Sequence(1),
    };
    let op = Operation::Put {
        key: "k".into(),
        value: "val".into(),
    };
    for (command, index) in [Command::OpenSession { secret: 9 }, Command::Write { id, op }]
        .iter()
        .zip(1..)
    {
        let payload = Payload::Command(command.encode());
        machine
            .apply_batch(&[Entry {
                term: Term(4),
                index: LogIndex(index),
                payload,
            }])
            .unwrap();
    }
    let number = |number: u64| number.to_le_bytes();
    let small = |number: u32| number.to_le_bytes();
    let expected = build(&[
        &header(2),
        &small(1),
        &number(1),
        &number(9),
        &number(2),
        &number(1),
        &small(1),
        &number(1),
        &[0],
        &number(2),
        &number(1),
        &small(1),
        &small(3),
        &number(2),
        b"kval",
    ]);
    assert_eq!(file_of(&machine), expected);
    assert_eq!(machine.state_hash(), 4_401_980_491_772_207_512);
}

#[test]
fn the_empty_state_can_be_written_and_read() {
    let restored = read(&file_of(&StateMachine::new())).unwrap();
    assert_eq!(restored.state_hash(), StateMachine::new().state_hash());
}

#[test]
fn a_snapshot_does_not_see_what_is_applied_after_it() {
    let mut machine = example(10);
    let before = file_of(&machine);
    let snapshot = machine.snapshot();
    let id = WriteId {
        session: SessionId {
            opened_at: LogIndex(2),
            secret: 9,
        },
        sequence: Sequence(500),
        lowest_outstanding: Sequence(500),
    };
    for (command, index) in [
        Command::Write {
            id,
            op: Operation::Put {
                key: "key-1".into(),
                value: "new".into(),
            },
        },
        Command::OpenSession { secret: 3 },
    ]
    .iter()
    .zip(machine.last_applied().get() + 1..)
    {
        let payload = Payload::Command(command.encode());
        machine
            .apply_batch(&[Entry {
                term: Term(4),
                index: LogIndex(index),
                payload,
            }])
            .unwrap();
    }
    let mut after = Vec::new();
    std::thread::scope(|scope| {
        scope
            .spawn(|| snapshot.write_to(&mut after))
            .join()
            .unwrap()
            .unwrap();
    });
    assert_eq!(before, after);
    assert_ne!(before, file_of(&machine));
}

#[test]
fn every_part_of_the_state_changes_the_hash() {
    let base = example(3).state_hash();
    assert_eq!(example(3).state_hash(), base);
    assert_ne!(example(4).state_hash(), base);
    let mut machine = example(3);
    machine.last_applied = LogIndex(99);
    assert_ne!(machine.state_hash(), base);
    let machine = example(3);
    machine.map.write(|list| {
        let held = list.get(b"key-1".as_slice()).cloned().unwrap();
        list.insert(
            b"key-1".as_slice().into(),
            Versioned {
                version: LogIndex(1),
                ..held
            },
        );
    });
    assert_ne!(machine.state_hash(), base);
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let file = file_of(&example(5));
    for end in 0..file.len() {
        assert_eq!(
            damage(&file[..end]),
            "the state snapshot is damaged: it ends early",
            "cut at {end}"
        );
    }
}

#[test]
fn a_file_that_goes_on_is_refused() {
    let mut file = file_of(&example(5));
    file.push(0);
    assert_eq!(
        damage(&file),
        "the state snapshot is damaged: it goes on behind the last key"
    );
}

#[test]
fn another_format_is_named() {
    let mut file = file_of(&example(1));
    file[8] = 7;
    assert_eq!(
        damage(&file),
        "the state snapshot has format 7, this program reads format 1: run the release that wrote it, or a newer one"
    );
    file[0] = b'X';
    assert_eq!(
        damage(&file),
        "the state snapshot is damaged: it does not start like one"
    );
}

#[test]
fn counts_and_lengths_that_only_claim_cost_no_memory() {
    let many_keys = build(&[&header(9), &[0; 4], &u64::MAX.to_le_bytes()]);
    assert_eq!(damage(&many_keys), "the state snapshot is damaged: it ends early");
    let many_sessions = build(&[&header(9), &u32::MAX.to_le_bytes()]);
    assert_eq!(
        damage(&many_sessions),
        "the state snapshot is damaged: it ends early"
    );
    let long_key = build(&[
        &header(9),
        &[0; 4],
        &1_u64.to_le_bytes(),
        &u32::MAX.to_le_bytes(),
        &[0; 12],
    ]);
    assert_eq!(
        damage(&long_key),
        "the state snapshot is damaged: a key or a value is longer than its limit"
    );
}

#[test]
fn an_order_that_no_replica_writes_is_refused() {
    let key = |key: &[u8], version: u64| {
        build(&[
            &1_u32.to_le_bytes(),
            &0_u32.to_le_bytes(),
            &version.to_le_bytes(),
            key,
        ])
    };
    let keys = |keys: &[Vec<u8>]| {
        build(&[
            &header(9),
            &[0; 4],
            &(keys.len() as u64).to_le_bytes(),
            &keys.concat(),
        ])
    };
    assert!(read(&keys(&[key(b"a", 1), key(b"b", 2)])).is_ok());
    for twisted in [[key(b"b", 1), key(b"a", 2)], [key(b"a", 1), key(b"a", 2)]] {
        assert_eq!(
            damage(&keys(&twisted)),
            "the state snapshot is damaged: its keys are out of order"
        );
    }
    assert_eq!(
        damage(&keys(&[key(b"a", 10)])),
        "the state snapshot is damaged: a version lies outside the log"
    );
    let empty = build(&[&[0; 8], &1_u64.to_le_bytes()]);
    assert_eq!(
        damage(&keys(&[empty])),
        "the state snapshot is damaged: a key is empty"
    );
}

/// One session with an answer to each of `sequences`.
fn session(opened_at: u64, last_used: u64, lowest: u64, sequences: &[u64]) -> Vec<u8> {
    let mut session = [opened_at, 5, last_used, lowest].map(u64::to_le_bytes).concat();
    session.extend(u32::try_from(sequences.len()).unwrap().to_le_bytes());
    for sequence in sequences {
        session.extend(build(&[&sequence.to_le_bytes(), &[1], &1_u64.to_le_bytes()]));
    }
    session
}

fn sessions(sessions: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(sessions.len()).unwrap();
    build(&[
        &header(9),
        &count.to_le_bytes(),
        &sessions.concat(),
        &0_u64.to_le_bytes(),
    ])
}

#[test]
fn sessions_that_no_replica_has_are_refused() {
    assert!(read(&sessions(&[session(1, 2, 3, &[3, 5]), session(2, 9, 1, &[])])).is_ok());
    let cases = [
        (
            vec![session(2, 3, 1, &[]), session(1, 4, 1, &[])],
            "its sessions are out of order",
        ),
        (
            vec![session(1, 3, 1, &[]), session(2, 3, 1, &[])],
            "two sessions share an entry, or there are too many",
        ),
        (vec![session(3, 2, 1, &[])], "a session was used outside the log"),
        (vec![session(1, 10, 1, &[])], "a session was used outside the log"),
        (vec![session(1, 2, 0, &[])], "a session's sequences start below 1"),
        (
            vec![session(1, 2, 3, &[2])],
            "a session's answers are out of order or outside its window",
        ),
        (
            vec![session(1, 2, 3, &[5, 4])],
            "a session's answers are out of order or outside its window",
        ),
        (
            vec![session(1, 2, 3, &[4, 4])],
            "a session's answers are out of order or outside its window",
        ),
        (
            vec![session(1, 2, 3, &[1_027])],
            "a session's answers are out of order or outside its window",
        ),
    ];
    for (case, expected) in cases {
        assert_eq!(
            damage(&sessions(&case)),
            format!("the state snapshot is damaged: {expected}")
        );
    }
    let mut unknown_kind = sessions(&[session(1, 2, 3, &[3])]);
    let kind_at = unknown_kind.len() - 17;
    unknown_kind[kind_at] = 6;
    assert_eq!(
        damage(&unknown_kind),
        "the state snapshot is damaged: a session has an answer of no known kind"
    );
}

#[test]
fn the_last_sequence_there_is_can_be_remembered() {
    let restored = read(&sessions(&[session(1, 2, u64::MAX, &[u64::MAX])])).unwrap();
    assert_eq!(restored.sessions.len(), 1);
}

#[test]
fn an_error_of_the_disk_is_not_called_damage() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    let error = StateMachine::read_from(&mut Failing).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the state snapshot could not be read or written: unplugged"
    );
}

/// A command of one of the sessions that the entries `1..=sessions` open, or an entry that opens another.
fn any_command(sessions: u64) -> impl Strategy<Value = Command> {
    let key = prop::sample::select(vec!["", "a", "b", "a longer key"]);
    let value = prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let op = (0..3, key, value).prop_map(|(kind, key, value)| match kind {
        0 => Operation::Put {
            key: key.into(),
            value,
        },
        1 => Operation::Append {
            key: key.into(),
            value,
        },
        _ => Operation::Delete { key: key.into() },
    });
    let id = (1..=sessions, 1..20_u64, 0..5_u64).prop_map(|(opened_at, sequence, outstanding)| WriteId {
        session: SessionId {
            opened_at: LogIndex(opened_at),
            secret: 9,
        },
        sequence: Sequence(sequence),
        lowest_outstanding: Sequence(sequence.saturating_sub(outstanding).max(1)),
    });
    prop_oneof![
        1 => Just(Command::OpenSession { secret: 9 }),
        15 => (id, op).prop_map(|(id, op)| Command::Write { id, op }),
    ]
}

/// How long the file of a snapshot becomes in a store, and what is expected at most.
fn stored_file(machine: &StateMachine) -> (u64, u64) {
    let store = storage::MemorySnapshots::default();
    let configuration = raft_core::Configuration::of_voters((1..=7).map(raft_core::NodeId));
    let mut file = storage::SnapshotStore::create(&store, LogIndex(1), Term(1), &configuration).unwrap();
    machine.snapshot().write_to(&mut file).unwrap();
    let size_bytes = file.finish().unwrap().size_bytes;
    (size_bytes, storage::snapshot_file_bytes(machine.snapshot_bytes()))
}

#[test]
fn the_file_of_a_large_state_is_hardly_shorter_than_expected() {
    let mut machine = example(0);
    assert!(stored_file(&machine).0 <= stored_file(&machine).1);
    for sequence in 10..20 {
        let index = machine.last_applied().next();
        let id = WriteId {
            session: SessionId {
                opened_at: LogIndex(2),
                secret: 9,
            },
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(sequence),
        };
        let (key, value) = (format!("{sequence}").into(), vec![1; MAX_VALUE_BYTES].into());
        let command = Command::Write {
            id,
            op: Operation::Put { key, value },
        };
        let payload = Payload::Command(command.encode());
        machine
            .apply_batch(&[Entry {
                term: Term(4),
                index,
                payload,
            }])
            .unwrap();
    }
    let (file, expected) = stored_file(&machine);
    assert!(
        file <= expected && expected - file < 64 * 1024,
        "{file} of {expected}"
    );
}

proptest! {
    #[test]
    fn the_size_that_is_kept_along_is_the_size_of_the_file(
        commands in prop::collection::vec(any_command(5), 1..80)
    ) {
        let mut machine = StateMachine::with_session_cap(4);
        let opening = (0..3).map(|_| Command::OpenSession { secret: 9 });
        for (command, index) in opening.chain(commands).zip(1..) {
            let payload = Payload::Command(command.encode());
            machine.apply_batch(&[Entry { term: Term(4), index: LogIndex(index), payload }]).unwrap();
            let file = file_of(&machine);
            prop_assert_eq!(machine.snapshot_bytes(), file.len() as u64);
        }
        prop_assert_eq!(read(&file_of(&machine)).unwrap().snapshot_bytes(), machine.snapshot_bytes());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&build(&[&header(9), &bytes]));
    }

    #[test]
    fn a_changed_byte_is_refused_or_gives_another_state(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let machine = example(5);
        let mut file = file_of(&machine);
        let at = at.index(file.len());
        file[at] ^= flip;
        if let Ok(other) = read(&file) {
            prop_assert_eq!(file_of(&other), file);
            prop_assert_ne!(other.state_hash(), machine.state_hash());
        }
    }
}
