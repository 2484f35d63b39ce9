//! Every decoder that reads bytes from outside or from disk, as a function of any bytes. None may panic, and none may
//! allocate what the bytes only claim. The tests here and the fuzz targets in `sim/fuzz` share this file.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use kv_server::command::{Command, Operation};
use kv_server::config::Config;
use kv_server::state_machine::StateMachine;
use kv_server::state_snapshot::StateSnapshot;
use raft_core::{
    AppendEntries, Configuration, Entry, Incarnation, Leadership, LogIndex, NodeId, Payload, Sender,
    SnapshotMeta, Standing, Term,
};
use rpc::client::{GetReply, KvRequest, KvResponse, ScanRequest, Sequence, SessionId, WriteId};
use rpc::framing::{CallerFraming, ServerFraming, WireRequest, WireResponse};
use rpc::hello::{Hello, HelloError, PROTOCOL_VERSION, Reply, ServerInfo};
use rpc::limits::MAX_FRAME_BYTES;
use rpc::peer::{PeerRequest, PeerResponse};
use skiplist::{Dump, SkipList};
use storage::{MemorySnapshots, SnapshotStore as _};
use tokio_util::codec::Decoder;

/// A decoder, and good bytes to start from.
pub(crate) struct Target {
    /// As in `cargo fuzz run NAME`.
    pub(crate) name: &'static str,
    /// Decodes.
    pub(crate) run: fn(&[u8]),
    /// Bytes that decode.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub(crate) const TARGETS: [Target; 12] = [
    Target {
        name: "rpc_kv",
        run: rpc_kv,
        seeds: rpc_kv_seeds,
    },
    Target {
        name: "rpc_peer",
        run: rpc_peer,
        seeds: rpc_peer_seeds,
    },
    Target {
        name: "hello",
        run: hello,
        seeds: hello_seeds,
    },
    Target {
        name: "command",
        run: command,
        seeds: command_seeds,
    },
    Target {
        name: "state_snapshot",
        run: state_snapshot,
        seeds: state_snapshot_seeds,
    },
    Target {
        name: "cluster_toml",
        run: cluster_toml,
        seeds: cluster_toml_seeds,
    },
    Target {
        name: "log_record",
        run: storage::fuzzing::log_record,
        seeds: storage::fuzzing::log_record_seeds,
    },
    Target {
        name: "small_records",
        run: storage::fuzzing::small_records,
        seeds: storage::fuzzing::log_record_seeds,
    },
    Target {
        name: "journal_record",
        run: storage::fuzzing::journal_record,
        seeds: storage::fuzzing::journal_record_seeds,
    },
    Target {
        name: "snapshot_file",
        run: snapshot_file,
        seeds: snapshot_file_seeds,
    },
    Target {
        name: "skiplist",
        run: skiplist_dump,
        seeds: skiplist_seeds,
    },
    Target {
        name: "history",
        run: history,
        seeds: history_seeds,
    },
];

/// Gives `bytes` to the decoder of this name.
#[allow(dead_code, reason = "only the fuzz targets go by name")]
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a fuzz target is named after a decoder").run)(bytes);
}

/// Takes all frames out of `bytes`.
fn drain(mut decoder: impl Decoder, bytes: &[u8]) {
    let mut frames = BytesMut::from(bytes);
    while let Ok(Some(_)) = decoder.decode(&mut frames) {}
}

/// `body` as a frame.
fn frame(body: &impl serde::Serialize) -> Vec<u8> {
    let body = rpc::codec::encode(body, MAX_FRAME_BYTES).expect("a seed is small");
    with_length(&body)
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("an input is small");
    [&length.to_be_bytes(), body].concat()
}

fn rpc_kv(bytes: &[u8]) {
    // As frames, and as the body of one frame, so that a wrong length does not end it all.
    for bytes in [bytes, &with_length(bytes)] {
        drain(ServerFraming::<KvRequest, KvResponse>::default(), bytes);
        drain(CallerFraming::<KvRequest, KvResponse>::default(), bytes);
    }
}

fn write_id() -> WriteId {
    WriteId {
        session: SessionId {
            opened_at: LogIndex(3),
            secret: 0x0102_0304_0506_0708,
        },
        sequence: Sequence(300),
        lowest_outstanding: Sequence(250),
    }
}

fn rpc_kv_seeds() -> Vec<Vec<u8>> {
    let request = |message| {
        frame(&WireRequest::Request {
            id: 1,
            timeout_ms: 1_000,
            message,
        })
    };
    let put = KvRequest::Put {
        write: write_id(),
        key: "key".into(),
        value: vec![1; 50].into(),
    };
    let scan = KvRequest::Scan {
        request: ScanRequest {
            from: "a".into(),
            to: Some("b".into()),
            ..ScanRequest::default()
        },
    };
    let answer = WireResponse::Answer {
        id: 1,
        message: KvResponse::Get(Ok(GetReply {
            found: None,
            applied_index: LogIndex(7),
            term: Term(1),
        })),
    };
    vec![
        request(put),
        request(scan),
        frame(&WireRequest::<KvRequest>::Cancel { id: 1 }),
        frame(&answer),
    ]
}

fn rpc_peer(bytes: &[u8]) {
    for bytes in [bytes, &with_length(bytes)] {
        drain(ServerFraming::<PeerRequest, PeerResponse>::default(), bytes);
        drain(CallerFraming::<PeerRequest, PeerResponse>::default(), bytes);
    }
}

fn rpc_peer_seeds() -> Vec<Vec<u8>> {
    let entry = |index, payload| Entry {
        term: Term(4),
        index: LogIndex(index),
        payload,
    };
    let message = PeerRequest::AppendEntries {
        request: AppendEntries {
            term: Term(4),
            leader_id: NodeId(2),
            leadership: Leadership(71),
            prev_log_index: LogIndex(70_000),
            prev_log_term: Term(3),
            prev_log_leadership: Some(Leadership(70)),
            entries: vec![
                entry(
                    70_001,
                    Payload::Noop {
                        leader_id: NodeId(1),
                        leadership: Leadership(70),
                    },
                ),
                entry(70_002, Payload::Command(vec![5; 60].into())),
            ],
            leader_commit: LogIndex(69_999),
            read_round: 1,
            acknowledged: LogIndex(70_000),
            sender: Sender {
                incarnation: Incarnation::default(),
                standing: Standing::default(),
                knows_receiver_as: Some(Incarnation::default()),
                cluster_founder: None,
            },
        },
    };
    vec![frame(&WireRequest::Request {
        id: 1,
        timeout_ms: 1_000,
        message,
    })]
}

fn hello(mut bytes: &[u8]) {
    let mut again = bytes;
    // Reading from memory is never pending.
    let _ = Hello::read(&mut bytes).now_or_never();
    let _ = Reply::read(&mut again).now_or_never();
}

fn hello_seeds() -> Vec<Vec<u8>> {
    let hellos = [
        Hello::Client {
            expected_cluster_id: Some("demo".into()),
        },
        Hello::Peer {
            cluster_id: "demo".into(),
            from: NodeId(1),
            to: NodeId(2),
        },
    ];
    let reply = Reply {
        version: PROTOCOL_VERSION,
        server: ServerInfo {
            cluster_id: "demo".into(),
            node_id: NodeId(1),
        },
        refusal: None,
    };
    let mut seeds = hellos
        .map(|hello| written(|bytes| hello.write(bytes).now_or_never()))
        .to_vec();
    seeds.push(written(|bytes| reply.write(bytes).now_or_never()));
    seeds
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Option<Result<(), HelloError>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(&mut bytes).expect("memory is never pending");
    written.expect("memory takes every byte");
    bytes
}

fn command(bytes: &[u8]) {
    let Ok(command) = Command::decode(bytes) else {
        return;
    };
    let entry = Entry {
        term: Term(1),
        index: LogIndex(1),
        payload: Payload::Command(command.encode()),
    };
    // What decodes can be applied, or is refused.
    let _ = StateMachine::new().apply_batch(&[entry]);
}

fn command_seeds() -> Vec<Vec<u8>> {
    let op = Operation::Append {
        key: "k".into(),
        value: vec![b'v'; 30].into(),
    };
    let commands = [
        Command::OpenSession { secret: 5 },
        Command::Write { id: write_id(), op },
        Command::Get { key: "k".into() },
    ];
    commands.iter().map(|command| command.encode().to_vec()).collect()
}

fn state_snapshot(mut bytes: &[u8]) {
    let _ = StateMachine::read_from(&mut bytes);
}

fn state_snapshot_seeds() -> Vec<Vec<u8>> {
    let mut state = StateMachine::new();
    let commands = [Command::OpenSession { secret: 5 }];
    let entries: Vec<Entry> = (1..)
        .zip(commands)
        .map(|(index, command)| Entry {
            term: Term(1),
            index: LogIndex(index),
            payload: Payload::Command(command.encode()),
        })
        .collect();
    state
        .apply_batch(&entries)
        .expect("the first entries can be applied");
    let write = |sequence: u64| {
        let id = WriteId {
            session: SessionId {
                opened_at: LogIndex(1),
                secret: 5,
            },
            sequence: Sequence(sequence),
            lowest_outstanding: Sequence(1),
        };
        let op = Operation::Put {
            key: format!("key {sequence}").into(),
            value: vec![b'v'; 40].into(),
        };
        Entry {
            term: Term(1),
            index: LogIndex(sequence + 1),
            payload: Payload::Command(Command::Write { id, op }.encode()),
        }
    };
    let writes: Vec<Entry> = (1..6).map(write).collect();
    state
        .apply_batch(&writes)
        .expect("the next entries can be applied");
    let mut bytes = Vec::new();
    let snapshot: StateSnapshot = state.snapshot();
    snapshot.write_to(&mut bytes).expect("memory takes everything");
    vec![bytes]
}

fn cluster_toml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Config::parse(&text, Path::new("cluster.toml"), 1, &Default::default());
}

fn cluster_toml_seeds() -> Vec<Vec<u8>> {
    let text = "cluster_id = \"demo\"\ndata_dir = \"data/node-{id}\"\n[raft]\nheartbeat_interval_ms = 50\n\
                election_timeout_ms = [300, 600]\nsnapshot_log_bytes = 67108864\n\
                [[node]]\nid = 1\nraft_addr = \"127.0.0.1:7101\"\nclient_addr = \"127.0.0.1:7102\"\n\
                [[node]]\nid = 2\nraft_addr = \"[::1]:7111\"\nclient_addr = \"host:7112\"\n";
    vec![text.as_bytes().to_vec()]
}

fn snapshot_file(bytes: &[u8]) {
    storage::fuzzing::snapshot_parts(bytes);
    let (size_bytes, checksum) = (bytes.len() as u64, crc32fast::hash(bytes));
    let meta = SnapshotMeta {
        size_bytes,
        checksum,
        ..snapshot_meta()
    };
    let store = MemorySnapshots::new();
    if store.stage(&meta, 0, bytes).is_ok() {
        let _ = store.finish_staged(&meta);
    }
}

fn snapshot_meta() -> SnapshotMeta {
    SnapshotMeta {
        last_included_index: LogIndex(7),
        last_included_term: Term(2),
        last_included_leadership: Some(Leadership(70)),
        configuration: Configuration::of_voters([1, 2, 3].map(NodeId)),
        size_bytes: 0,
        checksum: 0,
    }
}

fn snapshot_file_seeds() -> Vec<Vec<u8>> {
    let store = MemorySnapshots::new();
    let plain = snapshot_meta();
    let mut writer = store
        .create(
            plain.last_included_index,
            plain.last_included_term,
            &plain.configuration,
        )
        .expect("memory takes everything");
    writer.write_all(&[3; 500]).expect("memory takes everything");
    let meta = writer.finish().expect("memory takes everything");
    let mut reader = store.open(&meta).expect("it was just written");
    let length = usize::try_from(meta.size_bytes).expect("it is small");
    let file = reader.read_chunk(0, length).expect("it was just written");
    let mut seeds = storage::fuzzing::snapshot_parts_seeds();
    seeds.push(file.to_vec());
    seeds
}

fn skiplist_dump(bytes: &[u8]) {
    let _ = serde_json::from_slice::<SkipList<String, u64>>(bytes);
    if let Ok(dump) = serde_json::from_slice::<Dump<String, u64>>(bytes) {
        let _ = SkipList::load(dump);
    }
    // The same, as a program would store it in few bytes.
    let _ = rpc::codec::decode::<SkipList<Bytes, u64>>(bytes, MAX_FRAME_BYTES);
    if let Ok(dump) = rpc::codec::decode::<Dump<Bytes, u64>>(bytes, MAX_FRAME_BYTES) {
        let _ = SkipList::load(dump);
    }
}

fn skiplist_seeds() -> Vec<Vec<u8>> {
    let list: SkipList<String, u64> = (0..20)
        .map(|number| (format!("key {number:02}"), number))
        .collect();
    let json = |value: serde_json::Result<Vec<u8>>| value.expect("plain data becomes JSON");
    let short = rpc::codec::encode(&list, MAX_FRAME_BYTES).expect("a seed is small");
    vec![
        json(serde_json::to_vec(&list)),
        json(serde_json::to_vec(&list.dump())),
        short.to_vec(),
    ]
}

fn history(bytes: &[u8]) {
    if let Ok(history) = sim::linearizability::read(bytes) {
        let limits = sim::linearizability::Limits {
            configurations: 10_000,
            ..Default::default()
        };
        let _ = sim::linearizability::check(&history, limits);
    }
}

fn history_seeds() -> Vec<Vec<u8>> {
    let lines = "{\"client\":1,\"op\":\"put\",\"key\":\"k\",\"value\":\"1\",\"start_us\":0,\"end_us\":10,\"outcome\":\"ok\"}\n\
                 {\"client\":2,\"op\":\"get\",\"key\":\"k\",\"value\":\"1\",\"start_us\":20,\"end_us\":30,\"outcome\":\"ok\"}\n\
                 {\"client\":2,\"op\":\"scan\",\"from\":\"a\",\"items\":[{\"key\":\"k\",\"value\":\"1\"}],\"start_us\":40,\
                 \"end_us\":50,\"outcome\":\"ok\"}\n";
    vec![lines.as_bytes().to_vec()]
}
