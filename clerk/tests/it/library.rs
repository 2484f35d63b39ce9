//! The library: outcomes, retries, discovery.

use std::time::{Duration, Instant};

use clerk::{Clerk, ClerkBuilder, Consistency, Error, InvalidArgument, Reason, Scan};
use raft_core::NodeId;
use rpc::client::{BusyReason, KvError, Member, Sequence};
use tokio::net::TcpListener;

use crate::fake::{Cluster, Step, own_address};

/// Patient, so that a slow machine is not taken for a silent server.
fn settings(endpoints: impl IntoIterator<Item = String>) -> ClerkBuilder {
    Clerk::builder()
        .endpoints(endpoints)
        .timeout(Duration::from_secs(30))
        .try_timeout(Duration::from_secs(30))
        .connect_timeout(Duration::from_secs(10))
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .seed(1)
}

fn clerk(cluster: &Cluster) -> Clerk {
    settings(cluster.endpoints()).build().unwrap()
}

/// For tests in which servers are silent. An attempt given up too early is sent again, which does no harm.
fn impatient(cluster: &Cluster) -> Clerk {
    settings(cluster.endpoints())
        .try_timeout(Duration::from_millis(150))
        .build()
        .unwrap()
}

#[tokio::test]
async fn what_was_written_is_read_back() {
    let cluster = Cluster::start(3).await;
    let clerk = Clerk::connect(cluster.endpoints()).await.unwrap();
    assert_eq!(clerk.get("k").await.unwrap(), None);
    let first = clerk.put("k", "v").await.unwrap();
    let second = clerk.append(String::from("k"), vec![b'w']).await.unwrap();
    assert!(second > first);
    assert_eq!(clerk.get(b"k").await.unwrap().as_deref(), Some(&b"vw"[..]));
    let reply = clerk.get_with("k", Consistency::Lease).await.unwrap();
    assert_eq!(reply.found.unwrap().version, second);
    assert!(clerk.delete("k").await.unwrap());
    assert!(!clerk.delete("k").await.unwrap());
}

#[tokio::test]
async fn from_any_one_endpoint_the_leader_is_found_and_remembered() {
    let cluster = Cluster::start(3).await;
    for endpoint in 1..=3 {
        cluster.world().seen.clear();
        let clerk = settings([cluster.endpoint(endpoint)]).build().unwrap();
        for _ in 0..3 {
            clerk.put("k", "v").await.unwrap();
        }
        let asked = cluster.asked();
        assert!(
            asked.iter().filter(|node| **node != 1).count() <= 1,
            "asked {asked:?}"
        );
    }
}

#[tokio::test]
async fn without_hints_the_leader_is_found_by_asking_everyone() {
    let cluster = Cluster::start(3).await;
    cluster.world().hints = false;
    cluster.lead(Some(3));
    clerk(&cluster).put("k", "v").await.unwrap();
    assert_eq!(cluster.world().executed, 1);
}

#[tokio::test]
async fn the_clerk_follows_the_leader_when_it_moves() {
    let cluster = Cluster::start(3).await;
    let clerk = clerk(&cluster);
    for round in 0..9 {
        cluster.lead(Some(round % 3 + 1));
        cluster.world().hints = round % 2 == 0;
        clerk.append("k", "x").await.unwrap();
    }
    assert_eq!(clerk.get("k").await.unwrap().unwrap().len(), 9);
    assert_eq!(cluster.world().open_sessions(), 1);
}

#[tokio::test]
async fn servers_that_name_each_other_do_not_send_the_clerk_in_circles() {
    let cluster = Cluster::start(3).await;
    cluster.lead(None);
    let wrong = Member {
        id: NodeId(2),
        client_addr: cluster.endpoint(2),
    };
    cluster.world().false_hint = Some(wrong);
    let clerk = clerk(&cluster);
    let writer = clerk.clone();
    let write = tokio::spawn(async move { writer.put("k", "v").await });
    cluster.wait_until(|world| world.seen.len() > 12).await;
    cluster.lead(Some(3));
    write.await.unwrap().unwrap();
}

#[tokio::test]
async fn dead_and_deaf_endpoints_do_not_keep_the_clerk_from_a_live_one() {
    let cluster = Cluster::start(3).await;
    let deaf = TcpListener::bind((own_address(), 0)).await.unwrap();
    let dead = {
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let endpoints = [deaf.local_addr().unwrap().to_string(), dead, cluster.endpoint(2)];
    let clerk = settings(endpoints)
        .connect_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    clerk.put("k", "v").await.unwrap();
    cluster.lead(Some(2));
    clerk.put("k", "w").await.unwrap();
}

#[tokio::test]
async fn every_attempt_of_a_write_carries_the_same_session_and_sequence() {
    let cluster = Cluster::start(3).await;
    let clerk = impatient(&cluster);
    clerk.put("k", "").await.unwrap();
    cluster.script(
        1,
        [
            Step::Refuse(KvError::Busy(BusyReason::UncommittedBytes)),
            Step::Silence,
            Step::Refuse(KvError::OutcomeUnknown),
            Step::Cut { serve: true },
        ],
    );
    clerk.append("k", "x").await.unwrap();
    let attempts: Vec<_> = cluster.world().writes_seen().into_iter().skip(1).collect();
    assert!(attempts.len() >= 5, "only {} attempts", attempts.len());
    assert!(attempts.iter().all(|id| *id == attempts[0]), "{attempts:?}");
    assert_eq!(attempts[0].sequence, Sequence(2));
    assert_eq!(clerk.get("k").await.unwrap().as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_takes_effect_once() {
    let cluster = Cluster::start(3).await;
    let clerk = impatient(&cluster);
    let mishaps = [
        Step::ServeInSilence,
        Step::ServeThenSay(KvError::OutcomeUnknown),
        Step::Cut { serve: true },
        Step::Cut { serve: false },
    ];
    for (n, mishap) in mishaps.into_iter().enumerate() {
        // The session is opened first, so that the mishap meets the write.
        clerk.put("other", "").await.unwrap();
        cluster.script(1, [mishap]);
        clerk.append("k", "x").await.unwrap();
        assert_eq!(clerk.get("k").await.unwrap().unwrap().len(), n + 1);
    }
}

#[tokio::test]
async fn a_write_that_was_sent_and_not_answered_is_an_unknown_outcome() {
    let cluster = Cluster::start(3).await;
    let clerk = impatient(&cluster);
    clerk.put("k", "v").await.unwrap();
    let no_leader = || Step::Refuse(KvError::NotLeader { leader: None });
    cluster.script(
        1,
        std::iter::once(Step::Silence).chain(std::iter::repeat_n(no_leader(), 1_000)),
    );
    cluster.script(2, std::iter::repeat_n(no_leader(), 1_000));
    cluster.script(3, std::iter::repeat_n(no_leader(), 1_000));
    let error = clerk
        .with_timeout(Duration::from_secs(2))
        .put("k", "w")
        .await
        .unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(!error.is_without_effect());
    cluster.forget_scripts();
    clerk.put("k", "x").await.unwrap();
}

#[tokio::test]
async fn a_write_that_every_server_refused_is_not_done() {
    let cluster = Cluster::start(3).await;
    let clerk = clerk(&cluster);
    clerk.put("k", "v").await.unwrap();
    cluster.lead(None);
    let error = clerk
        .with_timeout(Duration::from_millis(400))
        .put("k", "w")
        .await
        .unwrap_err();
    let Error::NotDone {
        reason: Reason::Refused {
            error: KvError::NotLeader { .. },
            ..
        },
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(cluster.world().executed, 1);
}

#[tokio::test]
async fn a_busy_cluster_is_asked_again_until_it_has_room() {
    let cluster = Cluster::start(1).await;
    let clerk = clerk(&cluster);
    clerk.put("k", "v").await.unwrap();
    cluster.script(
        1,
        std::iter::repeat_n(Step::Refuse(KvError::Busy(BusyReason::RequestsInFlight)), 5),
    );
    clerk.put("k", "w").await.unwrap();
    assert_eq!(cluster.world().writes_seen().len(), 7);
}

#[tokio::test]
async fn with_nobody_there_calls_end_within_their_timeout_and_say_so() {
    let cluster = Cluster::start(2).await;
    let clerk = clerk(&cluster).with_timeout(Duration::from_millis(400));
    for id in 1..=2 {
        cluster.stop(id).await;
    }
    let began = Instant::now();
    let write = clerk.put("k", "v").await.unwrap_err();
    let read = clerk.get("k").await.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "the calls took {:?}",
        began.elapsed()
    );
    for error in [write, read] {
        assert!(
            matches!(
                error,
                Error::NotDone {
                    reason: Reason::Unreachable { .. },
                    ..
                }
            ),
            "{error:?}"
        );
    }
    let error = settings(cluster.endpoints())
        .timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap_err();
    assert!(error.is_without_effect());
}

#[tokio::test]
async fn a_silent_leader_is_left_for_its_successor() {
    let cluster = Cluster::start(3).await;
    let clerk = impatient(&cluster);
    clerk.put("k", "v").await.unwrap();
    cluster.script(1, std::iter::repeat_n(Step::Silence, 1_000));
    cluster.lead(Some(2));
    clerk.append("k", "w").await.unwrap();
    assert_eq!(clerk.get("k").await.unwrap().as_deref(), Some(&b"vw"[..]));
}

#[tokio::test]
async fn reads_that_nobody_answers_are_not_done() {
    let cluster = Cluster::start(1).await;
    let clerk = impatient(&cluster).with_timeout(Duration::from_secs(2));
    cluster.script(1, std::iter::repeat_n(Step::Silence, 1_000));
    let error = clerk.get("k").await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotDone {
                reason: Reason::Silent { .. },
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_ended_session_is_replaced_when_no_attempt_can_have_taken_effect() {
    let cluster = Cluster::start(3).await;
    let clerk = clerk(&cluster);
    clerk.append("k", "a").await.unwrap();
    cluster.world().end_all_sessions();
    clerk.append("k", "b").await.unwrap();
    assert_eq!(clerk.get("k").await.unwrap().as_deref(), Some(&b"ab"[..]));
    let sessions: Vec<_> = cluster
        .world()
        .writes_seen()
        .iter()
        .map(|id| id.session)
        .collect();
    assert_ne!(sessions.first(), sessions.last());
    assert_eq!(
        cluster.world().writes_seen().last().unwrap().sequence,
        Sequence(1)
    );
}

#[tokio::test]
async fn an_ended_session_is_an_error_when_an_attempt_may_have_taken_effect() {
    let cluster = Cluster::start(3).await;
    let clerk = clerk(&cluster);
    clerk.append("k", "a").await.unwrap();
    cluster.script(
        1,
        [
            Step::ServeThenSay(KvError::OutcomeUnknown),
            Step::Refuse(KvError::SessionExpired),
            Step::Serve,
        ],
    );
    assert_eq!(clerk.append("k", "b").await.unwrap_err(), Error::SessionExpired);
    // Nobody repeats the write behind the caller's back, and the next one has a session again.
    clerk.append("k", "c").await.unwrap();
    assert_eq!(clerk.get("k").await.unwrap().as_deref(), Some(&b"abc"[..]));
    assert_eq!(cluster.world().open_sessions(), 2);
}

#[tokio::test]
async fn a_session_that_was_perhaps_opened_leaves_no_doubt_about_the_write() {
    let cluster = Cluster::start(1).await;
    let clerk = Clerk::builder()
        .endpoints(cluster.endpoints())
        .timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    cluster.script(1, vec![Step::Refuse(KvError::OutcomeUnknown); 1_000]);
    let error = clerk.put("k", "v").await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::NotDone {
                reason: Reason::NoSession { .. },
                ..
            }
        ),
        "{error}"
    );
    assert!(cluster.world().writes_seen().is_empty());
}

#[tokio::test]
async fn one_session_serves_all_clones_and_its_window_follows_the_answers() {
    let cluster = Cluster::start(3).await;
    let clerk = clerk(&cluster);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..500 {
        let clerk = clerk.clone();
        calls.spawn(async move { clerk.append(format!("k{}", n % 10), "x").await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    let world = cluster.world();
    assert_eq!(world.open_sessions(), 1);
    assert_eq!(world.executed, 500);
    let mut sequences: Vec<_> = world.writes_seen().iter().map(|id| id.sequence.0).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=500).collect::<Vec<_>>());
    assert!(
        world
            .writes_seen()
            .iter()
            .all(|id| id.sequence.0 - id.lowest_outstanding.0 < 256)
    );
    assert!(world.writes_seen().iter().any(|id| id.lowest_outstanding.0 > 200));
}

#[tokio::test]
async fn a_dropped_call_frees_its_sequence_number_and_nobody_uses_it_again() {
    let cluster = Cluster::start(1).await;
    let clerk = clerk(&cluster);
    clerk.put("k", "v").await.unwrap();
    cluster.script(1, [Step::Silence]);
    let abandoned = tokio::spawn({
        let clerk = clerk.clone();
        async move { clerk.put("k", "lost").await }
    });
    cluster.wait_until(|world| world.writes_seen().len() == 2).await;
    abandoned.abort();
    let _ = abandoned.await;
    clerk.put("k", "w").await.unwrap();
    let last = *cluster.world().writes_seen().last().unwrap();
    assert_eq!(
        (last.sequence, last.lowest_outstanding),
        (Sequence(3), Sequence(3))
    );
}

#[tokio::test]
async fn a_write_that_waits_holds_the_lowest_outstanding_number() {
    let cluster = Cluster::start(1).await;
    let clerk = settings(cluster.endpoints()).build().unwrap();
    clerk.put("k", "v").await.unwrap();
    cluster.script(1, [Step::Silence]);
    let waiting = tokio::spawn({
        let clerk = clerk.clone();
        async move { clerk.put("k", "slow").await }
    });
    cluster.wait_until(|world| world.writes_seen().len() == 2).await;
    clerk.put("k", "w").await.unwrap();
    let last = *cluster.world().writes_seen().last().unwrap();
    assert_eq!(
        (last.sequence, last.lowest_outstanding),
        (Sequence(3), Sequence(2))
    );
    waiting.abort();
}

#[tokio::test]
async fn calls_beyond_the_bound_in_flight_wait_for_their_turn() {
    let cluster = Cluster::start(1).await;
    let clerk = settings(cluster.endpoints()).max_in_flight(2).build().unwrap();
    clerk.put("k", "v").await.unwrap();
    cluster.script(1, [Step::Silence, Step::Silence]);
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let clerk = clerk.clone();
            tokio::spawn(async move { clerk.get("k").await })
        })
        .collect();
    cluster
        .wait_until(|world| world.seen.iter().filter(|seen| seen.operation == "get").count() == 2)
        .await;
    let error = clerk
        .with_timeout(Duration::from_millis(50))
        .get("k")
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotDone {
                reason: Reason::TooManyInFlight,
                ..
            }
        ),
        "{error:?}"
    );
    stuck[0].abort();
    clerk.get("k").await.unwrap();
    stuck[1].abort();
}

#[tokio::test]
async fn arguments_outside_their_limits_are_refused_before_anything_is_sent() {
    let cluster = Cluster::start(1).await;
    let clerk = clerk(&cluster);
    let long = vec![b'k'; 4_097];
    let huge = vec![b'v'; (1 << 20) + 1];
    let errors = [
        clerk.put("", "v").await.unwrap_err(),
        clerk.put(&long, "v").await.unwrap_err(),
        clerk.put("k", &huge).await.unwrap_err(),
        clerk.append("k", &huge).await.unwrap_err(),
        clerk.delete("").await.unwrap_err(),
        clerk.get(&long).await.unwrap_err(),
        clerk.scan(&Scan::prefix(&long)).await.unwrap_err(),
    ];
    assert!(
        errors
            .iter()
            .all(|error| matches!(error, Error::InvalidArgument(_))),
        "{errors:?}"
    );
    assert!(cluster.asked().is_empty());
    // The longest of each is taken.
    clerk.put(&long[1..], &huge[1..]).await.unwrap();
    assert_eq!(clerk.get(&long[1..]).await.unwrap().unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn an_append_past_the_limit_is_an_invalid_argument_and_the_clerk_goes_on() {
    let cluster = Cluster::start(1).await;
    let clerk = clerk(&cluster);
    clerk.put("k", vec![0; 1 << 20]).await.unwrap();
    let error = clerk.append("k", "x").await.unwrap_err();
    let Error::InvalidArgument(InvalidArgument::Request(argument)) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        argument.to_string(),
        "the value has 1048577 bytes: the limit is 1048576"
    );
    clerk.put("k", "short").await.unwrap();
}

#[tokio::test]
async fn scans_go_through_all_pages_in_order() {
    let cluster = Cluster::start(3).await;
    cluster.world().page_items = 7;
    let clerk = clerk(&cluster);
    for n in 0..50 {
        clerk.put(format!("a/{n:02}"), n.to_string()).await.unwrap();
    }
    clerk.put("b", "other").await.unwrap();
    let items = clerk.scan_all(Scan::prefix("a/")).await.unwrap();
    let expected: Vec<_> = (0..50).map(|n| format!("a/{n:02}").into_bytes()).collect();
    assert_eq!(
        items.iter().map(|item| &item.key[..]).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(&items[13].value[..], b"13");
    assert_eq!(clerk.scan_all(Scan::all().limit(9)).await.unwrap().len(), 9);
    assert_eq!(
        clerk
            .scan_all(Scan::range("a/48", "c").keys_only())
            .await
            .unwrap()
            .len(),
        3
    );
    assert!(clerk.scan(&Scan::all().limit(0)).await.unwrap().items.is_empty());
    let page = clerk.scan(&Scan::all()).await.unwrap();
    assert_eq!((page.items.len(), page.next.is_some()), (7, true));
}

#[tokio::test]
async fn stale_reads_are_answered_without_a_leader_by_any_server() {
    let cluster = Cluster::start(3).await;
    let clerk = clerk(&cluster);
    clerk.put("k", "v").await.unwrap();
    cluster.lead(None);
    cluster.stop(1).await;
    for _ in 0..4 {
        let reply = clerk.get_with("k", Consistency::Stale).await.unwrap();
        assert_eq!(&reply.found.unwrap().value[..], b"v");
    }
    assert_eq!(
        clerk
            .scan(&Scan::all().consistency(Consistency::Stale))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn status_tells_of_all_servers_the_dead_ones_too() {
    let cluster = Cluster::start(3).await;
    let clerk = settings([cluster.endpoint(1)]).build().unwrap();
    clerk.put("k", "v").await.unwrap();
    cluster.stop(3).await;
    let nodes = clerk.status().await;
    assert_eq!(
        nodes.iter().map(|node| node.id.unwrap().0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        nodes.iter().map(|node| node.endpoint.clone()).collect::<Vec<_>>(),
        cluster.endpoints()
    );
    assert_eq!(nodes[0].status.as_ref().unwrap().keys, 1);
    assert!(nodes[1].status.is_ok());
    assert!(nodes[2].status.is_err());
    assert_eq!(clerk.members().await.unwrap(), cluster.world().members);
}

#[tokio::test]
async fn servers_of_another_cluster_are_not_asked() {
    let ours = Cluster::named("ours", 1).await;
    let theirs = Cluster::named("theirs", 1).await;
    let expecting = settings(theirs.endpoints())
        .cluster_id("ours")
        .timeout(Duration::from_secs(2));
    let error = expecting.build().unwrap().put("k", "v").await.unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");

    // Without an expectation the first that answers decides, for good.
    let clerk = settings([ours.endpoint(1), theirs.endpoint(1)]).build().unwrap();
    clerk.put("k", "v").await.unwrap();
    ours.stop(1).await;
    assert!(
        clerk
            .with_timeout(Duration::from_millis(300))
            .put("k", "w")
            .await
            .is_err()
    );
    assert!(theirs.asked().is_empty());
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let cluster = Cluster::start(1).await;
    let clerk = clerk(&cluster);
    for n in 1..=5 {
        clerk.append("k", "x").await.unwrap();
        cluster.restart(1);
        assert_eq!(clerk.get("k").await.unwrap().unwrap().len(), n);
    }
}

#[test]
fn the_blocking_clerk_does_the_same_on_plain_threads() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(3));
    let clerk = clerk::blocking::Clerk::connect(cluster.endpoints()).unwrap();
    clerk.put("k", "v").unwrap();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let clerk = clerk.clone();
            std::thread::spawn(move || clerk.append("k", "x").unwrap())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(clerk.get("k").unwrap().as_deref(), Some(&b"vxxxxxxxx"[..]));
    assert_eq!(
        clerk
            .get_with("k", Consistency::Stale)
            .unwrap()
            .found
            .unwrap()
            .value
            .len(),
        9
    );
    assert_eq!(clerk.scan_all(Scan::all()).unwrap().len(), 1);
    assert_eq!(clerk.scan(&Scan::prefix("z")).unwrap().items.len(), 0);
    assert_eq!(clerk.status().unwrap().len(), 3);
    assert_eq!(clerk.members().unwrap().len(), 3);
    assert!(clerk.delete("k").unwrap());
}

#[test]
fn the_blocking_clerk_refuses_to_block_an_async_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime.block_on(Cluster::start(1));
    let clerk = clerk::blocking::Clerk::connect(cluster.endpoints()).unwrap();
    let inside = clerk.clone();
    let error = runtime.block_on(async move { inside.put("k", "v").unwrap_err() });
    assert!(
        matches!(
            error,
            Error::NotDone {
                reason: Reason::InsideRuntime,
                ..
            }
        ),
        "{error:?}"
    );
    clerk.put("k", "v").unwrap();
}
