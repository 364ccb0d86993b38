//! What the proxy was told and what it has counted, under one lock.

use std::io;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::super::WAIT_LIMIT;

/// The way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// What may still pass before the cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Budget {
    Bytes(u64),
    Messages(u64),
}

/// What has passed one way.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Passed {
    pub(super) bytes: u64,
    pub(super) messages: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) target: SocketAddr,
    /// Connections of an older generation are cut.
    pub(super) generation: u64,
    pub(super) refusing: bool,
    pub(super) frozen: bool,
    /// The first so many connections are frozen, whatever else is.
    pub(super) held: u64,
    pub(super) delay: Duration,
    pub(super) cut: Option<(Direction, Budget)>,
    pub(super) ended: bool,
    pub(super) listening: bool,
    pub(super) connections: u64,
    pub(super) open: u64,
    to_server: Passed,
    to_client: Passed,
}

/// What became of a message that was due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes went; the message is done when they were all of it.
    Went(usize),
    /// Nothing may pass until something changes.
    Frozen,
    /// The receiver takes no more for now.
    Full,
    /// The connection ends here.
    Cut,
}

impl State {
    /// Whether bytes of the connection of this number and generation stand still.
    pub(super) fn stands(&self, number: u64) -> bool {
        self.frozen || number <= self.held
    }

    pub(super) fn passed(&self, direction: Direction) -> Passed {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    /// Writes what may pass of `bytes`, the rest of a message, and counts it.
    ///
    /// The decision and the write are one step under the lock: what a control forbids does not pass
    /// after it has returned, and no answer overtakes a cut.
    pub(super) fn pass(
        &mut self,
        direction: Direction,
        (number, generation): (u64, u64),
        bytes: &[u8],
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> Step {
        if self.ended || generation != self.generation {
            return Step::Cut;
        }
        if self.stands(number) {
            return Step::Frozen;
        }
        let due = self.cut.and_then(|(way, budget)| (way == direction).then_some(budget));
        let most = match due {
            Some(Budget::Bytes(left)) => usize::try_from(left).unwrap_or(usize::MAX),
            Some(Budget::Messages(0)) => 0,
            Some(Budget::Messages(_)) | None => usize::MAX,
        };
        if most == 0 {
            return self.cut_now();
        }
        let offered = &bytes[..bytes.len().min(most)];
        let went = match write(offered) {
            Ok(went) => went,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Full,
            Err(_) => return Step::Cut,
        };
        let whole = went == bytes.len();
        let passed = match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        };
        passed.bytes += went as u64;
        passed.messages += u64::from(whole);
        let left = match due {
            None => return Step::Went(went),
            Some(Budget::Bytes(left)) => Budget::Bytes(left.saturating_sub(went as u64)),
            Some(Budget::Messages(left)) => Budget::Messages(left - u64::from(whole)),
        };
        if matches!(left, Budget::Bytes(0) | Budget::Messages(0)) {
            return self.cut_now();
        }
        self.cut = Some((direction, left));
        Step::Went(went)
    }

    fn cut_now(&mut self) -> Step {
        self.cut = None;
        self.generation += 1;
        Step::Cut
    }
}

/// The state, and the news that it has changed.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    listening: Condvar,
}

impl Shared {
    pub(super) fn new(target: SocketAddr) -> Self {
        let state = State {
            target,
            generation: 0,
            refusing: false,
            frozen: false,
            held: 0,
            delay: Duration::ZERO,
            cut: None,
            ended: false,
            listening: true,
            connections: 0,
            open: 0,
            to_server: Passed::default(),
            to_client: Passed::default(),
        };
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            listening: Condvar::new(),
        }
    }

    pub(super) fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    pub(super) fn change<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        let given = write(&mut self.lock());
        self.listening.notify_all();
        self.changed.send_replace(());
        given
    }

    /// Like [`Self::change`], where nobody waits for it: the count of what passes.
    pub(super) fn count<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        write(&mut self.lock())
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until the listener is there, or is not.
    pub(super) fn until_listening(&self, wanted: bool) {
        let waited = self
            .listening
            .wait_timeout_while(self.lock(), WAIT_LIMIT, |state| state.listening != wanted);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(state.listening == wanted, "the proxy's listener is not as told: wanted {wanted}");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
