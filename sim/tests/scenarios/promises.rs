//! Cases 1 to 4: terms, votes, and promises.

use raft_core::Term;
use sim::cluster::{Cluster, cluster};
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

/// Case 2: Raft figure 8, step by step: the entry of an old term gets to a majority, its leader knows that, and it is
/// still not committed. So it may go, and does.
#[test]
fn s02_an_entry_of_an_old_term_is_never_committed_by_counting() {
    let mut cluster = cluster(5).one_entry_a_message().start();
    let s1 = cluster.expect_leader();
    let base = cluster.agree(5);
    // (a) s1 gets its entry to s2 only, then crashes.
    let others = cluster.others(&[s1]);
    let s2 = others[0];
    cluster.split(&[s1, s2]);
    let (term, index) = cluster
        .propose(s1, 8)
        .expect("it does not know yet that it has no majority");
    assert_eq!(index, base.next());
    cluster.run_ms(100).crash(s1);
    assert_eq!(cluster.holders(index, term), [s2]);
    // (b) s5 is elected by the other three, and crashes with entries that nobody else gets.
    cluster.await_that("somebody is elected", |cluster| !cluster.leaders().is_empty());
    let s5 = cluster.leaders()[0];
    cluster.cut_off(s5).run_ms(30);
    let later = cluster.known_to(s5).expect("it is up").0;
    assert_eq!(cluster.holders(index, later), [s5]);
    cluster.crash(s5);
    // (c) s1 is back. Whoever leads, s1 or s2, spreads the old entry, which s3 and s4 get from it.
    cluster.reconnect_all().cut_link(s1, s2).restart(s1);
    let followers: Vec<_> = others
        .iter()
        .copied()
        .filter(|node| ![s2, s5].contains(node))
        .collect();
    cluster.await_that("the old entry is on a majority", |cluster| {
        cluster.holders(index, term).len() == 4
    });
    let leader = cluster.leaders()[0];
    assert!([s1, s2].contains(&leader));
    // It hears that they have it, and gets nothing of its own term to them.
    cluster.mute(leader).run_ms(50);
    let newest = cluster.known_to(leader).expect("it is up").0;
    assert_eq!(cluster.leaders(), [leader]);
    assert_eq!(cluster.holders(index, term).len(), 4);
    assert!(cluster.holders(index.next(), newest).len() < 3);
    assert_eq!(
        cluster.committed(index),
        None,
        "it counts for nothing that 4 of 5 have it"
    );
    // (d) s5 comes back and is elected by those without an entry of the newest term. The old entry is gone.
    let with_newest = cluster.holders(index.next(), newest);
    let away = followers.iter().find(|node| with_newest.contains(node));
    let away = *away.unwrap_or(&followers[0]);
    cluster.crash(leader).reconnect_all().cut_off(away).restart(s5);
    assert_eq!(cluster.expect_leader(), s5);
    cluster.agree(3);
    assert_eq!(cluster.committed(index), Some(later));
    cluster.reconnect_all().restart(leader);
    cluster.agree(5);
    assert!(cluster.holders(index, term).is_empty());
    cluster.expect_agreement();
}

/// Case 3: A voter crashes when its vote is on its disk and not told yet, or when it was asked and its vote is not on
/// its disk. Started again, it is asked by another candidate of the same term. The invariant that watches is "one vote".
#[test]
fn s03_a_crash_around_a_vote_never_leads_to_two_votes_in_a_term() {
    for is_written in [true, false] {
        let mut cluster = cluster(5).start();
        let old = cluster.expect_leader();
        cluster.agree(5);
        // The leader hands over to a candidate that reaches nobody but one voter.
        let first = cluster.hand_over_to_whom(old).expect("there is somebody");
        let voter = cluster.others(&[old, first])[0];
        for node in cluster.others(&[first, voter]) {
            cluster.cut_one_way(first, node).cut_link(voter, node);
        }
        let before = cluster.term();
        let in_favour = (Term(before.get() + 1), Some(first));
        let is_asked = |cluster: &Cluster| cluster.known_to(voter).map(|known| known.0) == Some(in_favour.0);
        cluster.await_that("the voter is asked", is_asked);
        if is_written {
            cluster.await_that("the vote is on the disk", |cluster| {
                cluster.vote_on_disk(voter) == Some(in_favour)
            });
        }
        cluster.crash(voter).restart(voter);
        let kept = cluster.vote_on_disk(voter).expect("it is up");
        assert_eq!(kept == in_favour, is_written);
        // The old leader knows of nothing, gives the hand-over up, and hands over to another: a candidate of the same
        // term, which reaches the voter.
        cluster.run_ms(700);
        assert_eq!(
            (cluster.leaders(), cluster.known_to(old).map(|known| known.0)),
            (vec![old], Some(before))
        );
        cluster
            .propose(old, 8)
            .expect("it leads and has given the hand-over up");
        cluster.run_ms(50);
        let second = cluster.hand_over_to_whom(old).expect("there is somebody");
        assert!(![first, voter].contains(&second));
        cluster.reconnect_link(second, voter);
        cluster.await_that("another candidate of the same term is elected", |cluster| {
            cluster.leaders().contains(&second)
        });
        cluster.run_ms(50);
        assert_eq!(cluster.known_to(second).map(|known| known.0), Some(in_favour.0));
        let vote = if is_written { first } else { second };
        assert_eq!(cluster.vote_on_disk(voter), Some((in_favour.0, Some(vote))));
    }
}

/// Case 3: Nodes crash around their votes again and again, while candidates compete.
#[test]
fn s03_voters_that_crash_while_candidates_compete_vote_once() {
    let mut crashes_after_a_vote = 0;
    for seed in 0..3 {
        let mut cluster = cluster(3).seeded(seed).start();
        for _ in 0..10 {
            let leader = cluster.expect_leader();
            let voters = cluster.others(&[leader]);
            cluster.crash(leader).run_ms(290);
            // Around the time of the next election every few milliseconds somebody crashes, mid-write or not.
            for step in 0..24 {
                let voter = voters[step % 2];
                let vote = cluster.vote_on_disk(voter).and_then(|(_, vote)| vote);
                let is_open = cluster.leaders().is_empty() && cluster.known_to(voter).is_some();
                crashes_after_a_vote += usize::from(is_open && vote.is_some());
                cluster.crash(voter).run_ms(3).restart(voter).run_ms(11);
            }
            cluster.restart_all();
        }
        cluster.expect_leader();
        cluster.agree(3);
    }
    assert!(crashes_after_a_vote > 20, "{crashes_after_a_vote}");
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
