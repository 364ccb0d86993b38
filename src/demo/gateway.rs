//! The gateway of the demo: an ordinary one, started in this process with a store in a temporary
//! folder. The one place where the demo touches the rest of the crate's start-up.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::shutdown::Shutdown;

/// The longest that the demo's servers may take to end.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// A running gateway.
pub(super) struct Gateway {
    /// Where the tills find it.
    pub(super) address: SocketAddr,
    /// Where its health is served.
    pub(super) admin: SocketAddr,
}

impl Gateway {
    /// Starts it in front of `backend`, with its store under `folder`.
    pub(super) async fn start(
        _backend: SocketAddr,
        _folder: &Path,
        _shutdown: Shutdown,
    ) -> Result<Self, String> {
        Err("not yet".to_owned())
    }

    /// Waits for its end.
    pub(super) async fn finished(self) {}
}
