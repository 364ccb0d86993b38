//! A proxy in front of a server that breaks connections when it is told to.

mod flow;
mod state;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::place::free_port;
use state::{Budget, Shared};

pub(crate) use state::Direction;

/// A TCP proxy with a thread of its own; every connection ends when it is dropped.
///
/// A message is what one read takes, up to 64 KiB: with a client that writes and waits, one write.
/// A control holds from the moment it returns; it can be called from a test with or without a
/// runtime.
#[derive(Debug)]
pub(crate) struct Chaos {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Chaos {
    /// Listens on a free port and forwards to `target`.
    pub(crate) fn start(target: SocketAddr) -> Self {
        const PORT_TRIES: u32 = 20;
        let bound = (0..PORT_TRIES)
            .find_map(|_| std::net::TcpListener::bind(("127.0.0.1", free_port())).ok());
        let listener = bound.expect("a free port for the proxy");
        let addr = listener.local_addr().expect("a bound listener");
        let shared = Arc::new(Shared::new(target));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || flow::run(listener, &theirs));
        Self { addr, shared, thread: Some(thread) }
    }

    /// Where clients connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Forwards connections that come from now on to another address.
    pub(crate) fn retarget(&self, target: SocketAddr) {
        self.shared.change(|state| state.target = target);
    }

    /// Ends every connection: the client sees a reset, the server an end.
    pub(crate) fn cut_all(&self) {
        self.shared.change(|state| state.generation += 1);
    }

    /// Whether new connections are refused. Those that exist stay.
    pub(crate) fn refuse(&self, refused: bool) {
        self.shared.change(|state| state.refusing = refused);
        self.shared.until_listening(!refused);
    }

    /// Whether bytes stand still, both ways. Connections stay, and new ones are taken.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.shared.change(|state| state.frozen = frozen);
    }

    /// Whether bytes of the connections that there are stand still, also when their client has gone:
    /// they arrive when they are let. Connections that come later are as free as ever.
    pub(crate) fn hold(&self, held: bool) {
        self.shared.change(|state| state.held = if held { state.connections } else { 0 });
    }

    /// How much later every message arrives, each way. Zero at the start.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.change(|state| state.delay = delay);
    }

    /// Lets `count` more bytes pass that way, over all connections, then cuts all, once.
    pub(crate) fn cut_after_bytes(&self, direction: Direction, count: u64) {
        self.shared.change(|state| state.cut = Some((direction, Budget::Bytes(count))));
    }

    /// Lets `count` more messages pass that way, over all connections, then cuts all, once. The last
    /// one arrives, its answer does not. With none left at all, the next one is lost with the cut.
    pub(crate) fn cut_after_messages(&self, direction: Direction, count: u64) {
        self.shared.change(|state| state.cut = Some((direction, Budget::Messages(count))));
    }

    /// Whether a cut that was ordered has yet to come; taken back with [`Self::keep`].
    pub(crate) fn cut_is_due(&self) -> bool {
        self.shared.look(|state| state.cut.is_some())
    }

    /// Takes an ordered cut back, and a freeze, a delay and a refusal too.
    pub(crate) fn keep(&self) {
        self.shared.change(|state| {
            state.cut = None;
            state.frozen = false;
            state.delay = Duration::ZERO;
        });
        self.refuse(false);
    }

    /// Connections taken since the start.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.look(|state| state.connections)
    }

    /// Connections there are now.
    pub(crate) fn open(&self) -> u64 {
        self.shared.look(|state| state.open)
    }

    /// Bytes that have passed that way.
    pub(crate) fn bytes(&self, direction: Direction) -> u64 {
        self.shared.look(|state| state.passed(direction).bytes)
    }

    /// Messages that have passed that way.
    pub(crate) fn messages(&self, direction: Direction) -> u64 {
        self.shared.look(|state| state.passed(direction).messages)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.shared.change(|state| state.ended = true);
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
