//! State of a client connection that outlives a single request.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;

use crate::idempotency::TenantId;
use crate::idempotency::tenant::{CredentialHeaders, TenantMemo};

/// The client at the other end of a connection.
#[derive(Debug)]
pub(in crate::proxy) struct Peer {
    pub(in crate::proxy) ip: IpAddr,
    /// The last tenant and its headers: most connections belong to a single tenant, so its digest
    /// is computed once.
    tenant: Mutex<TenantMemo>,
}

impl Peer {
    pub(super) fn new(ip: IpAddr) -> Self {
        Self { ip, tenant: Mutex::default() }
    }

    /// The tenant of a request on this connection.
    pub(in crate::proxy) fn tenant(
        &self,
        names: &CredentialHeaders,
        headers: &HeaderMap,
    ) -> TenantId {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner).of(names, headers)
    }
}
