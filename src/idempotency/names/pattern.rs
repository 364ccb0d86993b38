//! Path patterns in the syntax of matchit, without the names of their parameters.

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

/// The most specific of `patterns` that covers every request of `wanted`: the pattern itself, or a
/// wider one of the same method. Patterns are a method, a space and a path pattern.
pub(super) fn nearest<'a>(
    wanted: &str,
    patterns: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    patterns.filter(|pattern| covers(pattern, wanted)).min_by_key(|pattern| ranks(pattern))
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
