//! Every method, there and back.

use crate::common::{CLUSTER, MapService, connect, soon, start_kv, start_peer, write_id};
use bytes::Bytes;
use raft_core::{
    AppendEntries, AppendOutcome, Configuration, Entry, Incarnation, InstallSnapshot, Leadership, LogIndex,
    NodeId, Payload, Sender, SnapshotMeta, SnapshotOutcome, Standing, Term, TimeoutNow, VoteRequest,
};
use rpc::client::{BusyReason, Consistency, KvError, ScanRequest};
use rpc::peer::PeerError;
use rpc::{ConnectOptions, ServerLimits, connect_peer};

#[tokio::test]
async fn every_method_of_the_client_service_goes_there_and_back() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let connection = connect(&server).await;
    assert_eq!(connection.server().node_id, NodeId(1));
    assert_eq!(connection.server().cluster_id, CLUSTER);
    let kv = connection.client();

    assert_eq!(kv.open_session(soon()).await.unwrap(), Ok(write_id(1).session));
    let key = Bytes::from_static(b"key");
    assert_eq!(
        kv.put(soon(), write_id(5), key.clone(), Bytes::from_static(b"a"))
            .await
            .unwrap(),
        Ok(LogIndex(5))
    );
    let appended = kv
        .append(soon(), write_id(u64::MAX), key.clone(), Bytes::from_static(b"b"))
        .await
        .unwrap();
    assert_eq!(appended, Ok(LogIndex(u64::MAX)));
    let got = kv
        .get(soon(), key.clone(), Consistency::Linearizable)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got.found.unwrap().value, "ab");
    let refused = kv.get(soon(), key.clone(), Consistency::Log).await.unwrap();
    assert_eq!(refused, Err(KvError::Busy(BusyReason::NewLeader)));
    let scanned = kv
        .scan(
            soon(),
            ScanRequest {
                limit: 7,
                ..ScanRequest::default()
            },
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(scanned.items[0].key, key);
    assert_eq!(kv.status(soon()).await.unwrap().unwrap().keys, 1);
    assert_eq!(
        kv.delete(soon(), write_id(6), key.clone()).await.unwrap(),
        Ok(true)
    );
    assert_eq!(
        kv.get(soon(), key, Consistency::Stale)
            .await
            .unwrap()
            .unwrap()
            .found,
        None
    );
    server.stop().await;
}

fn sender() -> Sender {
    Sender {
        incarnation: Incarnation(70_000),
        standing: Standing::Joining,
        knows_receiver_as: Some(Incarnation(300)),
        cluster_founder: Some(Incarnation(70_001)),
    }
}

fn vote() -> VoteRequest {
    VoteRequest {
        term: Term(4),
        candidate_id: NodeId(2),
        last_log_index: LogIndex(9),
        last_log_term: Term(3),
        leadership_transfer: true,
        sender: sender(),
    }
}

fn append_of_every_payload() -> AppendEntries {
    let payloads = [
        Payload::Noop {
            leader_id: NodeId(1),
            leadership: Leadership(70),
        },
        Payload::Configuration(Configuration::joint([1, 2].map(NodeId), [2, 3].map(NodeId))),
        Payload::Command(Bytes::from_static(b"command")),
    ];
    let entries = (10..).zip(payloads).map(|(index, payload)| Entry {
        term: Term(4),
        index: LogIndex(index),
        payload,
    });
    AppendEntries {
        term: Term(4),
        leader_id: NodeId(2),
        leadership: Leadership(u64::MAX),
        prev_log_index: LogIndex(9),
        prev_log_term: Term(3),
        prev_log_leadership: Some(Leadership(71)),
        entries: entries.collect(),
        leader_commit: LogIndex(9),
        read_round: 17,
        acknowledged: LogIndex(69_000),
        sender: sender(),
    }
}

fn chunk_of_a_snapshot() -> InstallSnapshot {
    InstallSnapshot {
        term: Term(4),
        leader_id: NodeId(2),
        snapshot: SnapshotMeta {
            last_included_index: LogIndex(8),
            ..SnapshotMeta::default()
        },
        offset: 100,
        data: vec![1; 1 << 20].into(),
        done: false,
    }
}

#[tokio::test]
async fn every_method_of_the_peer_service_goes_there_and_back() {
    let server = start_peer(ServerLimits::for_peers()).await;
    let options = ConnectOptions::default();
    let connection = connect_peer(&server.addr(), CLUSTER, NodeId(2), NodeId(1), &options)
        .await
        .unwrap();
    let peer = connection.client();

    let pre_vote = peer.pre_vote(soon(), vote()).await.unwrap().unwrap();
    assert!(pre_vote.vote_granted);
    assert_eq!(
        pre_vote.term,
        Term(2),
        "the service was made for the caller that the hello named"
    );
    assert!(
        peer.request_vote(soon(), vote())
            .await
            .unwrap()
            .unwrap()
            .vote_granted
    );

    let appended = peer
        .append_entries(soon(), append_of_every_payload())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        appended.outcome,
        AppendOutcome::Matched {
            match_index: LogIndex(12)
        }
    );
    assert_eq!(appended.read_round, 17);

    let installed = peer
        .install_snapshot(soon(), chunk_of_a_snapshot())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        installed.outcome,
        SnapshotOutcome::Continue {
            next_offset: 100 + (1 << 20)
        }
    );

    let handed_over = peer
        .timeout_now(
            soon(),
            TimeoutNow {
                term: Term(4),
                leader_id: NodeId(2),
            },
        )
        .await
        .unwrap();
    assert_eq!(handed_over, Err(PeerError::Busy));
    assert_eq!(peer.disk_room(soon()).await.unwrap(), Err(PeerError::DiskFull));
    server.stop().await;
}

#[tokio::test]
async fn the_longest_key_and_value_fit_into_a_frame() {
    let server = start_kv(MapService::default(), ServerLimits::default()).await;
    let connection = connect(&server).await;
    let key = Bytes::from(vec![b'k'; rpc::limits::MAX_KEY_BYTES]);
    let value = Bytes::from(vec![b'v'; rpc::limits::MAX_VALUE_BYTES]);
    connection
        .client()
        .put(soon(), write_id(1), key.clone(), value.clone())
        .await
        .unwrap()
        .unwrap();
    let got = connection
        .client()
        .get(soon(), key, Consistency::Lease)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got.found.unwrap().value, value);
    server.stop().await;
}
