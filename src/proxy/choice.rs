//! The choice between routes on one path that are told apart by `when`.
//!
//! The body is read before the choice only where some `when` looks at it. A request that two routes
//! would take is refused, and so is one whose body cannot be read where a `when` looks for a value:
//! the route that takes the rest may be one without keys.

use std::sync::Arc;

use http::request;

use super::incoming::RequestBody;
use super::request::read::read_whole;
use super::routes::RouteChoice;
use super::routing::{Route, Routing};
use super::state::Gateway;
use crate::content_coding::decoded;
use crate::matcher::{
    self, HeaderView, MatchBody, MatchInput, MatchPlace, Matcher, ParsedBody, Truth,
};
use crate::place::BodyFormat;
use crate::problem::{Problem, Slug};

/// Chooses the route of a request, and returns the body as far as it had to be read. `None`: no
/// route takes the request.
///
/// # Errors
/// The body could not be read, or the request can be read as one of several operations.
pub(crate) async fn choose<'r>(
    gateway: &Gateway,
    routing: &'r Routing,
    choice: &RouteChoice,
    head: &request::Parts,
    body: RequestBody,
) -> Result<(Option<&'r Arc<Route>>, RequestBody), Problem> {
    let (headers, query) = (HeaderView::Map(&head.headers), head.uri.query());
    let route = |at: &usize| routing.each().nth(*at).map(|(_, route)| route);
    let candidates = Candidates {
        conditional: choice.conditional.iter().filter_map(route).collect(),
        otherwise: choice.otherwise.as_ref().and_then(route),
    };
    let matchers = || candidates.conditional.iter().flat_map(|route| &route.when);
    if !matchers().any(Matcher::looks_at_body) {
        let input = MatchInput::request(headers, query, MatchBody::Unseen);
        return Ok((candidates.route(&input, &|_| true)?, body));
    }
    let routes = &candidates.conditional;
    let most = routes.iter().map(|route| route.max_buffered).max().unwrap_or(0);
    let time = routes.iter().map(|route| route.body_timeout).max().unwrap_or_default();
    let (bytes, reservation) = match body {
        RequestBody::Read(bytes, reservation) => (bytes, reservation),
        RequestBody::Streaming(body) => {
            // The trailers are gone when the route is chosen.
            let all = routes.iter().chain(&candidates.otherwise);
            let keys: Vec<_> = all.flat_map(|route| &route.key_headers).cloned().collect();
            read_whole(gateway, (most, time), body, &keys).await?
        }
    };
    let content = decoded(&head.headers, &bytes, most);
    let parsed = ParsedBody::new(content.as_deref().unwrap_or_default());
    let whole = if content.is_ok() { MatchBody::Whole(&parsed) } else { MatchBody::Unseen };
    let input = MatchInput::request(headers, query, whole);
    let is_doubtful = |matcher: &Matcher| {
        let claims = |format| matcher.reads(format) && claims(format, head, parsed.bytes());
        let reads_query = matcher
            .conditions
            .iter()
            .any(|condition| matches!(condition.place, MatchPlace::Query(_)));
        content.is_err()
            || reads_query
            || [BodyFormat::Json, BodyFormat::Form, BodyFormat::Xml].into_iter().any(claims)
    };
    let route = candidates.route(&input, &is_doubtful)?;
    Ok((route, RequestBody::Read(bytes, reservation)))
}

/// Reports a body that the backend may be able to read in this form.
fn claims(format: BodyFormat, head: &request::Parts, body: &[u8]) -> bool {
    let is_list = format == BodyFormat::Json && body.trim_ascii_start().first() == Some(&b'[');
    !body.is_empty() && (is_list || format.is_claimed(&head.headers, body))
}

/// The routes to choose from.
struct Candidates<'r> {
    conditional: Vec<&'r Arc<Route>>,
    /// The route for requests that none of these takes.
    otherwise: Option<&'r Arc<Route>>,
}

impl<'r> Candidates<'r> {
    /// The route of a request. `is_doubtful`: a matcher that could not decide may have to.
    fn route(
        &self,
        input: &MatchInput<'_, '_>,
        is_doubtful: &dyn Fn(&Matcher) -> bool,
    ) -> Result<Option<&'r Arc<Route>>, Problem> {
        let mut taking = self.conditional.iter().filter(|route| matcher::any(&route.when, input));
        match (taking.next(), taking.next()) {
            (Some(route), None) => Ok(Some(*route)),
            (Some(_), Some(_)) => Err(Problem::new(
                Slug::RequestInvalid,
                "This request can be read as one of several operations. Nothing was sent.",
            )
            .close()),
            (None, _) => {
                let undecided = |matcher: &&Matcher| {
                    matcher.truth(input) == Truth::Undecided && is_doubtful(matcher)
                };
                if self.conditional.iter().flat_map(|route| &route.when).any(|it| undecided(&it)) {
                    return Err(Problem::new(
                        Slug::BodyInvalid,
                        "The body cannot be read where it says which operation is meant. Nothing \
                         was sent.",
                    )
                    .close());
                }
                Ok(self.otherwise)
            }
        }
    }
}
