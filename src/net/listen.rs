//! Listening sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections the system queues before they are accepted.
const BACKLOG: u32 = 4096;

/// A bound socket that connections arrive on. Clones share the socket.
#[derive(Debug, Clone)]
pub(crate) struct ListenSocket {
    socket: Arc<TcpListener>,
    address: SocketAddr,
}

impl ListenSocket {
    /// Binds to `wanted` and starts listening.
    ///
    /// # Errors
    /// A line with the address, the system's error and the remedy.
    pub(crate) fn bind(wanted: SocketAddr) -> Result<Self, String> {
        open(wanted).map_err(|error| {
            format!(
                "cannot listen on {wanted}: {error}; choose another address or stop the \
                 process that uses it"
            )
        })
    }

    /// The bound address, with the port that the system chose for port 0.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept().await
    }
}

fn open(wanted: SocketAddr) -> io::Result<ListenSocket> {
    let socket = if wanted.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Without the option, a restart has to wait until the system forgets the old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(wanted)?;
    let socket = socket.listen(BACKLOG)?;
    let address = socket.local_addr()?;
    Ok(ListenSocket { socket: Arc::new(socket), address })
}
