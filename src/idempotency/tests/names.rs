//! Changes of a configuration that would look for keys elsewhere, and changes that would not.

use crate::idempotency::names::{ConfiguredNames, KeyNames, PinnedNames, ServedPattern};

fn request(route: Option<&str>, header: &str) -> Option<KeyNames> {
    let route = route.map(str::to_owned);
    Some(KeyNames::Request { route, key: format!("header = {header:?}"), callers: None })
}

fn items(ledger: &str, at: &str, id: &str) -> Option<KeyNames> {
    Some(KeyNames::Items {
        ledger: ledger.into(),
        at: at.into(),
        id: id.into(),
        batch: None,
        callers: None,
    })
}

fn config(callers: &[&str], patterns: &[(&str, &str, Option<KeyNames>)]) -> ConfiguredNames {
    let served = |(path, route, names): &(&str, &str, Option<KeyNames>)| {
        ServedPattern::new("POST", path, route, names.clone())
    };
    ConfiguredNames {
        callers: callers.iter().map(ToString::to_string).collect(),
        patterns: patterns.iter().map(served).collect(),
    }
}

const CALLERS: [&str; 2] = ["authorization", "x-api-key"];

fn one(path: &str, route: &str, names: Option<KeyNames>) -> ConfiguredNames {
    config(&CALLERS, &[(path, route, names)])
}

/// Pinned names after a start with this configuration on a new store.
fn pinned(by: &ConfiguredNames) -> PinnedNames {
    let next = PinnedNames::default().compare(by);
    assert!(!next.is_change(), "a new store has no names");
    PinnedNames::decode(&next.next.encode()).unwrap()
}

#[test]
fn every_part_of_the_names_is_pinned() {
    let key = "idempotency-key";
    // Before, after, and what keeps the names; "" is no change.
    let cases: Vec<(Option<KeyNames>, Option<KeyNames>, &str)> = vec![
        (request(None, key), request(None, key), ""),
        (request(None, key), request(Some("a"), key), "write [route.key] scope = \"tenant\""),
        (request(Some("a"), key), request(None, key), "[[route]] name = \"a\""),
        (request(Some("a"), key), request(Some("b"), key), "write [[route]] name = \"a\""),
        (
            request(None, key),
            request(None, "x-k"),
            "write [route.key] header = \"idempotency-key\"",
        ),
        (items("l", "/a", "/id"), items("l", "/a", "/id"), ""),
        (items("l", "/a", "/id"), items("m", "/a", "/id"), "write [route.items] ledger = \"l\""),
        (items("l", "/a", "/id"), items("l", "/b", "/id"), "write [route.items] at = \"/a\""),
        (items("l", "/a", "/id"), items("l", "/a", "/no"), "write [route.items] id = \"/id\""),
        (request(None, key), items("l", "", "/id"), "write [[route]] mode = \"request\""),
        (items("l", "", "/id"), request(None, key), "write [[route]] mode = \"items\""),
    ];
    for (before, after, keep) in cases {
        let compared = pinned(&one("/x", "a", before.clone())).compare(&one("/x", "b", after));
        assert_eq!(compared.is_change(), !keep.is_empty(), "{compared}");
        assert!(compared.to_string().contains(keep), "{keep}\n{compared}");
        if compared.is_change() {
            assert!(compared.to_string().contains("POST /x (route `b`)"), "{compared}");
            // The names so far, written out, are no change.
            assert!(
                !pinned(&one("/x", "a", before.clone()))
                    .compare(&one("/x", "b", before))
                    .is_change()
            );
        }
    }
}

#[test]
fn the_order_of_callers_and_the_names_of_parameters_do_not_matter() {
    let names = || request(None, "k");
    let before = pinned(&config(&["b", "a"], &[("/v1/{id}/x", "r", names())]));
    assert!(
        !before.compare(&config(&["a", "b", "a"], &[("/v1/{other}/x", "r", names())])).is_change()
    );
    for callers in [&["a"][..], &["a", "b", "c"], &["a", "c"], &[]] {
        let compared = before.compare(&config(callers, &[("/v1/{id}/x", "r", names())]));
        assert!(compared.is_change(), "{callers:?}");
        assert!(
            compared.to_string().contains("write [tenant] headers = [\"a\", \"b\"]"),
            "{compared}"
        );
    }
    // Without keys there is nothing to lose.
    let off = pinned(&config(&["a"], &[("/x", "r", None)]));
    assert!(!off.compare(&config(&["b"], &[("/x", "r", names())])).is_change());
}

#[test]
fn an_acceptance_is_for_exactly_one_change() {
    let (a, b, c) = (items("a", "", ""), items("b", "", ""), items("c", "", ""));
    let mut seen = std::collections::BTreeSet::new();
    for (before, after) in [(&a, &b), (&b, &a), (&a, &c), (&b, &c), (&c, &a), (&c, &b)] {
        for path in ["/x", "/y"] {
            let before = pinned(&one(path, "r", before.clone()));
            let compared = before.compare(&one(path, "r", after.clone()));
            assert!(compared.acceptance().len() >= 16);
            assert!(seen.insert(compared.acceptance()), "{compared}");
            // The name of the route is no part of the change unless keys are kept under it.
            let renamed = before.compare(&one(path, "other", after.clone()));
            assert_eq!(renamed.acceptance(), compared.acceptance());
            assert!(!compared.next.compare(&one(path, "r", after.clone())).is_change());
        }
    }
    let both = |names: &Option<KeyNames>, callers: &[&str]| {
        config(callers, &[("/x", "r", names.clone()), ("/y", "s", names.clone())])
    };
    let before = pinned(&both(&a, &["h"]));
    for after in [both(&b, &["h"]), both(&b, &["i"]), both(&a, &["i"])] {
        assert!(seen.insert(before.compare(&after).acceptance()));
    }
}

#[test]
fn a_pattern_that_returns_has_the_names_it_had() {
    let key = || items("a", "/i", "/id");
    let start = pinned(&one("/x", "r", key()));
    for absent in [one("/x", "r", None), one("/y", "r", None), one("/y", "r", items("b", "", ""))] {
        let compared = start.compare(&absent);
        assert!(!compared.is_change());
        assert_eq!(compared.retired.len(), 1, "{:?}", compared.retired);
        let away = compared.next;
        assert_eq!(away.compare(&absent).next, away, "nothing new");
        assert!(!away.compare(&one("/x", "r", key())).is_change());
        assert!(away.compare(&one("/x", "r", items("b", "/i", "/id"))).is_change());
    }
}

#[test]
fn requests_that_reach_another_pattern_are_compared_with_its_names() {
    let (wide, narrow) = (request(None, "k"), items("a", "/i", "/id"));
    // A narrower pattern takes requests over from a wider one.
    let before = pinned(&one("/{*rest}", "all", wide.clone()));
    let split = |narrow: Option<KeyNames>| {
        config(&CALLERS, &[("/{*rest}", "all", wide.clone()), ("/v1/{id}", "one", narrow)])
    };
    assert!(before.compare(&split(narrow.clone())).is_change());
    let same = before.compare(&split(wide.clone()));
    assert!(!same.is_change() && same.retired.is_empty());
    assert!(!before.compare(&split(None)).is_change(), "it passes without keys, as configured");
    // The wider one takes them back.
    let compared = pinned(&split(narrow.clone())).compare(&one("/{*rest}", "all", wide.clone()));
    assert!(compared.is_change() && compared.retired.is_empty(), "{compared}");
    assert!(compared.to_string().contains("POST /v1/{} (route `all`)"), "{compared}");
    assert!(!compared.next.compare(&one("/{*rest}", "all", wide.clone())).is_change());
    // What passed without keys has none to lose.
    assert!(!pinned(&split(None)).compare(&split(narrow)).is_change());
}

#[test]
fn requests_that_reach_a_path_with_conditions_are_compared_with_its_names() {
    type Served<'a> = (&'a str, Option<&'a str>, Option<KeyNames>);
    let config = |patterns: &[Served<'_>]| {
        let served = |(path, condition, names): &Served<'_>| {
            let served = ServedPattern::new("POST", path, "r", names.clone());
            condition.map_or(served.clone(), |condition| served.when(condition))
        };
        ConfiguredNames {
            callers: CALLERS.iter().map(ToString::to_string).collect(),
            patterns: patterns.iter().map(served).collect(),
        }
    };
    let (k, l) = (|| request(None, "k"), || request(None, "l"));
    let wide = |condition, names| ("/{*rest}", condition, names);
    let pay = |condition, names| ("/pay", condition, names);
    let (a, b) = (Some("a"), Some("b"));
    // Before, after, and if keys would be looked for elsewhere.
    let cases: Vec<(Vec<Served<'_>>, Vec<Served<'_>>, bool)> = vec![
        // A narrower path takes requests over.
        (vec![wide(a, k())], vec![wide(a, k()), pay(None, l())], true),
        (vec![wide(a, k())], vec![wide(a, k()), pay(None, k())], false),
        (vec![wide(a, k())], vec![wide(a, k()), pay(a, l())], true),
        (vec![wide(a, k())], vec![wide(a, k()), pay(b, l())], true),
        (vec![wide(None, k())], vec![wide(None, k()), pay(a, l())], true),
        // Of several conditions the same one counts, or else each of them.
        (vec![wide(a, k()), wide(b, l())], vec![wide(a, k()), wide(b, l()), pay(b, l())], false),
        (vec![wide(a, k()), wide(b, l())], vec![wide(a, k()), wide(b, l()), pay(a, l())], true),
        (vec![wide(a, k()), wide(b, l())], vec![wide(a, k()), wide(b, l()), pay(None, l())], true),
        (vec![wide(a, None)], vec![wide(a, None), pay(None, l())], false),
        // The wider path takes them back.
        (vec![wide(a, k()), pay(None, l())], vec![wide(a, k())], true),
        (vec![wide(a, k()), pay(a, l())], vec![wide(a, k())], true),
        (vec![wide(a, k()), pay(None, k())], vec![wide(a, k())], false),
        (vec![wide(a, k()), wide(b, l()), pay(None, k())], vec![wide(a, k()), wide(b, l())], true),
        (vec![wide(a, k()), wide(b, l()), pay(b, l())], vec![wide(a, k()), wide(b, l())], false),
    ];
    for (at, (before, after, changes)) in cases.into_iter().enumerate() {
        let before = pinned(&config(&before));
        let compared = before.compare(&config(&after));
        assert_eq!(compared.is_change(), changes, "case {at}: {compared}");
        assert!(compared.retired.is_empty(), "case {at}: {:?}", compared.retired);
        // Once in use, the configuration is no change.
        let again = compared.next.compare(&config(&after));
        assert!(!again.is_change(), "case {at}: {again}");
    }
}

#[test]
fn documents_of_a_later_version_are_not_read() {
    let document = pinned(&one("/x", "r", request(None, "k"))).encode();
    let text = String::from_utf8(document).unwrap();
    assert!(PinnedNames::decode(text.as_bytes()).is_ok());
    for (this, that) in [("\"layout\":1", "\"layout\":2"), ("\"off\"", "\"of\""), ("{", "")] {
        let other = text.replacen(this, that, 1);
        assert_ne!(other, text);
        assert!(PinnedNames::decode(other.as_bytes()).is_err(), "{other}");
    }
}
