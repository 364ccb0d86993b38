//! State of a client connection that outlives a single request.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;

use crate::idempotency::TenantId;
use crate::idempotency::tenant::{CredentialHeaders, TenantMemo};
use crate::listen_address::PeerSet;
use crate::net::tls_server::{ClientCertificate, ListenerTls};

/// The address at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress {
    /// `None`: a client behind a Unix socket.
    pub(crate) ip: Option<IpAddr>,
    /// A proxy whose forwarding headers are believed (`[server] trusted_proxies`).
    pub(crate) is_trusted: bool,
    /// The client's connection is encrypted.
    pub(crate) is_secure: bool,
}

/// The client at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    ip: Option<IpAddr>,
    is_secure: bool,
    /// The verified certificate that the client has shown.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// The last tenant and its headers: most connections belong to a single tenant, so its digest
    /// is computed once.
    tenant: Mutex<TenantMemo>,
}

impl Peer {
    /// The client at `ip`. `secured`: the certificate on an encrypted connection; `None`: the
    /// connection is not encrypted.
    pub(super) fn new(ip: Option<IpAddr>, secured: Option<Option<Arc<ClientCertificate>>>) -> Self {
        let is_secure = secured.is_some();
        Self { ip, is_secure, certificate: secured.flatten(), tenant: Mutex::default() }
    }

    /// The address at the other end of the connection; `None`: a Unix socket.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The client's address, trusted as the present configuration says.
    pub(crate) fn address(&self, trusted: &PeerSet) -> ClientAddress {
        let is_trusted = trusted.contains(self.ip);
        ClientAddress { ip: self.ip, is_trusted, is_secure: self.is_secure }
    }

    /// Returns true if a new connection of this client would be accepted with the certificates of
    /// `tls`.
    pub(super) fn is_admitted(&self, tls: Option<&ListenerTls>) -> bool {
        match tls {
            Some(tls) => self.is_secure && tls.admits(self.certificate.as_deref()),
            None => true,
        }
    }

    /// The tenant of a request on this connection.
    pub(crate) fn tenant(&self, names: &CredentialHeaders, headers: &HeaderMap) -> TenantId {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner).of(names, headers)
    }
}
