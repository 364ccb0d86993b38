//! The bare hyper peers: what a gateway costs that does nothing but carry, or nothing but repeat.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::args::Args;
use crate::backend;

type Connection = SendRequest<Full<Bytes>>;
type Answer = Response<Full<Bytes>>;

/// The backend and the connections to it that wait for work.
struct Upstream {
    address: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<Connection>>,
}

/// A reverse proxy with a pool of upstream connections.
pub(crate) fn proxy(args: &Args) -> Result<(), Failure> {
    let address: SocketAddr = args.required("backend")?;
    let host = HeaderValue::from_str(&address.to_string())?;
    let upstream = Arc::new(Upstream { address, host, idle: Mutex::default() });
    listen(args, move |request| {
        let upstream = Arc::clone(&upstream);
        async move { Ok(upstream.carry(request).await.unwrap_or_else(|_| bad_gateway())) }
    })
}

/// Answers every request from memory, by its `Idempotency-Key`.
pub(crate) fn replay(args: &Args) -> Result<(), Failure> {
    let answers: Arc<Mutex<HashMap<HeaderValue, Bytes>>> = Arc::default();
    listen(args, move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok(repeat(request, &answers).await.unwrap_or_else(|_| bad_gateway())) }
    })
}

fn listen<F, R>(args: &Args, handler: F) -> Result<(), Failure>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Answer, Infallible>> + Send + 'static,
{
    let address: SocketAddr = args.required("listen")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        Ok(backend::serve(listener, handler).await?)
    })
}

impl Upstream {
    async fn carry(&self, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        head.headers.remove(CONTENT_LENGTH);
        head.headers.insert(HOST, self.host.clone());
        let mut connection = self.connection().await?;
        let response = connection.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(Response::from_parts(head, Full::new(body)))
    }

    async fn connection(&self) -> Result<Connection, Failure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = idle
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(connection)
    }
}

async fn repeat(
    request: Request<Incoming>,
    answers: &Mutex<HashMap<HeaderValue, Bytes>>,
) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    body.collect().await?;
    let key = head.headers.get("idempotency-key").ok_or("no key")?;
    let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    let body = match answers.get(key) {
        Some(body) => body.clone(),
        None => {
            let body = Bytes::from_static(backend::ANSWER.as_bytes());
            answers.insert(key.clone(), body.clone());
            body
        }
    };
    Ok(backend::json(body))
}

fn bad_gateway() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
