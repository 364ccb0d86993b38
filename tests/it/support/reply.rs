//! What a backend does with a request: bytes, waits and ends, in order.

use std::sync::{Arc, Condvar, Mutex};

use super::WAIT_LIMIT;

/// What the backend does once it has read a request.
#[derive(Debug, Clone)]
pub(crate) struct Act(pub(crate) Vec<Step>);

/// One step of an [`Act`].
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Write these bytes.
    Send(Vec<u8>),
    /// Go on when the gate is open.
    Wait(Gate),
    /// Close the connection in order.
    Close,
    /// Reset the connection.
    Reset,
}

/// Holds a backend back until a test opens it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everybody through, now and later.
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open, or long enough for any test to have ended.
    pub(crate) fn pass(&self) {
        let shut = self.0.0.lock().unwrap();
        let _ = self.0.1.wait_timeout_while(shut, 4 * WAIT_LIMIT, |open| !*open).unwrap();
    }
}

/// A complete answer of status `status` with a JSON body.
pub(crate) fn answer(status: u16, body: &str) -> Act {
    Act::whole(status, &[("content-type", "application/json")], body.as_bytes())
}

impl Act {
    /// A complete answer with these header lines and a computed `Content-Length`.
    pub(crate) fn whole(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut bytes = head(status, headers);
        let bodyless = status == 204 || status == 304;
        if !bodyless {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if !bodyless {
            bytes.extend_from_slice(body);
        }
        Self::raw(bytes)
    }

    /// A complete answer in chunks.
    pub(crate) fn chunked(status: u16, chunks: &[&[u8]]) -> Self {
        let mut bytes = head(status, &[("transfer-encoding", "chunked")]);
        bytes.extend_from_slice(b"\r\n");
        for chunk in chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        Self::raw(bytes)
    }

    /// Exactly these bytes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Send(bytes.into())])
    }

    /// No byte at all: the connection closes.
    pub(crate) fn close() -> Self {
        Self(vec![Step::Close])
    }

    /// No byte at all: the connection is reset.
    pub(crate) fn reset() -> Self {
        Self(vec![Step::Reset])
    }

    /// This, once the gate is open.
    pub(crate) fn after(self, gate: &Gate) -> Self {
        let mut steps = vec![Step::Wait(gate.clone())];
        steps.extend(self.0);
        Self(steps)
    }

    /// This and then that.
    pub(crate) fn then(mut self, next: Self) -> Self {
        self.0.extend(next.0);
        self
    }
}

fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} Whatever\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes
}
