//! TLS toward clients: the gateway's certificate, and the verification of clients' certificates.
//!
//! Files are read when a configuration is loaded. The result is immutable: a reload builds another
//! one and replaces the whole, so that certificate, key and client authorities always belong
//! together.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::tls::{HTTP1, HTTP2, certificates_of, key_of, roots_of};

/// Protocols for HTTP, the preferred first.
const ALPN: [&[u8]; 2] = [HTTP2, HTTP1];

/// Files of a listener with TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerTlsFiles<'a> {
    /// PEM file of the certificate chain.
    pub(crate) cert: &'a Path,
    /// PEM file of the private key.
    pub(crate) key: &'a Path,
    /// PEM file of the authorities of clients.
    pub(crate) client_ca: Option<&'a Path>,
    /// Refuses clients without a certificate.
    pub(crate) requires_client: bool,
}

/// The settings of a listener with TLS.
pub(crate) struct ListenerTls {
    acceptor: TlsAcceptor,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    expires: Option<u64>,
}

/// The verified certificate of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// URIs among the subject's alternative names.
    pub(crate) uris: Vec<String>,
    /// DNS names among the subject's alternative names.
    pub(crate) dns: Vec<String>,
    chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for ListenerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// The file and its defect, also for a key of another certificate.
    pub(crate) fn new(files: ListenerTlsFiles<'_>) -> Result<Self, String> {
        let ListenerTlsFiles { cert, key, client_ca, requires_client } = files;
        let chain = certificates_of(cert)?;
        let expires = chain.first().and_then(expiry);
        let private = key_of(key)?;
        let provider = Arc::new(ring::default_provider());
        let verifier =
            client_ca.map(|file| client_verifier(file, requires_client, &provider)).transpose()?;
        let failed = |error: rustls::Error| format!("TLS cannot be set up: {error}");
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private).map_err(|error| {
            let (cert, key) = (cert.display(), key.display());
            format!("{cert} and {key} cannot be used as certificate and key together: {error}")
        })?;
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        // Early data can be replayed by whoever records it.
        config.max_early_data_size = 0;
        if verifier.is_some() {
            // A resumed session does not verify the client's certificate again: its authority may
            // have been removed since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = ring::Ticketer::new().map_err(failed)?;
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), verifier, expires })
    }

    /// The end of the certificate's validity, in seconds since 1970; `None`: unreadable.
    pub(crate) fn expires(&self) -> Option<u64> {
        self.expires
    }

    /// The handshake on an accepted connection, with the client's certificate if it has one.
    ///
    /// # Errors
    /// The failure of the handshake.
    pub(crate) async fn accept<S>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<Arc<ClientCertificate>>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(ClientCertificate::of);
        Ok((stream, certificate.map(Arc::new)))
    }

    /// Returns true if a new connection with this client certificate would be accepted.
    pub(crate) fn admits(&self, client: Option<&ClientCertificate>) -> bool {
        match (&self.verifier, client) {
            (None, _) => true,
            (Some(verifier), None) => !verifier.client_auth_mandatory(),
            (Some(verifier), Some(client)) => {
                client.chain.split_first().is_some_and(|(leaf, rest)| {
                    verifier.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
                })
            }
        }
    }
}

impl ClientCertificate {
    /// The certificate at the begin of a verified chain.
    fn of(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let (uris, dns) = names(chain.first()?);
        Some(Self { uris, dns, chain: chain.to_vec() })
    }
}

/// The alternative names of a certificate's subject: URIs and DNS names. A certificate that cannot
/// be read has none.
fn names(leaf: &CertificateDer<'_>) -> (Vec<String>, Vec<String>) {
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    let Ok(certificate) = Certificate::from_der(leaf) else { return (uris, dns) };
    let Ok(Some((_, found))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return (uris, dns);
    };
    for name in found.0 {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().to_owned()),
            GeneralName::DnsName(name) => dns.push(name.as_str().to_owned()),
            _ => {}
        }
    }
    (uris, dns)
}

fn expiry(leaf: &CertificateDer<'_>) -> Option<u64> {
    let certificate = Certificate::from_der(leaf).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}

fn client_verifier(
    file: &Path,
    is_required: bool,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let roots = Arc::new(roots_of(file)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder
        .build()
        .map_err(|error| format!("{}: clients cannot be verified by it: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

    use super::*;

    struct Authority {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate with these alternative names: its DER form, and PEM texts of it and its key.
    fn issued(by: &Authority, names: &[SanType]) -> (CertificateDer<'static>, String, String) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &by.issuer).unwrap();
        (certificate.der().clone(), certificate.pem(), key.serialize_pem())
    }

    fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_certificate_and_a_key_that_do_not_fit_are_refused() {
        let (folder, ca) = (tempfile::tempdir().unwrap(), authority());
        let (_, one, key) = issued(&ca, &[]);
        let (_, _, other) = issued(&ca, &[]);
        let (cert, key) = (write(&folder, "a.crt", &one), write(&folder, "a.key", &key));
        let other = write(&folder, "b.key", &other);
        let files =
            |key| ListenerTlsFiles { cert: &cert, key, client_ca: None, requires_client: false };
        let loaded = ListenerTls::new(files(&key)).unwrap();
        assert!(loaded.expires().unwrap() > 1_800_000_000);
        let error = ListenerTls::new(files(&other)).unwrap_err();
        assert!(error.contains("a.crt") && error.contains("b.key"), "{error}");
        let error = ListenerTls::new(files(&cert)).unwrap_err();
        assert!(error.contains("no private key"), "{error}");
    }

    #[test]
    fn nothing_is_resumed_where_clients_are_verified_and_early_data_is_off() {
        let (folder, ca) = (tempfile::tempdir().unwrap(), authority());
        let (_, one, key) = issued(&ca, &[]);
        let (cert, key) = (write(&folder, "a.crt", &one), write(&folder, "a.key", &key));
        let client_ca = write(&folder, "ca.pem", &ca.pem);
        for client_ca in [None, Some(&*client_ca)] {
            let files =
                ListenerTlsFiles { cert: &cert, key: &key, client_ca, requires_client: true };
            let loaded = ListenerTls::new(files).unwrap();
            let config = loaded.acceptor.config();
            assert_eq!(config.max_early_data_size, 0);
            let is_resumable = client_ca.is_none();
            assert_eq!(config.ticketer.enabled(), is_resumable);
            assert_eq!(config.session_storage.can_cache(), is_resumable);
            assert_eq!(config.send_tls13_tickets > 0, is_resumable);
        }
    }

    #[test]
    fn a_client_is_admitted_while_its_authority_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, other) = (authority(), authority());
        let (_, one, key) = issued(&ca, &[]);
        let (cert, key) = (write(&folder, "a.crt", &one), write(&folder, "a.key", &key));
        let names = [
            SanType::URI("spiffe://shop/till".try_into().unwrap()),
            SanType::DnsName("till.example".try_into().unwrap()),
        ];
        let (client, ..) = issued(&ca, &names);
        let client = ClientCertificate::of(&[client]).unwrap();
        assert_eq!(
            (&*client.uris, &*client.dns),
            (&["spiffe://shop/till".to_owned()][..], &["till.example".to_owned()][..])
        );
        let tls = |authority: Option<&Authority>, requires_client| {
            let client_ca = authority.map(|ca| write(&folder, "ca.pem", &ca.pem));
            let client_ca = client_ca.as_deref();
            ListenerTls::new(ListenerTlsFiles {
                cert: &cert,
                key: &key,
                client_ca,
                requires_client,
            })
            .unwrap()
        };
        assert!(tls(Some(&ca), true).admits(Some(&client)));
        assert!(!tls(Some(&other), false).admits(Some(&client)));
        assert!(tls(Some(&ca), false).admits(None));
        assert!(!tls(Some(&ca), true).admits(None));
        assert!(tls(None, false).admits(Some(&client)));
    }
}
