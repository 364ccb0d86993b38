//! Refusals of the page.

use http::{Response, StatusCode};

use crate::admin::error::ApiError;
use crate::body::Body;

/// A refusal, shown as a page.
pub(super) struct PageError {
    pub(super) status: StatusCode,
    /// A sentence for the operator.
    pub(super) what: String,
}

/// Answer of a page.
pub(super) type PageResult = Result<Response<Body>, PageError>;

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        Self { status: error.status, what: error.detail.into_owned() }
    }
}

impl PageError {
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> Self {
        Self { status, what: what.into() }
    }
}
