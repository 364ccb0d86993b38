//! The accept loop of every listener: a limit on open connections, and a tracked task for each.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::task::TaskTracker;

use super::listen::ListenSocket;
use super::stream::SocketStream;
use crate::limit::Limit;
use crate::observe::repeated::Repeated;

/// Pause after a failed accept. Most failures are a lack of file descriptors, which lasts until
/// connections close.
const PAUSE: Duration = Duration::from_millis(50);

static NOT_ACCEPTED: Repeated = Repeated::new("accepting a connection failed");

/// Accepts connections on `listener` until the returned future is dropped.
///
/// `serve` gets the connection and the peer's address, which a peer behind a Unix socket lacks. It
/// is called in the order of the connections, and its future runs in a task of `tasks` with a
/// permit of `connections` for as long as the connection is open. Without a free permit, the
/// connection gets the bytes of `refusal`, as far as its send buffer takes them at once, and is
/// closed.
pub(crate) async fn accept<S, F>(
    listener: ListenSocket,
    connections: Arc<Limit>,
    tasks: TaskTracker,
    refusal: impl Fn() -> Bytes,
    serve: S,
) where
    S: FnOnce(SocketStream, Option<IpAddr>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                let address = listener.address();
                if let Some(times) = NOT_ACCEPTED.occur() {
                    tracing::warn!(
                        %error, listener = %address, times,
                        "accepting a connection failed; clients wait meanwhile"
                    );
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(permit) = connections.try_acquire() else {
            let _ = stream.try_write(&refusal());
            continue;
        };
        stream.set_nodelay();
        // Boxed, because the runtime moves a task several times.
        let served = Box::pin(serve.clone()(stream, peer));
        tasks.spawn(async move {
            served.await;
            drop(permit);
        });
    }
}
