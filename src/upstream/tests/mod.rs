//! What is proven about each way a call can end, against real sockets.

mod support;
mod tls;

use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;

use self::support::{Backend, OK, Peer, config, dead_url, get, post, request, text, upstream};
use super::{Framing, SendError, SendFailure, Upstream};
use crate::body::{Body, BodyError, full};

/// Sends one request to a backend that does `script` after reading it.
async fn after_reading(script: impl Fn(Peer) + Send + Sync + 'static) -> Result<String, SendError> {
    let backend = Backend::start(move |mut peer| {
        peer.request().unwrap();
        script(peer);
    });
    let result = upstream(&[backend.url()]).send(post("{}")).await;
    assert_eq!(backend.requests().len(), 1, "the backend saw the request once");
    Ok(text(result?).await.unwrap_or_else(|_| "truncated".to_owned()))
}

fn check(result: &Result<String, SendError>, expected: SendFailure) {
    match result {
        Err(SendError::Unknown { failure, .. }) if *failure == expected => {}
        result => panic!("expected {expected:?}, got {result:?}"),
    }
}

#[tokio::test]
async fn what_happens_after_the_backend_has_read_the_request_is_unknown() {
    check(&after_reading(Peer::reset).await, SendFailure::Reset);
    check(&after_reading(drop).await, SendFailure::Closed);
    check(&after_reading(|mut peer| peer.say("HTTP/1.1 200 O")).await, SendFailure::Closed);
    check(&after_reading(|mut peer| peer.say("SSH-2.0-x\r\n\r\n")).await, SendFailure::BadResponse);
    let gzip = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    check(&after_reading(move |mut peer| peer.say(gzip)).await, SendFailure::BadResponse);
    let lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    check(&after_reading(move |mut peer| peer.say(lengths)).await, SendFailure::BadResponse);
}

#[tokio::test]
async fn a_response_head_over_the_limit_is_a_bad_response() {
    let result = after_reading(|mut peer| {
        peer.say("HTTP/1.1 200 OK\r\n");
        for _ in 0..80 {
            peer.say(&format!("x: {}\r\n", "y".repeat(1024)));
        }
        peer.say("content-length: 0\r\n\r\n");
        // Until the gateway has closed, so that no reset can overtake the head.
        while peer.request().is_some() {}
    });
    check(&result.await, SendFailure::BadResponse);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_clean_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let result = after_reading(move |mut peer| peer.say(answer)).await;
        assert_eq!(result.unwrap(), "truncated", "{answer:?}");
    }
}

#[tokio::test]
async fn a_refused_connection_proves_that_nothing_was_sent() {
    let urls = [dead_url(), dead_url()];
    match upstream(&urls).send(post("{}")).await {
        Err(SendError::NotSent { reason }) => {
            assert!(urls.iter().all(|url| reason.contains(url.as_str())), "{reason}");
        }
        result => panic!("{result:?}"),
    }
}

#[tokio::test]
async fn what_may_no_longer_be_sent_when_there_is_a_connection_is_not() {
    let backend = Backend::answering(OK);
    let upstream = upstream(&[backend.url()]);
    let over = || Err("it is over".to_owned());
    // Over a new connection, then over one that was used before.
    for sent in 0..2 {
        match upstream.send_if(post("{}"), &over).await {
            Err(SendError::NotSent { reason }) => assert_eq!(reason, "it is over"),
            result => panic!("{result:?}"),
        }
        assert_eq!(backend.requests().len(), sent);
        assert_eq!(text(upstream.send(post("{}")).await.unwrap()).await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_proves_that_nothing_was_sent() {
    let result = upstream(&["http://nowhere.invalid".to_owned()]).send(post("{}")).await;
    assert!(matches!(result, Err(SendError::NotSent { .. })), "{result:?}");
}

#[tokio::test]
async fn a_backend_that_closes_on_accept_gives_no_answer_and_no_second_try() {
    let backend = Backend::start(drop);
    let result = upstream(&[backend.url()]).send(post("{}")).await;
    // Which error it is depends on what was faster.
    assert!(result.is_err(), "{result:?}");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn connections_are_used_again() {
    for answer in [
        OK,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n",
    ] {
        let backend = Backend::answering(answer);
        let upstream = upstream(&[backend.url()]);
        for _ in 0..20 {
            assert_eq!(text(upstream.send(post("{}")).await.unwrap()).await.unwrap(), "ok");
        }
        assert_eq!((backend.connections(), backend.requests().len()), (1, 20), "{answer:?}");
    }
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n");
    let upstream = upstream(&[backend.url()]);
    for _ in 0..20 {
        let response = upstream.send(post("{}")).await.unwrap();
        assert_eq!(response.body().framing(), Framing::None);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a test has nothing to drain")]
async fn concurrent_calls_share_connections_and_all_are_sent_once() {
    const CALLERS: usize = 8;
    const CALLS: usize = 100;
    let backend = Backend::answering(OK);
    let upstream = Arc::new(upstream(&[backend.url()]));
    let callers = (0..CALLERS).map(|_| {
        let upstream = upstream.clone();
        tokio::spawn(async move {
            for _ in 0..CALLS {
                assert_eq!(text(upstream.send(post("{}")).await.unwrap()).await.unwrap(), "ok");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(backend.requests().len(), CALLERS * CALLS);
    assert_eq!(upstream.endpoints[0].in_flight(), 0);
    // One for each caller, and a few more where a driver had not finished its turn in time.
    assert!(backend.connections() < CALLERS * 4, "{}", backend.connections());
}

#[tokio::test]
async fn a_connection_whose_end_was_told_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let backend = Backend::answering(answer);
        let upstream = upstream(&[backend.url()]);
        for _ in 0..3 {
            assert_eq!(text(upstream.send(post("{}")).await.unwrap()).await.unwrap(), "ok");
        }
        assert_eq!(backend.connections(), 3, "{answer:?}");
    }
}

/// The end of the idle connection is in the kernel, and the runtime has had no chance to learn of
/// it: this thread, the runtime's only one, blocks until the backend has closed.
async fn stale(close: fn(Peer)) {
    let (read, is_read) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel();
    let is_read = Mutex::new(is_read);
    let backend = Backend::start(move |mut peer| {
        if peer.index == 0 {
            peer.request().unwrap();
            peer.say(OK);
            is_read.lock().unwrap().recv().unwrap();
            close(peer);
            closed.send(()).unwrap();
        } else {
            while peer.request().is_some() {
                peer.say(OK);
            }
        }
    });
    let upstream = upstream(&[backend.url()]);
    text(upstream.send(post("first")).await.unwrap()).await.unwrap();
    read.send(()).unwrap();
    is_closed.recv().unwrap();
    assert_eq!(text(upstream.send(post("second")).await.unwrap()).await.unwrap(), "ok");
    let seconds = backend.requests().iter().filter(|text| text.ends_with("second")).count();
    assert_eq!((seconds, backend.connections()), (1, 2));
}

#[tokio::test]
async fn a_stale_connection_is_replaced_and_the_request_is_seen_once() {
    stale(drop).await;
}

#[tokio::test]
async fn a_connection_reset_while_idle_is_replaced_and_the_request_is_seen_once() {
    stale(Peer::reset).await;
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_are_never_taken_for_an_answer() {
    let (said, is_said) = mpsc::channel();
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say(OK);
            if peer.index == 0 {
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
                said.send(()).unwrap();
            }
        }
    });
    let upstream = upstream(&[backend.url()]);
    text(upstream.send(post("first")).await.unwrap()).await.unwrap();
    is_said.recv().unwrap();
    assert_eq!(text(upstream.send(post("second")).await.unwrap()).await.unwrap(), "ok");
    assert_eq!((backend.requests().len(), backend.connections()), (2, 2));
}

#[tokio::test]
async fn a_connection_idle_for_longer_than_keep_alive_is_closed_and_not_used_again() {
    let (ended, mut has_ended) = tokio::sync::mpsc::channel(1);
    let backend = Backend::start(move |mut peer| {
        while peer.request().is_some() {
            peer.say(OK);
        }
        let _ = ended.try_send(());
    });
    let settings = crate::config::UpstreamConfig {
        keep_alive: Duration::from_millis(1),
        ..config(&[backend.url()])
    };
    let upstream = Upstream::new(&settings).unwrap();
    text(upstream.send(post("{}")).await.unwrap()).await.unwrap();
    has_ended.recv().await.unwrap();
    text(upstream.send(post("{}")).await.unwrap()).await.unwrap();
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_response_dropped_half_read_closes_its_connection() {
    let (ended, mut has_ended) = tokio::sync::mpsc::channel(1);
    let backend = Backend::start(move |mut peer| {
        peer.request().unwrap();
        peer.say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhello");
        assert!(peer.request().is_none());
        ended.blocking_send(()).unwrap();
    });
    let upstream = upstream(&[backend.url()]);
    let mut response = upstream.send(post("{}")).await.unwrap();
    assert_eq!(response.body().framing(), Framing::Length);
    response.body_mut().frame().await.unwrap().unwrap();
    drop(response);
    has_ended.recv().await.unwrap();
    assert_eq!(upstream.endpoints[0].in_flight(), 0);
}

#[tokio::test]
async fn a_call_given_up_closes_its_connection() {
    let (seen, mut is_seen) = tokio::sync::mpsc::channel(2);
    let backend = Backend::start(move |mut peer| {
        peer.request().unwrap();
        seen.blocking_send(()).unwrap();
        assert!(peer.request().is_none());
        seen.blocking_send(()).unwrap();
    });
    let upstream = upstream(&[backend.url()]);
    {
        let mut call = std::pin::pin!(upstream.send(post("{}")));
        tokio::select! {
            result = &mut call => panic!("{result:?}"),
            _ = is_seen.recv() => {}
        }
    }
    is_seen.recv().await.unwrap();
    assert_eq!(upstream.endpoints[0].in_flight(), 0);
}

#[tokio::test]
async fn interim_responses_are_skipped_and_101_is_reported() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n\
                   HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(after_reading(move |mut peer| peer.say(interim)).await.unwrap(), "ok");

    let backend = Backend::answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    );
    let upstream = upstream(&[backend.url()]);
    for _ in 0..2 {
        let response = upstream.send(post("{}")).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(text(response).await.unwrap(), "");
    }
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_does_not_prove_its_end() {
    let backend = Backend::start(|mut peer| {
        peer.request().unwrap();
        peer.say("HTTP/1.0 200 OK\r\n\r\nhello");
    });
    let response = upstream(&[backend.url()]).send(get()).await.unwrap();
    assert_eq!(response.body().framing(), Framing::UntilClose { trusted: false });
    assert!(!response.body().framing().proves_end());
    assert_eq!(text(response).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_dead_url_is_passed_over_and_then_avoided() {
    let backend = Backend::answering(OK);
    let upstream = upstream(&[dead_url(), backend.url()]);
    for _ in 0..6 {
        text(upstream.send(post("{}")).await.unwrap()).await.unwrap();
    }
    assert_eq!(backend.requests().len(), 6);
    assert!(upstream.endpoints[0].is_avoided(upstream.now()));
    // When the cool-down is over, one call is sent to find out and the others still avoid it.
    let later = upstream.now() + crate::clock::millis(super::pool::COOL_DOWN) + 1;
    assert!(!upstream.endpoints[0].is_avoided(later));
    upstream.endpoints[0].chosen(later);
    assert!(upstream.endpoints[0].is_avoided(later));
    upstream.endpoints[0].reached();
    assert!(!upstream.endpoints[0].is_avoided(1));
}

#[tokio::test]
async fn the_least_loaded_url_is_taken_and_equals_take_turns() {
    let (one, other) = (Backend::answering(OK), Backend::answering(OK));
    let upstream = upstream(&[one.url(), other.url()]);
    for _ in 0..10 {
        text(upstream.send(post("{}")).await.unwrap()).await.unwrap();
    }
    assert_eq!((one.requests().len(), other.requests().len()), (5, 5));
    // A response that is not read yet is a running call.
    let _running = upstream.endpoints[0].enter();
    for _ in 0..10 {
        text(upstream.send(post("{}")).await.unwrap()).await.unwrap();
    }
    assert_eq!((one.requests().len(), other.requests().len()), (5, 15));
}

#[tokio::test]
async fn target_host_and_framing_are_those_of_the_url_and_the_body() {
    let backend = Backend::answering(OK);
    let url = format!("http://localhost:{}", backend.address.port());
    for (base, sent, expected) in [
        ("", post("abc"), "POST /pay?x=1 HTTP/1.1"),
        ("/", post("abc"), "POST /pay?x=1 HTTP/1.1"),
        ("/base/", post("abc"), "POST /base/pay?x=1 HTTP/1.1"),
        ("", request(Method::POST, "http://a.example/x?y", full("abc")), "POST /x?y HTTP/1.1"),
        ("/base", request(Method::OPTIONS, "*", full("abc")), "OPTIONS * HTTP/1.1"),
    ] {
        let mut sent = sent;
        sent.headers_mut().insert("host", "client.example".parse().unwrap());
        sent.headers_mut().insert("content-length", "77".parse().unwrap());
        let response = upstream(&[format!("{url}{base}")]).send(sent).await.unwrap();
        text(response).await.unwrap();
        let seen = backend.requests().pop().unwrap();
        assert_eq!(
            seen,
            format!(
                "{expected}\r\nhost: localhost:{}\r\ncontent-length: 3\r\n\r\nabc",
                backend.address.port()
            )
        );
    }
}

#[tokio::test]
async fn an_empty_post_says_so_and_an_empty_get_says_nothing() {
    let backend = Backend::answering(OK);
    let upstream = upstream(&[backend.url()]);
    upstream.send(post("")).await.unwrap();
    upstream.send(get()).await.unwrap();
    let seen = backend.requests();
    assert!(seen[0].contains("\r\ncontent-length: 0\r\n"), "{seen:?}");
    assert!(!seen[1].contains("content-length") && !seen[1].contains("transfer-encoding"));
}

/// A body of unknown length that says "part" and then ends as told.
struct Parts(bool, Option<Result<(), &'static str>>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.0, true) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"part")))));
        }
        match this.1.take() {
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Some(Ok(())) | None => Poll::Ready(None),
        }
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_chunked_whatever_the_method() {
    let backend = Backend::start(|mut peer| {
        peer.request().unwrap();
        peer.say(OK);
    });
    for method in [Method::GET, Method::POST] {
        let body = Body::streamed(Parts(false, Some(Ok(()))));
        upstream(&[backend.url()]).send(request(method, "/", body)).await.unwrap();
        let seen = backend.requests().pop().unwrap();
        assert!(seen.contains("\r\ntransfer-encoding: chunked\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_told_from_a_failing_backend() {
    let backend = Backend::answering(OK);
    let body = Body::streamed(Parts(false, Some(Err("the client went away"))));
    let request = request(Method::POST, "/", body);
    match upstream(&[backend.url()]).send(request).await {
        Err(SendError::Unknown { failure: SendFailure::RequestBody, .. }) => {}
        result => panic!("{result:?}"),
    }
}

#[test]
fn a_url_that_cannot_be_used_is_refused_with_its_reason() {
    for (url, expected) in [
        ("ftp://a", "scheme"),
        ("/path", "host"),
        ("http://user:secret@a/", "credentials"),
        ("http://a/?x", "query"),
    ] {
        let error = Upstream::new(&config(&[url.to_owned()])).unwrap_err();
        assert!(error.contains("\"test\"") && error.contains(expected), "{error}");
    }
    assert!(Upstream::new(&config(&[])).unwrap_err().contains("no URL"));
}
