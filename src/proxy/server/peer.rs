//! What a connection keeps of its client from one request to the next.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName};

use super::timer::ClientTimer;
use crate::idempotency::TenantId;
use crate::idempotency::tenant::TenantMemo;

/// The client at the other end of a connection.
#[derive(Debug)]
pub(in crate::proxy) struct Client {
    pub(in crate::proxy) ip: IpAddr,
    pub(in crate::proxy) timer: ClientTimer,
    tenant: Mutex<TenantMemo>,
}

impl Client {
    pub(in crate::proxy) fn new(ip: IpAddr, timer: ClientTimer) -> Self {
        Self { ip, timer, tenant: Mutex::default() }
    }

    /// The tenant of a request on this connection.
    pub(in crate::proxy) fn tenant(&self, names: &[HeaderName], headers: &HeaderMap) -> TenantId {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner).of(names, headers)
    }
}
