//! Encrypted connections: who is trusted, and what a clean end proves.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use super::super::{SendError, Upstream};
use super::support::{Backend, OK, config, post, text};
use crate::config::UpstreamConfig as Settings;

/// A certificate for 127.0.0.1 and the authority that issued it, as PEM.
fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key.into())
        .unwrap();
    (Arc::new(server), issued.cert.pem())
}

/// A TLS backend that answers one request with `answer` and closes, with the closing alert or not.
fn tls_backend(
    server: Arc<rustls::ServerConfig>,
    answer: &'static str,
    says_goodbye: bool,
) -> Backend {
    Backend::start(move |peer| {
        let mut session = rustls::ServerConnection::new(server.clone()).unwrap();
        let mut socket = peer.into_stream();
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        let mut seen = Vec::new();
        let mut buffer = [0; 1024];
        while !seen.ends_with(b"{}") {
            match stream.read(&mut buffer) {
                Ok(read) if read > 0 => seen.extend_from_slice(&buffer[..read]),
                Ok(_) | Err(_) => return,
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
        if says_goodbye {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}

#[tokio::test]
async fn tls_trusts_only_the_configured_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (server, authority) = certificate();
    let (_, stranger) = certificate();
    let backend = tls_backend(server, OK, true);
    let url = format!("https://{}", backend.address);
    let with = |name: &str, pem: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        let settings = Settings { ca: Some(file), ..config(std::slice::from_ref(&url)) };
        Upstream::new(&settings).unwrap()
    };
    let trusted = with("authority.pem", &authority);
    assert_eq!(text(trusted.send(post("{}")).await.unwrap()).await.unwrap(), "ok");
    let error = with("stranger.pem", &stranger).send(post("{}")).await.unwrap_err();
    assert!(matches!(&error, SendError::NotSent { .. }), "{error}");
    assert!(error.to_string().contains("TLS handshake failed"), "{error}");
}

#[tokio::test]
async fn the_closing_alert_of_tls_proves_an_end_that_the_connection_alone_does_not() {
    for says_goodbye in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (server, authority) = certificate();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, authority).unwrap();
        let backend = tls_backend(server, "HTTP/1.1 200 OK\r\n\r\nhello", says_goodbye);
        let url = format!("https://{}", backend.address);
        let settings = Settings { ca: Some(ca), ..config(&[url]) };
        let response = Upstream::new(&settings).unwrap().send(post("{}")).await.unwrap();
        assert!(response.body().framing().proves_end());
        assert_eq!(text(response).await.is_ok(), says_goodbye);
    }
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, pem).unwrap();
        file
    };
    let pair = || rcgen::generate_simple_self_signed(vec!["client".to_owned()]).unwrap();
    let (one, other) = (pair(), pair());
    let ca = write("ca.pem", &one.cert.pem());
    let chain = write("chain.pem", &one.cert.pem());
    let with_key = |name: &str, pem: &str| {
        let client_cert = Some((chain.clone(), write(name, pem)));
        let url = ["https://127.0.0.1".to_owned()];
        Upstream::new(&Settings { ca: Some(ca.clone()), client_cert, ..config(&url) })
    };
    with_key("own.pem", &one.signing_key.serialize_pem()).unwrap();
    for (name, pem) in
        [("other.pem", other.signing_key.serialize_pem()), ("none.pem", String::new())]
    {
        let error = with_key(name, &pem).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}
