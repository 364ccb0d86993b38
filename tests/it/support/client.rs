//! A client that sends exact bytes and reads what comes back, line by line.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::WAIT_LIMIT;

/// Header lines in order: lower-case name, value bytes.
pub(crate) type HeaderLines = Vec<(String, Vec<u8>)>;

/// A message's first line and header lines: lower-case name, value bytes.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) line: String,
    pub(crate) headers: HeaderLines,
}

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: u16,
    /// Header lines in order: lower-case name, value bytes.
    pub(crate) headers: HeaderLines,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            write!(f, " | {name}: {}", String::from_utf8_lossy(value))?;
        }
        let shown = &self.body[..self.body.len().min(500)];
        write!(f, " | {} bytes: {:?}", self.body.len(), String::from_utf8_lossy(shown))
    }
}

impl Response {
    /// Every value of this header.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let lines = self.headers.iter().filter(|(header, _)| header == name);
        lines.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The one value of this header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        assert!(values.len() <= 1, "{name} stands {} times", values.len());
        values.pop()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of `Idempotency-Status`, empty when absent.
    pub(crate) fn disposition(&self) -> String {
        self.header("idempotency-status").unwrap_or_default()
    }

    /// The value of `Idempotency-Error`, empty when absent.
    pub(crate) fn error(&self) -> String {
        self.header("idempotency-error").unwrap_or_default()
    }

    /// Status, disposition and error in one go, for `assert_eq!`.
    pub(crate) fn summary(&self) -> (u16, String, String) {
        (self.status, self.disposition(), self.error())
    }

    /// What must be the same in every answer for a key: status, end-to-end headers, body. Without
    /// the gateway's own lines, `Set-Cookie` (never replayed) and those of the connection.
    pub(crate) fn kept(&self) -> Self {
        const OWN: [&str; 7] = [
            "idempotency-status",
            "idempotency-replayed",
            "idempotency-expires",
            "set-cookie",
            "www-authenticate",
            "connection",
            "x-request-id",
        ];
        let mut kept = self.clone();
        kept.headers.retain(|(name, _)| !OWN.contains(&name.as_str()));
        kept.headers.sort();
        kept
    }

    /// Asserts what was told.
    #[track_caller]
    pub(crate) fn is(&self, status: u16, disposition: &str, error: &str) -> &Self {
        let wanted = (status, disposition.to_owned(), error.to_owned());
        assert_eq!(self.summary(), wanted, "{self:?}");
        self
    }
}

/// A request that is built up and sent on a connection of its own.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    line: String,
    headers: HeaderLines,
    body: Option<Vec<u8>>,
}

impl Request {
    /// A request with this method and target.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let line = format!("{method} {target} HTTP/1.1");
        let headers = vec![("host".to_owned(), b"shop.example".to_vec())];
        Self { line, headers, body: None }
    }

    /// A request with this request line and no header yet.
    pub(crate) fn exactly(line: &str) -> Self {
        Self { line: line.to_owned(), headers: Vec::new(), body: None }
    }

    /// The redemption every chapter sends: `key` and a JSON body.
    pub(crate) fn redeem(key: &str, body: &str) -> Self {
        Self::new("POST", "/v1/vouchers/redeem").key(key).json(body)
    }

    /// As [`Self::redeem`], to this host.
    pub(crate) fn to_host(host: &str, key: &str, body: &str) -> Self {
        let mut request = Self::redeem(key, body);
        request.headers[0].1 = host.as_bytes().to_vec();
        request
    }

    /// A GET.
    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// With this key.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Of this tenant.
    pub(crate) fn tenant(self, key: &str) -> Self {
        self.header("x-api-key", key)
    }

    /// With a further header line.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// With a JSON body.
    pub(crate) fn json(self, body: &str) -> Self {
        self.header("content-type", "application/json").body(body.as_bytes())
    }

    /// With this body and its `Content-Length`.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    /// The bytes on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// The same for HTTP/2: the head, whose host is the authority, and the body.
    pub(crate) fn to_http2(&self) -> (http::Request<()>, Option<Vec<u8>>) {
        let mut words = self.line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let host = self.headers.iter().find(|(name, _)| name == "host");
        let host = String::from_utf8_lossy(&host.expect("a host").1).into_owned();
        let mut request = http::Request::builder()
            .version(http::Version::HTTP_2)
            .method(method)
            .uri(format!("https://{host}{target}"));
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value.as_slice());
        }
        (request.body(()).expect("a request"), self.body.clone())
    }

    /// Sends it on a new connection and reads the answer.
    #[track_caller]
    pub(crate) fn send(&self, to: SocketAddr) -> Response {
        self.try_send(to).unwrap_or_else(|error| panic!("no answer to {}: {error}", self.line))
    }

    /// As [`Self::send`], for when the other side may die.
    pub(crate) fn try_send(&self, to: SocketAddr) -> io::Result<Response> {
        let mut conn = Conn::try_open(to)?;
        // A refusal may come, and the connection end, before all is written.
        let _ = conn.try_write(&self.bytes());
        conn.try_read(self.line.starts_with("HEAD "))
    }

    /// Sends it on a new connection and leaves the answer to be read.
    #[track_caller]
    pub(crate) fn begin(&self, to: SocketAddr) -> Conn {
        let mut conn = Conn::open(to);
        conn.write(self.bytes());
        conn
    }
}

/// A connection to the gateway.
#[derive(Debug)]
pub(crate) struct Conn {
    reader: BufReader<TcpStream>,
}

impl Conn {
    /// A new connection.
    #[track_caller]
    pub(crate) fn open(to: SocketAddr) -> Self {
        Self::try_open(to).expect("connects")
    }

    pub(crate) fn try_open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, WAIT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_LIMIT))?;
        stream.set_write_timeout(Some(WAIT_LIMIT))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    /// Writes these bytes.
    #[track_caller]
    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes.as_ref()).expect("writes");
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The next answer.
    #[track_caller]
    pub(crate) fn read(&mut self) -> Response {
        self.try_read(false).expect("an answer")
    }

    /// The next answer, which has no body because it answers a HEAD.
    #[track_caller]
    pub(crate) fn read_to_head(&mut self) -> Response {
        self.try_read(true).expect("an answer")
    }

    pub(crate) fn try_read(&mut self, to_head: bool) -> io::Result<Response> {
        loop {
            let (status, headers) = self.try_read_head()?;
            if status < 200 && status != 101 {
                continue;
            }
            let empty = to_head || status == 204 || status == 304;
            let body = match empty {
                true => Vec::new(),
                false => read_body(&mut self.reader, &headers, true, &|_| ())?,
            };
            return Ok(Response { status, headers, body });
        }
    }

    /// The next status line and header lines, be it of an interim answer.
    pub(crate) fn try_read_head(&mut self) -> io::Result<(u16, HeaderLines)> {
        let Head { line, headers } = read_head(&mut self.reader)?;
        let status = line.get(9..12).and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| invalid(&format!("no status in {line:?}")))?;
        Ok((status, headers))
    }

    /// The next line.
    pub(crate) fn try_read_line(&mut self) -> io::Result<Vec<u8>> {
        read_line(&mut self.reader)
    }

    /// The next `count` bytes.
    #[track_caller]
    pub(crate) fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("more bytes");
        bytes
    }

    /// Whether an answer, or the end, has begun to arrive; waits for `limit` at most.
    pub(crate) fn readable_within(&mut self, limit: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(limit)).unwrap();
        let readable = self.reader.fill_buf().is_ok();
        self.reader.get_ref().set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        readable
    }

    /// Asserts that the other side closes without another byte.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        self.try_end().unwrap();
    }

    /// Waits for the other side to close, or says what it did instead.
    pub(crate) fn try_end(&mut self) -> Result<(), String> {
        match self.reader.fill_buf() {
            Ok([]) => Ok(()),
            Ok(bytes) => Err(format!("not closed, but: {:?}", String::from_utf8_lossy(bytes))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(format!("not closed: {error}")),
        }
    }

    /// Says that nothing more is sent, and goes on reading.
    pub(crate) fn half_close(&mut self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with RST.
    pub(crate) fn reset(self) {
        let stream = self.reader.into_inner();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(1 << 20).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// A first line and header lines, up to the empty line.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Head> {
    let line = String::from_utf8_lossy(&read_line(reader)?).into_owned();
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let colon =
            line.iter().position(|byte| *byte == b':').ok_or_else(|| invalid("no colon"))?;
        let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
        headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
    }
    Ok(Head { line, headers })
}

/// A body by its framing headers; `to_end`: without any it lasts until the connection ends.
/// `progress` is told the bytes as they arrive.
pub(crate) fn read_body(
    reader: &mut impl BufRead,
    headers: &[(String, Vec<u8>)],
    to_end: bool,
    progress: &dyn Fn(usize),
) -> io::Result<Vec<u8>> {
    let find = |name: &str| headers.iter().find(|(header, _)| header == name);
    let mut body = Vec::new();
    if find("transfer-encoding").is_some() {
        loop {
            let line = String::from_utf8_lossy(&read_line(reader)?).into_owned();
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
            read_counted(reader, size, &mut body, progress)?;
            if size == 0 {
                while !read_line(reader)?.is_empty() {}
                return Ok(body);
            }
            read_line(reader)?;
        }
    }
    if let Some((_, length)) = find("content-length") {
        let length = String::from_utf8_lossy(length).parse().map_err(|_| invalid("length"))?;
        read_counted(reader, length, &mut body, progress)?;
    } else if to_end {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_counted(
    reader: &mut impl BufRead,
    count: usize,
    body: &mut Vec<u8>,
    progress: &dyn Fn(usize),
) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = available.len().min(left);
        body.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        left -= taken;
        progress(taken);
    }
    Ok(())
}
