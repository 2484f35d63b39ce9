//! Cases 8 and 9: reads that must not be stale.

use sim::cluster::{Ending, cluster};

/// Case 8: A leader just elected does not know that the last write is committed, and cannot commit its no-op, as the disk
/// of its follower stalls. It answers no read until it can, and then the read sees the write.
#[test]
fn s08_a_new_leader_serves_no_read_before_its_no_op_is_committed() {
    let mut cluster = cluster(3).start();
    let first = cluster.expect_leader();
    let writer = cluster.client();
    cluster.begin_put(writer, "k", "old");
    cluster.await_ending(writer);
    // The others hear nothing of the leader from the moment when it has committed.
    let before = cluster.run_ms(200).known_to(first).expect("it is up").1;
    cluster.begin_put(writer, "k", "new");
    cluster.await_that("the write is committed", |cluster| {
        cluster.known_to(first).is_some_and(|known| known.1 > before)
    });
    let written = before.next();
    assert_eq!(cluster.mute(first).await_ending(writer), Ending::Done(None));
    cluster.crash(first);
    cluster.await_that("somebody is elected", |cluster| !cluster.leaders().is_empty());
    let leader = cluster.leaders()[0];
    let follower = cluster.others(&[first, leader])[0];
    cluster.stall_disk_ms(follower, 3_000);
    let reader = cluster.client_of(leader);
    cluster.begin_get(reader, "k");
    cluster.await_that("the leader is asked", |cluster| cluster.waiting_at(leader) > 0);
    cluster.run_ms(300);
    let known = cluster.known_to(leader).expect("it is up").1;
    assert!(
        known < written,
        "it knows {known} to be committed and {written} was"
    );
    assert_eq!(cluster.ending(reader), Ending::Open);
    assert_eq!(cluster.await_ending(reader), Ending::Done(Some("new".to_owned())));
    cluster
        .reconnect_all()
        .restart(first)
        .expect_agreement()
        .expect_linearizable();
}

/// Case 8: A leader hears late answers to heartbeats of long ago while another was elected, and a read that is asked of
/// it meanwhile is not confirmed by them.
#[test]
fn s08_a_read_retried_beside_late_heartbeat_answers_is_not_stale() {
    let mut cluster = cluster(3).start();
    let old = cluster.expect_leader();
    cluster.put("k", "old");
    let reader = cluster.client_of(old);
    // It learns whom to ask.
    cluster.begin_get(reader, "k");
    cluster.await_ending(reader);
    // What the leader hears comes later and later, and then the others hear nothing of it.
    cluster.falls_behind_ms(old, 4_000).run_ms(8_000);
    assert_eq!(cluster.leaders(), [old]);
    cluster.mute(old);
    let new = cluster.expect_new_leader(old);
    let writer = cluster.client_of(new);
    cluster.begin_put(writer, "k", "new");
    assert_eq!(cluster.await_ending(writer), Ending::Done(None));
    cluster.begin_get(reader, "k").run_ms(10);
    for _ in 0..6 {
        cluster.run_ms(100);
        assert!(
            cluster.leaders().contains(&old),
            "it no longer believes that it leads"
        );
        assert_eq!(cluster.ending(reader), Ending::Open);
    }
    cluster.network_heals().expect_new_leader(old);
    assert_eq!(cluster.await_ending(reader), Ending::Done(Some("new".to_owned())));
    cluster.expect_agreement().expect_linearizable();
}

/// Case 8: The same by chance: clients read over a bad network, while leaders change.
#[test]
fn s08_reads_beside_changes_of_leaders_are_not_stale() {
    let mut cluster = cluster(3).unreliable().clients(4).keys(1).start();
    for _ in 0..5 {
        let leader = cluster.expect_leader();
        cluster.run_ms(300).cut_off(leader);
        cluster.expect_new_leader(leader);
        cluster.run_ms(300).reconnect_all();
    }
    cluster.network_heals().expect_agreement().expect_linearizable();
}

/// Case 9: A leader that was cut off, and does not know it yet, is asked. So is one that was paused and wakes up.
#[test]
fn s09_a_deposed_leader_serves_no_linearizable_read() {
    for paused in [false, true] {
        let mut cluster = cluster(3).start();
        let old = cluster.expect_leader();
        cluster.put("k", "old");
        let reader = cluster.client_of(old);
        if paused {
            cluster.pause(old);
        } else {
            cluster.cut_off(old);
        }
        cluster.begin_get(reader, "k");
        let new = cluster.expect_new_leader(old);
        cluster.put("k", "new");
        // The old leader goes on, still cut off from the others: nothing may answer the read.
        cluster.cut_off(old).resume(old).run_ms(2_000);
        assert_eq!(cluster.ending(reader), Ending::Open, "paused: {paused}");
        cluster.reconnect_all().run_ms(1_000);
        assert_eq!(cluster.leader(), Some(new));
        cluster.await_leadership_of(old);
        assert_eq!(cluster.await_ending(reader), Ending::Done(Some("new".to_owned())));
        cluster.expect_linearizable();
    }
}

/// Case 9: The same with clocks that run fast and slow: no read depends on a clock.
#[test]
fn s09_clocks_that_run_apart_make_no_read_stale() {
    let mut cluster = cluster(5).clients(4).keys(1).start();
    for (node, percent) in cluster.nodes().into_iter().zip([40, 70, 100, 160, 250]) {
        cluster.set_clock(node, percent);
    }
    for _ in 0..4 {
        cluster.run_ms(1_000);
        if let Some(leader) = cluster.leader() {
            cluster.cut_off(leader).run_ms(1_500).reconnect_all();
        }
    }
    for node in cluster.nodes() {
        cluster.set_clock(node, 100);
    }
    cluster.expect_agreement().expect_linearizable();
}

/// Case 9, with leases: a leader serves on its lease although it reaches nobody any more, for as long as the lease
/// lasts. After that, and after it stood still, it serves nothing.
#[test]
fn s09_a_lease_ends_before_another_leader_can_be_elected() {
    for paused in [false, true] {
        let mut cluster = cluster(3).lease_reads().start();
        let old = cluster.expect_leader();
        cluster.put("k", "old").run_ms(200);
        let reader = cluster.client_of(old);
        // It learns whom to ask.
        cluster.begin_get(reader, "k");
        cluster.await_ending(reader);
        cluster.cut_off(old).begin_lease_get(reader, "k").run_ms(20);
        assert_eq!(cluster.ending(reader), Ending::Done(Some("old".to_owned())));
        if paused {
            cluster.pause(old);
        }
        cluster.begin_lease_get(reader, "k");
        if !paused {
            cluster.await_ending(reader);
        }
        let new = cluster.expect_new_leader(old);
        cluster.put("k", "new");
        if !paused {
            cluster.begin_lease_get(reader, "k");
        }
        cluster.resume(old).run_ms(2_000);
        assert_eq!(cluster.ending(reader), Ending::Open, "paused: {paused}");
        assert_eq!(cluster.leader(), Some(new));
        cluster.reconnect_all().await_leadership_of(old);
        assert_eq!(cluster.await_ending(reader), Ending::Done(Some("new".to_owned())));
        cluster.expect_linearizable();
    }
}

/// Case 9, at followers: one serves linearizable reads by its leader's read index, and none when it is cut off.
#[test]
fn s09_a_follower_that_is_cut_off_serves_no_linearizable_read() {
    let mut cluster = cluster(3).start();
    let leader = cluster.expect_leader();
    cluster.put("k", "old");
    let follower = cluster.others(&[leader])[0];
    let reader = cluster.client_of(follower);
    cluster.begin_get_anywhere(reader, "k");
    assert_eq!(cluster.await_ending(reader), Ending::Done(Some("old".to_owned())));
    cluster.cut_off(follower).put("k", "new");
    cluster.begin_get_anywhere(reader, "k").run_ms(3_000);
    assert_eq!(cluster.ending(reader), Ending::Open);
    cluster.reconnect_all();
    assert_eq!(cluster.await_ending(reader), Ending::Done(Some("new".to_owned())));
    cluster.expect_agreement().expect_linearizable();
}
