//! Requests that come a second time under the name of another caller.
//!
//! Where callers are named by their `authorization` header as it is, whoever renews a token is
//! another caller, whose keys are new: a retry under the new token runs again. A gateway cannot
//! tell this from two callers with one key and one request, so it executes both, and says so.

use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use moka::sync::Cache;
use xxhash_rust::xxh3::Xxh3;

use super::routing::Route;
use crate::idempotency::TenantId;
use crate::nonce;
use crate::observe::repeated::Repeated;

static OTHER_CALLER: Repeated = Repeated::new("one request came from two callers");

/// Time for which a request is remembered: longer than the validity of most tokens.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Requests remembered at most; the oldest give way.
const MOST_REQUESTS: u64 = 50_000;

/// The callers of the latest executed requests.
#[derive(Debug)]
pub(crate) struct CallerMemory {
    callers: Cache<RequestDigest, TenantId>,
    /// Secret start of every digest: nobody can find a request with the digest of another.
    seed: u64,
}

/// Digest of a request and its key, without its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RequestDigest(u128);

impl CallerMemory {
    pub(crate) fn new() -> Self {
        let callers = Cache::builder().max_capacity(MOST_REQUESTS).time_to_live(REMEMBERED);
        Self { callers: callers.build(), seed: nonce::number() }
    }

    /// The digest of a request with these parts, its key among them; `None`: no token names its
    /// caller.
    pub(crate) fn digest(
        &self,
        route: &Route,
        headers: &HeaderMap,
        parts: &[&[u8]],
    ) -> Option<RequestDigest> {
        (route.is_named_by_token && headers.contains_key(AUTHORIZATION))
            .then(|| self.digest_of(parts))
    }

    fn digest_of(&self, parts: &[&[u8]]) -> RequestDigest {
        let mut hash = Xxh3::with_seed(self.seed);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        RequestDigest(hash.digest128())
    }

    /// Notes that a request was claimed for `caller`, and tells operators when another caller had
    /// it before. `None`: no token names the caller.
    pub(crate) fn claimed(&self, request: Option<RequestDigest>, caller: TenantId, route: &Route) {
        let Some(request) = request else { return };
        if !self.is_anothers(request, caller) {
            return;
        }
        route.metrics.other_caller();
        if let Some(times) = OTHER_CALLER.occur() {
            tracing::warn!(
                route = &*route.name,
                times,
                "a request with the same key came from another caller within an hour and was sent \
                 again; if the caller only renewed a token, name callers by a credential that stays"
            );
        }
    }

    /// Notes the caller of a request; true if another caller had it before.
    fn is_anothers(&self, request: RequestDigest, caller: TenantId) -> bool {
        let before = self.callers.get(&request);
        if before != Some(caller) {
            self.callers.insert(request, caller);
        }
        before.is_some_and(|before| before != caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_caller_of_the_same_request_is_told() {
        let memory = CallerMemory::new();
        let (one, two) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let request = memory.digest_of(&[b"key", b"body"]);
        assert_ne!(request, memory.digest_of(&[b"keyb", b"ody"]));
        assert!(!memory.is_anothers(request, one));
        assert!(!memory.is_anothers(request, one));
        assert!(memory.is_anothers(request, two));
        assert!(!memory.is_anothers(request, two));
        assert!(!memory.is_anothers(memory.digest_of(&[b"key", b"other"]), one));
    }
}
