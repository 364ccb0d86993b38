//! Memory cache of the replies to batches whose items are all done.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::clock::Timestamp;
use crate::idempotency::RecordId;
use crate::idempotency::id::BuildIdHasher;

/// Largest cached reply in bytes; a larger reply would evict hundreds of small replies.
const MAX_REPLY: usize = 256 << 10;

/// Approximate cost of an entry beside the body.
const OVERHEAD: usize = 512;

/// Reply to a batch once all of its items are done.
#[derive(Debug)]
pub(crate) struct BatchReply {
    pub(crate) status: u16,
    /// Header lines of the backend's last answer.
    pub(crate) headers: HeaderMap,
    /// JSON body.
    pub(crate) body: Bytes,
    /// Number of items.
    pub(crate) items: usize,
    /// Record of the first item.
    pub(crate) first: Option<RecordId>,
    /// End of the retention of the whole reply, for the `Idempotency-Expires` header.
    pub(crate) kept_until: Option<Timestamp>,
    /// Earliest expiry among the records. From then on the reply has to be rendered anew.
    pub(crate) holds_until: Option<Timestamp>,
    /// Generation of the record cache before the records were read. The reply does not name its
    /// records, so any later purge invalidates the reply.
    pub(crate) generation: u64,
}

impl BatchReply {
    /// Approximate bytes of memory.
    fn bytes(&self) -> usize {
        let lines = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        OVERHEAD + self.body.len() + lines.sum::<usize>()
    }
}

/// Replies by a digest of all inputs besides the records: route, tenant, path parameters and body.
pub(crate) struct BatchCache {
    replies: Cache<RecordId, Arc<BatchReply>, BuildIdHasher>,
}

impl std::fmt::Debug for BatchCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchCache").finish_non_exhaustive()
    }
}

impl BatchCache {
    /// A cache of at most about `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Self {
        let weight = |_: &RecordId, reply: &Arc<BatchReply>| {
            u32::try_from(reply.bytes()).unwrap_or(u32::MAX)
        };
        let replies = Cache::builder()
            .max_capacity(capacity)
            .weigher(weight)
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(BuildIdHasher::default());
        Self { replies }
    }

    /// The reply under `digest`, if still valid at `now` and if no record was purged since the
    /// read.
    pub(crate) fn get(
        &self,
        digest: &RecordId,
        now: Timestamp,
        generation: u64,
    ) -> Option<Arc<BatchReply>> {
        let reply = self.replies.get(digest)?;
        let due = reply.holds_until.is_some_and(|end| end <= now);
        (!due && reply.generation == generation).then_some(reply)
    }

    /// Caches a reply, unless too large.
    pub(crate) fn put(&self, digest: RecordId, reply: Arc<BatchReply>) {
        if reply.bytes() <= MAX_REPLY {
            self.replies.insert(digest, reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::samples;

    fn reply(size: usize, holds_until: Option<Timestamp>) -> Arc<BatchReply> {
        let body = vec![b' '; size].into();
        Arc::new(BatchReply {
            status: 200,
            headers: HeaderMap::new(),
            body,
            items: 1,
            first: None,
            kept_until: holds_until,
            holds_until,
            generation: 1,
        })
    }

    #[test]
    fn a_reply_holds_until_a_record_expires_or_is_dropped() {
        let (cache, name) = (BatchCache::new(1 << 20), samples::id(1));
        let later = samples::T0.saturating_add(Duration::from_millis(1));
        cache.put(name, reply(2, Some(later)));
        let kept = cache.get(&name, samples::T0, 1).expect("not due");
        assert_eq!(&*kept.body, b"  ");
        assert!(cache.get(&name, later, 1).is_none());
        cache.put(name, reply(2, None));
        assert!(cache.get(&name, later, 1).is_some());
        assert!(cache.get(&name, later, 2).is_none(), "a record was dropped");
        cache.put(samples::id(3), reply(MAX_REPLY, None));
        assert!(cache.get(&samples::id(3), later, 1).is_none(), "too large");
    }
}
