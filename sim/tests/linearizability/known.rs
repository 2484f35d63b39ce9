//! Histories that people get wrong, by hand.

use super::build::{At, WithOutcome as _, assert_broken_by, assert_linearizable};

#[test]
fn nothing_and_one_thing_after_the_other_are_linearizable() {
    assert_linearizable(vec![]);
    assert_linearizable(vec![
        At(1, 0, 1).get("k", None),
        At(1, 2, 3).put("k", "1"),
        At(2, 4, 5).get("k", Some("1")),
        At(1, 6, 7).append("k", "2"),
        At(2, 8, 9).get("k", Some("12")),
        At(1, 10, 11).delete("k", true),
        At(2, 12, 13).get("k", None),
        At(1, 14, 15).delete("k", false),
        At(1, 16, 17).append("k", "3"),
        At(2, 18, 19).get("k", Some("3")),
    ]);
}

#[test]
fn reads_beside_a_write_may_see_it_or_not() {
    for seen in [None, Some("1")] {
        assert_linearizable(vec![At(1, 0, 10).put("k", "1"), At(2, 5, 6).get("k", seen)]);
    }
}

#[test]
fn operations_that_touch_in_time_were_at_work_together() {
    assert_linearizable(vec![At(1, 0, 10).put("k", "1"), At(2, 10, 11).get("k", None)]);
    assert_broken_by(1, vec![At(1, 0, 10).put("k", "1"), At(2, 11, 12).get("k", None)]);
}

#[test]
fn a_stale_read_is_not_linearizable() {
    assert_broken_by(
        2,
        vec![
            At(1, 0, 10).put("k", "1"),
            At(1, 20, 30).put("k", "2"),
            At(2, 40, 50).get("k", Some("1")),
        ],
    );
}

#[test]
fn a_lost_update_is_not_linearizable() {
    assert_broken_by(
        2,
        vec![
            At(1, 0, 10).append("k", "a"),
            At(2, 0, 10).append("k", "b"),
            At(3, 20, 30).get("k", Some("b")),
        ],
    );
}

#[test]
fn a_double_append_is_not_linearizable() {
    assert_broken_by(
        1,
        vec![At(1, 0, 10).append("k", "a"), At(2, 20, 30).get("k", Some("aa"))],
    );
    assert_broken_by(
        1,
        vec![
            At(1, 0, 10).append("k", "a").unknown(),
            At(2, 20, 30).get("k", Some("aa")),
        ],
    );
}

#[test]
fn a_read_of_a_failed_write_is_not_linearizable() {
    assert_broken_by(
        1,
        vec![
            At(1, 0, 10).put("k", "1").failed(),
            At(2, 20, 30).get("k", Some("1")),
        ],
    );
}

#[test]
fn a_value_from_nowhere_is_not_linearizable() {
    assert_broken_by(0, vec![At(2, 20, 30).get("k", Some("1"))]);
    assert_broken_by(0, vec![At(2, 20, 30).scan("a", "z", &[("k", "1")])]);
    assert_broken_by(0, vec![At(2, 20, 30).delete("k", true)]);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_late() {
    assert_linearizable(vec![
        At(1, 0, 10).put("k", "1").unknown(),
        At(2, 20, 30).get("k", None),
        At(2, 40, 50).put("k", "2"),
        At(2, 60, 70).get("k", Some("2")),
        At(2, 80, 90).get("k", Some("1")),
    ]);
}

#[test]
fn a_write_of_unknown_outcome_may_never_take_effect() {
    assert_linearizable(vec![
        At(1, 0, 10).append("k", "1").unknown(),
        At(2, 20, 30).get("k", None),
        At(2, 40, 50).append("k", "2"),
        At(2, 60, 70).get("k", Some("2")),
    ]);
}

#[test]
fn a_write_of_unknown_outcome_takes_effect_once_at_most_and_not_before_its_start() {
    assert_broken_by(
        3,
        vec![
            At(1, 0, 10).put("k", "1").unknown(),
            At(2, 20, 30).get("k", Some("1")),
            At(2, 40, 50).delete("k", true),
            At(2, 60, 70).get("k", Some("1")),
        ],
    );
    assert_broken_by(
        0,
        vec![
            At(2, 0, 10).get("k", Some("1")),
            At(1, 20, 30).put("k", "1").unknown(),
        ],
    );
}

#[test]
fn two_writes_of_unknown_outcome_that_do_the_same_take_effect_twice_and_no_more() {
    for second in [
        At(2, 0, 10).delete("k", true).unknown(),
        // It begins when the first has taken effect already.
        At(2, 45, 46).delete("k", true).unknown(),
    ] {
        let mut operations = vec![At(1, 0, 10).delete("k", true).unknown(), second];
        for at in [20, 50] {
            operations.push(At(3, at, at + 1).put("k", "1"));
            operations.push(At(3, at + 2, at + 3).get("k", Some("1")));
            operations.push(At(3, at + 4, at + 5).get("k", None));
        }
        assert_linearizable(operations.clone());
        operations.push(At(3, 80, 81).put("k", "1"));
        operations.push(At(3, 82, 83).get("k", None));
        assert_broken_by(9, operations);
    }
}

#[test]
fn reads_in_another_order_than_the_writes_are_not_linearizable() {
    // Once a read beside the write has seen it, a later one has to.
    assert_broken_by(
        2,
        vec![
            At(1, 0, 100).put("k", "1"),
            At(2, 10, 20).get("k", Some("1")),
            At(3, 30, 40).get("k", None),
        ],
    );
    assert_broken_by(
        4,
        vec![
            At(1, 0, 100).append("k", "a"),
            At(2, 0, 100).append("k", "b"),
            At(3, 10, 20).get("k", Some("a")),
            At(3, 110, 120).get("k", Some("ab")),
            At(4, 110, 120).get("k", Some("ba")),
        ],
    );
}

#[test]
fn a_deleted_key_that_comes_back_is_not_linearizable() {
    assert_broken_by(
        2,
        vec![
            At(1, 0, 10).put("k", "1"),
            At(1, 20, 30).delete("k", true),
            At(2, 40, 50).get("k", Some("1")),
        ],
    );
    assert_broken_by(
        2,
        vec![
            At(1, 0, 10).put("k", "1"),
            At(1, 20, 30).delete("k", true),
            At(2, 20, 30).delete("k", true),
        ],
    );
}

#[test]
fn a_scan_that_tears_is_not_linearizable() {
    // It sees the later of two writes, and not the earlier.
    let torn = |items: &[(&str, &str)]| {
        vec![
            At(1, 10, 20).put("a", "1"),
            At(1, 30, 40).put("b", "1"),
            At(2, 0, 50).scan("a", "z", items),
        ]
    };
    assert_broken_by(2, torn(&[("b", "1")]));
    assert_linearizable(torn(&[]));
    assert_linearizable(torn(&[("a", "1")]));
    assert_linearizable(torn(&[("a", "1"), ("b", "1")]));
}

#[test]
fn two_scans_that_see_two_writes_in_different_orders_are_not_linearizable() {
    assert_broken_by(
        3,
        vec![
            At(1, 0, 100).put("a", "1"),
            At(2, 0, 100).put("b", "1"),
            At(3, 10, 90).scan("a", "z", &[("a", "1")]),
            At(4, 10, 95).scan("a", "z", &[("b", "1")]),
        ],
    );
}

#[test]
fn a_page_says_nothing_of_what_lies_behind_it() {
    let mut page = At(2, 40, 50).scan("a", "z", &[("a", "1")]);
    if let sim::linearizability::Outcome::Page { more, .. } = &mut page.outcome {
        *more = true;
    }
    let mut operations = vec![At(1, 0, 10).put("a", "1"), At(1, 20, 30).put("b", "1"), page];
    assert_linearizable(operations.clone());
    operations[2] = At(2, 40, 50).scan("a", "z", &[("a", "1")]);
    assert_broken_by(2, operations);
}

#[test]
fn a_stale_scan_is_caught_by_a_key_that_it_does_not_see() {
    assert_broken_by(
        2,
        vec![
            At(1, 0, 10).put("a", "1"),
            At(1, 20, 30).delete("a", true),
            At(2, 40, 50).scan("a", "z", &[("a", "1")]),
        ],
    );
}

#[test]
fn many_writes_of_unknown_outcome_are_no_burden() {
    let mut operations = Vec::new();
    for number in 0..200 {
        let at = number * 10;
        let value = format!("{number};");
        operations.push(At(number, at, at + 1).put("k", &value).unknown());
        operations.push(At(number, at, at + 1).append("k", &value).unknown());
    }
    operations.push(At(1, 5_000, 5_001).get("k", Some("199;")));
    operations.push(At(1, 5_002, 5_003).get("k", Some("199;0;")));
    operations.push(At(1, 5_004, 5_005).get("k", Some("5;")));
    assert_linearizable(operations.clone());
    operations.push(At(1, 5_006, 5_007).get("k", Some("199;0;")));
    assert_broken_by(403, operations);
}
