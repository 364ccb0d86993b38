//! Matching of requests to routes by method and path.

use http::{HeaderValue, Method};

use crate::config;
use crate::idempotency::names::{is_more_specific, may_meet};

/// A path matcher for each method. A path special to a single method is therefore still found by
/// the remaining methods under a wider pattern.
#[derive(Debug, Default)]
pub(crate) struct PathMatcher {
    /// Few entries: a scan is faster than a hash.
    by_method: Vec<(Method, matchit::Router<usize>)>,
    /// The patterns of keyed routes, whatever their methods; each with a route of the pattern.
    keyed: matchit::Router<usize>,
    /// For each route, the patterns of keyed routes that take paths from the route's pattern.
    narrower: Vec<Vec<usize>>,
    /// Paths with several routes for a method.
    choices: Vec<RouteChoice>,
}

/// The routes of a method on a path, of which some have a `when`; as indices.
#[derive(Debug)]
pub(crate) struct RouteChoice {
    /// The route by which the path is found.
    found_by: usize,
    method: Method,
    /// Routes with a `when`.
    pub(crate) conditional: Vec<usize>,
    /// The route for requests that none of these takes.
    pub(crate) otherwise: Option<usize>,
}

/// True for methods that change nothing, `QUERY` included.
pub(crate) fn is_safe(method: &Method) -> bool {
    method.is_safe() || method.as_str() == "QUERY"
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
                // Routes that share a path are told apart by their `when` afterwards.
                let shares = |other: &config::RouteConfig| {
                    other.path == route.path && other.methods.contains(method)
                };
                if routes[..index].iter().any(shares) {
                    continue;
                }
                router
                    .paths_mut(method)
                    .insert(route.path.as_str(), index)
                    .map_err(|error| format!("route {}: {error}", route.name))?;
            }
        }
        router.let_wildcards_match_the_root(routes);
        router.let_keyed_paths_decide_alone(routes)?;
        router.choices = choices(routes);
        Ok(router)
    }

    /// Notes the routes that are wider than a keyed path. An unsafe method of such a path must not
    /// reach them: on the backend it may do what the keyed method does.
    fn let_keyed_paths_decide_alone(
        &mut self,
        routes: &[config::RouteConfig],
    ) -> Result<(), String> {
        let mut patterns: Vec<(&str, usize)> = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let is_new = || patterns.iter().all(|(pattern, _)| *pattern != route.path);
            if !route.is_keyed() || !is_new() {
                continue;
            }
            let inserted = self.keyed.insert(route.path.as_str(), index);
            inserted.map_err(|error| format!("route {}: {error}", route.name))?;
            if route.path.starts_with("/{*") {
                let _ = self.keyed.insert("/", index);
            }
            patterns.push((&route.path, index));
        }
        let narrower = |route: &config::RouteConfig| {
            let takes = |pattern: &str| {
                is_more_specific(pattern, &route.path) && may_meet(pattern, &route.path)
            };
            let taking = patterns.iter().filter(|(pattern, _)| takes(pattern));
            taking.map(|(_, index)| *index).collect()
        };
        self.narrower = routes.iter().map(narrower).collect();
        Ok(())
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

    /// The route for `method` and the normalized `path`. A path with a keyed route decides alone
    /// for unsafe methods: they do not fall through to a wider route.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Matched {
        match self.paths(method).and_then(|paths| self.serving(method, paths, path)) {
            Some(index) => Matched::Route(index),
            None => self.allowed(path).map_or(Matched::NoRoute, Matched::NotAllowed),
        }
    }

    /// The route that serves `method` of the path; `paths` are those of the method.
    fn serving(
        &self,
        method: &Method,
        paths: &matchit::Router<usize>,
        path: &str,
    ) -> Option<usize> {
        let index = *paths.at(path).ok()?.value;
        let narrower = self.narrower.get(index).map_or(&[][..], Vec::as_slice);
        // Few routes are wider than a keyed one, so the second lookup is rare.
        if narrower.is_empty() || is_safe(method) {
            return Some(index);
        }
        let is_taken = |keyed: usize| narrower.contains(&keyed);
        (!self.keyed.at(path).is_ok_and(|keyed| is_taken(*keyed.value))).then_some(index)
    }

    /// The choice for `method` on the path of the route `index`; `None`: the route is alone.
    pub(crate) fn choice(&self, method: &Method, index: usize) -> Option<&RouteChoice> {
        self.choices.iter().find(|choice| choice.found_by == index && choice.method == *method)
    }

    /// The methods that the normalized `path` is configured for; `None`: not for any.
    pub(crate) fn allowed(&self, path: &str) -> Option<HeaderValue> {
        let mut allowed: Vec<&str> = self
            .by_method
            .iter()
            .filter(|(method, paths)| self.serving(method, paths, path).is_some())
            .map(|(method, _)| method.as_str())
            .collect();
        if allowed.is_empty() {
            return None;
        }
        allowed.sort_unstable();
        HeaderValue::from_str(&allowed.join(", ")).ok()
    }
}

/// The choices that routes leave: paths of which some route has a `when`.
fn choices(routes: &[config::RouteConfig]) -> Vec<RouteChoice> {
    let mut choices = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        for method in &route.methods {
            let shares = |at: &usize| {
                routes
                    .get(*at)
                    .is_some_and(|other| other.path == route.path && other.methods.contains(method))
            };
            let beside: Vec<usize> = (0..routes.len()).filter(shares).collect();
            let has_when = |at: &usize| routes.get(*at).is_some_and(|it| !it.when.is_empty());
            if beside.first() != Some(&index) || !beside.iter().any(has_when) {
                continue;
            }
            let (conditional, rest): (Vec<usize>, Vec<usize>) =
                beside.into_iter().partition(has_when);
            let otherwise = rest.first().copied();
            let method = method.clone();
            choices.push(RouteChoice { found_by: index, method, conditional, otherwise });
        }
    }
    choices
}
