//! Siblings of keyed paths: addresses that many servers take for the same, in another case or with
//! a slash at the end. Where a route without keys passes them on, they are a way around the key.

use http::Method;

use super::model::RouteConfig;
use super::table::TableReader;
use crate::idempotency::names::{is_more_specific, nearest, without_parameter_names};

/// Siblings that a warning names.
const LISTED: usize = 3;

/// Warns of routes without keys that pass unsafe methods of siblings; `places` are those of the
/// routes' paths.
pub(super) fn warn_of_siblings(
    root: &TableReader<'_>,
    routes: &[RouteConfig],
    places: &[Option<usize>],
) {
    let patterns: Vec<(String, &RouteConfig)> = routes
        .iter()
        .flat_map(|route| route.methods.iter().map(move |method| (pattern(method, route), route)))
        .collect();
    for (off, place) in routes.iter().zip(places) {
        if off.is_keyed() {
            continue;
        }
        let mut caught: Vec<String> = Vec::new();
        for keyed in routes.iter().filter(|route| route.is_keyed()) {
            for method in keyed.methods.iter().filter(|method| is_unsafe(method)) {
                let siblings = siblings(&keyed.path).into_iter();
                let passed = siblings.filter(|path| is_passed(&patterns, off, method, path));
                caught.extend(passed.map(|path| format!("{method} {path}")));
            }
        }
        if !caught.is_empty() {
            root.warn(*place, text(off, &caught));
        }
    }
}

fn text(off: &RouteConfig, caught: &[String]) -> String {
    let listed: Vec<String> =
        caught.iter().take(LISTED).map(|sibling| format!("\"{sibling}\"")).collect();
    let more = match caught.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "route \"{}\" passes {}{more} without a key; a backend that takes these for the keyed path \
         next to them runs every retry. Leave the unsafe methods out of this route, or give these \
         paths a keyed route",
        off.name,
        listed.join(", ")
    )
}

fn is_unsafe(method: &Method) -> bool {
    !method.is_safe() && method.as_str() != "QUERY"
}

fn pattern(method: &Method, route: &RouteConfig) -> String {
    format!("{method} {}", without_parameter_names(&route.path))
}

/// True if `off` serves `method` of the path, and no keyed path takes it from there.
fn is_passed(
    patterns: &[(String, &RouteConfig)],
    off: &RouteConfig,
    method: &Method,
    path: &str,
) -> bool {
    let wanted = format!("{method} {path}");
    let served = nearest(&wanted, patterns.iter().map(|(pattern, _)| pattern.as_str()));
    if served != Some(&pattern(method, off)) || !off.methods.contains(method) {
        return false;
    }
    // Whatever its methods, a keyed path decides alone.
    let keyed = patterns.iter().map(|(_, route)| route).filter(|it| it.is_keyed());
    let mut paths =
        keyed.map(|route| (route, format!("/ {}", without_parameter_names(&route.path))));
    !paths.any(|(route, pattern)| {
        is_more_specific(&route.path, &off.path)
            && nearest(&format!("/ {path}"), std::iter::once(pattern.as_str())).is_some()
    })
}

/// The siblings of a path pattern; its parameters stay.
fn siblings(path: &str) -> Vec<String> {
    let path = without_parameter_names(path);
    if path == "/" || path.contains("{*}") {
        return Vec::new();
    }
    let slash = match path.strip_suffix('/') {
        Some(bare) => bare.to_owned(),
        None => format!("{path}/"),
    };
    let other_case = match path.chars().any(|at| at.is_ascii_lowercase()) {
        true => path.to_ascii_uppercase(),
        false => path.to_ascii_lowercase(),
    };
    let cased = (other_case != path).then_some(other_case);
    std::iter::once(slash).chain(cased).collect()
}
