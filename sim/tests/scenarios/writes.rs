//! Cases 10 to 12: writes that are repeated, that time out, and what all replicas make of them.

use sim::cluster::{Ending, cluster};

/// Case 10: The leader that took an append goes away before it could answer, in every way, and the append is repeated
/// under its number.
#[test]
fn s10_a_retry_after_a_failover_a_restart_or_a_snapshot_install_is_applied_once() {
    let mut cluster = cluster(3).snapshots_every(400).start();
    cluster.expect_leader();
    cluster.append("k", "0;");
    let client = cluster.client();
    let mut expected = "0;".to_owned();
    for number in 1..16 {
        let leader = cluster.expect_leader();
        let token = format!("{number};");
        cluster.begin_append(client, "k", &token).run_ms(number % 7);
        match number % 3 {
            0 => cluster.crash(leader).run_ms(900).restart(leader),
            1 => cluster.cut_off(leader).run_ms(900).reconnect_all(),
            _ => cluster.crash_all().run_ms(100).restart_all(),
        };
        assert_eq!(cluster.await_ending(client), Ending::Done(None));
        expected += &token;
        for _ in 0..8 {
            cluster.put("filler", "so that snapshots are cut and installed");
        }
    }
    cluster
        .expect_value("k", Some(&expected))
        .expect_agreement()
        .expect_linearizable();
    assert!(cluster.totals().snapshots_installed > 0);
}

/// Case 10: Sessions end by the log alone, so on all replicas alike, also where the state came by a snapshot. A client
/// whose session ended opens another, and nothing is done twice.
#[test]
fn s10_sessions_end_alike_on_all_replicas() {
    let mut cluster = cluster(3).sessions(2).snapshots_every(400).start();
    let leader = cluster.expect_leader();
    let clients = [(); 4].map(|()| cluster.client());
    cluster.cut_off(cluster.others(&[leader])[0]);
    for round in 0..6 {
        for client in clients {
            cluster.begin_append(client, "k", &format!("{round};"));
            assert_eq!(cluster.await_ending(client), Ending::Done(None));
        }
    }
    cluster.reconnect_all();
    let all: String = (0..6).map(|round| format!("{round};").repeat(4)).collect();
    cluster
        .expect_value("k", Some(&all))
        .expect_agreement()
        .expect_linearizable();
    // Four clients, and the one that reads in the end, which needs none.
    let opened = cluster.sessions_opened();
    assert!(opened > 4 + 4, "hardly any session ended: {opened} were opened");
}

/// Case 11: A write is asked of a leader that was cut off, and times out. It is told to be unknown; the leader comes
/// back to a cluster that may or may not have it.
#[test]
fn s11_a_write_that_timed_out_is_unknown_and_the_history_is_linearizable() {
    let (mut unknown, mut took_effect) = (0, 0);
    for seed in 0..10 {
        let mut cluster = cluster(3).seeded(seed).operations_take_at_most_ms(600).start();
        let leader = cluster.expect_leader();
        cluster.put("k", "before");
        let client = cluster.client_of(leader);
        cluster.begin_put(client, "other", "opens the session");
        cluster.await_ending(client);
        // The entry may or may not get out before the leader is cut off.
        cluster
            .begin_put(client, "k", "late")
            .run_ms(seed % 4)
            .cut_off(leader);
        let ending = cluster.await_ending(client);
        cluster.reconnect_all().run_ms(2_000).expect_leader();
        if ending == Ending::Unknown {
            unknown += 1;
            took_effect += usize::from(cluster.get("k").as_deref() == Some("late"));
        }
        cluster.expect_agreement().expect_linearizable();
    }
    assert!(
        unknown > took_effect && took_effect > 0,
        "{took_effect} of {unknown} took effect late"
    );
}

/// Case 12: The states are compared at every index, by the invariant "state machine safety", and at the end.
#[test]
fn s12_every_replicas_state_hash_is_equal_at_every_applied_index() {
    let mut cluster = cluster(5)
        .clients(4)
        .snapshots_every(600)
        .comparing_every_state()
        .start();
    for _ in 0..4 {
        let leader = cluster.expect_leader();
        cluster.run_ms(400).crash(leader).run_ms(800).restart(leader);
    }
    cluster.expect_agreement();
    let last = cluster.applied(cluster.nodes()[0]);
    assert_eq!(cluster.states_compared() as u64, last.get(), "one at every index");
    let hashes = cluster.state_hashes();
    assert_eq!(hashes.len(), 5);
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}
