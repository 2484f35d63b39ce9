//! Every request and every answer, as frames that decode.

use raft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Configuration, Entry, Incarnation, InstallSnapshot,
    InstallSnapshotResponse, Leadership, LogIndex, NodeId, Payload, Role, Sender, SnapshotMeta,
    SnapshotOutcome, Standing, Term, TimeoutNow, TimeoutNowResponse, VoteRequest, VoteResponse,
};
use rpc::client::{
    BusyReason, Consistency, Found, GetReply, InvalidArgument, KvError, KvRequest, KvResponse, Member,
    ScanItem, ScanReply, ScanRequest, Sequence, SessionId, StatusReply, WriteId,
};
use rpc::framing::{FailureReason, WireRequest, WireResponse};
use rpc::limits::MAX_FRAME_BYTES;
use rpc::peer::{DiskRoom, PeerError, PeerRequest, PeerResponse};
use serde::Serialize;

/// `body` as a frame.
fn frame(body: &impl Serialize) -> Vec<u8> {
    let body = rpc::codec::encode(body, MAX_FRAME_BYTES).expect("a seed is small");
    super::with_length(&body)
}

/// A frame for each request and each answer, a cancelled request, and a failure.
fn frames<Q: Serialize, A: Serialize>(requests: Vec<Q>, answers: Vec<A>) -> Vec<Vec<u8>> {
    let requests = requests.into_iter().map(|message| {
        frame(&WireRequest::Request {
            id: 300,
            timeout_ms: 1_000,
            message,
        })
    });
    let answers = answers
        .into_iter()
        .map(|message| frame(&WireResponse::Answer { id: 300, message }));
    let failure = WireResponse::<A>::Failure {
        id: 300,
        reason: FailureReason::Busy,
        detail: "too much at once".into(),
    };
    let rest = [frame(&WireRequest::<Q>::Cancel { id: 300 }), frame(&failure)];
    requests.chain(answers).chain(rest).collect()
}

pub(super) fn write_id() -> WriteId {
    WriteId {
        session: session(),
        sequence: Sequence(300),
        lowest_outstanding: Sequence(250),
    }
}

fn session() -> SessionId {
    SessionId {
        opened_at: LogIndex(3),
        secret: 0x0102_0304_0506_0708,
    }
}

pub(super) fn kv() -> Vec<Vec<u8>> {
    frames(kv_requests(), kv_answers())
}

fn kv_requests() -> Vec<KvRequest> {
    let (write, key) = (write_id(), bytes::Bytes::from("key"));
    vec![
        KvRequest::OpenSession {},
        KvRequest::Put {
            write,
            key: key.clone(),
            value: vec![1; 50].into(),
        },
        KvRequest::Append {
            write,
            key: key.clone(),
            value: vec![2; 50].into(),
        },
        KvRequest::Delete {
            write,
            key: key.clone(),
        },
        KvRequest::Get {
            key,
            consistency: Consistency::Lease,
        },
        KvRequest::Scan {
            request: ScanRequest {
                from: "a".into(),
                to: Some("b".into()),
                ..ScanRequest::default()
            },
        },
        KvRequest::Status {},
    ]
}

fn kv_answers() -> Vec<KvResponse> {
    let (applied_index, term) = (LogIndex(70_000), Term(9));
    let found = Found {
        value: vec![3; 50].into(),
        version: LogIndex(69_999),
    };
    let item = ScanItem {
        key: "key".into(),
        value: found.value.clone(),
        version: found.version,
    };
    let member = Member {
        id: NodeId(2),
        client_addr: "127.0.0.1:7112".into(),
    };
    let errors = [
        KvError::NotLeader {
            leader: Some(member.clone()),
        },
        KvError::Busy(BusyReason::DiskFull { node: NodeId(3) }),
        KvError::ShuttingDown,
        KvError::InvalidArgument(InvalidArgument::KeyTooLong { len: 5_000 }),
        KvError::SessionExpired,
        KvError::SequenceForgotten,
        KvError::OutcomeUnknown,
    ];
    let status = StatusReply {
        id: NodeId(1),
        cluster_id: "demo".into(),
        role: Role::Follower,
        leader_id: Some(NodeId(2)),
        term,
        commit_index: applied_index,
        last_applied: applied_index,
        last_log_index: applied_index,
        snapshot_index: LogIndex(60_000),
        keys: 12,
        sessions: 6,
        version: "0.1.0".into(),
        members: vec![member],
    };
    let mut answers = vec![
        KvResponse::OpenSession(Ok(session())),
        KvResponse::Put(Ok(found.version)),
        KvResponse::Append(Ok(found.version)),
        KvResponse::Delete(Ok(true)),
        KvResponse::Get(Ok(GetReply {
            found: Some(found),
            applied_index,
            term,
        })),
        KvResponse::Scan(Ok(ScanReply {
            items: vec![item.clone(), item],
            more: true,
            applied_index,
            term,
        })),
        KvResponse::Status(Ok(status)),
    ];
    answers.extend(errors.map(|error| KvResponse::Put(Err(error))));
    answers
}

pub(super) fn peer() -> Vec<Vec<u8>> {
    frames(peer_requests(), peer_answers())
}

fn sender() -> Sender {
    Sender {
        incarnation: Incarnation(0x0123_4567_89ab_cdef),
        standing: Standing::Member,
        knows_receiver_as: Some(Incarnation::default()),
        cluster_founder: None,
    }
}

fn append_entries() -> AppendEntries {
    let configuration = Configuration::of_voters([1, 2, 3].map(NodeId));
    let payloads = [
        Payload::Noop {
            leader_id: NodeId(1),
            leadership: Leadership(70),
        },
        Payload::Command(vec![5; 60].into()),
        Payload::Configuration(configuration.founded_by(Incarnation(7))),
    ];
    let entries = (70_001..).zip(payloads).map(|(index, payload)| Entry {
        term: Term(4),
        index: LogIndex(index),
        payload,
    });
    AppendEntries {
        term: Term(4),
        leader_id: NodeId(2),
        leadership: Leadership(71),
        prev_log_index: LogIndex(70_000),
        prev_log_term: Term(3),
        prev_log_leadership: Some(Leadership(70)),
        entries: entries.collect(),
        leader_commit: LogIndex(69_999),
        read_round: 1,
        acknowledged: LogIndex(70_000),
        sender: sender(),
    }
}

fn peer_requests() -> Vec<PeerRequest> {
    let (term, leader_id) = (Term(4), NodeId(2));
    let vote = VoteRequest {
        term,
        candidate_id: NodeId(3),
        last_log_index: LogIndex(70_000),
        last_log_term: Term(3),
        leadership_transfer: true,
        sender: sender(),
    };
    let chunk = InstallSnapshot {
        term,
        leader_id,
        snapshot: SnapshotMeta {
            size_bytes: 100_000,
            checksum: 0x89ab_cdef,
            ..super::snapshot_meta()
        },
        offset: 65_536,
        data: vec![6; 80].into(),
        done: false,
    };
    vec![
        PeerRequest::PreVote { request: vote },
        PeerRequest::RequestVote { request: vote },
        PeerRequest::AppendEntries {
            request: append_entries(),
        },
        PeerRequest::InstallSnapshot { request: chunk },
        PeerRequest::TimeoutNow {
            request: TimeoutNow { term, leader_id },
        },
        PeerRequest::DiskRoom {},
        PeerRequest::ReadIndex {},
    ]
}

fn peer_answers() -> Vec<PeerResponse> {
    let (term, index) = (Term(4), LogIndex(70_000));
    let vote = VoteResponse {
        term,
        vote_granted: true,
        sender: sender(),
    };
    let appended = |outcome| AppendEntriesResponse {
        term,
        outcome,
        committed: index,
        read_round: 1,
        sender: sender(),
    };
    let installed = |outcome| InstallSnapshotResponse {
        term,
        last_included_index: index,
        outcome,
        sender: sender(),
    };
    let conflict = AppendOutcome::Conflict {
        rejected_index: index,
        conflict_term: Some(Term(2)),
        conflict_index: LogIndex(69_990),
    };
    let more = SnapshotOutcome::Continue { next_offset: 65_536 };
    let errors = [
        PeerError::Busy,
        PeerError::ShuttingDown,
        PeerError::DiskFull,
        PeerError::NotLeader,
    ];
    let mut answers = vec![
        PeerResponse::PreVote(Ok(vote)),
        PeerResponse::RequestVote(Ok(vote)),
        PeerResponse::AppendEntries(Ok(appended(AppendOutcome::Matched { match_index: index }))),
        PeerResponse::AppendEntries(Ok(appended(conflict))),
        PeerResponse::AppendEntries(Ok(appended(AppendOutcome::Stale))),
        PeerResponse::InstallSnapshot(Ok(installed(more))),
        PeerResponse::InstallSnapshot(Ok(installed(SnapshotOutcome::Installed))),
        PeerResponse::InstallSnapshot(Ok(installed(SnapshotOutcome::Damaged))),
        PeerResponse::InstallSnapshot(Ok(installed(SnapshotOutcome::Stale))),
        PeerResponse::TimeoutNow(Ok(TimeoutNowResponse { term })),
        PeerResponse::DiskRoom(Ok(DiskRoom::Low)),
        PeerResponse::ReadIndex(Ok(index)),
    ];
    answers.extend(errors.map(|error| PeerResponse::AppendEntries(Err(error))));
    answers
}
