//! What the session table and the state machine cost: `cargo bench -p kv-server --bench sessions`.

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use kv_server::command::{Command, Operation};
use kv_server::sessions::{Outcome, SessionTable};
use kv_server::state_machine::StateMachine;
use raft_core::{Entry, LogIndex, Payload, Term};
use rpc::client::{Sequence, SessionId, WriteId};

fn main() {
    divan::main();
}

fn write_id(session: SessionId, sequence: u64) -> WriteId {
    WriteId {
        session,
        sequence: Sequence(sequence),
        lowest_outstanding: Sequence(sequence),
    }
}

/// A write of one of so many open sessions, each in its turn.
#[divan::bench(args = [1, 1_000, 100_000])]
fn execute_once(bencher: Bencher<'_, '_>, open: u64) {
    let mut table = SessionTable::new(100_000);
    let sessions: Vec<SessionId> = (1..=open)
        .map(|index| table.open(LogIndex(index), index))
        .collect();
    let mut index = open;
    let mut sequence = 1;
    let mut turns = sessions.iter().copied();
    bencher.bench_local(|| {
        let session = turns.next().unwrap_or_else(|| {
            turns = sessions.iter().copied();
            sequence += 1;
            turns.next().expect("a session is open")
        });
        index += 1;
        let version = LogIndex(index);
        table.execute_once(version, &write_id(session, sequence), || {
            Ok(Outcome::Stored { version })
        })
    });
}

/// Puts of 128 bytes by one session on 10,000 keys, decoded and applied in batches of so many.
#[divan::bench(args = [1, 16, 256], sample_count = 50, sample_size = 20)]
fn apply_batch(bencher: Bencher<'_, '_>, batch: u64) {
    let mut state = StateMachine::new();
    let mut index = 1;
    let open = Command::OpenSession { secret: 7 };
    state
        .apply_batch(&[entry(index, &open)])
        .expect("a session can be opened");
    let session = SessionId {
        opened_at: LogIndex(1),
        secret: 7,
    };
    bencher
        .counter(ItemsCount::new(batch))
        .with_inputs(|| {
            let puts: Vec<Entry> = (0..batch).map(|n| put(index + 1 + n, session)).collect();
            index += batch;
            puts
        })
        .bench_local_values(|entries| state.apply_batch(&entries).expect("puts can be applied"));
}

fn put(index: u64, session: SessionId) -> Entry {
    let op = Operation::Put {
        key: Bytes::from(format!("bench/{:09}", index.wrapping_mul(7_919) % 10_000)),
        value: vec![7; 128].into(),
    };
    let id = write_id(session, index);
    entry(index, &Command::Write { id, op })
}

fn entry(index: u64, command: &Command) -> Entry {
    Entry {
        term: Term(1),
        index: LogIndex(index),
        payload: Payload::Command(command.encode()),
    }
}
