//! Addresses of listeners and their peers, as they are written in a configuration.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::ip_network::Network;

/// Prefix of the path of a Unix socket.
pub(crate) const UNIX: &str = "unix:";

/// Bytes of the longest path of a Unix socket (`sun_path`, with its final zero).
const LONGEST_PATH: usize = 107;

/// An address to accept connections on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 takes a free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return socket_path(path).map(Self::Unix);
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "\"{text}\" is not an IP address and a port, such as \"0.0.0.0:8080\" or \
                 \"[::]:8080\", and not a Unix socket, such as \"unix:/run/oncegate.sock\""
            )
        })
    }
}

/// The path of a Unix socket.
///
/// # Errors
/// The defect of the path.
pub(crate) fn socket_path(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() || path.contains('\0') || path.ends_with('/') {
        return Err(format!(
            "\"{UNIX}{path}\" names no file; write the path of a Unix socket, such as \
             \"unix:/run/oncegate.sock\""
        ));
    }
    if path.len() > LONGEST_PATH {
        return Err(format!(
            "the path of a Unix socket has at most {LONGEST_PATH} bytes, and this one has {}",
            path.len()
        ));
    }
    Ok(PathBuf::from(path))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A set of peers: networks of IP addresses, and the processes behind Unix sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerSet(pub Vec<Peers>);

/// A member of a [`PeerSet`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// The addresses of a network.
    Network(Network),
    /// Whoever may open the listener's Unix socket.
    Unix,
}

impl PeerSet {
    /// True for a member; a peer without an address is behind a Unix socket.
    pub fn contains(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|member| match (member, peer) {
            (Peers::Network(network), Some(address)) => network.contains(address),
            (Peers::Unix, None) => true,
            (Peers::Network(_), None) | (Peers::Unix, Some(_)) => false,
        })
    }
}

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UNIX { Ok(Self::Unix) } else { text.parse().map(Self::Network) }
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str(UNIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_in_the_same_form() {
        for text in ["127.0.0.1:80", "[::1]:0", "unix:/run/oncegate.sock", "unix:a.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        let long = format!("unix:/{}", "a".repeat(LONGEST_PATH));
        for text in ["", "localhost:80", "127.0.0.1", "unix:", "unix:/run/", "unix:a\0", &long] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn peers_behind_a_unix_socket_are_members_only_by_name() {
        let set = |members: &[&str]| -> PeerSet {
            PeerSet(members.iter().map(|text| text.parse().unwrap()).collect())
        };
        let address = |text: &str| Some(text.parse().unwrap());
        assert!(set(&["10.0.0.0/8", "unix:"]).contains(None));
        assert!(set(&["10.0.0.0/8", "unix:"]).contains(address("10.1.2.3")));
        assert!(!set(&["unix:"]).contains(address("10.1.2.3")));
        assert!(!set(&["0.0.0.0/0", "::/0"]).contains(None));
        assert!(!set(&[]).contains(None));
    }
}
