//! TLS toward the server: certificate and host name are verified whenever TLS is used.
//!
//! Channel binding (`tls-server-end-point`, RFC 5929) works with certificates signed by RSA or
//! ECDSA with SHA-256 or SHA-384, or by RSA with SHA-512. With other signatures (Ed25519, PSS,
//! ECDSA with SHA-512) SCRAM runs without channel binding, and `channel_binding=require` fails.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

/// TLS stream of a connection.
pub(super) type EncryptedStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// TLS settings of a store's connections.
#[derive(Clone)]
pub(super) struct ServerTls {
    pub(super) connector: MakeRustlsConnect,
    /// Defect of the configured or the system's certificates. Matters only once a server asks for
    /// TLS; until then `connector` trusts no authority, so that every handshake fails.
    defect: Option<String>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("defect", &self.defect).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Settings that trust the authorities in `ca` or, without `ca`, the system's, and present
    /// `client_cert`.
    ///
    /// # Errors
    /// When TLS cannot be set up at all; defects of certificates are left to
    /// [`ServerTls::check`].
    pub(super) fn new(
        ca: Option<&Path>,
        client_cert: Option<(&Path, &Path)>,
    ) -> Result<Self, String> {
        let (mut config, defect) = match crate::net::tls::bare_client(ca, client_cert) {
            Ok(config) => (config, None),
            Err(defect) => (without_authorities()?, Some(defect)),
        };
        // Required by servers that expect TLS from the first byte; ignored by all the rest.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self { connector: MakeRustlsConnect::new(config), defect })
    }

    /// Checks the certificates.
    ///
    /// # Errors
    /// The defective file, the defect and the remedy.
    pub(super) fn check(&self) -> Result<(), String> {
        self.defect.clone().map_or(Ok(()), Err)
    }
}

fn without_authorities() -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}
