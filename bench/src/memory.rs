//! The gateway's memory and start time, with many records stored.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::cases::REQUESTS;
use crate::load::{self, Ask, Counted, Load, Status, Until};
use crate::process;
use crate::secure::Wire;
use crate::servers::{Gateway, Place};

/// The whole run is bounded: what is not stored by then is not stored.
const FILLING: Duration = Duration::from_secs(100);

/// Background work after a start or a load gets this long before memory is read.
const SETTLING: Duration = Duration::from_secs(1);

/// A start may miss what is wanted by this much and still be told.
const STARTING: Duration = Duration::from_secs(9);

/// Enough requests at once for group commit to work.
const CONNECTIONS: usize = 64;

pub(crate) struct Found {
    /// Final records in the store.
    pub(crate) records: u64,
    /// Resident bytes with them stored, in the process that stored them.
    pub(crate) filled: u64,
    /// From the start of the process to its first replay, after SIGTERM and after SIGKILL.
    pub(crate) start: Duration,
    pub(crate) start_after_kill: Duration,
    /// Resident bytes after that start.
    pub(crate) restarted: u64,
}

/// Resident bytes of the gateway at rest.
pub(crate) fn settled(gateway: &Gateway) -> Result<u64, Failure> {
    std::thread::sleep(SETTLING);
    process::resident(gateway.server.pid())
}

/// Fills the store to `records` through the gateway (of which `stored` are there), then starts it twice.
pub(crate) fn measure(
    place: &Place,
    binary: &Path,
    mut gateway: Gateway,
    records: u64,
    stored: u64,
) -> Result<Found, Failure> {
    let missing = records.saturating_sub(stored);
    let fill = Load {
        address: gateway.address,
        wire: Wire::Plain,
        second: None,
        ask: Ask::Fresh,
        status: Status::Is("executed"),
        connections: CONNECTIONS,
    };
    let mut records = stored;
    if missing > 0 {
        records +=
            load::run(&fill, Until::Answered(missing, FILLING), Counted::default())?.answered;
    }
    let filled = settled(&gateway)?;
    gateway.server.stop();
    let (mut gateway, start) = timed_start(place, binary)?;
    gateway.server.kill();
    let (gateway, start_after_kill) = timed_start(place, binary)?;
    let restarted = settled(&gateway)?;
    Ok(Found { records, filled, start, start_after_kill, restarted })
}

/// Starts the gateway and asks for an answer stored before: only then it is up.
fn timed_start(place: &Place, binary: &Path) -> Result<(Gateway, Duration), Failure> {
    let begun = Instant::now();
    let gateway = Gateway::start(place, binary, REQUESTS)?;
    let replay = Load {
        address: gateway.address,
        wire: Wire::Plain,
        second: None,
        ask: Ask::Same,
        status: Status::Is("replayed"),
        connections: 1,
    };
    let answered = load::run(&replay, Until::Answered(1, STARTING), Counted::default())?;
    if answered.hits > 0 {
        return Err("after a start, a replay reached the backend".into());
    }
    Ok((gateway, begun.elapsed()))
}
