//! What it costs to turn messages into frames and back: `cargo bench -p rpc`.

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use raft_core::{AppendEntries, Entry, Leadership, LogIndex, NodeId, Payload, Sender, Term};
use rpc::codec::{decode, encode};
use rpc::framing::WireRequest;
use rpc::limits::MAX_FRAME_BYTES;

const COMMAND_BYTES: usize = 160;

fn main() {
    divan::main();
}

/// One AppendEntries with so many entries, as a frame of the peer service holds it.
fn append_entries(entries: u64) -> WireRequest<AppendEntries> {
    let entry = |n| Entry {
        term: Term(3),
        index: LogIndex(1_000_000 + n),
        payload: Payload::Command(vec![7; COMMAND_BYTES].into()),
    };
    let message = AppendEntries {
        term: Term(3),
        leader_id: NodeId(1),
        leadership: Leadership(u64::MAX),
        prev_log_index: LogIndex(1_000_000),
        prev_log_term: Term(3),
        prev_log_leadership: Some(Leadership(u64::MAX)),
        entries: (1..=entries).map(entry).collect(),
        leader_commit: LogIndex(1_000_000),
        read_round: 12_345,
        acknowledged: LogIndex(1_000_000),
        sender: Sender::default(),
    };
    WireRequest::Request {
        id: 77,
        timeout_ms: 1_000,
        message,
    }
}

#[divan::bench(args = [0, 1, 16, 256])]
fn encode_append_entries(bencher: Bencher<'_, '_>, entries: u64) {
    let request = append_entries(entries);
    let frame = encode(&request, MAX_FRAME_BYTES).expect("it is within a frame");
    let bencher = bencher
        .counter(ItemsCount::new(entries))
        .counter(BytesCount::new(frame.len()));
    bencher.bench(|| encode(&request, MAX_FRAME_BYTES));
}

#[divan::bench(args = [0, 1, 16, 256])]
fn decode_append_entries(bencher: Bencher<'_, '_>, entries: u64) {
    let frame = encode(&append_entries(entries), MAX_FRAME_BYTES).expect("it is within a frame");
    let bencher = bencher
        .counter(ItemsCount::new(entries))
        .counter(BytesCount::new(frame.len()));
    bencher.bench(|| {
        decode::<WireRequest<AppendEntries>>(&frame, MAX_FRAME_BYTES).expect("it was just encoded")
    });
}
