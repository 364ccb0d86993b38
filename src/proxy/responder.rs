//! Delivery of a reply, exactly once, to the first client and to the waiting duplicates.

use http::HeaderName;
use tokio::sync::oneshot;

use super::answer::AnswerResult;
use super::inflight::Lead;
use super::reply::Reply;
use crate::problem::Problem;

/// The duty to deliver the reply of a keyed request.
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

    /// Marks the claim as durable: from now on the key belongs to the request.
    pub(crate) fn claimed(&self) {
        self.lead.claimed();
    }

    /// Sends `reply` to the duplicates, and `first` (default: `reply` as well) to the first client.
    pub(crate) fn respond(self, reply: Reply, first: Option<AnswerResult>) {
        let answer = first.unwrap_or_else(|| reply.clone().replay(&self.replayed_header));
        // The flight ends before the first client is answered: a client with an answer in hand must
        // not find its request still in flight.
        self.lead.conclude(reply.for_duplicates());
        // A failed send means a disconnected client; the record is durable all the same.
        let _ = self.first.send(answer);
    }

    /// Sends a refusal from before the claim to the first client and to the duplicates.
    pub(crate) fn refuse(self, problem: Problem) {
        self.respond(Reply::Refused(problem), None);
    }
}
