//! Clients of other people: their programs below `tests/clients`, and the answers of their callers.

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Request, eventually};

/// A client with a retry loop of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `curl --retry`: repeats some statuses and time-outs.
    Curl,
    /// `curl --retry --retry-all-errors`: repeats everything.
    CurlAllErrors,
    /// Python's requests with urllib3's `Retry`.
    Requests,
    /// Stripe's library for Python.
    StripePython,
    /// Stripe's library for Node.
    StripeNode,
    /// Go's `net/http` and a loop of the application.
    Go,
    /// Node's `fetch` and the loop of `docs/clients.md`.
    Fetch,
    /// Java's `HttpClient` and the loop of `docs/clients.md`.
    Java,
    /// The `HttpClient` of .NET as Mono has it, and the loop of `docs/clients.md`.
    CSharp,
    /// PHP's Guzzle and the middleware of `docs/clients.md`.
    Php,
}

/// A call by one of them: a POST of some fields.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The path, also the name of the call.
    pub(crate) path: String,
    /// The key.
    pub(crate) key: String,
    /// A path that is called before on the same connection, with another key.
    pub(crate) first: Option<String>,
}

/// The last answer, as the caller of a client sees it.
#[derive(Debug, Clone)]
pub(crate) struct LastAnswer {
    /// The status of the last answer; 0: none came.
    pub(crate) status: u16,
    /// Its `Idempotency-Status`.
    pub(crate) disposition: String,
    /// Its `Idempotency-Error`.
    pub(crate) error: String,
    /// What can be read of the answer, or the client's error.
    pub(crate) text: String,
    /// The time from the call to its end, all attempts included.
    pub(crate) took: Duration,
}

impl LastAnswer {
    /// Status and `Idempotency-Status`, such as `200 replayed`.
    pub(crate) fn in_short(&self) -> String {
        match self.status {
            0 => "error".to_owned(),
            status => format!("{status} {}", self.disposition).trim_end().to_owned(),
        }
    }
}

/// The longest a client's loop may take, below [`super::WAIT_LIMIT`]; then it is killed.
const LOOP_ENDS: Duration = Duration::from_secs(25);

impl Program {
    /// With the credential that its calls carry.
    pub(crate) fn with_credential(self, request: Request) -> Request {
        match self {
            Self::StripePython | Self::StripeNode => {
                request.header("authorization", "Bearer sk_test_till")
            }
            _ => request,
        }
    }

    /// Makes the calls at once and gives the results by path.
    #[track_caller]
    pub(crate) fn call(self, to: SocketAddr, calls: &[Call]) -> BTreeMap<String, LastAnswer> {
        let results = match self {
            Self::Curl => curl(&["--retry", "3"], to, calls),
            Self::CurlAllErrors => {
                curl(&["--retry", "2", "--retry-all-errors", "--fail-with-body"], to, calls)
            }
            Self::Requests => scripted(python("requests_client.py"), to, calls),
            Self::StripePython => scripted(python("stripe_client.py"), to, calls),
            Self::StripeNode => {
                let mut node = program("node", &script("stripe_client.mjs"));
                node.arg(installed("node"));
                scripted(node, to, calls)
            }
            Self::Go => scripted(Command::new(installed("bin/go_client")), to, calls),
            Self::Fetch => scripted(program("node", &script("fetch_client.mjs")), to, calls),
            Self::Java => {
                let mut java = program("java", Path::new("-cp"));
                java.arg(installed("java")).arg("JavaClient");
                scripted(java, to, calls)
            }
            Self::CSharp => {
                scripted(program("mono", &installed("bin/csharp_client.exe")), to, calls)
            }
            Self::Php => scripted(program("php", &script("guzzle_client.php")), to, calls),
        };
        assert_eq!(results.len(), calls.len(), "{self:?}: {results:?}");
        results
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A part of the cache of packages and programs that `.ci/test` fills.
fn installed(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients").join(name);
    assert!(path.exists(), "{} is missing: .ci/test installs it", path.display());
    path
}

/// A program of `interpreter`.
fn program(interpreter: &str, script: &Path) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(script);
    command
}

fn python(name: &str) -> Command {
    let mut python = Command::new(installed("python/bin/python"));
    // No cache of compiled files beside the sources.
    python.arg("-B").arg(script(name));
    python
}

/// Runs a program that reads its calls from standard input.
#[track_caller]
fn scripted(mut command: Command, to: SocketAddr, calls: &[Call]) -> BTreeMap<String, LastAnswer> {
    let lines: Vec<_> = calls
        .iter()
        .map(|call| {
            let line = json!({
                "name": call.path, "url": format!("http://{to}"), "path": call.path,
                "key": call.key, "first": call.first.as_deref().unwrap_or_default(),
                "fields": {"voucher": "rsg-1", "amount": "500"},
            });
            format!("{line}\n")
        })
        .collect();
    let (output, code) = run(&mut command, &lines.concat());
    assert_eq!(code, Some(0), "{:?}: {output}", command.get_program());
    let results = output.lines().map(|line| {
        let result: Value = serde_json::from_str(line).unwrap();
        let text = |member: &str| result[member].as_str().unwrap_or_default().to_owned();
        let last = LastAnswer {
            status: result["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap(),
            disposition: text("disposition"),
            error: text("error"),
            text: text("text"),
            took: Duration::from_secs_f64(result["seconds"].as_f64().unwrap()),
        };
        (text("name"), last)
    });
    results.collect()
}

/// Runs curl once for each call, all at once.
#[track_caller]
fn curl(options: &[&str], to: SocketAddr, calls: &[Call]) -> BTreeMap<String, LastAnswer> {
    let folder = tempfile::tempdir().unwrap();
    let one = |index: usize| {
        let call = &calls[index];
        let mut curl = Command::new("curl");
        // Into a file, which each attempt begins anew.
        let body = folder.path().join(index.to_string());
        curl.args(["-sS", "--max-time", "2", "-o"]).arg(&body).args(options);
        curl.args(["-w", "%{http_code} %header{idempotency-status} %header{idempotency-error}"]);
        curl.args(["-H", "Content-Type: application/json"]);
        curl.args(["-H", &format!("Idempotency-Key: {}", call.key)]);
        curl.args(["-d", r#"{"voucher":"rsg-1","amount":"500"}"#]);
        curl.arg(format!("http://{to}{}", call.path));
        let start = Instant::now();
        let (written, code) = run(&mut curl, "");
        let took = start.elapsed();
        let mut words = written.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let status = word().parse().unwrap_or_else(|error| panic!("curl: {error}: {written:?}"));
        // 22: the answer is an error. Every other error of curl means that it has no whole answer.
        let status = if matches!(code, Some(0 | 22)) { status } else { 0 };
        let text = std::fs::read_to_string(&body).unwrap_or_default();
        (call.path.clone(), LastAnswer { status, disposition: word(), error: word(), text, took })
    };
    super::at_once(calls.len(), one).into_iter().collect()
}

/// Runs a program to its end; gives its output and its exit code.
#[track_caller]
fn run(command: &mut Command, input: &str) -> (String, Option<i32>) {
    let program = command.get_program().to_owned();
    let mut output = tempfile::tempfile().unwrap();
    let mut errors = tempfile::tempfile().unwrap();
    command.stdin(Stdio::piped());
    command.stdout(output.try_clone().unwrap()).stderr(errors.try_clone().unwrap());
    let child = command.spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("{program:?} does not start: {error}; .ci/test installs it")
    });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let end = Instant::now() + LOOP_ENDS;
    let status = eventually("a client ends its loop", || {
        if Instant::now() > end {
            _ = child.kill();
        }
        child.try_wait().unwrap()
    });
    let (output, errors) = (text(&mut output), text(&mut errors));
    assert!(status.code().is_some(), "{program:?} was killed: {status}\n{errors}\n{output}");
    eprint!("{errors}");
    (output, status.code())
}

fn text(file: &mut std::fs::File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}
