//! `when` of a route: routes on one path that are told apart by a header, the query, a member of
//! the body or an XML element.
//!
//! Two routes that could take the same request would leave the choice between them to their order.
//! So of two such conditions at least one place has to tell them apart, or an `unless` of one has
//! to name the other.

use super::document::{TomlNode, TomlValue};
use super::matcher::{MatchScope, matchers};
use super::model::RouteConfig;
use super::table::TableReader;
use crate::matcher::{Condition, MatchPlace, Matcher, ValueTest};

/// The condition under which a route takes a request; empty: always.
pub(super) fn when(table: &TableReader<'_>) -> Vec<Matcher> {
    if let Some(TomlNode { at, value: TomlValue::List(elements) }) = table.node("when")
        && elements.is_empty()
    {
        let what = "`when` is empty, so that the route would take nothing; leave it out";
        table.fail("when", *at, what);
    }
    matchers(table, "when", MatchScope::Request).unwrap_or_default()
}

/// Notes earlier routes on the same path that could take the same requests.
pub(super) fn check_beside(table: &TableReader<'_>, route: &RouteConfig, others: &[RouteConfig]) {
    if route.when.is_empty() {
        return;
    }
    for other in others.iter().filter(|other| other.path == route.path) {
        let shares = other.methods.iter().any(|method| route.methods.contains(method));
        if !shares || other.when.is_empty() {
            continue;
        }
        let pairs = route.when.iter().flat_map(|own| other.when.iter().map(move |of| (own, of)));
        let Some((own, of_other)) = pairs.into_iter().find(|(one, other)| overlap(one, other))
        else {
            continue;
        };
        let what = format!(
            "`when` can hold for a request that `when` of route \"{}\" takes too, so that its \
             operation would be in doubt; test the same place with other values, or add unless = \
             {of_other} to {own}",
            other.name
        );
        table.wrong_at(&["when"], what);
    }
}

/// True unless the matchers exclude each other: by a place with contrary tests, or because one is
/// an exception of the other.
fn overlap(one: &Matcher, other: &Matcher) -> bool {
    let excluded = |matcher: &Matcher, by: &Matcher| {
        by.unless.iter().any(|exception| is_implied(exception, matcher))
    };
    let told_apart = one
        .conditions
        .iter()
        .any(|condition| other.conditions.iter().any(|second| are_contrary(condition, second)));
    !told_apart && !excluded(one, other) && !excluded(other, one)
}

/// True if `exception` holds wherever `matcher` does.
fn is_implied(exception: &Matcher, matcher: &Matcher) -> bool {
    let conditions = exception.conditions.iter().all(|wanted| {
        matcher.conditions.iter().any(|given| wanted == given || is_wider(wanted, given))
    });
    let text = exception.contains.is_none() || exception.contains == matcher.contains;
    let unless = exception.unless.iter().all(|other| matcher.unless.contains(other));
    conditions && text && unless
}

/// True if `wide` holds wherever `narrow` does, for the same place.
fn is_wider(wide: &Condition, narrow: &Condition) -> bool {
    wide.place == narrow.place
        && match (&wide.test, &narrow.test) {
            (ValueTest::OneOf(wide), ValueTest::OneOf(narrow)) => {
                narrow.iter().all(|text| wide.contains(text))
            }
            (ValueTest::Present, ValueTest::OneOf(_) | ValueTest::Class(_)) => true,
            (_, _) => false,
        }
}

/// True if no message meets both conditions. A header that stands twice could; such a request is
/// refused when it arrives.
fn are_contrary(one: &Condition, other: &Condition) -> bool {
    use ValueTest::{AbsentOrNull, Class, Contains, OneOf, Present};
    if one.place != other.place {
        return is_inside(&one.place, &other.place) && is_scalar(&one.test) && needs(&other.test)
            || is_inside(&other.place, &one.place) && is_scalar(&other.test) && needs(&one.test);
    }
    match (&one.test, &other.test) {
        (OneOf(one), OneOf(other)) => !one.iter().any(|text| other.contains(text)),
        (AbsentOrNull, test) | (test, AbsentOrNull) => needs(test),
        (Class(one), Class(other)) => one != other,
        (OneOf(texts), Class(digit)) | (Class(digit), OneOf(texts)) => {
            !texts.iter().any(|text| text.len() == 3 && text.starts_with(char::from(b'0' + digit)))
        }
        (OneOf(texts), Contains(part)) | (Contains(part), OneOf(texts)) => {
            !texts.iter().any(|text| text.contains(part))
        }
        (Present | Contains(_), Present | Contains(_) | Class(_) | OneOf(_))
        | (Class(_) | OneOf(_), Present | Contains(_)) => false,
    }
}

/// True if the test holds only for a string, a number or a boolean.
fn is_scalar(test: &ValueTest) -> bool {
    matches!(test, ValueTest::OneOf(_) | ValueTest::Class(_))
}

/// True if the test needs a value.
fn needs(test: &ValueTest) -> bool {
    !matches!(test, ValueTest::AbsentOrNull)
}

/// True if the second place lies inside the value at the first.
fn is_inside(outer: &MatchPlace, inner: &MatchPlace) -> bool {
    match (outer, inner) {
        (MatchPlace::Pointer(outer), MatchPlace::Pointer(inner)) => {
            inner.tokens().len() > outer.tokens().len()
                && inner.tokens().starts_with(outer.tokens())
        }
        (_, _) => false,
    }
}
