//! Headers of a replay that are the request's own, such as correlation ids.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::problem::{Disposition, STATUS};
use crate::proxy::answer::AnswerResult;

/// Header lines of a request that its replay repeats.
pub(super) struct OwnHeaders(Vec<(HeaderName, HeaderValue)>);

impl OwnHeaders {
    /// The lines called `names` of a request's headers.
    pub(super) fn of(names: &[HeaderName], headers: &HeaderMap) -> Self {
        let lines = |name: &HeaderName| {
            let values = headers.get_all(name).into_iter().cloned();
            values.map(|value| (name.clone(), value)).collect::<Vec<_>>()
        };
        Self(names.iter().flat_map(lines).collect())
    }

    /// Puts the lines into a stored answer, in place of those of the request that was executed.
    /// Every other answer stays as it is.
    pub(super) fn into_replay(self, mut answer: AnswerResult) -> AnswerResult {
        if self.0.is_empty() {
            return answer;
        }
        let Ok(response) = &mut answer else { return answer };
        let headers = response.headers_mut();
        let is = |disposition: Disposition| headers.get(STATUS) == Some(&disposition.header());
        if !is(Disposition::Replayed) && !is(Disposition::Recovered) {
            return answer;
        }
        for (name, _) in &self.0 {
            headers.remove(name);
        }
        for (name, value) in self.0 {
            headers.append(name, value);
        }
        answer
    }
}
