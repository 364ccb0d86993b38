//! Limits of the configuration, lowered to the descriptors and the memory of this process.

use crate::config::Config;
use crate::machine;

/// Descriptors kept for the store, the operators and the listeners.
const KEPT: u64 = 64;
/// Descriptors of a client: its connection, and the connection to the backend.
const PER_CLIENT: u64 = 2;
/// Memory of a connection, in bytes, by which `connections` is lowered. An idle one takes more, so
/// those beyond a quarter of the memory count in `buffered` (`Budget::connection`).
const CONNECTION: u64 = 16 << 10;
/// Memory of a call in flight besides its body and the client's connection, in bytes.
const CALL: u64 = 48 << 10;

/// A limit that was lowered.
#[derive(Debug)]
pub(super) enum Lowered {
    /// `connections`, for a lack of file descriptors.
    Descriptors { configured: usize, connections: usize, descriptors: u64 },
    /// `connections`, for a lack of memory.
    Memory { configured: usize, connections: usize, memory: u64 },
    /// `in_flight`, for a lack of memory.
    InFlight { configured: usize, in_flight: usize, memory: u64 },
}

/// Raises the limit of open files, and lowers the numbers of connections and of calls to what fits;
/// returns what was lowered.
pub(super) fn fit(config: &mut Config) -> Vec<Lowered> {
    let descriptors = machine::raise_descriptors();
    let connections = &mut config.server.limits.connections;
    let mut lowered = Vec::new();
    let configured = *connections;
    *connections = lower(configured, descriptors.saturating_sub(KEPT) / PER_CLIENT);
    if *connections < configured {
        lowered.push(Lowered::Descriptors { configured, connections: *connections, descriptors });
    }
    if let Some(memory) = machine::memory() {
        let configured = *connections;
        *connections = lower(configured, memory / 2 / CONNECTION);
        if *connections < configured {
            lowered.push(Lowered::Memory { configured, connections: *connections, memory });
        }
        let in_flight = &mut config.server.limits.in_flight;
        let configured = *in_flight;
        *in_flight = lower(configured, memory / 8 / CALL);
        if *in_flight < configured {
            lowered.push(Lowered::InFlight { configured, in_flight: *in_flight, memory });
        }
    }
    lowered
}

impl Lowered {
    pub(super) fn log(&self) {
        match *self {
            Self::Descriptors { configured, connections, descriptors } => tracing::warn!(
                configured,
                connections,
                descriptors,
                "`connections` is lowered: each client needs two file descriptors, and {KEPT} are \
                 kept for store and operators; raise the limit of open files (`ulimit -n`, \
                 `LimitNOFILE`), or configure fewer"
            ),
            Self::Memory { configured, connections, memory } => tracing::warn!(
                configured,
                connections,
                memory,
                "`connections` is lowered: at 16 KiB each they may take half of the memory; give \
                 the process more memory, or configure fewer"
            ),
            Self::InFlight { configured, in_flight, memory } => tracing::warn!(
                configured,
                in_flight,
                memory,
                "`in_flight` is lowered: at 48 KiB each calls may take an eighth of the memory; \
                 give the process more memory, or configure fewer"
            ),
        }
    }
}

/// The smaller of the two, but at least one.
fn lower(configured: usize, fitting: u64) -> usize {
    configured.min(usize::try_from(fitting.max(1)).unwrap_or(usize::MAX))
}
