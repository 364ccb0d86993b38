//! The proxy that breaks connections, in front of an echo and of a real PostgreSQL.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use crate::servers::{Chaos, Direction, Postgres};
use crate::support::{WAIT_LIMIT, eventually};

/// Long enough for a byte to pass, were it let.
const WOULD_HAVE_PASSED: Duration = Duration::from_millis(50);

/// A server that sends back what it reads, and tells what it has read of each connection.
fn echo() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (sender, seen) = sync_channel(100);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, sender) = (stream.unwrap(), sender.clone());
            std::thread::spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    all.extend_from_slice(&buffer[..count]);
                    _ = stream.write_all(&buffer[..count]);
                }
                // The test may have seen enough.
                _ = sender.send(all);
            });
        }
    });
    (addr, seen)
}

fn connect(chaos: &Chaos) -> TcpStream {
    let stream = TcpStream::connect(chaos.addr()).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    assert_eq!(back, text.as_bytes());
    Ok(())
}

#[test]
fn passes_bytes_and_ends_and_counts_them() {
    let (target, seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    exchange(&mut stream, "hello").unwrap();
    exchange(&mut stream, "you").unwrap();
    assert_eq!((chaos.connections(), chaos.open()), (1, 1));
    assert_eq!((chaos.messages(Direction::ToServer), chaos.bytes(Direction::ToServer)), (2, 8));
    assert_eq!((chaos.messages(Direction::ToClient), chaos.bytes(Direction::ToClient)), (2, 8));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"helloyou");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the end comes back as an end");
    eventually("no open connection", || (chaos.open() == 0).then_some(()));
}

#[test]
fn a_cut_resets_every_client_and_the_next_connection_works() {
    let (target, seen) = echo();
    let chaos = Chaos::start(target);
    let mut streams = [connect(&chaos), connect(&chaos)];
    for stream in &mut streams {
        exchange(stream, "before").unwrap();
    }
    chaos.cut_all();
    for stream in &mut streams {
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"before");
    }
    exchange(&mut connect(&chaos), "after").unwrap();
}

#[test]
fn a_refused_connection_is_refused_and_others_stay() {
    let (target, _seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    exchange(&mut stream, "before").unwrap();
    for _ in 0..3 {
        chaos.refuse(true);
        let error = TcpStream::connect(chaos.addr()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        exchange(&mut stream, "still here").unwrap();
        chaos.refuse(false);
        exchange(&mut connect(&chaos), "again").unwrap();
    }
}

#[test]
fn frozen_bytes_arrive_when_thawed() {
    let (target, _seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    exchange(&mut stream, "before").unwrap();
    chaos.freeze(true);
    stream.write_all(b"frozen").unwrap();
    stream.set_read_timeout(Some(WOULD_HAVE_PASSED)).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert_eq!(chaos.bytes(Direction::ToServer), 6);
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    chaos.freeze(false);
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"frozen");
    chaos.freeze(true);
    chaos.cut_all();
    assert!(stream.read(&mut [0; 1]).is_err(), "a frozen connection can be cut");
}

#[test]
fn held_bytes_of_a_client_that_has_gone_arrive_after_those_of_the_next() {
    let (target, seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    exchange(&mut stream, "before").unwrap();
    chaos.hold(true);
    stream.write_all(b" held").unwrap();
    drop(stream);
    let mut next = connect(&chaos);
    exchange(&mut next, "after").unwrap();
    drop(next);
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"after");
    eventually("only the held one is left", || (chaos.open() == 1).then_some(()));
    chaos.hold(false);
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"before held");
    eventually("no open connection", || (chaos.open() == 0).then_some(()));
}

#[test]
fn every_message_comes_later_and_none_waits_for_another() {
    const DELAY: Duration = Duration::from_millis(30);
    let (target, _seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    chaos.delay(DELAY);
    let start = Instant::now();
    exchange(&mut stream, "late").unwrap();
    assert!(start.elapsed() >= DELAY * 2, "came after {:?}", start.elapsed());
    chaos.delay(Duration::ZERO);
    exchange(&mut stream, "at once").unwrap();
}

#[test]
fn cuts_at_the_ordered_message_and_only_once() {
    for answered in 0..3 {
        let (target, seen) = echo();
        let chaos = Chaos::start(target);
        let mut stream = connect(&chaos);
        exchange(&mut stream, "a").unwrap();
        // The message after those that are answered arrives; its answer does not.
        chaos.cut_after_messages(Direction::ToServer, answered + 1);
        for _ in 0..answered {
            exchange(&mut stream, "b").unwrap();
        }
        assert!(chaos.cut_is_due());
        exchange(&mut stream, "c").unwrap_err();
        assert!(!chaos.cut_is_due());
        let arrived = format!("a{}c", "b".repeat(answered as usize));
        assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), arrived.as_bytes());
        exchange(&mut connect(&chaos), "after").unwrap();
    }
}

#[test]
fn with_nothing_left_to_pass_the_next_message_is_lost() {
    let (target, seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    exchange(&mut stream, "a").unwrap();
    chaos.cut_after_messages(Direction::ToServer, 0);
    assert!(chaos.cut_is_due());
    exchange(&mut stream, "lost").unwrap_err();
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"a");
    let mut stream = connect(&chaos);
    chaos.cut_after_messages(Direction::ToClient, 0);
    exchange(&mut stream, "answer lost").unwrap_err();
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"answer lost");
}

#[test]
fn cuts_in_the_middle_of_a_message() {
    let (target, seen) = echo();
    let chaos = Chaos::start(target);
    let mut stream = connect(&chaos);
    chaos.cut_after_bytes(Direction::ToServer, 3);
    exchange(&mut stream, "hello").unwrap_err();
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"hel");
    assert_eq!(chaos.bytes(Direction::ToServer), 3);
    let mut stream = connect(&chaos);
    chaos.cut_after_bytes(Direction::ToClient, 2);
    stream.write_all(b"hello").unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap_err();
    assert_eq!(back, b"he");
}

#[test]
fn an_ordered_cut_can_be_taken_back_and_the_target_can_change() {
    let (one, _seen) = echo();
    let (other, seen) = echo();
    let chaos = Chaos::start(one);
    chaos.cut_after_messages(Direction::ToServer, 0);
    chaos.freeze(true);
    chaos.refuse(true);
    chaos.keep();
    let mut stream = connect(&chaos);
    exchange(&mut stream, "kept").unwrap();
    chaos.retarget(other);
    let mut moved = connect(&chaos);
    exchange(&mut moved, "moved").unwrap();
    drop(moved);
    assert_eq!(seen.recv_timeout(WAIT_LIMIT).unwrap(), b"moved");
    exchange(&mut stream, "still at the first").unwrap();
}

#[test]
fn a_statement_whose_answer_is_cut_off_may_have_been_committed() {
    let server = Postgres::shared();
    let database = server.create_database();
    server.run_sql_in(&database, "CREATE TABLE kept (step bigint PRIMARY KEY)");
    let chaos = Chaos::start(server.addr());
    let url = server.url_at(chaos.addr(), &database);
    let mut known = 0;
    let mut rows = Vec::new();
    for step in 0.. {
        chaos.cut_after_messages(Direction::ToServer, step);
        let done = Postgres::try_sql_at(&url, &format!("INSERT INTO kept VALUES ({step})"));
        let row = format!("SELECT count(*) FROM kept WHERE step = {step}");
        let quiet = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        );
        eventually("the cut session ends", || {
            (server.run_sql_in(&database, &quiet) == "0").then_some(())
        });
        rows.push(server.run_sql_in(&database, &row) == "1");
        if done.is_ok() {
            known = step;
            break;
        }
    }
    chaos.keep();
    // The start-up and the password's two messages, then the statement, then the farewell.
    assert!(known >= 4, "{rows:?}");
    assert!(!rows[0], "a statement ran before the first message");
    let unknown = rows[..known as usize].iter().filter(|row| **row).count();
    assert!(unknown >= 1, "no cut fell between the commit and its answer: {rows:?}");
}
