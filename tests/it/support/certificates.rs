//! Certificates of an authority of the test's own, and a client that speaks TLS.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::WAIT_LIMIT;
use super::client::{Head, Request, Response, read_body, read_head};

/// An authority.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM form.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new authority.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a server on 127.0.0.1.
    pub(crate) fn server(&self) -> Identity {
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        self.issue(&[address, SanType::DnsName("localhost".try_into().unwrap())])
    }

    /// A certificate for a client with this URI.
    pub(crate) fn client(&self, uri: &str) -> Identity {
        self.issue(&[SanType::URI(uri.try_into().unwrap())])
    }

    /// A certificate for a client with these URIs.
    pub(crate) fn client_of(&self, uris: &[&str]) -> Identity {
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        self.issue(&names.collect::<Vec<_>>())
    }

    fn issue(&self, names: &[SanType]) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.to_vec();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }

    /// Writes the authority's certificate.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        write(folder, name, &self.pem)
    }

    /// The settings of a client that trusts this authority, and shows `identity`.
    pub(crate) fn trusting(&self, identity: Option<&Identity>) -> ClientConfig {
        self.trusting_with(identity, rustls::ALL_VERSIONS)
    }

    /// As [`Self::trusting`], with these versions of TLS.
    pub(crate) fn trusting_with(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        }
    }
}

impl Identity {
    /// Writes certificate and key as `NAME.crt` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let cert = write(folder, &format!("{name}.crt"), &self.cert);
        (cert, write(folder, &format!("{name}.key"), &self.key))
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A client's TLS stream.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Opens a connection and completes the handshake.
pub(crate) fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    secure(plain(to)?, config)
}

/// A TCP connection whose waits are bounded.
pub(crate) fn plain(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WAIT_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT_LIMIT))?;
    stream.set_write_timeout(Some(WAIT_LIMIT))?;
    Ok(stream)
}

/// Completes the handshake on a connection.
pub(crate) fn secure(stream: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends `request` and reads the answer.
pub(crate) fn over<S: Read + Write>(stream: &mut S, request: &Request) -> io::Result<Response> {
    stream.write_all(&request.bytes())?;
    stream.flush()?;
    let mut reader = BufReader::new(stream);
    let Head { line, headers } = read_head(&mut reader)?;
    let status = line.get(9..12).and_then(|digits| digits.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {line:?}")))?;
    let body = read_body(&mut reader, &headers, true, &|_| ())?;
    Ok(Response { status, headers, body })
}
