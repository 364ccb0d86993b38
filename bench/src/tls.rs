//! TLS of the benchmark: a certificate for every server, and clients that trust it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, NamedGroup, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Failure;

/// Files of the certificate and its key, below the temporary directory.
pub(crate) const CERT: &str = "server.crt";
pub(crate) const KEY: &str = "server.key";

/// A certificate that all servers show (ECDSA over P-256).
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one and writes it to `tmp`.
    pub(crate) fn write(tmp: &Path) -> Result<Self, Failure> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        std::fs::write(tmp.join(CERT), cert.pem())?;
        std::fs::write(tmp.join(KEY), key.serialize_pem())?;
        Ok(Self { der: cert.der().clone() })
    }

    /// A client that resumes sessions as libraries do.
    pub(crate) fn client(&self, protocol: &str) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(config)
    }
}

/// A TCP connection with TLS.
pub(crate) async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
}

/// The latest ticket of a server, for a client that shakes hands and asks nothing.
pub(crate) struct Tickets {
    /// Sessions are resumed.
    resumes: bool,
    ticket: Mutex<Option<Tls13ClientSessionValue>>,
    arrived: Notify,
    others: ClientSessionMemoryCache,
}

impl Tickets {
    /// Gives `config` a store of its own.
    pub(crate) fn of(config: &ClientConfig, resumes: bool) -> (Arc<ClientConfig>, Arc<Self>) {
        let tickets = Arc::new(Self {
            resumes,
            ticket: Mutex::default(),
            arrived: Notify::new(),
            others: ClientSessionMemoryCache::new(1),
        });
        let mut config = config.clone();
        config.resumption = Resumption::store(Arc::<Self>::clone(&tickets));
        (Arc::new(config), tickets)
    }

    /// Reads until a ticket is there: the server has then done its part of the handshake.
    pub(crate) async fn wait<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Result<(), Failure> {
        while self.lock().is_none() {
            let mut byte = [0];
            tokio::select! {
                read = stream.read(&mut byte) => return Err(format!("no ticket: {read:?}").into()),
                () = self.arrived.notified() => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tls13ClientSessionValue>> {
        self.ticket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.others.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.others.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.others.set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.others.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.others.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        *self.lock() = Some(value);
        self.arrived.notify_one();
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().take().filter(|_| self.resumes)
    }
}
