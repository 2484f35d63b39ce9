//! Cases 1 to 4: terms, votes, and promises.

use sim::cluster::cluster;
use sim::{PlantedBug, Verdict};

/// Case 1: The invariant that watches this is "election safety"; here it is given every chance.
#[test]
fn s01_never_two_leaders_in_one_term_under_loss_duplication_and_reordering() {
    for seed in 0..4 {
        let mut cluster = cluster(5).seeded(seed).unreliable().start();
        for round in 0..12 {
            if let Some(leader) = cluster.leader() {
                cluster.hand_over(leader);
                if round % 3 == 0 {
                    cluster.cut_off(leader);
                }
            }
            cluster.run_ms(500);
            if round % 3 == 1 {
                cluster.reconnect_all();
            }
        }
        assert!(
            cluster.totals().elections > 3,
            "{} elections",
            cluster.totals().elections
        );
    }
}

/// Case 2: Raft figure 8, step by step: the entry of an old term gets to a majority and is still not committed; it is
/// when an entry of the new term is.
#[test]
fn s02_an_entry_of_an_old_term_is_never_committed_by_counting() {
    let mut cluster = cluster(5).start();
    let s1 = cluster.expect_leader();
    let base = cluster.agree(5);
    // (a) s1 gets its entry to s2 only, then crashes.
    let s2 = cluster.others(&[s1])[0];
    cluster.split(&[s1, s2]);
    let (_, index) = cluster
        .propose(s1, 8)
        .expect("it does not know yet that it has no majority");
    assert_eq!(index, base.next());
    cluster.run_ms(100).crash(s1);
    // (b) another is elected by the other three, and crashes with an entry that nobody else gets.
    let s5 = cluster.expect_leader();
    cluster.cut_off(s5);
    cluster.propose(s5, 8).expect("it leads");
    cluster.run_ms(30).crash(s5);
    // (c) s1 and s2 are back; whoever leads now holds an entry of an old term, which a majority gets.
    cluster.reconnect_all().restart(s1);
    let leader = cluster.expect_leader();
    cluster.agree(4);
    assert!(
        cluster.committed(index).is_some(),
        "node {leader} has committed an entry of its own term"
    );
    // (d) s5 comes back, and what is committed stays: the invariants see to it.
    cluster.restart(s5);
    cluster.agree(5);
    cluster.expect_agreement();
}

/// Case 3: Nodes that have written a vote crash before they answer, again and again, while candidates compete.
#[test]
fn s03_a_crash_around_a_vote_never_leads_to_two_votes_in_a_term() {
    for seed in 0..3 {
        let mut cluster = cluster(3).seeded(seed).start();
        for _ in 0..10 {
            let leader = cluster.expect_leader();
            let voters = cluster.others(&[leader]);
            cluster.crash(leader).run_ms(290);
            // Around the time of the next election every few milliseconds somebody crashes, mid-write or not.
            for step in 0..24 {
                let voter = voters[step % 2];
                cluster.crash(voter).run_ms(3).restart(voter).run_ms(11);
            }
            cluster.restart_all();
        }
        cluster.expect_leader();
        cluster.agree(3);
    }
}

/// Case 4: The invariant "durable promises" compares each promise that leaves with the disk; it does so tens of
/// thousands of times here, and it does notice when promises leave early.
#[test]
fn s04_nothing_that_promises_durability_leaves_before_it_is_durable() {
    let mut cluster = cluster(3).clients(4).start();
    cluster.expect_leader();
    for node in cluster.nodes() {
        cluster
            .stall_disk_ms(node, 120)
            .run_ms(300)
            .crash(node)
            .run_ms(300)
            .restart(node)
            .run_ms(200);
    }
    cluster.expect_agreement();
    assert!(cluster.totals().promises > 100);

    let Verdict::Failed(violation) = sim::run_with_bug(1, PlantedBug::PromiseBeforePersist).verdict else {
        panic!("promises that leave before the persist went unnoticed");
    };
    assert_eq!(violation.invariant, "durable promises");
}
