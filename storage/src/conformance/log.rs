//! Scenarios about the hard state and the log.

use raft_core::{Configuration, Entry, Leadership, LogIndex, NodeId, Payload, Storage as _, Term, Write};

use super::{Device, Scenario, Session, append, command, vote};

pub(super) fn scenarios<D: Device>() -> Vec<(&'static str, Scenario<D>)> {
    vec![
        (
            "a fresh store holds the initial configuration and nothing else",
            |_| {},
        ),
        ("the hard state is replaced as a whole", hard_state_is_replaced),
        ("appended entries are there in order", appended_entries_are_there),
        ("every kind of payload comes back as it was", payloads_come_back),
        (
            "an append replaces the log from its first entry on, wherever records end",
            append_truncates_anywhere,
        ),
        ("appends, overwrites and appends again", overwrites_repeat),
        (
            "entries of a mebibyte come back, and can be overwritten",
            large_entries,
        ),
        ("a large batch comes back", large_batch),
        ("the writes of a batch take effect in order", batch_in_order),
        ("an empty batch changes nothing", |session| session.write(&[])),
        ("restore can be asked for again", restore_twice),
        (
            "writes that would break the log are refused and poison the store",
            broken_appends_are_refused,
        ),
    ]
}

fn hard_state_is_replaced<D: Device>(session: &mut Session<D>) {
    session.write(&[vote(1, 2)]);
    session.write(&[vote(2, 3)]);
    session.write(&[Write::HardState(raft_core::HardState {
        current_term: Term(3),
        voted_for: None,
        ..raft_core::HardState::default()
    })]);
    session.write(&[vote(u64::MAX, u64::MAX)]);
}

fn appended_entries_are_there<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=1)]);
    session.write(&[append(1, 2..=9)]);
    session.write(&[append(2, 10..=300)]);
}

fn payloads_come_back<D: Device>(session: &mut Session<D>) {
    let configuration = Configuration::joint([1, 2, 3].map(NodeId), [3, 4].map(NodeId));
    let payloads = [
        Payload::Noop {
            leader_id: NodeId(1),
            leadership: Leadership(70),
        },
        Payload::Configuration(configuration.with_learners([NodeId(9)])),
        Payload::Command(bytes::Bytes::new()),
        Payload::Command(bytes::Bytes::from_static(&[0, 255, 10])),
    ];
    let entries = payloads.into_iter().zip(1..);
    let entries = entries.map(|(payload, index)| Entry {
        term: Term(1),
        index: LogIndex(index),
        payload,
    });
    session.write(&[Write::Append(entries.collect())]);
}

fn append_truncates_anywhere<D: Device>(session: &mut Session<D>) {
    // Three batches of four entries, so that cuts fall on both sides of a record's end and inside one.
    for (term, cut) in (2..).zip([12, 11, 10, 9, 8, 5, 4, 2, 1]) {
        session.write(&[append(1, 1..=4)]);
        session.write(&[append(1, 5..=8)]);
        session.write(&[append(1, 9..=12)]);
        session.write(&[append(term, cut..=cut + 1)]);
    }
}

fn overwrites_repeat<D: Device>(session: &mut Session<D>) {
    session.write(&[append(1, 1..=10)]);
    for (term, start) in (2..).zip([6, 8, 9, 7, 3]) {
        session.write(&[append(term, start..=start + 3)]);
        session.write(&[append(term, start + 4..=start + 5)]);
    }
}

fn large_entries<D: Device>(session: &mut Session<D>) {
    const MEBIBYTE: usize = 1024 * 1024;
    session.write(&[Write::Append(vec![
        command(1, 1, 10),
        command(1, 2, MEBIBYTE),
        command(1, 3, MEBIBYTE + 4096),
        command(1, 4, 0),
    ])]);
    session.write(&[Write::Append(vec![command(2, 3, MEBIBYTE / 2), command(2, 4, 7)])]);
    session.write(&[Write::Append(vec![command(3, 3, 5)])]);
    session.write(&[Write::Append(vec![command(4, 2, 5)])]);
}

fn large_batch<D: Device>(session: &mut Session<D>) {
    session.write(&[Write::Append(
        (1..=1500).map(|index| command(1, index, 200)).collect(),
    )]);
    session.write(&[append(2, 701..=702)]);
}

fn batch_in_order<D: Device>(session: &mut Session<D>) {
    session.write(&[
        vote(1, 1),
        append(1, 1..=5),
        vote(2, 3),
        append(2, 3..=4),
        append(2, 5..=9),
        append(3, 5..=6),
    ]);
    session.write(&[append(4, 2..=3), append(4, 4..=8), vote(4, 1), append(5, 8..=8)]);
}

fn restore_twice<D: Device>(session: &mut Session<D>) {
    session.write(&[vote(1, 1), append(1, 1..=5)]);
    let again = session.restore();
    assert_eq!(again, session.model.restored(), "{}", session.name);
    let added = [append(1, 6..=7)];
    if let Err(error) = session.store().write(&added) {
        session.fail(error);
    }
    session.model.apply_all(&added);
    let again = session.restore();
    assert_eq!(again, session.model.restored(), "{}: after a write", session.name);
}

fn broken_appends_are_refused<D: Device>(session: &mut Session<D>) {
    session.must_refuse("a first entry at index 2", &[append(1, 2..=2)]);
    session.must_refuse("an entry at index 0", &[append(1, 0..=0)]);
    session.write(&[vote(1, 1), append(1, 1..=5)]);
    session.must_refuse("an append without entries", &[Write::Append(Vec::new())]);
    session.must_refuse("a gap between log and append", &[append(1, 7..=7)]);
    session.must_refuse("a gap inside an append", &[append(1, [6, 8])]);
    session.must_refuse("a repeated index", &[append(1, [6, 6])]);
    session.must_refuse(
        "a batch whose last write is broken",
        &[vote(7, 7), append(2, 2..=3), append(2, 9..=9)],
    );
    session.write(&[append(1, 6..=6)]);
}
