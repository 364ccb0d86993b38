//! The tracker before bytes in all sizes of reads.

use super::*;

fn tracker() -> RequestTracker {
    let second = Duration::from_secs(1);
    RequestTracker::new(HeadLimits { header: second, idle: second })
}

/// Passes all of `text` in reads of `size` bytes; begins an exchange after each head. Returns
/// the pieces and, for each head, the fragment's flag.
fn pieces(text: &str, size: usize, lengths: &[Option<u64>]) -> (Vec<String>, Vec<bool>) {
    let mut tracker = tracker();
    let (mut pieces, mut fragments, mut piece) = (Vec::new(), Vec::new(), String::new());
    let mut lengths = lengths.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let read = &rest[..size.min(rest.len())];
        let passed = tracker.pass(read.as_bytes());
        assert!(tracker.escaped(&rest.as_bytes()[passed..]).is_none());
        assert!(passed > 0, "{:?} at {rest:?}", tracker.position);
        piece.push_str(&rest[..passed]);
        rest = &rest[passed..];
        if tracker.position == Position::HeadPassed {
            assert!(tracker.is_in_head());
            let doubt = tracker.begin_with(*lengths.next().unwrap());
            fragments.push(doubt == Some(RequestDoubt::Fragment));
            pieces.push(std::mem::take(&mut piece));
        } else if tracker.is_between() && !piece.trim().is_empty() {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    assert_eq!(piece, "");
    (pieces, fragments)
}

#[test]
fn heads_and_bodies_are_told_apart_however_the_bytes_arrive() {
    let expected = [
        "GET /a HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nPOST /b HTTP/1.1\nhost: a\n\n",
        "GET /#c HTTP/1.1\r\n\r\n",
        "\r\nPOST /d#e HTTP/1.1\r\nx: #\r\n\r\n",
        "5;a=\"b\"\r\nGET /\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx: y\r\n\r\n",
        "G#T /f HTTP/1.1\r\n\r\n",
        "POST http://a/g?x#y HTTP/1.1\r\n\r\n",
        "0\r\n\r\n",
    ];
    let lengths = [Some(0), Some(20), None, Some(0), None];
    let text = expected.concat();
    for size in [1, 2, 3, 7, 16, 64, 4096] {
        let (found, fragments) = pieces(&text, size, &lengths);
        assert_eq!(found, expected, "{size}");
        assert_eq!(fragments, [false, false, true, false, true], "{size}");
    }
}

#[test]
fn characters_of_a_query_that_hyper_refuses_are_escaped_however_they_arrive() {
    let sent = "GET /\"<a>?b=\"<?>\"&c HTTP/1.1\r\nx: <\">?\r\n\r\n";
    let expected = "GET /\"<a>?b=%22%3C?%3E%22&c HTTP/1.1\r\nx: <\">?\r\n\r\n";
    for size in [1, 2, 3, 5, 11, 12, 13, 14, 100] {
        let mut tracker = tracker();
        let mut found = Vec::new();
        for read in sent.as_bytes().chunks(size) {
            let mut rest = BytesMut::from(read);
            while !rest.is_empty() {
                let passed = tracker.pass(&rest);
                found.extend_from_slice(&rest.split_to(passed));
                if let Some(escaped) = tracker.escaped(&rest) {
                    rest = escaped;
                }
            }
        }
        assert_eq!(String::from_utf8(found).unwrap(), expected, "{size}");
    }
}

#[test]
fn an_exchange_has_no_deadline_of_its_own() {
    let mut tracker = tracker();
    assert!(tracker.deadline().is_some() && !tracker.is_in_head());
    assert_eq!(tracker.pass(b"\r\nG"), 3);
    assert!(tracker.deadline().is_some() && tracker.is_in_head());
    tracker.pass(b"ET / HTTP/1.1\r\n\r\n");
    tracker.begin_with(Some(0));
    assert!(tracker.deadline().is_none() && !tracker.is_in_head());
    tracker.wait();
    assert!(tracker.deadline().is_some() && tracker.is_between());
}

#[test]
fn a_length_beside_chunks_is_found_however_it_arrives() {
    for (head, is_found) in [
        ("host: a\r\nContent-LENGTH: 2\r\ntransfer-encoding: chunked\r\n", true),
        ("content-length:2\r\n", true),
        ("transfer-encoding: chunked\r\ncontent-length: 2\r\n", true),
        ("content-lengths: 2\r\nxcontent-length: 2\r\ncontent: content-length: 2\r\n", false),
        ("content-encoding: gzip\r\nx: y\r\n", false),
    ] {
        let text = format!("PUT /content-length: HTTP/1.1\r\n{head}\r\n");
        for size in [1, 2, 3, 7, 16, 64, 4096] {
            let mut tracker = tracker();
            for read in text.as_bytes().chunks(size) {
                assert_eq!(tracker.pass(read), read.len());
            }
            let expected = is_found.then_some(RequestDoubt::TwoFramings);
            assert_eq!(tracker.begin_with(None), expected, "{head:?} by {size}");
            assert_eq!(tracker.begin_with(Some(2)), None, "a length alone is no doubt");
        }
    }
}
