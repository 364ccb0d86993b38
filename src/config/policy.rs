//! The policies for unknown outcomes, as the gateway uses them.

use std::time::Duration;

use http::{HeaderName, Method};
use serde::{Serialize, Serializer};

use super::shown;
use super::template::HeaderTemplates;
use crate::json::Pointer;
use crate::matcher::Matcher;
use crate::template::{Field, Template};

/// `on_unknown` with the table of its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// Wait for an operator.
    Hold,
    /// Ask the backend.
    Probe(Box<ProbeRules>),
    /// Send again on a client's retry.
    Resend(Box<ResendRules>),
    /// Undo the call.
    Reverse(Box<ReverseRules>),
}

/// A request that the gateway makes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestTemplate {
    /// The method.
    #[serde(serialize_with = "shown::text")]
    pub method: Method,
    /// The target.
    #[serde(serialize_with = "shown::target")]
    pub path: Template,
    /// The headers, beside those that the gateway sets.
    pub headers: HeaderTemplates,
    /// The body.
    #[serde(serialize_with = "shown::own_body")]
    pub body: Option<Template>,
}

/// A response that is replayed once the outcome is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResponseTemplate {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderTemplates,
    /// The body.
    pub body: Option<Template>,
}

/// `[route.probe]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeRules {
    /// The question.
    #[serde(flatten)]
    pub request: RequestTemplate,
    /// Headers taken from the client's retry; with any, probes run on retries only.
    #[serde(serialize_with = "shown::texts")]
    pub forward: Vec<HeaderName>,
    /// Time from the dispatch to the first probe.
    #[serde(serialize_with = "shown::time")]
    pub min_age: Duration,
    /// Time between the first and the second probe; later pauses grow.
    #[serde(serialize_with = "shown::time")]
    pub every: Duration,
    /// Time from the unknown outcome after which nobody asks any more.
    #[serde(serialize_with = "shown::time")]
    pub give_up_after: Duration,
    /// Probes of the route at once.
    pub concurrency: usize,
    /// The list in the answer; `None`: the answer is a single object.
    #[serde(flatten)]
    pub list: Option<ListRules>,
    /// Matchers of the object or row that prove an execution.
    pub executed: Vec<Matcher>,
    /// Matchers of the object or row that prove that there was no execution.
    pub not_executed: Vec<Matcher>,
    /// Matchers of the object or row of an undecided request.
    pub pending: Vec<Matcher>,
    /// The response to replay after an execution.
    pub response: Option<ResponseTemplate>,
    /// The conditions under which absence is evidence.
    pub absent: Option<AbsenceRules>,
    /// `[route.already_done]`
    pub already_done: Option<AlreadyDoneRules>,
}

/// The rows of a probe's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListRules {
    /// Place of the array.
    pub rows: Pointer,
    /// Members that a matching row has.
    #[serde(rename = "match", serialize_with = "as_map")]
    pub members: Vec<(Pointer, Template)>,
    /// Time window of a matching row.
    pub window: Option<WindowRules>,
    /// The way to the next page.
    pub next: Option<NextPage>,
    /// Pages read at most.
    pub max_pages: usize,
}

/// A time window around the dispatch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowRules {
    /// Place of the row's time.
    pub at: Pointer,
    /// Start of the window before the dispatch.
    #[serde(serialize_with = "shown::time")]
    pub before: Duration,
    /// End of the window after the dispatch.
    #[serde(serialize_with = "shown::time")]
    pub after: Duration,
}

/// The way from a page to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NextPage {
    /// A member of the answer is the value of a parameter of the next request.
    Query {
        /// Place of the value; absent, null or empty on the last page.
        pointer: Pointer,
        /// Name of the parameter.
        query: String,
    },
    /// `Link: <…>; rel="next"`.
    Link {
        /// Always true.
        link: bool,
    },
}

/// The conditions under which absence proves that the call was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AbsenceRules {
    /// Time after the end of the call's own timeout from which absence counts.
    #[serde(serialize_with = "shown::time")]
    pub after: Duration,
    /// Sightings of absence needed.
    pub sightings: u32,
    /// Time from the dispatch for which the backend lists a call.
    #[serde(serialize_with = "shown::time")]
    pub look_back: Duration,
    /// A path that answers 2xx while the backend works.
    #[serde(serialize_with = "shown::target")]
    pub control: Template,
}

/// `[route.resend]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResendRules {
    /// The backend's memory, from the first dispatch.
    #[serde(serialize_with = "shown::time")]
    pub within: Duration,
    /// Repetitions at most.
    pub attempts: u32,
    /// Time from a dispatch to the next repetition.
    #[serde(serialize_with = "shown::time")]
    pub min_age: Duration,
    /// Marks of a repetition.
    pub mark: RepeatMark,
    /// `[route.already_done]`
    pub already_done: Option<AlreadyDoneRules>,
}

/// Marks of a repeated request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepeatMark {
    /// A header to set.
    #[serde(serialize_with = "as_header")]
    pub header: Option<(HeaderName, http::HeaderValue)>,
    /// Members of the JSON body to set: a pointer and a JSON text.
    #[serde(serialize_with = "as_values")]
    pub body: Vec<(Pointer, String)>,
}

/// `[route.already_done]`: a refusal that proves that an earlier try was executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlreadyDoneRules {
    /// The refusal.
    #[serde(rename = "match")]
    pub matchers: Vec<Matcher>,
    /// The consequence.
    pub then: AlreadyDone,
    /// The response to replay.
    pub response: Option<ResponseTemplate>,
}

/// The consequence of an already-done refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlreadyDone {
    /// The request was executed.
    Succeed,
    /// The outcome stays unknown.
    Hold,
}

/// `[route.reverse]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReverseRules {
    /// The reversal.
    #[serde(flatten)]
    pub request: RequestTemplate,
    /// Time from the dispatch to the reversal, at least.
    #[serde(serialize_with = "shown::time")]
    pub min_age: Duration,
    /// Time between the first and the second reversal; later pauses grow.
    #[serde(serialize_with = "shown::time")]
    pub every: Duration,
    /// Matchers of an answer that acknowledges the reversal.
    pub done: Vec<Matcher>,
    /// Matchers of an answer that says that there was nothing to reverse.
    pub nothing: Vec<Matcher>,
    /// The state of the key afterwards.
    pub then: AfterReversal,
    /// The response to replay with `then = "fail"`.
    pub response: Option<ResponseTemplate>,
}

/// The state of a key after the reversal of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterReversal {
    /// The key is free: a retry is executed.
    Release,
    /// A retry reads that the request was reversed.
    Fail,
}

impl UnknownPolicy {
    /// The rules for a refusal that proves that an earlier attempt was executed.
    pub fn already_done(&self) -> Option<&AlreadyDoneRules> {
        match self {
            Self::Hold | Self::Reverse(_) => None,
            Self::Probe(rules) => rules.already_done.as_ref(),
            Self::Resend(rules) => rules.already_done.as_ref(),
        }
    }

    /// The name of the policy.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Probe(_) => "probe",
            Self::Resend(_) => "resend",
            Self::Reverse(_) => "reverse",
        }
    }

    /// The fields whose values have to be kept with the claim, each once.
    pub fn kept_fields(&self) -> Vec<Field> {
        let mut kept: Vec<Field> = Vec::new();
        for field in self.templates().into_iter().flat_map(Template::fields) {
            if field.kept_name().is_some() && !kept.contains(field) {
                kept.push(field.clone());
            }
        }
        kept
    }

    /// Every template of the policy.
    fn templates(&self) -> Vec<&Template> {
        let mut all: Vec<&Template> = Vec::new();
        match self {
            Self::Hold => {}
            Self::Probe(rules) => {
                rules.request.collect(&mut all);
                all.extend(rules.list.iter().flat_map(|list| list.members.iter().map(|it| &it.1)));
                all.extend(rules.absent.as_ref().map(|absent| &absent.control));
                collect_response(rules.response.as_ref(), &mut all);
                collect_already_done(rules.already_done.as_ref(), &mut all);
            }
            Self::Resend(rules) => {
                collect_already_done(rules.already_done.as_ref(), &mut all);
            }
            Self::Reverse(rules) => {
                rules.request.collect(&mut all);
                collect_response(rules.response.as_ref(), &mut all);
            }
        }
        all
    }
}

impl RequestTemplate {
    fn collect<'t>(&'t self, all: &mut Vec<&'t Template>) {
        all.push(&self.path);
        all.extend(self.headers.0.iter().map(|(_, value)| value));
        all.extend(&self.body);
    }
}

fn collect_already_done<'t>(done: Option<&'t AlreadyDoneRules>, all: &mut Vec<&'t Template>) {
    collect_response(done.and_then(|done| done.response.as_ref()), all);
}

fn collect_response<'t>(response: Option<&'t ResponseTemplate>, all: &mut Vec<&'t Template>) {
    let Some(response) = response else { return };
    all.extend(response.headers.0.iter().map(|(_, value)| value));
    all.extend(&response.body);
}

/// The policy for programs: its name, and its table under its name.
impl Serialize for UnknownPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("on_unknown", self.as_str())?;
        match self {
            Self::Hold => {}
            Self::Probe(rules) => map.serialize_entry("probe", rules)?,
            Self::Resend(rules) => map.serialize_entry("resend", rules)?,
            Self::Reverse(rules) => map.serialize_entry("reverse", rules)?,
        }
        map.end()
    }
}

fn as_map<S: Serializer>(members: &[(Pointer, Template)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(members.iter().map(|(pointer, template)| (pointer.to_string(), template)))
}

fn as_values<S: Serializer>(members: &[(Pointer, String)], to: S) -> Result<S::Ok, S::Error> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    to.collect_map(members.iter().map(|(pointer, text)| (pointer.to_string(), value(text))))
}

fn as_header<S: Serializer>(
    header: &Option<(HeaderName, http::HeaderValue)>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let shown = header.as_ref();
    shown.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).serialize(to)
}
