//! State of a client connection that outlives a single request.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use http::HeaderMap;

use crate::idempotency::TenantId;
use crate::idempotency::tenant::{CredentialHeaders, TenantMemo};
use crate::ip_network::Network;

/// The address at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress {
    pub(crate) ip: IpAddr,
    /// A proxy whose forwarding headers are believed (`[server] trusted_proxies`).
    pub(crate) is_trusted: bool,
}

/// The client at the other end of a connection.
#[derive(Debug)]
pub(in crate::proxy) struct Peer {
    pub(in crate::proxy) address: ClientAddress,
    /// The last tenant and its headers: most connections belong to a single tenant, so its digest
    /// is computed once.
    tenant: Mutex<TenantMemo>,
}

impl Peer {
    pub(super) fn new(ip: IpAddr, trusted: &[Network]) -> Self {
        let is_trusted = trusted.iter().any(|network| network.contains(ip));
        Self { address: ClientAddress { ip, is_trusted }, tenant: Mutex::default() }
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
