//! TLS toward backends and stores: the trusted authorities and the client certificate; and the
//! reading of PEM files.
//!
//! Files are read once, when the configuration is loaded, so that a wrong file stops the start with
//! a clear message. Handshakes are the upstream's business.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The client side's settings: TLS 1.2 and 1.3, and the protocol `alpn`.
///
/// `ca` is a PEM file of the authorities to trust instead of the system's; `client_cert` the PEM
/// files of the certificate chain and the private key to present.
///
/// # Errors
/// The file, its defect and the remedy.
pub(crate) fn client(
    ca: Option<&Path>,
    client_cert: Option<(&Path, &Path)>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, String> {
    let mut config = bare_client(ca, client_cert)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

/// The name of HTTP/2 in a handshake (ALPN).
pub(crate) const HTTP2: &[u8] = b"h2";
/// The name of HTTP/1.1 in a handshake.
pub(crate) const HTTP1: &[u8] = b"http/1.1";

/// The settings of [`client`] without ALPN, for protocols besides HTTP.
///
/// # Errors
/// The errors of [`client`].
pub(crate) fn bare_client(
    ca: Option<&Path>,
    client_cert: Option<(&Path, &Path)>,
) -> Result<ClientConfig, String> {
    let roots = match ca {
        Some(file) => roots_of(file)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots);
    match client_cert {
        Some((chain, key)) => present(builder, chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}

fn present(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    chain: &Path,
    key: &Path,
) -> Result<ClientConfig, String> {
    let certificates = certificates_of(chain)?;
    let private = key_of(key)?;
    builder.with_client_auth_cert(certificates, private).map_err(|error| {
        let (chain, key) = (chain.display(), key.display());
        format!("{chain} and {key} cannot be used as certificate and key together: {error}")
    })
}

/// The private key of a PEM file.
///
/// # Errors
/// The file and its defect.
pub(super) fn key_of(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| {
        format!(
            "{}: no private key in PEM form can be read from it: {error}; write a key that no \
             passphrase protects",
            file.display()
        )
    })
}

/// The authorities of a PEM file.
///
/// # Errors
/// The file and its defect.
pub(super) fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_of(file)? {
        roots.add(certificate).map_err(|error| {
            format!("{}: a certificate in it cannot be an authority: {error}", file.display())
        })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry the occasional unparsable certificate; the rest still counts.
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why: String = found.errors.iter().map(|error| format!(" ({error})")).collect();
    Err(format!(
        "no authority certificates were found on this system{why}; install them \
         (Debian: ca-certificates) or name a PEM file in `ca`"
    ))
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// The file and its defect.
pub(super) fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error| format!("{}: cannot be read as PEM: {error}", file.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        let file = file.display();
        return Err(format!("{file}: no certificate in it (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::client;

    fn check(ca: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file: PathBuf = folder.path().join("ca.pem");
        std::fs::write(&file, ca).unwrap();
        let error = client(Some(&file), None, b"http/1.1").unwrap_err();
        assert!(error.contains("ca.pem") && error.contains(expected), "{error}");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named_with_what_is_wrong() {
        check("", "no certificate in it");
        check("hello", "no certificate in it");
        check("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "PEM");
        check(
            "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n",
            "cannot be an authority",
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = client(Some("/nowhere/ca.pem".as_ref()), None, b"http/1.1").unwrap_err();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
    }
}
