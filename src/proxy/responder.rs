//! Telling everybody, once: the client that came first and the duplicates that wait.

use http::HeaderName;
use tokio::sync::oneshot;

use super::answer::AnswerResult;
use super::inflight::Lead;
use super::reply::Reply;
use crate::problem::Problem;

/// The duty to tell what came of a call.
pub(crate) struct Responder {
    lead: Lead,
    first: oneshot::Sender<AnswerResult>,
    replayed_header: HeaderName,
}

impl Responder {
    pub(crate) fn new(
        lead: Lead,
        first: oneshot::Sender<AnswerResult>,
        replayed_header: HeaderName,
    ) -> Self {
        Self { lead, first, replayed_header }
    }

    /// The call's claim is durable: the key is its own.
    pub(crate) fn claimed(&self) {
        self.lead.claimed();
    }

    /// Tells the duplicates `told`, and the first client `first` or else the same.
    pub(crate) fn tell(self, told: Reply, first: Option<AnswerResult>) {
        let answer = first.unwrap_or_else(|| told.clone().replay(&self.replayed_header));
        // First: a client that has its answer must not find the call still in flight.
        self.lead.conclude(told.again());
        // The first client may have gone; nobody is harmed.
        let _ = self.first.send(answer);
    }

    /// Tells everybody that the call was refused before its claim.
    pub(crate) fn refuse(self, problem: Problem) {
        self.tell(Reply::Refused(problem), None);
    }
}
