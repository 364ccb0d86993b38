//! The addresses of `[server] listen`, its `tls`, and the peers it believes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use super::table::{Located, TableReader};
use crate::listen_address::{ListenAddress, PeerSet};

/// `[server] tls`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerTlsConfig {
    /// PEM file of the certificate chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// PEM file of the authorities of clients; `None`: clients show no certificate.
    pub client_ca: Option<PathBuf>,
    /// Treatment of clients without a certificate, where `client_ca` is set.
    pub client_auth: ClientAuth,
}

/// Treatment of clients without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Refused in the handshake.
    Required,
    /// Served, and named by other means.
    Optional,
}

const CLIENT_AUTH: [(&str, Option<ClientAuth>); 2] =
    [("required", Some(ClientAuth::Required)), ("optional", Some(ClientAuth::Optional))];

/// `listen`: the addresses to accept connections on, `default` when left out.
pub(super) fn listen(table: &TableReader<'_>, default: SocketAddr) -> Vec<ListenAddress> {
    let Some(list) = table.filled_list::<String>("listen", "name at least one address") else {
        return vec![default.into()];
    };
    let mut listen: Vec<ListenAddress> = Vec::new();
    for written in &list {
        let address = match written.value.parse() {
            Ok(ListenAddress::Unix(path)) => ListenAddress::Unix(table.reading.base.join(path)),
            Ok(address) => address,
            Err(error) => {
                table.wrong::<String>(written, format!("`listen`: {error}"));
                continue;
            }
        };
        if listen.iter().any(|other| is_same(other, &address)) {
            table.wrong(written, format!("`listen` names {address} twice"));
        }
        listen.push(address);
    }
    listen
}

/// True when two listeners cannot have these addresses.
fn is_same(one: &ListenAddress, other: &ListenAddress) -> bool {
    match (one, other) {
        (ListenAddress::Tcp(one), ListenAddress::Tcp(other)) => overlap(*one, *other),
        (ListenAddress::Unix(one), ListenAddress::Unix(other)) => one == other,
        (ListenAddress::Tcp(_), ListenAddress::Unix(_))
        | (ListenAddress::Unix(_), ListenAddress::Tcp(_)) => false,
    }
}

/// True when two listeners cannot have these IP addresses. Port 0 is always another free port.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same = |one: IpAddr, other: IpAddr| {
        let unspecified = one.is_unspecified() || other.is_unspecified();
        one == other || (one.is_ipv4() == other.is_ipv4() && unspecified)
    };
    one.port() != 0 && one.port() == other.port() && same(one.ip(), other.ip())
}

/// True when the listener on `address` takes the address `other`.
pub(super) fn takes(address: &ListenAddress, other: SocketAddr) -> bool {
    matches!(address, ListenAddress::Tcp(address) if overlap(*address, other))
}

/// A list of networks, and of `"unix:"` for whoever opens a Unix socket of the listener.
pub(super) fn peers(table: &TableReader<'_>, key: &'static str) -> PeerSet {
    let read = |written: &Located<String>| match written.value.parse() {
        Ok(peers) => Some(peers),
        Err(error) => {
            table.wrong::<String>(written, format!("`{key}`: {error}"));
            None
        }
    };
    let list = table.list::<String>(key).unwrap_or_default();
    PeerSet(list.iter().filter_map(read).collect())
}

/// `tls`
pub(super) fn tls(table: &TableReader<'_>) -> Option<ServerTlsConfig> {
    let read = table.optional_table("tls", |tls| {
        for key in ["cert", "key"] {
            if !tls.has(key) {
                tls.missing(&[key], format!("`tls` needs `{key}`, a PEM file"));
            }
        }
        let (cert, key) = (tls.path("cert"), tls.path("key"));
        let client_ca = tls.path("client_ca");
        let client_auth = tls.choice("client_auth", ClientAuth::Required, &CLIENT_AUTH);
        if tls.has("client_auth") && !tls.has("client_ca") {
            let what = "`client_auth` has no use without `client_ca`, the PEM file of the \
                        authorities that sign the certificates of clients";
            tls.wrong_at(&["client_auth"], what);
        }
        let (cert, key) = cert.zip(key)?;
        Some(ServerTlsConfig { cert, key, client_ca, client_auth })
    });
    read.flatten()
}
