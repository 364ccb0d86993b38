//! The JSON document of RFC 9457, the same for clients and operators.

use http::StatusCode;
use serde_json::{Value, json};

/// Media type of the document.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// Members of a problem document (RFC 9457 section 3.1).
#[derive(Debug)]
pub(crate) struct ProblemMembers<'a> {
    /// `type`: a URI reference.
    pub(crate) kind: &'a str,
    pub(crate) title: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) detail: &'a str,
    /// `code`: the name that programs match on, an extension.
    pub(crate) code: &'a str,
}

/// Writes the document; `instance` names this occurrence, in the document and in the log.
pub(crate) fn document(members: &ProblemMembers<'_>, instance: uuid::Uuid) -> Value {
    json!({
        "type": members.kind,
        "title": members.title,
        "status": members.status.as_u16(),
        "detail": members.detail,
        "instance": instance.urn().to_string(),
        "code": members.code,
    })
}
