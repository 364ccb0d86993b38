//! `oncegate run`: from the start to the end of a gateway, and the signals in between.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::{block_on_workers, failed, say};
use crate::cli::{Exit, RunArgs};
use crate::config::Config;
use crate::gateway::{self, Running, StartError};
use crate::machine;
use crate::observe::{log, repeated};
use crate::shutdown::{self, Trigger};

/// `oncegate run`: until SIGTERM or SIGINT, then drains.
pub fn run(args: &RunArgs) -> Exit {
    machine::save_memory();
    let config = match args.configuration() {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    if let Err(mistake) = log::start(&config.log.level, config.log.format) {
        eprintln!("oncegate: {mistake}");
        return Exit::Usage;
    }
    block_on_workers(config.server.workers, serve(config, args.config.clone()))
}

/// Serves until a signal or a failure; `file` is the configuration's, if it came from a file.
async fn serve(config: Config, file: Option<PathBuf>) -> Exit {
    let (trigger, signaled) = shutdown::channel();
    // First of all: a signal may follow at once when "ready" is printed.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot listen for signals: {error}")),
    };
    let started = tokio::select! {
        started = gateway::start(config, file.clone(), signaled) => started,
        // A start may wait for its store. Nothing was accepted yet.
        _ = signals.terminate.recv() => return Exit::Ok,
        _ = signals.interrupt.recv() => return Exit::Ok,
    };
    let running = match started {
        Ok(running) => running,
        Err(StartError::Configuration(text)) => {
            eprintln!("oncegate: {text}");
            return Exit::Usage;
        }
        Err(StartError::Obstacle(text)) => return failed(&text),
    };
    let file = file.map(|file| file.display().to_string());
    announce(&running, file.as_deref());
    let reason = signals.until_end(&running).await;
    let delay = running.drain_delay();
    let ended = end(running, &trigger, &mut signals, delay, &reason).await;
    repeated::log_rest();
    let is_clean = ended == DrainEnd::Drained && !matches!(reason, EndReason::Store(_));
    tracing::info!(
        reason = reason.name(),
        drained = ended == DrainEnd::Drained,
        exit = if is_clean { 0 } else { 1 },
        "oncegate has ended"
    );
    if is_clean { Exit::Ok } else { Exit::Failed }
}

/// Tells the operator and the caller of the process that requests are accepted.
fn announce(running: &Running, file: Option<&str>) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = file.unwrap_or("none"),
        routes = running.summary.routes,
        connections = running.summary.connections,
        in_flight = running.summary.in_flight,
        buffered = running.summary.buffered,
        workers = running.summary.workers,
        descriptors = running.summary.descriptors,
        memory = running.summary.memory,
        store.id = %running.summary.store,
        "oncegate has started"
    );
    if let Some(id) = running.new_store {
        say(&format!(
            "oncegate: the store {id} is new and empty: no key used before is known here"
        ));
    }
    for address in &running.listening {
        say(&format!("oncegate: listening on {address}"));
    }
    say(&format!("oncegate: admin on {}", running.admin));
    say("oncegate: ready");
    notify_supervisor(NotifyState::Ready);
}

/// Notifies the process that supervises this one: systemd with `Type=notify`, through the socket in
/// `NOTIFY_SOCKET` (sd_notify(3)). Without that variable nothing is sent.
fn notify_supervisor(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor was not notified; its start or stop may time out");
    }
}

/// Reason for the end of a gateway.
#[derive(Debug, PartialEq, Eq)]
enum EndReason {
    Terminate,
    Interrupt,
    /// The store takes no more writes; holds the store's reason.
    Store(String),
}

impl EndReason {
    fn name(&self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Store(_) => "store",
        }
    }
}

/// The way in which a gateway ended.
#[derive(Debug, PartialEq, Eq)]
enum DrainEnd {
    /// All work in flight was finished.
    Drained,
    /// The drain ran out, or was cut short.
    Cut,
}

/// Drains the gateway, unless a second SIGINT arrives.
async fn end(
    running: Running,
    trigger: &Trigger,
    signals: &mut Signals,
    delay: Duration,
    reason: &EndReason,
) -> DrainEnd {
    let drain = async {
        running.announce_end();
        notify_supervisor(NotifyState::Stopping);
        if let EndReason::Store(error) = reason {
            tracing::error!(error, "the store needs a restart; the process ends for that");
        } else if !delay.is_zero() {
            tracing::info!(
                seconds = delay.as_secs_f64(),
                "connections are taken during `drain_delay`, while /readyz tells of the end"
            );
            sleep(delay).await;
        }
        trigger.fire();
        running.finished().await
    };
    let interrupts = if *reason == EndReason::Interrupt { 1 } else { 2 };
    tokio::select! {
        is_drained = drain => {
            if is_drained {
                return DrainEnd::Drained;
            }
            tracing::warn!(
                "the drain time is over; calls still in flight become unknown at the next start"
            );
        }
        () = signals.until_interrupt(interrupts) => tracing::warn!(
            "a second SIGINT; calls still in flight become unknown at the next start"
        ),
    }
    DrainEnd::Cut
}

/// The signals that a gateway listens for. A signal that nobody listens for would end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    first_user: Signal,
    second_user: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            first_user: signal(SignalKind::user_defined1())?,
            second_user: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for a reason to end.
    async fn until_end(&mut self, running: &Running) -> EndReason {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return EndReason::Terminate,
                _ = self.interrupt.recv() => return EndReason::Interrupt,
                error = running.store_failed() => return EndReason::Store(error),
                _ = self.hang_up.recv() => {
                    if !running.reload() {
                        ignored("SIGHUP");
                    }
                }
                _ = self.first_user.recv() => ignored("SIGUSR1"),
                _ = self.second_user.recv() => ignored("SIGUSR2"),
            }
        }
    }

    /// Waits for the `count`-th SIGINT of a drain; all other signals change nothing.
    async fn until_interrupt(&mut self, mut count: u32) {
        while count > 0 {
            tokio::select! {
                _ = self.interrupt.recv() => count -= 1,
                _ = self.terminate.recv() => ignored("SIGTERM"),
                _ = self.hang_up.recv() => ignored("SIGHUP"),
                _ = self.first_user.recv() => ignored("SIGUSR1"),
                _ = self.second_user.recv() => ignored("SIGUSR2"),
            }
        }
    }
}

fn ignored(signal: &str) {
    tracing::info!(signal, "the signal is ignored");
}
