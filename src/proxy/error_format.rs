//! The form of a route's own errors: the dialect of its profile, and what `[route.errors]` puts in
//! its place.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};

use crate::body::{Body, full};
use crate::clock::Timestamp;
use crate::config::ErrorReplacement;
use crate::observe::exchange;
use crate::observe::request_id::RequestId;
use crate::place::{Place, RequestValues};
use crate::problem::{Dialect, Problem, Slug};
use crate::template::{Field, FieldValue, FieldValues, Template, TimeBase};

/// The form of a route's own errors.
#[derive(Debug, Default)]
pub(crate) struct ErrorFormat {
    pub(crate) dialect: Dialect,
    pub(crate) replacements: Vec<ErrorReplacement>,
}

/// The parts of a request that a replacement may show. Taken before the request is passed on, and
/// only on routes with a replacement that shows one.
pub(crate) struct ShownRequest {
    headers: HeaderMap,
    query: Option<String>,
    parameters: Vec<(String, String)>,
}

impl ErrorFormat {
    /// Takes the parts that may be shown; `parameters` are those of the path.
    pub(crate) fn shown(
        &self,
        head: &Parts,
        parameters: impl FnOnce() -> Vec<(String, String)>,
    ) -> Option<ShownRequest> {
        let shows =
            |template: &Template| template.fields().any(|field| matches!(field, Field::Place(_)));
        let is_shown = self.replacements.iter().any(|replacement| {
            replacement.body.iter().any(|(body, _)| shows(body))
                || replacement.headers.iter().any(|(_, value)| shows(value))
        });
        is_shown.then(|| ShownRequest {
            headers: head.headers.clone(),
            query: head.uri.query().map(str::to_owned),
            parameters: parameters(),
        })
    }

    /// The problem with the status that the route gives it, so that a document that names its own
    /// status agrees with the answer that carries it.
    pub(crate) fn restated<'a>(&self, problem: &'a Problem) -> Cow<'a, Problem> {
        match self.replacement(problem.slug).and_then(|replacement| replacement.status) {
            Some(status) => Cow::Owned(problem.clone().status(status)),
            None => Cow::Borrowed(problem),
        }
    }

    fn replacement(&self, slug: Slug) -> Option<&ErrorReplacement> {
        self.replacements.iter().find(|replacement| replacement.slug == slug)
    }

    /// Puts the replacement for a problem, if there is one, into the answer in the dialect. A part
    /// whose fields have no value stays as the dialect has it.
    pub(crate) fn replace(
        &self,
        problem: &Problem,
        request: Option<&ShownRequest>,
        response: &mut Response<Body>,
    ) {
        let Some(replacement) = self.replacement(problem.slug) else {
            return;
        };
        let values = ProblemValues { problem, request };
        if let Some(status) = replacement.status {
            *response.status_mut() = status;
        }
        let body = replacement.body.as_ref();
        if let Some((text, media_type)) =
            body.and_then(|(body, media_type)| Some((body.render(&values).ok()?, *media_type)))
        {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            *response.body_mut() = full(text);
        }
        for (name, value) in &replacement.headers {
            let value =
                value.render(&values).ok().and_then(|text| HeaderValue::try_from(text).ok());
            if let Some(value) = value {
                response.headers_mut().insert(name.clone(), value);
            }
        }
    }
}

/// The values of the fields for one problem.
struct ProblemValues<'a> {
    problem: &'a Problem,
    request: Option<&'a ShownRequest>,
}

impl FieldValues for ProblemValues<'_> {
    fn value(&self, field: &Field) -> Option<FieldValue> {
        let text = match field {
            Field::Name("detail") => self.problem.detail.to_string(),
            Field::Name("code") => self.problem.slug.as_str().to_owned(),
            Field::Name("request_id") => exchange::with_request_id(RequestId::to_string),
            Field::Place(place) => {
                let (place, request) = (Place::parse(place).ok()?, self.request?);
                let query = request.query.as_deref();
                let values = RequestValues::new(&request.headers, query, &request.parameters, &[]);
                values.text(&place).ok()??.into_owned()
            }
            _ => return None,
        };
        Some(FieldValue::Text(text))
    }

    fn time(&self, base: TimeBase) -> Option<Timestamp> {
        match base {
            TimeBase::Now => Some(crate::clock::now()),
            TimeBase::FirstSeen | TimeBase::DispatchedAt => None,
        }
    }
}
