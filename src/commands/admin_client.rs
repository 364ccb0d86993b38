//! A client of the admin listener of a running gateway, for `oncegate records` and `oncegate
//! health`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::cli::Exit;
use crate::cli::records::AdminArgs;

/// For the connection, and for a whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The most of an answer that is read.
const LARGEST: usize = 64 << 20;

/// A gateway's admin listener, and the token.
pub(super) struct AdminClient {
    /// The URL as typed, for messages.
    admin: String,
    host: String,
    port: u16,
    authority: HeaderValue,
    /// Sent with requests to the API.
    token: Option<HeaderValue>,
    /// The file of the token, for messages.
    token_file: PathBuf,
}

/// The failure of a command: the exit code, and a line for the operator.
pub(super) struct CommandFailure(pub(super) Exit, pub(super) String);

impl CommandFailure {
    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self(Exit::Usage, what.into())
    }

    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self(Exit::Failed, what.into())
    }
}

impl AdminClient {
    /// A client with a token.
    ///
    /// # Errors
    /// The URL is not one of an admin listener, or the token cannot be read.
    pub(super) fn open(args: &AdminArgs) -> Result<Self, CommandFailure> {
        let (token, token_file) = (Some(bearer(&args.token_file)?), args.token_file.clone());
        Ok(Self { token, token_file, ..Self::at(&args.admin)? })
    }

    /// A client without a token.
    ///
    /// # Errors
    /// The URL is not one of an admin listener.
    pub(super) fn at(admin: &str) -> Result<Self, CommandFailure> {
        let wrong = |what: &str| CommandFailure::usage(format!("--admin {admin}: {what}"));
        let not_a_url =
            || wrong("an http URL with a host is needed, such as http://127.0.0.1:9090");
        let uri: Uri = admin.parse().map_err(|_| not_a_url())?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(not_a_url());
        };
        if uri.path().len() > 1 || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(not_a_url());
        }
        Ok(Self {
            admin: admin.to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: port(authority).ok_or_else(|| wrong("the port is a number, 1 to 65535"))?,
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| not_a_url())?,
            token: None,
            token_file: PathBuf::new(),
        })
    }

    /// Sends a request and returns the document of a successful response.
    ///
    /// # Errors
    /// Without a response, or with the gateway's own words for a refusal.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<String>,
    ) -> Result<Value, CommandFailure> {
        let mut request = self.request(method, target)?;
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Full::new(Bytes::from(body));
        }
        let stream = self.connect().await.map_err(CommandFailure::failed)?;
        let admin = &self.admin;
        let (status, answer) = match timeout(ANSWER_TIMEOUT, exchange(stream, request)).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => {
                return Err(CommandFailure::failed(format!(
                    "the answer of {admin} was lost: {error}; show the record before trying again"
                )));
            }
            Err(_) => {
                return Err(CommandFailure::failed(format!(
                    "{admin} did not answer within {ANSWER_TIMEOUT:?}; show the record before \
                     trying again"
                )));
            }
        };
        if status == StatusCode::UNAUTHORIZED {
            let file = self.token_file.display();
            return Err(CommandFailure::failed(format!(
                "{admin} refused the token in {file}; is it the one of its [admin]? \
                 (401 unauthorized)"
            )));
        }
        parse_response(admin, status, &answer)
    }

    /// Reads what stands at `target`: the status, and the body as text.
    ///
    /// # Errors
    /// The reason, without a response.
    pub(super) async fn text(&self, target: &str) -> Result<(StatusCode, String), String> {
        let request = self.request(Method::GET, target).map_err(|failure| failure.1)?;
        let stream = self.connect().await?;
        let answered = timeout(ANSWER_TIMEOUT, exchange(stream, request)).await;
        let (status, body) = answered
            .map_err(|_| format!("{} did not answer within {ANSWER_TIMEOUT:?}", self.admin))?
            .map_err(|error| {
                format!(
                    "the connection was closed without an answer ({error}); is this its [admin] \
                     listen, and are too many connections open there?"
                )
            })?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    fn request(
        &self,
        method: Method,
        target: &str,
    ) -> Result<Request<Full<Bytes>>, CommandFailure> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = target
            .parse()
            .map_err(|_| CommandFailure::usage("the arguments do not fit into an address"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let admin = &self.admin;
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        match timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let what = "is the gateway running, and is this its [admin] listen?";
                Err(format!("cannot connect to {admin}: {error}; {what}"))
            }
            Err(_) => Err(format!("no connection to {admin} within {CONNECT_TIMEOUT:?}; check it")),
        }
    }

    /// Sends a request whose response is the record `id`.
    ///
    /// # Errors
    /// When the response is no record: any server may listen at the address and report success.
    pub(super) async fn record(
        &self,
        method: Method,
        (id, target): (&str, &str),
        body: Option<String>,
    ) -> Result<Value, CommandFailure> {
        let record = self.ask(method, target, body).await?;
        match record["id"].as_str() == Some(id) && record["state"].is_string() {
            true => Ok(record),
            false => Err(self.not_oncegate()),
        }
    }

    /// The failure for a response that is not from oncegate's API.
    pub(super) fn not_oncegate(&self) -> CommandFailure {
        CommandFailure::failed(format!(
            "what answered at {} is not oncegate's records API, and nothing is known to be done; \
             check --admin",
            self.admin
        ))
    }
}

/// The port of an http URL's authority; `None`: what stands there is no port.
pub(super) fn port(authority: &Authority) -> Option<u16> {
    let text = authority.as_str();
    let text = text.rsplit_once('@').map_or(text, |(_, text)| text);
    match text.strip_prefix(authority.host())? {
        "" => Some(80),
        rest => rest.strip_prefix(':')?.parse().ok().filter(|port| *port > 0),
    }
}

/// `Bearer` with the token in this file.
fn bearer(file: &Path) -> Result<HeaderValue, CommandFailure> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        CommandFailure::usage(format!("--token-file {name}: cannot be read: {error}"))
    })?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let what = "must hold one word of visible ASCII characters, the token of [admin]";
        return Err(CommandFailure::usage(format!("--token-file {name}: {what}")));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| CommandFailure::usage(format!("--token-file {name}: holds no token")))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn exchange(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    TaskTracker::default().spawn(async move {
        // A failure of the connection reaches the request that waits for its response.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await?;
    Ok((status, body.to_bytes()))
}

/// The document of a success, or the words of a refusal.
fn parse_response(admin: &str, status: StatusCode, answer: &[u8]) -> Result<Value, CommandFailure> {
    let Ok(document) = serde_json::from_slice::<Value>(answer) else {
        return Err(CommandFailure::failed(format!(
            "{admin} answered {status} without JSON; is it the admin listener of an oncegate that \
             has the records API?"
        )));
    };
    if status.is_success() {
        return Ok(document);
    }
    let word = |name: &str| document[name].as_str().unwrap_or("no reason given").to_owned();
    let exit = if status == StatusCode::BAD_REQUEST { Exit::Usage } else { Exit::Failed };
    Err(CommandFailure(exit, format!("{} ({} {})", word("detail"), status.as_u16(), word("code"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_port_or_left_out() {
        for (text, wanted) in [
            ("a", Some(80)),
            ("a:9090", Some(9090)),
            ("80:80", Some(80)),
            ("[::1]", Some(80)),
            ("[::1]:9090", Some(9090)),
            ("a:0", None),
            ("a:", None),
            ("a:65536", None),
            ("a:99999", None),
        ] {
            let authority = text.parse::<Authority>();
            assert_eq!(authority.ok().and_then(|it| port(&it)), wanted, "{text}");
        }
    }
}
