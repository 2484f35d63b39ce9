//! Every decoder that reads bytes from outside or from disk, as a function of any bytes. None may panic, and none may
//! allocate what the bytes only claim. The tests here and the fuzz targets in `sim/fuzz` share this file.

use std::fmt::Debug;
use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use kv_server::command::{Command, Operation};
use kv_server::config::Config;
use kv_server::state_machine::StateMachine;
use kv_server::state_snapshot::StateSnapshot;
use raft_core::{Configuration, Entry, Leadership, LogIndex, NodeId, Payload, SnapshotMeta, Term, TermStart};
use rpc::client::{KvRequest, KvResponse, Sequence, SessionId, WriteId};
use rpc::framing::{CallerFraming, FRAME_HEADER_BYTES, ServerFraming, WireRequest, WireResponse};
use rpc::hello::{Hello, HelloError, PROTOCOL_VERSION, Refusal, Reply, ServerInfo};
use rpc::limits::MAX_FRAME_BYTES;
use rpc::peer::{PeerRequest, PeerResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skiplist::{Dump, SkipList};
use storage::{MemorySnapshots, SnapshotStore as _};
use tokio_util::codec::Decoder;

/// By its path, as it is part of a program and of no library.
#[path = "../../../clerk/src/bin/clerk/import_line.rs"]
mod import_line;
#[path = "messages.rs"]
mod messages;

/// What bytes were taken for.
pub(crate) type Kinds = Vec<String>;

/// These of the kinds that were found.
fn found<const N: usize>(kinds: [(&str, bool); N]) -> Kinds {
    let found = kinds.into_iter().filter(|(_, is_found)| *is_found);
    found.map(|(kind, _)| kind.to_owned()).collect()
}

fn named(kinds: Vec<&str>) -> Kinds {
    kinds.into_iter().map(str::to_owned).collect()
}

/// A decoder, and good bytes to start from.
pub(crate) struct Target {
    /// As in `cargo fuzz run NAME`.
    pub(crate) name: &'static str,
    /// Decodes; the kinds of things that it took the bytes for.
    pub(crate) run: fn(&[u8]) -> Kinds,
    /// All kinds that there are.
    pub(crate) kinds: &'static [&'static str],
    /// Bytes that decode, some of each kind.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub(crate) const TARGETS: [Target; 15] = [
    Target {
        name: "rpc_kv",
        run: messages_of::<KvRequest, KvResponse>,
        kinds: &[
            "request OpenSession",
            "request Put",
            "request Append",
            "request Delete",
            "request Get",
            "request Scan",
            "request Status",
            "answer OpenSession",
            "answer Put",
            "answer Append",
            "answer Delete",
            "answer Get",
            "answer Scan",
            "answer Status",
            "cancel",
            "failure",
        ],
        seeds: messages::kv,
    },
    Target {
        name: "rpc_peer",
        run: messages_of::<PeerRequest, PeerResponse>,
        kinds: &[
            "request PreVote",
            "request RequestVote",
            "request AppendEntries",
            "request InstallSnapshot",
            "request TimeoutNow",
            "request DiskRoom",
            "request ReadIndex",
            "answer PreVote",
            "answer RequestVote",
            "answer AppendEntries",
            "answer InstallSnapshot",
            "answer TimeoutNow",
            "answer DiskRoom",
            "answer ReadIndex",
            "cancel",
            "failure",
        ],
        seeds: messages::peer,
    },
    Target {
        name: "hello",
        run: hello,
        kinds: &["hello", "reply"],
        seeds: hello_seeds,
    },
    Target {
        name: "command",
        run: command,
        kinds: &["OpenSession", "Put", "Append", "Delete", "Get"],
        seeds: command_seeds,
    },
    Target {
        name: "state_snapshot",
        run: state_snapshot,
        kinds: &["state"],
        seeds: state_snapshot_seeds,
    },
    Target {
        name: "cluster_toml",
        run: cluster_toml,
        kinds: &["configuration"],
        seeds: cluster_toml_seeds,
    },
    Target {
        name: "log_record",
        run: |bytes| named(storage::fuzzing::log_record(bytes)),
        kinds: &[
            "key",
            "sealed record",
            "entries",
            "fragment",
            "entry in fragments",
        ],
        seeds: storage::fuzzing::log_record_seeds,
    },
    Target {
        name: "small_records",
        run: |bytes| named(storage::fuzzing::small_records(bytes)),
        kinds: &[
            "hard state",
            "sealed hard state",
            "snapshot",
            "sealed snapshot",
            "root",
            "sealed root",
            "identity",
            "sealed identity",
            "marker",
            "sealed marker",
        ],
        seeds: storage::fuzzing::small_records_seeds,
    },
    Target {
        name: "journal_record",
        run: |bytes| named(storage::fuzzing::journal_record(bytes)),
        kinds: &["record", "contents"],
        seeds: storage::fuzzing::journal_record_seeds,
    },
    Target {
        name: "journal_file",
        run: |bytes| named(storage::fuzzing::journal_file(bytes)),
        kinds: &["file", "parts"],
        seeds: storage::fuzzing::journal_file_seeds,
    },
    Target {
        name: "high_water",
        run: |bytes| named(storage::fuzzing::high_water(bytes)),
        kinds: &["first slot", "second slot"],
        seeds: storage::fuzzing::high_water_seeds,
    },
    Target {
        name: "snapshot_file",
        run: snapshot_file,
        kinds: &[
            "preamble",
            "header",
            "contents of a header",
            "chunk",
            "trailer",
            "file",
        ],
        seeds: snapshot_file_seeds,
    },
    Target {
        name: "skiplist",
        run: skiplist_dump,
        kinds: &[
            "list as text",
            "dump as text",
            "list in few bytes",
            "dump in few bytes",
        ],
        seeds: skiplist_seeds,
    },
    Target {
        name: "history",
        run: history,
        kinds: &["history"],
        seeds: history_seeds,
    },
    Target {
        name: "import_line",
        run: |bytes| found([("line", import_line::parse(bytes).is_ok())]),
        kinds: &["line"],
        seeds: import_line_seeds,
    },
];

/// Gives `bytes` to the decoder of this name.
#[allow(dead_code, reason = "only the fuzz targets go by name")]
pub(crate) fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.expect("a fuzz target is named after a decoder").run)(bytes);
}

/// Takes all frames out of `bytes`. Whether there was one.
fn drain(mut decoder: impl Decoder, bytes: &[u8]) -> bool {
    let mut frames = BytesMut::from(bytes);
    std::iter::from_fn(|| decoder.decode(&mut frames).ok().flatten()).count() > 0
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("an input is small");
    [&length.to_be_bytes(), body].concat()
}

/// Requests for `Q` and answers of `A`.
fn messages_of<Q, A>(bytes: &[u8]) -> Kinds
where
    Q: DeserializeOwned + Serialize + Debug,
    A: DeserializeOwned + Serialize + Debug,
{
    // As the body of one frame, too, so that a wrong length does not end it all.
    drain(ServerFraming::<Q, A>::default(), &with_length(bytes));
    drain(CallerFraming::<Q, A>::default(), &with_length(bytes));
    let mut kinds = Vec::new();
    // What is in the first frame is decoded once more, to tell what it is.
    let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    if drain(ServerFraming::<Q, A>::default(), bytes) {
        kinds.extend(
            rpc::codec::decode(body, MAX_FRAME_BYTES)
                .ok()
                .map(|request| match request {
                    WireRequest::Request { message, .. } => format!("request {}", variant::<Q>(&message)),
                    WireRequest::Cancel { .. } => "cancel".to_owned(),
                }),
        );
    }
    if drain(CallerFraming::<Q, A>::default(), bytes) {
        kinds.extend(
            rpc::codec::decode(body, MAX_FRAME_BYTES)
                .ok()
                .map(|response| match response {
                    WireResponse::Answer { message, .. } => format!("answer {}", variant::<A>(&message)),
                    WireResponse::Failure { .. } => "failure".to_owned(),
                }),
        );
    }
    kinds
}

/// The name of the variant that `message` is.
fn variant<M: Debug>(message: &M) -> String {
    let text = format!("{message:?}");
    let end = text.find(|character: char| !character.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn hello(mut bytes: &[u8]) -> Kinds {
    let mut again = bytes;
    // Reading from memory is never pending.
    let hello = Hello::read(&mut bytes).now_or_never();
    let reply = Reply::read(&mut again).now_or_never();
    found([
        ("hello", matches!(hello, Some(Ok(_)))),
        ("reply", matches!(reply, Some(Ok(_)))),
    ])
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
    let replies = [None, Some(Refusal::WrongNode), Some(Refusal::ShuttingDown)].map(|refusal| Reply {
        version: PROTOCOL_VERSION,
        server: ServerInfo {
            cluster_id: "demo".into(),
            node_id: NodeId(1),
        },
        refusal,
    });
    let mut seeds = hellos
        .map(|hello| written(|bytes| hello.write(bytes).now_or_never()))
        .to_vec();
    seeds.extend(replies.map(|reply| written(|bytes| reply.write(bytes).now_or_never())));
    seeds
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Option<Result<(), HelloError>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(&mut bytes).expect("memory is never pending");
    written.expect("memory takes every byte");
    bytes
}

fn command(bytes: &[u8]) -> Kinds {
    let Ok(command) = Command::decode(bytes) else {
        return Vec::new();
    };
    let kind = match &command {
        Command::OpenSession { .. } => "OpenSession",
        Command::Get { .. } => "Get",
        Command::Write { op, .. } => match op {
            Operation::Put { .. } => "Put",
            Operation::Append { .. } => "Append",
            Operation::Delete { .. } => "Delete",
        },
    };
    let entry = Entry {
        term: Term(1),
        index: LogIndex(1),
        payload: Payload::Command(command.encode()),
    };
    // What decodes can be applied, or is refused.
    let _ = StateMachine::new().apply_batch(&[entry]);
    named(vec![kind])
}

fn command_seeds() -> Vec<Vec<u8>> {
    let (key, value) = (Bytes::from("k"), Bytes::from(vec![b'v'; 30]));
    let put = Operation::Put {
        key: key.clone(),
        value: value.clone(),
    };
    let append = Operation::Append {
        key: key.clone(),
        value,
    };
    let delete = Operation::Delete { key: key.clone() };
    let writes = [put, append, delete].map(|op| Command::Write {
        id: messages::write_id(),
        op,
    });
    let commands = [Command::OpenSession { secret: 5 }, Command::Get { key }];
    let commands = commands.iter().chain(&writes);
    commands.map(|command| command.encode().to_vec()).collect()
}

fn state_snapshot(mut bytes: &[u8]) -> Kinds {
    found([("state", StateMachine::read_from(&mut bytes).is_ok())])
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

fn cluster_toml(bytes: &[u8]) -> Kinds {
    let text = String::from_utf8_lossy(bytes);
    let config = Config::parse(&text, Path::new("cluster.toml"), 1, &Default::default());
    found([("configuration", config.is_ok())])
}

fn cluster_toml_seeds() -> Vec<Vec<u8>> {
    let text = "cluster_id = \"demo\"\ndata_dir = \"data/node-{id}\"\n[raft]\nheartbeat_interval_ms = 50\n\
                election_timeout_ms = [300, 600]\nsnapshot_log_bytes = 67108864\n\
                [[node]]\nid = 1\nraft_addr = \"127.0.0.1:7101\"\nclient_addr = \"127.0.0.1:7102\"\n\
                [[node]]\nid = 2\nraft_addr = \"[::1]:7111\"\nclient_addr = \"host:7112\"\n";
    vec![text.as_bytes().to_vec()]
}

fn snapshot_file(bytes: &[u8]) -> Kinds {
    let mut kinds = named(storage::fuzzing::snapshot_parts(bytes));
    let (size_bytes, checksum) = (bytes.len() as u64, crc32fast::hash(bytes));
    let meta = SnapshotMeta {
        size_bytes,
        checksum,
        ..snapshot_meta()
    };
    let store = MemorySnapshots::new();
    if store.stage(&meta, 0, bytes).is_ok() && store.finish_staged(&meta).is_ok() {
        let reader = store.open(&meta);
        let read = reader.map(|reader| io::copy(&mut reader.content(), &mut io::sink()));
        kinds.extend(found([("file", matches!(read, Ok(Ok(_))))]));
    }
    kinds
}

fn snapshot_meta() -> SnapshotMeta {
    SnapshotMeta {
        last_included_index: LogIndex(7),
        last_included_term: Term(2),
        terms: vec![TermStart {
            index: LogIndex(6),
            term: Term(2),
            leadership: Some(Leadership(70)),
        }],
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

fn skiplist_dump(bytes: &[u8]) -> Kinds {
    let list = serde_json::from_slice::<SkipList<String, u64>>(bytes);
    let dump = serde_json::from_slice::<Dump<String, u64>>(bytes);
    // The same, as a program would store it in few bytes.
    let short_list = rpc::codec::decode::<SkipList<Bytes, u64>>(bytes, MAX_FRAME_BYTES);
    let short_dump = rpc::codec::decode::<Dump<Bytes, u64>>(bytes, MAX_FRAME_BYTES);
    found([
        ("list as text", list.is_ok()),
        (
            "dump as text",
            dump.is_ok_and(|dump| SkipList::load(dump).is_ok()),
        ),
        ("list in few bytes", short_list.is_ok()),
        (
            "dump in few bytes",
            short_dump.is_ok_and(|dump| SkipList::load(dump).is_ok()),
        ),
    ])
}

fn skiplist_seeds() -> Vec<Vec<u8>> {
    let list: SkipList<String, u64> = (0..20)
        .map(|number| (format!("key {number:02}"), number))
        .collect();
    let json = |value: serde_json::Result<Vec<u8>>| value.expect("plain data becomes JSON");
    let short = rpc::codec::encode(&list, MAX_FRAME_BYTES).expect("a seed is small");
    let short_dump = rpc::codec::encode(&list.dump(), MAX_FRAME_BYTES).expect("a seed is small");
    vec![
        json(serde_json::to_vec(&list)),
        json(serde_json::to_vec(&list.dump())),
        short.to_vec(),
        short_dump.to_vec(),
    ]
}

fn history(bytes: &[u8]) -> Kinds {
    let history = sim::linearizability::read(bytes);
    if let Ok(history) = &history {
        let limits = sim::linearizability::Limits {
            configurations: 10_000,
            ..Default::default()
        };
        let _ = sim::linearizability::check(history, limits);
    }
    found([("history", history.is_ok())])
}

fn history_seeds() -> Vec<Vec<u8>> {
    let whole = "{\"client\":1,\"op\":\"put\",\"key\":\"k\",\"value\":\"1\",\"start_us\":0,\"end_us\":10,\"outcome\":\"ok\"}\n\
                 {\"client\":2,\"op\":\"get\",\"key\":\"k\",\"value\":\"1\",\"start_us\":20,\"end_us\":30,\"outcome\":\"ok\"}\n\
                 {\"client\":2,\"op\":\"scan\",\"from\":\"a\",\"items\":[{\"key\":\"k\",\"value\":\"1\"}],\"start_us\":40,\
                 \"end_us\":50,\"outcome\":\"ok\"}\n";
    let unsure = "{\"op\":\"initial\",\"key\":\"k\",\"value_base64\":\"/w==\"}\n\
                  {\"client\":1,\"op\":\"append\",\"key\":\"k\",\"value\":\"2\",\"start_us\":0,\"outcome\":\"unknown\"}\n\
                  {\"client\":2,\"op\":\"delete\",\"key\":\"k\",\"start_us\":5,\"end_us\":9,\"outcome\":\"ok\",\"existed\":true}\n\
                  {\"client\":3,\"op\":\"put\",\"key_base64\":\"aw==\",\"value\":\"3\",\"start_us\":5,\"end_us\":9,\
                  \"outcome\":\"failed\"}\n\
                  {\"client\":3,\"op\":\"get\",\"key\":\"k\",\"value\":null,\"start_us\":10,\"end_us\":11,\"outcome\":\"ok\"}\n";
    [whole, unsure].map(|lines| lines.as_bytes().to_vec()).to_vec()
}

fn import_line_seeds() -> Vec<Vec<u8>> {
    let lines = [
        "{\"key\": \"k\", \"value\": \"v \\u0000 \\\"\\n\"}",
        " {\"value_base64\":\"/w8=\",\"key_base64\":\"aw==\",\"version\":3}",
    ];
    lines.map(|line| line.as_bytes().to_vec()).to_vec()
}
