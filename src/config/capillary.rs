//! The profile `capillary`: the bulk issue of rewards, after its integration guide and the samples
//! of the guide.

use crate::idempotency::fingerprint::RuleId;
use crate::items::rules::{
    IssuedRules, ItemId, ItemRules, ListKind, MAX_ITEMS, MAX_QUANTITY, MatchBy, QuantityView,
    Refusal, RenderRules, ResponseRules, StateTemplate, TemplateMember,
};
use crate::json::Pointer;
use crate::matcher::{Matcher, StatusPattern, ValueTest};

/// Everything under `[route.items]`.
pub(super) fn rules() -> ItemRules {
    ItemRules {
        at: at("/rewards").into(),
        kind: ListKind::Array,
        id: ItemId::Member(at("/requestId")),
        quantity: Some(at("/quantity")),
        max_items: MAX_ITEMS,
        max_quantity: MAX_QUANTITY,
        same: Some(
            ["/rewardId", "/rewardExternalId", "/quantity", "/paymentConfig", "/params"]
                .map(at)
                .to_vec(),
        ),
        shared: Some(
            ["/mobile", "/email", "/externalId", "/brand"].map(|path| at(path).into()).to_vec(),
        ),
        serialize_by: ["/mobile", "/email", "/externalId"].map(at).to_vec(),
        indivisible: vec![equals("/indivisible", &["true"])],
        view: QuantityView::Cumulative,
        response: response(),
        render: render(),
        rule: RuleId::default(),
    }
    .finished()
}

fn response() -> ResponseRules {
    let denied = equals("/status/success", &["false"]);
    ResponseRules {
        at: vec![at("/rewards").into()],
        kind: ListKind::Array,
        by: vec![
            MatchBy::Id(at("/requestId")),
            MatchBy::Member(at("/rewardId")),
            MatchBy::ListPosition,
        ],
        issued: IssuedRules {
            count: Some(at("/quantity")),
            arrays: ["/intouch", "/vendor", "/promotions"].map(at).to_vec(),
            all: Vec::new(),
        },
        requested: Some(at("/requestedQuantity")),
        append: ["/intouch", "/vendor", "/promotions", "/pointsReferenceIds"].map(at).to_vec(),
        // A refusal has a status or a member saying so: an answer under 2xx without either may
        // belong to an accepted batch.
        not_issued: vec![
            no_rows(4, equals("/status/success", &["true"])),
            no_rows(2, Matcher { unless: vec![denied], ..Matcher::default() }),
        ],
        // 10004: refused because another batch of the customer is running.
        retry: vec![equals("/status/code", &["8003", "8004", "12005", "10004"])],
        finals: Vec::new(),
        // Points could not be redeemed: the guide treats the outcome as unknown.
        unknown: vec![equals("/status/code", &["1010"])],
        ..ResponseRules::default()
    }
}

fn render() -> RenderRules {
    let template = |success: bool, code: u16, message: &str, http| {
        let put = status(success, code, message);
        StateTemplate { item: vec![put.clone()], top: vec![put], http }
    };
    let refusal = |code: u16, message: &str, http| {
        Some(Refusal { top: vec![status(false, code, message)], http: Some(http) })
    };
    RenderRules {
        // The backend's status is unrelated to its rows: 8010 comes under 200 and 400.
        complete: template(true, 200, "Reward issued successfully", Some(200)),
        partial: template(false, 8010, "Reward issued partially", None),
        none: template(false, 8003, "fail to issue reward", None),
        unknown: template(false, 1010, "Outcome not known yet, do not issue again", Some(409)),
        mismatch: refusal(10003, "Payload does not match the requestId", 422),
        duplicate: refusal(400, "Duplicate requestId", 400),
        parallel: refusal(10004, "Another request for this customer is running", 409),
    }
}

fn status(success: bool, code: u16, message: &str) -> TemplateMember {
    let text = format!("{{\"success\":{success},\"code\":{code},\"message\":\"{message}\"}}");
    (at("/status"), text)
}

fn equals(pointer: &str, texts: &[&str]) -> Matcher {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    Matcher::member(at(pointer), ValueTest::OneOf(texts))
}

/// An answer without rows under a status of `class`, `unless` the second matcher matches.
fn no_rows(class: u8, unless: Matcher) -> Matcher {
    Matcher {
        status: Some(StatusPattern::Class(class)),
        unless: vec![unless],
        ..Matcher::member(at("/rewards"), ValueTest::AbsentOrNull)
    }
}

#[expect(
    clippy::expect_used,
    reason = "the pointers of this file are pointers, and a test reads it"
)]
fn at(pointer: &str) -> Pointer {
    Pointer::parse(pointer).expect("a JSON pointer")
}
