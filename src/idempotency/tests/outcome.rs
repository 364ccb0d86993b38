//! The judgement of answers by matchers and statuses.

use super::{OutcomeRules, Verdict};
use crate::idempotency::outcome::JudgementBasis;
use crate::json::Pointer;
use crate::matcher::{
    HeaderView, MatchBody, MatchInput, Matcher, ParsedBody, StatusPattern, ValueTest,
};

fn member(pointer: &str, text: &str) -> Matcher {
    Matcher::member(Pointer::parse(pointer).unwrap(), ValueTest::OneOf(vec![text.to_owned()]))
}

fn rules() -> OutcomeRules {
    use StatusPattern::{Class, Exact};
    let statuses = vec![
        (Class(2), Verdict::Final),
        (Exact(202), Verdict::Unknown),
        (Class(5), Verdict::Unknown),
    ];
    OutcomeRules::new(statuses).unwrap().with_matchers(vec![
        (member("/code", "busy"), Verdict::Released),
        (member("/code", "done"), Verdict::Final),
        (member("/state", "lost"), Verdict::Unknown),
        (member("/state", "done"), Verdict::Final),
    ])
}

#[test]
fn matchers_come_before_statuses_and_two_lists_contradict_each_other() {
    let rules = rules();
    for (status, body, verdict) in [
        (200, r#"{"code":"busy"}"#, Verdict::Released),
        (500, r#"{"code":"busy"}"#, Verdict::Released),
        (500, r#"{"code":"done"}"#, Verdict::Final),
        (500, r#"{"code":"done","state":"done"}"#, Verdict::Final),
        (200, r#"{"code":"done","state":"lost"}"#, Verdict::Unknown),
        (200, r#"{"code":"busy","state":"done"}"#, Verdict::Unknown),
        (200, r#"{"code":"else"}"#, Verdict::Final),
        (202, "{}", Verdict::Unknown),
        (200, "no JSON", Verdict::Final),
        (101, r#"{"code":"done"}"#, Verdict::Unknown),
    ] {
        let body_bytes = ParsedBody::new(body.as_bytes());
        let body_of = MatchBody::Whole(&body_bytes);
        let input = MatchInput::answer(status, HeaderView::Lines(&[]), body_of);
        assert_eq!(rules.judge(&input).verdict, verdict, "{status} {body}");
    }
}

#[test]
fn a_body_too_large_to_look_at_leaves_the_outcome_unknown() {
    let rules = rules();
    let input = MatchInput::answer(200, HeaderView::Lines(&[]), MatchBody::Unseen);
    let judgement = rules.judge(&input);
    assert_eq!(judgement.verdict, Verdict::Unknown);
    assert!(matches!(judgement.basis, JudgementBasis::Unseen(_)), "{}", judgement.basis);
    let by_status = OutcomeRules::new(vec![(StatusPattern::Class(2), Verdict::Final)]).unwrap();
    assert_eq!(by_status.judge(&input).verdict, Verdict::Final);
}
