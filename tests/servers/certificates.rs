//! Certificates of an authority of their own, for servers with TLS on 127.0.0.1.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::place::{Owner, Place};

/// Files of PEM text.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The authority a client has to trust.
    pub(super) ca: PathBuf,
    /// The server's certificate, for 127.0.0.1 and localhost.
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificates {
    /// Issues a certificate and writes all into `place`.
    pub(super) fn issue(place: &Place, owner: Option<Owner>) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names to be wrong");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.distinguished_name.push(DnType::CommonName, "test authority");
        let authority_key = KeyPair::generate().expect("a key");
        let ca = authority.self_signed(&authority_key).expect("the authority's certificate");
        let issuer = Issuer::new(authority, authority_key);

        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut server = CertificateParams::new(names).expect("plain names");
        server.distinguished_name.push(DnType::CommonName, "test server");
        server.use_authority_key_identifier_extension = true;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = server.signed_by(&key, &issuer).expect("the server's certificate");
        Self {
            ca: place.write("ca.pem", &ca.pem(), owner),
            certificate: place.write("server.pem", &certificate.pem(), owner),
            key: place.write("server.key", &key.serialize_pem(), owner),
        }
    }
}
