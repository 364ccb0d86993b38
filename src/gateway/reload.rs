//! Reloading the configuration of a running gateway.
//!
//! A reload prepares everything that can fail (files, certificates, names of keys) and then puts
//! the result in force in one step. Requests under way keep what they began with. A reload that
//! fails changes nothing.
//!
//! ```text
//! SIGHUP ─────────────────────┐
//! digests differ, twice alike ┴▶ digests ▶ parse ▶ certificates ▶ digests ── other ──▶ again
//!                                             │                      ▼ the same
//!                                             ▼ a mistake          pin names ── refused ──▶ logged
//!                                           logged                   ▼
//!                                                        one swap: routes, limits, upstreams, …
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::names::{self, PinError};
use super::{permissions, resources};
use crate::admin::AdminState;
use crate::config::{self, Config, ConfigFiles, FileDigests, RouteConfig};
use crate::observe::log;
use crate::observe::metrics::{Metrics, ReloadResult};
use crate::proxy::Gateway;
use crate::proxy::routing::Routing;
use crate::shutdown::Shutdown;
use crate::store::Store;

/// Time between two looks at the files.
const POLL: Duration = Duration::from_secs(5);

/// Time between two looks at files that have changed. They are read when two looks agree: a file
/// that is still being written is not half read.
const SETTLE: Duration = Duration::from_secs(1);

/// Looks at files that never agree, until they are read nevertheless.
const MOST_LOOKS: usize = 60;

/// Attempts to read files that change while they are read.
const ATTEMPTS: usize = 5;

/// Pause between such attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// The task that reloads the configuration.
pub(super) struct Reloader {
    /// The configuration file.
    pub(super) file: PathBuf,
    pub(super) gateway: Arc<Gateway>,
    pub(super) store: Arc<dyn Store>,
    pub(super) admin: Arc<AdminState>,
    /// The configuration in force.
    pub(super) in_force: Arc<Config>,
    /// The files to look at.
    pub(super) files: ConfigFiles,
    /// Digests of the files as they were last read.
    pub(super) seen: FileDigests,
}

/// Files that were read as a whole.
struct Loaded {
    config: Config,
    routing: Routing,
    digests: FileDigests,
}

/// The result of reading the files.
enum ReadResult {
    Loaded(Box<Loaded>),
    /// The files have a mistake.
    Wrong {
        what: String,
        files: ConfigFiles,
        digests: FileDigests,
    },
    /// The files changed while they were read.
    Changing,
}

impl Reloader {
    /// Reloads at every notification of `requests` and after every change of the files, until the
    /// shutdown.
    pub(super) async fn run(mut self, requests: Arc<Notify>, mut shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = requests.notified() => self.reload("SIGHUP").await,
                () = sleep(POLL) => {
                    if self.has_changed().await {
                        self.reload("a changed file").await;
                    }
                }
            }
        }
    }

    /// True if the files differ from those last read, and have stopped changing.
    async fn has_changed(&self) -> bool {
        let mut now = self.look().await;
        if now == self.seen {
            return false;
        }
        for _ in 0..MOST_LOOKS {
            sleep(SETTLE).await;
            let next = self.look().await;
            if next == now {
                break;
            }
            now = next;
        }
        now != self.seen
    }

    async fn look(&self) -> FileDigests {
        let files = self.files.clone();
        // A look that panicked has seen no change.
        let looked = tokio::task::spawn_blocking(move || files.digests()).await;
        looked.unwrap_or_else(|_| self.seen.clone())
    }

    async fn reload(&mut self, reason: &'static str) {
        let result = self.attempt().await;
        let is_done = if result.is_ok() { ReloadResult::Ok } else { ReloadResult::Refused };
        self.gateway.metrics.reloaded(is_done);
        match result {
            Ok(()) => {
                tracing::info!(
                    reason,
                    digest = self.seen.whole(),
                    routes = self.in_force.routes.len(),
                    "the configuration was reloaded"
                );
            }
            Err(error) => {
                tracing::error!(
                    reason,
                    error,
                    "the configuration was not reloaded; the one before stays in force"
                );
            }
        }
    }

    async fn attempt(&mut self) -> Result<(), String> {
        let loaded = self.load().await?;
        let Loaded { mut config, routing, digests } = *loaded;
        self.seen = digests.clone();
        self.files = config.files.clone();
        let open = self.store.identity().store_id;
        if let Some(expected) = config.store.expect_id.filter(|expected| *expected != open) {
            return Err(format!(
                "`expect_id` in [store] is {expected}, and the open store is {open}; a start would \
                 be refused. Write the id of the open store, or leave the key out"
            ));
        }
        // The names are the last obstacle: a store that has pinned new names keeps them.
        names::pin(&config, &*self.store).await.map_err(|error| match error {
            PinError::Refused(text) => text,
            PinError::Store(text) => format!("the store was asked for the names of keys: {text}"),
        })?;
        for key in config.keep_unreloadable(&self.in_force) {
            tracing::warn!(key, "a change of this key needs a restart and was left out");
        }
        if let Err(error) = log::set_level(&config.log.level) {
            tracing::warn!(error, "the log keeps its level");
        }
        let config = Arc::new(config);
        let gone = |route: &&RouteConfig| config.routes.iter().all(|it| it.name != route.name);
        for route in self.in_force.routes.iter().filter(gone) {
            self.gateway.metrics.forget_route(&route.name);
        }
        permissions::note_expiry(&self.gateway.metrics, routing.tls.as_deref());
        self.admin.reload(&config, &self.seen);
        self.gateway.reload(routing);
        self.in_force = config;
        Ok(())
    }

    /// Reads the files until they stay the same while they are read.
    async fn load(&mut self) -> Result<Box<Loaded>, String> {
        for _ in 0..ATTEMPTS {
            let (file, files) = (self.file.clone(), self.files.clone());
            let (metrics, previous) = (self.gateway.metrics.clone(), self.gateway.routing());
            let read = move || read(&file, files, &metrics, &previous);
            let read = tokio::task::spawn_blocking(read).await;
            match read.map_err(|error| error.to_string())? {
                ReadResult::Loaded(loaded) => return Ok(loaded),
                ReadResult::Wrong { what, files, digests } => {
                    (self.files, self.seen) = (files, digests);
                    return Err(what);
                }
                ReadResult::Changing => sleep(PAUSE).await,
            }
        }
        Err("the files change while they are read; they are looked at again".to_owned())
    }
}

/// Reads the configuration and everything that it names.
fn read(file: &Path, mut files: ConfigFiles, metrics: &Metrics, previous: &Routing) -> ReadResult {
    let before = files.digests();
    let (loaded, named) = config::load_with_files(file);
    match &loaded {
        Ok(_) => files = named,
        // The files of the configuration in force may be what is wrong.
        Err(_) => files.add_all(&named),
    }
    let digests = files.digests();
    if !before.agrees_with(&digests) {
        return ReadResult::Changing;
    }
    let prepared = loaded.map_err(|mistakes| mistakes.to_string()).and_then(|config| {
        let mut fitted = config.clone();
        resources::fit(&mut fitted).iter().for_each(resources::Lowered::log);
        let routing = Routing::successor(&fitted, &digests, metrics, previous)?;
        Ok((config, routing))
    });
    if files.digests() != digests {
        return ReadResult::Changing;
    }
    match prepared {
        Ok((config, routing)) => ReadResult::Loaded(Box::new(Loaded { config, routing, digests })),
        Err(what) => ReadResult::Wrong { what, files, digests },
    }
}
