//! Path parameters in the syntax of other routers. Taken literally such a path would match no
//! request, and its requests would go to a wider route, perhaps to one without keys.

/// Refuses a path with a parameter of another dialect.
///
/// # Errors
/// The mistake and the remedy.
pub(super) fn refuse_dialects(path: &str) -> Result<(), String> {
    let segments: Vec<&str> = path.split('/').collect();
    let last = segments.len() - 1;
    let mut foreign = None;
    let mut translated = Vec::with_capacity(segments.len());
    for (at, segment) in segments.iter().enumerate() {
        let own = translate(segment, at == last);
        if let (Some(_), None) = (&own, foreign) {
            foreign = Some(*segment);
        }
        translated.push(own.unwrap_or_else(|| (*segment).to_owned()));
    }
    match foreign {
        None => Ok(()),
        Some(segment) => Err(format!(
            "has \"{segment}\", a parameter of another dialect; write \"{}\"",
            translated.join("/")
        )),
    }
}

/// The segment in this dialect, if it is written in another one.
fn translate(segment: &str, is_last: bool) -> Option<String> {
    if let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return translate_braces(inner, is_last);
    }
    if let Some(name) = segment.strip_prefix(':') {
        return Some(parameter(name, is_last && name.ends_with('*')));
    }
    if let Some(inner) = segment.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        // `<int:id>`, `<path:rest>`, `<id>`, `<rest..>`
        let (kind, name) = inner.split_once(':').unwrap_or(("", inner));
        return Some(parameter(name, is_last && (kind == "path" || name.ends_with(".."))));
    }
    if let Some(inner) = segment.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(parameter(inner, is_last && inner.starts_with("...")));
    }
    // A star outside of braces means "anything" to every router that knows one.
    (segment.contains('*') && !segment.contains('{')).then(|| parameter(segment, is_last))
}

/// `{id:[0-9]+}`, `{rest...}`, `{id?}`: names with more than a name.
fn translate_braces(inner: &str, is_last: bool) -> Option<String> {
    let plain = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let name = inner.strip_prefix('*').unwrap_or(inner);
    // Doubled braces stand for themselves, and what is left is for the router to refuse.
    if plain(name) || name.is_empty() || name.contains(['{', '}']) && !name.contains(':') {
        return None;
    }
    let (bare, rule) = name.split_once(':').unwrap_or((name, ""));
    let is_rest = inner.starts_with('*') || rule == "path" || bare.ends_with("...");
    Some(parameter(bare, is_last && (is_rest || matches!(rule.trim(), ".*" | ".+"))))
}

/// A parameter of this dialect, with as much of the foreign name as is a name.
fn parameter(name: &str, is_rest: bool) -> String {
    let bare: String =
        name.chars().filter(|at| at.is_ascii_alphanumeric() || "_-".contains(*at)).collect();
    match (is_rest, bare.as_str()) {
        (true, "") => "{*rest}".to_owned(),
        (true, bare) => format!("{{*{bare}}}"),
        (false, "") => "{name}".to_owned(),
        (false, bare) => format!("{{{bare}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::refuse_dialects;

    #[test]
    fn parameters_of_other_routers_are_refused_with_what_to_write() {
        for (path, write) in [
            ("/v1/*", "/v1/{*rest}"),
            ("/v1/**", "/v1/{*rest}"),
            ("/v1/*rest", "/v1/{*rest}"),
            ("/v1/*/lines", "/v1/{name}/lines"),
            ("/v1/:id", "/v1/{id}"),
            ("/v1/:id/x", "/v1/{id}/x"),
            ("/v1/:id?", "/v1/{id}"),
            ("/v1/:rest*", "/v1/{*rest}"),
            ("/v1/<id>", "/v1/{id}"),
            ("/v1/<int:id>/x", "/v1/{id}/x"),
            ("/v1/<path:rest>", "/v1/{*rest}"),
            ("/v1/[id]", "/v1/{id}"),
            ("/v1/[...rest]", "/v1/{*rest}"),
            ("/v1/{id:[0-9]+}", "/v1/{id}"),
            ("/v1/{id:[0-9]{2}}", "/v1/{id}"),
            ("/v1/{rest:path}", "/v1/{*rest}"),
            ("/v1/{rest:.*}", "/v1/{*rest}"),
            ("/v1/{rest...}", "/v1/{*rest}"),
            ("/v1/{id?}", "/v1/{id}"),
            ("/:a/<b>", "/{a}/{b}"),
        ] {
            let message = refuse_dialects(path).unwrap_err();
            assert!(message.ends_with(&format!("write \"{write}\"")), "{path}: {message}");
        }
    }

    #[test]
    fn what_is_no_parameter_elsewhere_is_left_alone() {
        for path in [
            "/",
            "/v1/{id}",
            "/v1/{*rest}",
            "/v1/items:batchCreate",
            "/v1/{id}.json",
            "/v1/{{literal}}",
            "/v1/a<b",
            "/v1/user(1)",
            "/v1/{order_id}/lines/{line-id}",
        ] {
            assert_eq!(refuse_dialects(path), Ok(()), "{path}");
        }
    }
}
