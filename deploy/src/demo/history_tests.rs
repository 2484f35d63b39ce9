use super::Outcome::{Acknowledged, NotDone, Unknown};
use super::*;

/// A history of appends to "list" with these outcomes.
fn appends(client: u32, outcomes: &[Outcome]) -> History {
    writes(client, Kind::Append, "list", outcomes)
}

/// A history of puts to "x" with these outcomes.
fn puts(client: u32, outcomes: &[Outcome]) -> History {
    writes(client, Kind::Put, "x", outcomes)
}

fn writes(client: u32, kind: Kind, key: &str, outcomes: &[Outcome]) -> History {
    let mut history = History::new(client);
    outcomes
        .iter()
        .for_each(|outcome| history.record(kind, key, *outcome));
    history
}

fn values(pairs: &[(&str, &str)]) -> Values {
    pairs
        .iter()
        .map(|(key, value)| ((*key).into(), (*value).into()))
        .collect()
}

fn token(client: u32, number: usize) -> Token {
    Token { client, number }
}

fn unexplained(key: &str, found: &str) -> Flaw {
    Flaw::Unexplained {
        key: key.into(),
        found: found.into(),
    }
}

#[test]
fn a_token_is_read_back_as_it_was_written() {
    assert_eq!(token(3, 17).to_string(), "3.17");
    assert_eq!("3.17".parse(), Ok(token(3, 17)));
    for garbage in ["", "3", "3.", ".17", "3.17.1", "a.b", "-1.0"] {
        assert_eq!(garbage.parse::<Token>(), Err(()), "{garbage:?}");
    }
}

#[test]
fn appends_of_several_clients_may_stand_in_any_mixture_that_keeps_each_clients_order() {
    let histories = [appends(1, &[Acknowledged; 3]), appends(2, &[Acknowledged; 2])];
    for list in ["1.0;1.1;1.2;2.0;2.1;", "2.0;1.0;1.1;2.1;1.2;"] {
        assert_eq!(judge(&histories, &values(&[("list", list)])), []);
    }
}

#[test]
fn an_acknowledged_append_that_is_not_there_is_lost() {
    let histories = [appends(1, &[Acknowledged; 3])];
    let flaws = judge(&histories, &values(&[("list", "1.0;1.2;")]));
    assert_eq!(
        flaws,
        [Flaw::Lost {
            key: "list".into(),
            token: token(1, 1)
        }]
    );
    assert_eq!((count_lost(&flaws), count_duplicated(&flaws)), (1, 0));
}

#[test]
fn every_append_to_a_key_that_is_gone_is_lost() {
    let flaws = judge(&[appends(1, &[Acknowledged; 3])], &values(&[]));
    assert_eq!(count_lost(&flaws), 3);
}

#[test]
fn an_append_that_is_there_twice_is_duplicated_whatever_its_outcome() {
    for outcome in [Acknowledged, Unknown, NotDone] {
        let flaws = judge(&[appends(1, &[outcome])], &values(&[("list", "1.0;1.0;")]));
        assert_eq!(
            flaws,
            [Flaw::Duplicated {
                key: "list".into(),
                token: token(1, 0),
                times: 2
            }]
        );
        assert_eq!((count_lost(&flaws), count_duplicated(&flaws)), (0, 1));
    }
}

#[test]
fn acknowledged_appends_of_one_client_in_the_wrong_order_are_disordered() {
    let flaws = judge(
        &[appends(1, &[Acknowledged; 3])],
        &values(&[("list", "1.0;1.2;1.1;")]),
    );
    let expected = Flaw::Disordered {
        key: "list".into(),
        earlier: token(1, 1),
        later: token(1, 2),
    };
    assert_eq!(flaws, [expected]);
}

#[test]
fn an_append_of_unknown_outcome_is_there_once_or_not_at_all_and_anywhere() {
    let histories = [appends(1, &[Acknowledged, Unknown, Acknowledged])];
    for list in ["1.0;1.2;", "1.0;1.1;1.2;", "1.0;1.2;1.1;"] {
        assert_eq!(judge(&histories, &values(&[("list", list)])), [], "{list}");
    }
}

#[test]
fn an_append_that_was_reported_not_done_must_not_be_there() {
    let histories = [appends(1, &[Acknowledged, NotDone])];
    assert_eq!(judge(&histories, &values(&[("list", "1.0;")])), []);
    assert_eq!(
        judge(&histories, &values(&[("list", "1.0;1.1;")])),
        [unexplained("list", "1.1")]
    );
}

#[test]
fn what_nobody_wrote_is_unexplained() {
    let histories = [appends(1, &[Acknowledged]), appends(2, &[Acknowledged])];
    let both = "1.0;2.0;";
    for strange in ["1.7", "9.0", "garbage", "1.", ""] {
        let flaws = judge(&histories, &values(&[("list", &format!("{both}{strange};"))]));
        assert_eq!(flaws, [unexplained("list", strange)], "{strange:?}");
    }
    let other = judge(&histories, &values(&[("list", both), ("other", "v")]));
    assert_eq!(other, [unexplained("other", "v")]);
}

#[test]
fn a_token_that_was_put_does_not_belong_in_a_list() {
    let mut history = puts(1, &[Acknowledged]);
    history.record(Kind::Append, "list", Acknowledged);
    let flaws = judge(&[history], &values(&[("x", "1.0"), ("list", "1.0;1.1;")]));
    assert_eq!(flaws, [unexplained("list", "1.0")]);
}

#[test]
fn a_put_key_holds_the_last_acknowledged_put() {
    let histories = [puts(1, &[Acknowledged; 3])];
    assert_eq!(judge(&histories, &values(&[("x", "1.2")])), []);
    for (found, shown) in [
        (vec![("x", "1.1")], Some("1.1")),
        (vec![("x", "v")], Some("v")),
        (vec![], None),
    ] {
        let flaws = judge(&histories, &values(&found));
        let found = shown.map(str::to_owned);
        assert_eq!(
            flaws,
            [Flaw::WrongValue {
                key: "x".into(),
                found,
                expected: Some(token(1, 2))
            }]
        );
        assert_eq!(count_lost(&flaws), 1);
    }
}

#[test]
fn a_put_of_unknown_outcome_may_be_the_value_until_a_later_one_is_acknowledged() {
    let undecided = puts(1, &[Acknowledged, Unknown, Unknown]);
    for value in ["1.0", "1.1", "1.2"] {
        assert_eq!(undecided.judge_put("x", Some(value)), None);
    }
    let decided = puts(1, &[Acknowledged, Unknown, Acknowledged]);
    assert_eq!(decided.judge_put("x", Some("1.2")), None);
    assert!(decided.judge_put("x", Some("1.1")).is_some());
}

#[test]
fn a_put_that_was_reported_not_done_must_not_be_the_value() {
    let history = puts(1, &[Acknowledged, NotDone]);
    assert_eq!(history.judge_put("x", Some("1.0")), None);
    assert!(history.judge_put("x", Some("1.1")).is_some());
}

#[test]
fn a_key_may_be_missing_as_long_as_no_put_is_acknowledged() {
    assert_eq!(puts(1, &[NotDone, Unknown]).judge_put("x", None), None);
    assert!(puts(1, &[Acknowledged]).judge_put("x", None).is_some());
}

#[test]
fn a_client_that_reads_a_list_back_does_not_mind_the_others() {
    let mine = appends(1, &[Acknowledged; 2]);
    assert_eq!(mine.judge_list("list", "2.5;1.0;3.0;1.1;2.6;"), []);
    assert_eq!(mine.judge_list("list", "2.5;1.0;").len(), 1);
}

#[test]
fn outcomes_are_counted() {
    let history = appends(1, &[Acknowledged, Unknown, Acknowledged, NotDone]);
    assert_eq!(
        [Acknowledged, Unknown, NotDone].map(|outcome| history.count(outcome)),
        [2, 1, 1]
    );
    assert_eq!(history.next_token(), token(1, 4));
}
