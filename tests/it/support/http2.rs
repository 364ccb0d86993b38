//! A client that speaks HTTP/2 as a library does.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::WAIT_LIMIT;
use super::certificates::Authority;
use super::client::{Request, Response};

/// A connection.
pub(crate) struct Http2 {
    runtime: Arc<Runtime>,
    sender: SendRequest<Bytes>,
}

/// A request under way.
pub(crate) struct PendingAnswer {
    runtime: Arc<Runtime>,
    task: JoinHandle<Result<Response, h2::Error>>,
}

impl Http2 {
    /// Connects and trusts `authority`.
    #[track_caller]
    pub(crate) fn open(to: SocketAddr, authority: &Authority) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut config = authority.trusting(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let opening = async {
            let stream = tokio::net::TcpStream::connect(to).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(name, stream).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio_util::task::TaskTracker::new().spawn(async move {
                let _ = connection.await;
            });
            sender
        };
        let sender = runtime.block_on(async { timeout(WAIT_LIMIT, opening).await.unwrap() });
        Self { runtime: Arc::new(runtime), sender }
    }

    /// Sends a request and leaves the answer to be read.
    pub(crate) fn begin(&self, request: &Request) -> PendingAnswer {
        let (head, body) = request.to_http2();
        let sender = self.sender.clone();
        let task = self.runtime.spawn(async move {
            let mut sender = sender.ready().await?;
            let (response, mut upload) = sender.send_request(head, body.is_none())?;
            if let Some(body) = body {
                upload.send_data(body.into(), true)?;
            }
            let (head, mut content) = response.await?.into_parts();
            let mut body = Vec::new();
            while let Some(data) = content.data().await {
                let data = data?;
                content.flow_control().release_capacity(data.len())?;
                body.extend_from_slice(&data);
            }
            let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                (name.as_str().to_owned(), value.as_bytes().to_vec())
            };
            let headers = head.headers.iter().map(line).collect();
            Ok(Response { status: head.status.as_u16(), headers, body })
        });
        PendingAnswer { runtime: self.runtime.clone(), task }
    }

    /// Sends a request and reads the answer.
    #[track_caller]
    pub(crate) fn send(&mut self, request: &Request) -> Response {
        self.begin(request).answer()
    }
}

impl PendingAnswer {
    /// The answer.
    #[track_caller]
    pub(crate) fn answer(self) -> Response {
        self.try_answer().expect("an answer")
    }

    /// The answer, or why there is none.
    pub(crate) fn try_answer(self) -> Result<Response, h2::Error> {
        self.runtime.block_on(async { timeout(WAIT_LIMIT, self.task).await.unwrap().unwrap() })
    }
}
