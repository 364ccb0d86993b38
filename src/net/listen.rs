//! Listening sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::SocketStream;
use crate::listen_address::ListenAddress;

/// Connections the system queues before they are accepted.
const BACKLOG: u32 = 4096;

/// Permissions of a Unix socket: the owner and the group connect, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// A bound socket that connections arrive on. Clones share the socket.
#[derive(Debug, Clone)]
pub(crate) struct ListenSocket {
    socket: Arc<BoundSocket>,
    address: ListenAddress,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener, #[expect(dead_code, reason = "removes the file when dropped")] SocketFile),
}

/// The file of a Unix socket, removed when the socket closes.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another process may have put a socket of its own there since.
    identity: (u64, u64),
}

impl ListenSocket {
    /// Binds to `wanted` and starts listening.
    ///
    /// # Errors
    /// A line with the address, the system's error and the remedy.
    pub(crate) fn bind(wanted: &ListenAddress) -> Result<Self, String> {
        match wanted {
            ListenAddress::Tcp(address) => Self::bind_tcp(*address),
            ListenAddress::Unix(path) => unix(path)
                .map(|socket| Self { socket: Arc::new(socket), address: wanted.clone() })
                .map_err(|error| format!("cannot listen on {wanted}: {error}")),
        }
    }

    /// Binds to an IP address and port, and starts listening.
    ///
    /// # Errors
    /// The errors of [`ListenSocket::bind`].
    pub(crate) fn bind_tcp(wanted: SocketAddr) -> Result<Self, String> {
        tcp(wanted).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE"
                }
                io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
                _ => "choose another address or stop the process that uses it",
            };
            format!("cannot listen on {wanted}: {error}; {remedy}")
        })
    }

    /// The bound address, with the port that the system chose for port 0.
    pub(crate) const fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The bound IP address and port; `None`: a Unix socket.
    pub(crate) const fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        }
    }

    /// Waits for the next connection. A peer behind a Unix socket has no address.
    pub(super) async fn accept(&self) -> io::Result<(SocketStream, Option<IpAddr>)> {
        match &*self.socket {
            BoundSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((SocketStream::Tcp(stream), Some(peer.ip())))
            }
            BoundSocket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((SocketStream::Unix(stream), None))
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let own = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if own {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn tcp(wanted: SocketAddr) -> io::Result<ListenSocket> {
    let socket = if wanted.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without the option, a restart has to wait until the system forgets the old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(wanted)?;
    let socket = socket.listen(BACKLOG)?;
    let address = ListenAddress::Tcp(socket.local_addr()?);
    Ok(ListenSocket { socket: Arc::new(BoundSocket::Tcp(socket)), address })
}

/// Binds a Unix socket at `path`. A socket left by a process that has ended is replaced.
fn unix(path: &Path) -> Result<BoundSocket, String> {
    remove_dead(path)?;
    // The process's umask admits nobody but the owner until the permissions are set.
    let listener = UnixListener::bind(path).map_err(|error| error.to_string())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
        .map_err(|error| format!("its permissions cannot be set: {error}"))?;
    let found = std::fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    let identity = (found.dev(), found.ino());
    Ok(BoundSocket::Unix(listener, SocketFile { path: path.to_owned(), identity }))
}

/// Removes a socket at `path` that nobody listens on.
fn remove_dead(path: &Path) -> Result<(), String> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    if !found.file_type().is_socket() {
        return Err("the path is taken by a file that is no socket; remove the file, or choose \
                    another path"
            .to_owned());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            Err("another process listens there; choose another path or stop that process"
                .to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
                .map_err(|error| format!("a dead socket there cannot be removed: {error}"))
        }
        Err(error) => Err(format!("a socket there cannot be examined: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_or_a_plain_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.sock");
        let address = ListenAddress::Unix(path.clone());
        std::fs::write(&path, "precious").unwrap();
        let error = ListenSocket::bind(&address).unwrap_err();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
        // The standard library's listener leaves its file behind, like a killed process.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = ListenSocket::bind(&address).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o660);
        let error = ListenSocket::bind(&address).unwrap_err();
        assert!(error.contains("another process"), "{error}");
        let connect = tokio::net::UnixStream::connect(&path);
        let (client, first) = tokio::join!(connect, listener.accept());
        // The second bind's examination connected as well.
        let examined = first.unwrap();
        let (mut server, peer) = listener.accept().await.unwrap();
        assert_eq!((examined.1, peer), (None, None));
        server.write_all(b"hello").await.unwrap();
        drop(server);
        let mut read = String::new();
        client.unwrap().read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
        drop(listener);
        assert!(!path.exists(), "the file of a closed listener is removed");
    }

    #[tokio::test]
    async fn the_file_of_another_process_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.sock");
        let listener = ListenSocket::bind(&ListenAddress::Unix(path.clone())).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "new").unwrap();
        drop(listener);
        assert!(path.exists());
    }
}
