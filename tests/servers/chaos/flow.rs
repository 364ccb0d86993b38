//! The proxy's sockets: accepting, connecting, and the bytes both ways.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::state::{Direction, Shared, Step};

/// The most of one message.
const MESSAGE: usize = 64 * 1024;

/// Messages on their way, for each connection and direction; more wait in the kernel.
const UNDER_WAY: usize = 256;

/// Pause before a listener that could not come back is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;

/// Runs the proxy until it is told to end.
pub(super) fn run(listener: std::net::TcpListener, shared: &Arc<Shared>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the proxy");
    runtime.block_on(async {
        listener.set_nonblocking(true).expect("a listener");
        accept(TcpListener::from_std(listener).expect("a listener"), shared).await;
    });
}

async fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let addr = listener.local_addr().expect("a bound listener");
    let mut listener = Some(listener);
    let mut held = None;
    let mut changes = shared.changes();
    let mut connections = JoinSet::new();
    loop {
        let (ended, refusing) = shared.look(|state| (state.ended, state.refusing));
        if ended {
            break;
        }
        listen((&mut listener, &mut held), refusing, addr, shared).await;
        tokio::select! {
            // The sender lives as long as the proxy.
            _ = changes.changed() => {}
            Some(taken) = taken(listener.as_ref()) => {
                connections.spawn(connection(taken, Arc::clone(shared)));
            }
            Some(_) = connections.join_next() => {}
            () = sleep(AGAIN), if listener.is_none() && !refusing => {}
        }
    }
}

/// Opens or closes the listener as the state wants it, and says so. While it is closed a socket that
/// does not listen keeps the port from others.
async fn listen(
    (listener, held): (&mut Option<TcpListener>, &mut Option<TcpSocket>),
    refusing: bool,
    addr: SocketAddr,
    shared: &Shared,
) {
    if refusing {
        if listener.take().is_some() {
            *held = hold(addr);
        }
    } else if listener.is_none() {
        *listener = match held.take() {
            Some(socket) => socket.listen(BACKLOG).ok(),
            None => TcpListener::bind(addr).await.ok(),
        };
    }
    let listening = listener.is_some();
    if shared.look(|state| state.listening != listening) {
        shared.change(|state| state.listening = listening);
    }
}

fn hold(addr: SocketAddr) -> Option<TcpSocket> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    socket.bind(addr).ok()?;
    Some(socket)
}

async fn taken(listener: Option<&TcpListener>) -> Option<TcpStream> {
    let listener = listener?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some(stream),
            // Out of descriptors, or a client that has gone again.
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// One client's connection from start to end.
async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let (target, number, generation) = shared.count(|state| {
        state.connections += 1;
        state.open += 1;
        (state.target, state.connections, state.generation)
    });
    let flow = Flow { client, number, generation, shared: &shared };
    if flow.run(target).await.is_err() {
        // The client sees a reset, and the server an end after the last byte it was given.
        _ = flow.client.set_zero_linger();
    }
    drop(flow);
    shared.count(|state| state.open -= 1);
}

/// The connection was cut, by order or by a peer.
struct Cut;

/// A message and when it may arrive; an empty one is the sender's end.
struct Message {
    bytes: Vec<u8>,
    due: Instant,
}

/// A connection of a client.
struct Flow<'a> {
    client: TcpStream,
    /// It is the connection of this number since the start.
    number: u64,
    /// The generation it belongs to; a later one means that it is cut.
    generation: u64,
    shared: &'a Shared,
}

impl Flow<'_> {
    /// Connects and copies both ways. A cut ends both; an end is passed on, and the other way goes
    /// on until it ends too.
    async fn run(&self, target: SocketAddr) -> Result<(), Cut> {
        let server = TcpStream::connect(target).await.map_err(|_| Cut)?;
        _ = self.client.set_nodelay(true);
        _ = server.set_nodelay(true);
        tokio::try_join!(
            self.one_way(&self.client, &server, Direction::ToServer),
            self.one_way(&server, &self.client, Direction::ToClient),
        )?;
        Ok(())
    }

    async fn one_way(
        &self,
        from: &TcpStream,
        to: &TcpStream,
        direction: Direction,
    ) -> Result<(), Cut> {
        let (sender, receiver) = channel(UNDER_WAY);
        tokio::try_join!(self.take(from, sender), self.deliver(to, receiver, direction))?;
        Ok(())
    }

    async fn take(&self, from: &TcpStream, sender: Sender<Message>) -> Result<(), Cut> {
        let mut changes = self.shared.changes();
        let mut buffer = vec![0; MESSAGE];
        loop {
            self.alive()?;
            tokio::select! {
                readable = from.readable() => readable.map_err(|_| Cut)?,
                _ = changes.changed() => continue,
            }
            let read = match from.try_read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return Err(Cut),
            };
            let due = Instant::now() + self.shared.look(|state| state.delay);
            let message = Message { bytes: buffer[..read].to_vec(), due };
            sender.send(message).await.map_err(|_| Cut)?;
            if read == 0 {
                return Ok(());
            }
        }
    }

    async fn deliver(
        &self,
        to: &TcpStream,
        mut receiver: Receiver<Message>,
        direction: Direction,
    ) -> Result<(), Cut> {
        let mut changes = self.shared.changes();
        while let Some(Message { bytes, due }) = receiver.recv().await {
            self.until(&mut changes, due).await?;
            if bytes.is_empty() {
                self.until_thawed(&mut changes).await?;
                return rustix::net::shutdown(to, Shutdown::Write).map_err(|_| Cut);
            }
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let step = self.shared.count(|state| {
                    state.pass(direction, (self.number, self.generation), rest, |part| {
                        to.try_write(part)
                    })
                });
                match step {
                    Step::Went(count) => rest = &rest[count..],
                    Step::Frozen => self.until_thawed(&mut changes).await?,
                    Step::Full => tokio::select! {
                        writable = to.writable() => writable.map_err(|_| Cut)?,
                        _ = changes.changed() => {}
                    },
                    Step::Cut => {
                        // The other connections learn of it.
                        self.shared.change(|_| ());
                        return Err(Cut);
                    }
                }
            }
        }
        Ok(())
    }

    fn alive(&self) -> Result<(), Cut> {
        let alive = self.shared.look(|state| !state.ended && state.generation == self.generation);
        if alive { Ok(()) } else { Err(Cut) }
    }

    async fn until(&self, changes: &mut watch::Receiver<()>, due: Instant) -> Result<(), Cut> {
        while Instant::now() < due {
            self.alive()?;
            tokio::select! {
                () = sleep_until(due) => {}
                _ = changes.changed() => {}
            }
        }
        Ok(())
    }

    async fn until_thawed(&self, changes: &mut watch::Receiver<()>) -> Result<(), Cut> {
        loop {
            self.alive()?;
            if !self.shared.look(|state| state.stands(self.number)) {
                return Ok(());
            }
            _ = changes.changed().await;
        }
    }
}
