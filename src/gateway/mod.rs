//! Starting the whole gateway, and ending it: the store first, then the listeners, so that nothing
//! is accepted that could not be kept.

pub(crate) mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::admin;
use crate::config::Config;
use crate::net::listen::Listener;
use crate::proxy::{self, Gateway};
use crate::shutdown::{self, Shutdown, Trigger};
use crate::store::{cache, expiry, reaper};

/// A gateway that accepts requests.
#[derive(Debug)]
pub struct Running {
    /// Where clients connect.
    pub listening: Vec<SocketAddr>,
    /// Where health is served.
    pub admin: SocketAddr,
    gateway: Arc<Gateway>,
    background: TaskTracker,
    shutdown: Shutdown,
    drain: Duration,
    /// After the drain.
    end: Trigger,
}

/// Opens the store and starts listening. The gateway runs until the shutdown starts.
///
/// # Errors
/// One line that says what is in the way. Nothing is left running.
pub async fn start(config: Config, shutdown: Shutdown) -> Result<Running, String> {
    let listeners = config.server.listen.iter().map(|address| Listener::bind(*address));
    let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
    let admin_listener = Listener::bind(config.admin.listen)?;
    let store = store::open(&config.store).await?;
    let lease = store::lease(&config.store);
    let tasks = TaskTracker::new();
    let drain = config.server.drain;
    let gateway = Gateway::new(config.clone(), store.clone(), tasks.clone())?;
    let admin_state = admin::AdminState::new(config, store.clone(), gateway.hot.clone(), tasks);
    let admin_state = Arc::new(admin_state);
    let listening = listeners.iter().map(Listener::address).collect();
    let admin = admin_listener.address();
    // The sweeper, the operator's listener and idle connections are no work to drain: they end by
    // themselves when the shutdown starts.
    let background = TaskTracker::new();
    background.spawn(expiry::run(store.clone(), shutdown.clone()));
    if let Some(lease) = lease {
        // A death is noticed within a lease and a fifth.
        background.spawn(reaper::run(store.clone(), lease / 5, shutdown.clone()));
    }
    if let Some(announced) = store.announced() {
        // This one ends with the store.
        TaskTracker::new().spawn(cache::follow(gateway.hot.clone(), announced));
    }
    let (end, mut ended) = shutdown::channel();
    let operators = admin::serve(admin_state, admin_listener, shutdown.clone());
    background.spawn(async move {
        // It can be asked while calls are drained.
        tokio::select! {
            () = operators => {}
            () = ended.wait() => {}
        }
    });
    proxy::serve(&gateway, listeners, &background, &shutdown);
    Ok(Running { listening, admin, gateway, background, shutdown, drain, end })
}

/// How long what runs in the background may take to end once it was told to.
const BACKGROUND: Duration = Duration::from_secs(1);

impl Running {
    /// Waits for the shutdown, then for the work in flight, and closes the store; says whether all
    /// work ended in time.
    /// What did not is recorded as in flight, and unknown after the next start.
    pub async fn finished(mut self) -> bool {
        self.shutdown.wait().await;
        tracing::info!(calls = self.gateway.calling(), "draining");
        let drained = self.gateway.drained(self.drain).await;
        if let Err(error) = self.gateway.store.leave().await {
            // Then its lease ends by itself.
            tracing::debug!(%error, "the store could not be left");
        }
        self.end.fire();
        // They hold the store as well. When the last of them lets it go, it closes.
        shutdown::ended(&self.background, BACKGROUND).await;
        drained
    }
}
