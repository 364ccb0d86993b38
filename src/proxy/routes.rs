//! Matching of requests to routes by method and path.

use http::{HeaderValue, Method};

use crate::config;

/// A path matcher for each method. A path special to a single method is therefore still found by
/// the remaining methods under a wider pattern.
#[derive(Debug, Default)]
pub(crate) struct PathMatcher {
    /// Few entries: a scan is faster than a hash.
    by_method: Vec<(Method, matchit::Router<usize>)>,
}

/// Result of a match.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Matched {
    /// Index of the matching route.
    Route(usize),
    /// The path is configured, but only for the listed methods.
    NotAllowed(HeaderValue),
    /// No route has the path.
    NoRoute,
}

impl PathMatcher {
    /// Builds a matcher for `routes`.
    ///
    /// # Errors
    /// When two routes claim the same method and path; the configuration reports the conflict
    /// earlier, with the line.
    pub(crate) fn new(routes: &[config::RouteConfig]) -> Result<Self, String> {
        let mut router = Self::default();
        for (index, route) in routes.iter().enumerate() {
            for method in &route.methods {
                router
                    .paths_mut(method)
                    .insert(route.path.as_str(), index)
                    .map_err(|error| format!("route {}: {error}", route.name))?;
            }
        }
        router.let_wildcards_match_the_root(routes);
        Ok(router)
    }

    /// Registers `/` under every `/{*rest}`: the pattern reads as "every path", but matchit
    /// requires at least a single character for the rest.
    fn let_wildcards_match_the_root(&mut self, routes: &[config::RouteConfig]) {
        for (index, route) in routes.iter().enumerate() {
            if !route.path.starts_with("/{*") {
                continue;
            }
            for method in &route.methods {
                // An existing route for exactly "/" is more specific and wins.
                let _ = self.paths_mut(method).insert("/", index);
            }
        }
    }

    fn paths(&self, method: &Method) -> Option<&matchit::Router<usize>> {
        self.by_method.iter().find(|(present, _)| present == method).map(|(_, paths)| paths)
    }

    fn paths_mut(&mut self, method: &Method) -> &mut matchit::Router<usize> {
        let present = self.by_method.iter().position(|(present, _)| present == method);
        let at = present.unwrap_or_else(|| {
            self.by_method.push((method.clone(), matchit::Router::new()));
            self.by_method.len() - 1
        });
        &mut self.by_method[at].1
    }

    /// Names and values of the path parameters of a matched route.
    pub(crate) fn parameters(&self, method: &Method, path: &str) -> Vec<(String, String)> {
        let matched = self.paths(method).and_then(|paths| paths.at(path).ok());
        let matched = matched.iter().flat_map(|matched| matched.params.iter());
        matched.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The route for `method` and the normalized `path`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Matched {
        if let Some(paths) = self.paths(method)
            && let Ok(matched) = paths.at(path)
        {
            return Matched::Route(*matched.value);
        }
        self.allowed(path).map_or(Matched::NoRoute, Matched::NotAllowed)
    }

    /// The methods that the normalized `path` is configured for; `None`: not for any.
    pub(crate) fn allowed(&self, path: &str) -> Option<HeaderValue> {
        let mut allowed: Vec<&str> = self
            .by_method
            .iter()
            .filter(|(_, paths)| paths.at(path).is_ok())
            .map(|(method, _)| method.as_str())
            .collect();
        if allowed.is_empty() {
            return None;
        }
        allowed.sort_unstable();
        HeaderValue::from_str(&allowed.join(", ")).ok()
    }
}
