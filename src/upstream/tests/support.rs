//! Backends that do exactly what a test says, on plain sockets and threads of their own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;

use super::super::{ResponseBody, Upstream};
use crate::body::{Body, empty, full};
use crate::config;

/// A whole answer.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A backend and what it saw.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// One connection, as the backend sees it.
pub(super) struct Peer {
    /// Counts from 0.
    pub(super) index: usize,
    stream: BufReader<TcpStream>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    /// Runs `script` on each connection; the connection is closed when it returns.
    pub(super) fn start(script: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (accepted, seen, script) = (connections.clone(), requests.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let index = accepted.fetch_add(1, Ordering::SeqCst);
                let stream = BufReader::new(stream.unwrap());
                let peer = Peer { index, stream, requests: seen.clone() };
                let script = script.clone();
                std::thread::spawn(move || script(peer));
            }
        });
        Self { address, connections, requests }
    }

    /// Answers every request.
    pub(super) fn answering(answer: &'static str) -> Self {
        Self::start(move |mut peer| {
            while peer.request().is_some() {
                peer.say(answer);
            }
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Peer {
    /// The next request, head and body; `None` when the connection ended instead.
    pub(super) fn request(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut length = 0;
        while !text.ends_with("\r\n\r\n") {
            let start = text.len();
            if self.stream.read_line(&mut text).unwrap_or(0) == 0 {
                return None;
            }
            if let Some(value) = text[start..].strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        text.push_str(&String::from_utf8(body).unwrap());
        self.requests.lock().unwrap().push(text.clone());
        Some(text)
    }

    pub(super) fn say(&mut self, text: &str) {
        // The other side may be gone; what it then saw is what the test looks at.
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    /// Ends the connection with RST.
    pub(super) fn reset(self) {
        let socket = self.stream.into_inner();
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }
}

/// A URL that nobody listens on.
pub(super) fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

pub(super) fn config(urls: &[String]) -> config::UpstreamConfig {
    config::UpstreamConfig {
        name: "test".to_owned(),
        urls: urls.iter().map(|url| config::BackendUrl::Http(url.parse().unwrap())).collect(),
        connect_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(60),
        http: config::HttpVersion::Http1,
        streams: 16,
        host: config::HostPolicy::Upstream,
        close_delimited: config::CloseDelimited::Checked,
        ca: None,
        client_cert: None,
    }
}

pub(super) fn upstream(urls: &[String]) -> Upstream {
    Upstream::new(&config(urls)).unwrap()
}

pub(super) fn post(body: &'static str) -> Request<Body> {
    request(Method::POST, "/pay?x=1", full(body))
}

pub(super) fn get() -> Request<Body> {
    request(Method::GET, "/", empty())
}

pub(super) fn request(method: Method, target: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(target).body(body).unwrap()
}

/// The whole body as text, or that it broke off.
pub(super) async fn text(response: Response<ResponseBody>) -> Result<String, String> {
    let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}
