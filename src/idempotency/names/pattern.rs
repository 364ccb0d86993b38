//! Path patterns in the syntax of matchit, without the names of their parameters.

/// Separator of a pattern and the digest of its condition: several routes may share a path.
pub(super) const WHEN: &str = " when ";

/// A path pattern in which every parameter is `{}`, or `{*}` for the rest of the path: a renamed
/// parameter is no other pattern.
pub(crate) fn without_parameter_names(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, braces) = rest.split_at(at);
        pattern.push_str(before);
        // Doubled braces stand for themselves.
        if braces.starts_with("{{") || braces.starts_with("}}") {
            pattern.push_str(&braces[..2]);
            rest = &braces[2..];
            continue;
        }
        pattern.push_str(if braces.starts_with("{*") { "{*}" } else { "{}" });
        rest = braces.split_once('}').map_or("", |(_, rest)| rest);
    }
    pattern + rest
}

/// True if the paths of `narrow` that match `wide` too belong to `narrow`; both are path patterns,
/// with or without names of parameters.
pub(crate) fn is_more_specific(narrow: &str, wide: &str) -> bool {
    let (narrow, wide) = (without_parameter_names(narrow), without_parameter_names(wide));
    ranks(&narrow) < ranks(&wide)
}

/// True if a path may match both path patterns. Text beside a parameter is not looked at.
pub(crate) fn may_meet(one: &str, other: &str) -> bool {
    let (one, other) = (without_parameter_names(one), without_parameter_names(other));
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some("{*}"), _) | (_, Some("{*}")) => return true,
            (Some(one), Some(other))
                if one == other || parameter(one).is_some() || parameter(other).is_some() => {}
            (_, _) => return false,
        }
    }
}

/// The most specific of `patterns` that covers every request of `wanted`: the pattern itself, or a
/// wider one of the same method. Patterns are a method, a space and a path pattern.
pub(crate) fn nearest<'a>(
    wanted: &str,
    patterns: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    patterns.filter(|pattern| covers(pattern, wanted)).min_by_key(|pattern| ranks(pattern))
}

/// The patterns of `patterns` that take the requests of `wanted` where its own path has none: those
/// of the most specific wider path. Of these, a pattern with the condition of `wanted` takes all of
/// its requests. A request that meets no condition of its path reaches no wider path.
pub(super) fn wider<'a>(
    wanted: &str,
    patterns: impl Iterator<Item = &'a str> + Clone,
) -> Vec<&'a str> {
    let (path, condition) = split_condition(wanted);
    let others = patterns.filter(|pattern| without_condition(pattern) != path);
    let Some(found) = nearest(path, others.clone().map(without_condition)) else {
        return Vec::new();
    };
    let found: Vec<&str> = others.filter(|other| without_condition(other) == found).collect();
    let same = |other: &&&str| condition.is_some() && split_condition(other).1 == condition;
    match found.iter().find(same) {
        Some(same) => vec![*same],
        None => found,
    }
}

/// The method and the path of a pattern.
pub(super) fn without_condition(pattern: &str) -> &str {
    split_condition(pattern).0
}

fn split_condition(pattern: &str) -> (&str, Option<&str>) {
    match pattern.split_once(WHEN) {
        Some((path, condition)) => (path, Some(condition)),
        None => (pattern, None),
    }
}

/// Specificity, most specific first: static segments before parameters before the rest of the path,
/// from the left, as requests are matched.
fn ranks(pattern: &str) -> Vec<u8> {
    let rank = |segment: &str| match segment {
        _ if segment.contains("{*}") => 2,
        _ if parameter(segment).is_some() => 1,
        _ => 0,
    };
    pattern.split('/').map(rank).collect()
}

/// Static text around the parameter of a segment.
fn parameter(segment: &str) -> Option<(&str, &str)> {
    segment.split_once("{}")
}

/// True if every path of `narrow` matches `wide`, by segments.
fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('/').enumerate(), narrow.split('/').peekable());
    loop {
        match (wide.next(), narrow.next()) {
            (None, None) => return true,
            (Some((depth, "{*}")), Some(segment)) => {
                // The rest of a path has at least one character, except for the root's.
                return !segment.is_empty() || narrow.peek().is_some() || depth == 1;
            }
            (Some((_, wide)), Some(narrow)) if wide == narrow => {}
            (Some((_, wide)), Some(narrow)) => match parameter(wide) {
                Some((before, after))
                    if narrow != "{*}"
                        && narrow.starts_with(before)
                        && narrow.ends_with(after)
                        && narrow.len() > before.len() + after.len() => {}
                Some(_) | None => return false,
            },
            (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_lose_their_names() {
        for (path, pattern) in [
            ("/v1/orders", "/v1/orders"),
            ("/v1/{id}/x", "/v1/{}/x"),
            ("/v1/{other}/x", "/v1/{}/x"),
            ("/{*rest}", "/{*}"),
            ("/a{{b}}/{c}.json", "/a{{b}}/{}.json"),
        ] {
            assert_eq!(without_parameter_names(path), pattern, "{path}");
        }
    }

    #[test]
    fn a_path_of_two_patterns_belongs_to_the_more_specific() {
        for (narrow, wide) in [
            ("/v1/orders", "/{*rest}"),
            ("/v1/orders", "/v1/{kind}"),
            ("/v1/{kind}/{id}", "/v1/{*rest}"),
            ("/v1/orders/{id}", "/v1/{kind}/x"),
            ("/", "/{*rest}"),
        ] {
            assert!(is_more_specific(narrow, wide), "{narrow} {wide}");
            assert!(!is_more_specific(wide, narrow), "{narrow} {wide}");
            assert!(may_meet(narrow, wide) && may_meet(wide, narrow), "{narrow} {wide}");
        }
        assert!(!is_more_specific("/v1/{id}", "/v1/{other}"));
        for (one, other) in [
            ("/v1/orders", "/v1/vouchers/{id}"),
            ("/v1/orders", "/v2/{*rest}"),
            ("/v1/{id}", "/v1/{id}/x"),
        ] {
            assert!(!may_meet(one, other) && !may_meet(other, one), "{one} {other}");
        }
    }

    #[test]
    fn the_most_specific_pattern_is_the_nearest() {
        let patterns = [
            "POST /{*}",
            "POST /v1/{}",
            "POST /v1/a",
            "PUT /v1/b",
            "POST /v1/{}/x.{}",
            "POST /files/{*}",
        ];
        for (wanted, found) in [
            ("POST /v1/a", Some("POST /v1/a")),
            ("POST /v1/b", Some("POST /v1/{}")),
            ("POST /v1/{}", Some("POST /v1/{}")),
            ("POST /v2/b", Some("POST /{*}")),
            ("POST /", Some("POST /{*}")),
            ("POST /files/", Some("POST /{*}")),
            ("POST /v1/{*}", Some("POST /{*}")),
            ("POST /v1/c/x.json", Some("POST /v1/{}/x.{}")),
            ("POST /v1/c/y.json", Some("POST /{*}")),
            ("PUT /v1/b", Some("PUT /v1/b")),
            ("PUT /v1/c", None),
            ("DELETE /v1/a", None),
        ] {
            assert_eq!(nearest(wanted, patterns.into_iter()), found, "{wanted}");
        }
    }
}
