//! Who a key belongs to: a digest of the caller's credentials (`[tenant] headers`).

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::record::first_16;

/// A digest of the values of the tenant headers. The credentials themselves are never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TenantId([u8; 16]);

impl TenantId {
    /// The tenant of a request. Absent, empty and repeated headers are three different callers.
    pub fn of(names: &[HeaderName], headers: &HeaderMap) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"oncegate/tenant/1\0");
        for name in names {
            hash.update((name.as_str().len() as u64).to_le_bytes());
            hash.update(name.as_str());
            for value in headers.get_all(name) {
                hash.update([1]);
                hash.update((value.len() as u64).to_le_bytes());
                hash.update(value);
            }
            hash.update([0]);
        }
        Self(first_16(&hash.finalize()))
    }

    /// An id read back from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
