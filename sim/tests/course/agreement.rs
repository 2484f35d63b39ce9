//! Agreement on the log.

use raft_core::LogIndex;
use sim::cluster::cluster;

/// What is proposed is committed at the next index, and not before it is proposed.
#[test]
fn basic_agree() {
    let mut cluster = cluster(3).start();
    cluster.expect_leader();
    let mut last = cluster.agree(3);
    for _ in 0..3 {
        assert!(cluster.committed(last.next()).is_none());
        let index = cluster.agree(3);
        assert_eq!(index, last.next());
        last = index;
    }
}

/// Each command crosses to each peer once.
#[test]
fn rpc_bytes() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    let peers = cluster.others(&[leader]);
    cluster.agree(3);
    let before: Vec<u64> = peers
        .iter()
        .map(|peer| cluster.bytes_sent(leader, *peer))
        .collect();
    let size = 4_000;
    for _ in 0..10 {
        let (_, index) = cluster.propose(leader, size).expect("the leader takes commands");
        cluster.expect_applied(index, 3);
    }
    for (peer, before) in peers.into_iter().zip(before) {
        let sent = cluster.bytes_sent(leader, peer) - before;
        let payload = 10 * size as u64;
        assert!(
            (payload..payload + 2_000).contains(&sent),
            "{sent} bytes to node {peer}"
        );
    }
}

/// With one follower after the other cut off, a majority goes on, and less than that does not.
#[test]
fn follower_failure() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    cluster.agree(3);
    let followers = cluster.others(&[leader]);
    cluster.cut_off(followers[0]);
    cluster.agree(2);
    cluster.cut_off(followers[1]);
    let (_, index) = cluster
        .propose(leader, 8)
        .expect("it does not know yet that it is alone");
    cluster.expect_not_committed(index);
}

/// With one leader after the other cut off, a majority goes on, and less than that does not.
#[test]
fn leader_failure() {
    let mut cluster = cluster(3).start();
    let first = cluster.expect_leader();
    cluster.agree(3);
    cluster.cut_off(first);
    let second = cluster.expect_new_leader(first);
    cluster.agree(2);
    cluster.cut_off(second);
    let (_, index) = cluster
        .propose(second, 8)
        .expect("it does not know yet that it is alone");
    cluster.expect_not_committed(index);
}

/// A follower that was away and comes back takes part again.
#[test]
fn fail_agree() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    cluster.agree(3);
    let away = cluster.others(&[leader])[0];
    cluster.cut_off(away);
    for _ in 0..4 {
        cluster.agree(2);
    }
    cluster.reconnect(away);
    for _ in 0..3 {
        cluster.agree(3);
    }
}

/// With three of five followers away nothing is agreed on; with them back, it is.
#[test]
fn fail_no_agree() {
    let mut cluster = cluster(5).start();
    let leader = cluster.expect_leader();
    cluster.agree(5);
    let followers = cluster.others(&[leader]);
    cluster
        .cut_off(followers[0])
        .cut_off(followers[1])
        .cut_off(followers[2]);
    let (_, index) = cluster
        .propose(leader, 8)
        .expect("it does not know yet that it is alone");
    cluster.expect_not_committed(index);
    cluster.reconnect_all();
    cluster.expect_leader();
    cluster.agree(5);
}

/// Many commands at the same time are all committed, each at its own place.
#[test]
fn concurrent_starts() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    let places: Vec<_> = (0..5).filter_map(|_| cluster.propose(leader, 8)).collect();
    assert_eq!(places.len(), 5);
    for pair in places.windows(2) {
        assert_eq!(pair[1].1, pair[0].1.next());
        assert_eq!(pair[1].0, pair[0].0);
    }
    cluster.expect_applied(places[4].1, 3);
    assert!(
        places
            .iter()
            .all(|(term, index)| cluster.committed(*index) == Some(*term))
    );
}

/// A leader that was cut off with entries that nobody else has comes back, and takes what the others agreed on.
#[test]
fn rejoin() {
    let mut cluster = cluster(3).start();
    let first = cluster.expect_leader();
    cluster.agree(3);
    cluster.cut_off(first);
    for _ in 0..3 {
        cluster
            .propose(first, 8)
            .expect("it does not know yet that it is alone");
    }
    let second = cluster.expect_new_leader(first);
    cluster.agree(2);
    cluster.cut_off(second).reconnect(first).cut_link(first, second);
    cluster.expect_new_leader(second);
    cluster.agree(2);
    cluster.reconnect_all();
    cluster.agree(3);
}

/// A leader brings followers with many wrong entries in line, quickly.
#[test]
fn backup() {
    let mut cluster = cluster(5).start();
    let first = cluster.expect_leader();
    cluster.agree(5);
    let followers = cluster.others(&[first]);
    // The leader is left with one follower, and both get many entries that are never committed.
    cluster.split(&[first, followers[0]]);
    for _ in 0..50 {
        cluster
            .propose(first, 8)
            .expect("it does not know yet that it has no majority");
    }
    let second = cluster.expect_new_leader(first);
    for _ in 0..10 {
        cluster.agree(3);
    }
    // The second leader loses its majority too, with many entries on top.
    let kept = cluster.others(&[first, followers[0], second])[0];
    cluster.cut_off(second);
    for _ in 0..50 {
        cluster
            .propose(second, 8)
            .expect("it does not know yet that it is alone");
    }
    cluster.run_ms(500);
    // The first two and one who knows what was agreed on go on.
    cluster.reconnect_all().split(&[first, followers[0], kept]);
    assert_eq!(
        cluster.expect_leader(),
        kept,
        "only node {kept} has all that is committed"
    );
    for _ in 0..10 {
        cluster.agree(3);
    }
    cluster.reconnect_all();
    let messages = cluster.messages();
    cluster.agree(5);
    assert!(
        cluster.messages() - messages < 300,
        "{} messages",
        cluster.messages() - messages
    );
}

/// Few messages for an election and for commands; an idle second stays idle.
#[test]
fn count() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    assert!(
        cluster.messages() <= 30,
        "{} messages to elect",
        cluster.messages()
    );

    let before = cluster.messages();
    let mut last = LogIndex::ZERO;
    for _ in 0..10 {
        (_, last) = cluster.propose(leader, 8).expect("the leader takes commands");
    }
    cluster.expect_applied(last, 3);
    let sent = cluster.messages() - before;
    assert!(sent <= (10 + 1 + 3) * 3 * 2, "{sent} messages for 10 commands");

    cluster.run_ms(500);
    let before = cluster.messages();
    cluster.run_ms(1_000);
    // A heartbeat and its answer, to two peers, every 50 ms.
    let sent = cluster.messages() - before;
    assert!(sent <= 20 * 2 * 2 + 8, "{sent} messages in an idle second");
    assert_eq!(cluster.leader(), Some(leader));
}
