//! Commands that documents show as typed are typed here, in the same order, before a backend that
//! loses every answer, and their output is compared. Ids, times and counts differ.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fences::{Fence, documents, fences};

/// The longest wait for an answer, on a slow machine.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// A running gateway. Dropped, it is killed.
struct Gateway {
    process: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Gateway {
    fn start(directory: &Path) -> Self {
        let mut command = oncegate(directory, &["run", "--config", "oncegate.toml"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = |start: &str| {
            let line = lines.find_map(|line| line.unwrap().strip_prefix(start).map(str::to_owned));
            line.and_then(|line| line.split(' ').next()?.parse().ok()).expect("an address")
        };
        let public = address("oncegate: listening on ");
        let admin = address("oncegate: admin on ");
        assert!(lines.any(|line| line.unwrap() == "oncegate: ready"));
        Self { process, public, admin }
    }

    /// The whole answer to a sale.
    fn sell(&self, key: &str) -> String {
        let mut connection = TcpStream::connect(self.public).unwrap();
        connection.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        let request = format!(
            "POST /redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: {key}\r\ncontent-length: 2\r\n\
             connection: close\r\n\r\n{{}}"
        );
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The output of a typed line.
    fn typed(&self, directory: &Path, line: &str) -> String {
        let program = Path::new(env!("CARGO_BIN_EXE_oncegate")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(directory).env("PATH", path);
        shell.env("ONCEGATE_ADMIN", format!("http://{}", self.admin));
        let output = shell.env("ONCEGATE_TOKEN_FILE", "token").output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn oncegate(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
    command.args(arguments).current_dir(directory);
    command
}

/// A backend that reads a request and closes the connection.
fn losing_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let lines = BufReader::new(&connection).lines();
            let _head = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).count();
        }
    });
    address
}

/// The blocks of a document.
fn blocks(document: &str) -> Vec<Fence> {
    let document = documents().into_iter().find(|one| one.name == document);
    fences(&document.expect("the document"))
}

/// A console block of a document: its typed lines, joined, and what is printed below each.
fn sessions(document: &str) -> Vec<(String, String)> {
    let mut sessions: Vec<(String, String)> = Vec::new();
    for fence in blocks(document).iter().filter(|fence| fence.language == "console") {
        let text = fence.text.replace("\\\n", " ");
        for line in text.lines() {
            match (line.strip_prefix("$ "), sessions.last_mut()) {
                (Some(typed), _) => sessions.push((typed.to_owned(), String::new())),
                (None, Some((_, printed))) => *printed += &format!("{line}\n"),
                (None, None) => panic!("{}: output before a command", fence.place),
            }
        }
    }
    sessions
}

/// The session whose typed line begins so.
fn session(document: &str, typed: &str) -> (String, String) {
    let found = sessions(document).into_iter().find(|(line, _)| line.starts_with(typed));
    found.unwrap_or_else(|| panic!("{document} does not show {typed}"))
}

/// Lines without what differs each time: ids, times, numbers, and the width of columns.
fn general(text: &str) -> Vec<String> {
    let word = |word: &str| {
        let hex = word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit());
        let time = word.starts_with("20") && word.contains('T');
        let number = !word.is_empty() && word.chars().all(|c| c.is_ascii_digit());
        match (hex, time, number) {
            (true, ..) => "ID".to_owned(),
            (_, true, _) => "TIME".to_owned(),
            (.., true) => "N".to_owned(),
            _ => word.to_owned(),
        }
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect()
}

fn id_of(listing: &str, key: &str) -> String {
    let line = listing.lines().find(|line| line.ends_with(&format!(" {key}")));
    line.expect(listing).split(' ').next().unwrap().to_owned()
}

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
token_file = "token"
[tenant]
headers = ["x-api-key"]
[store.embedded]
path = "store"
[[route]]
name = "redeem"
methods = ["POST"]
path = "/redeem"
upstream = "vouchers"
"#;

#[test]
fn operators_see_what_the_documents_show() {
    const OPERATING: &str = "docs/operating.md";
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let upstream =
        format!("[[upstream]]\nname = \"vouchers\"\nurl = \"http://{}\"\n", losing_backend());
    std::fs::write(at.join("oncegate.toml"), format!("{CONFIG}{upstream}")).unwrap();
    std::fs::write(at.join("token"), "s3cret").unwrap();
    std::fs::write(at.join("answer.json"), "{\"redeemed\":true}").unwrap();
    let gateway = Gateway::start(at);
    for key in ["sale-789", "sale-790"] {
        assert!(gateway.sell(key).contains("outcome-unknown"));
    }

    let (list, shown) = session(OPERATING, "oncegate records list --state unknown");
    let listing = gateway.typed(at, &list);
    assert_eq!(general(&listing), general(&shown), "{listing}");
    let (id, other) = (id_of(&listing, "sale-789"), id_of(&listing, "sale-790"));

    // The ids are those of the document until here.
    let (documented, other_documented) = (id_of(&shown, "sale-789"), id_of(&shown, "sale-790"));
    let run = |typed: &str| {
        let (line, shown) = session(OPERATING, typed);
        let line = line.replace(&documented, &id).replace(&other_documented, &other);
        (gateway.typed(at, &line), shown)
    };
    let (record, shown) = run("oncegate records show");
    assert_eq!(general(&record), general(&shown), "{record}");

    let (settled, shown) = run(&format!("oncegate records resolve {documented} --as executed"));
    let (settled, shown) = (general(&settled), general(&shown));
    assert_eq!(settled.first(), shown.first());
    assert_eq!(settled.last(), shown.last());
    assert!(gateway.sell("sale-789").contains("\r\nx-shop: 7\r\n"));

    // Without an answer of the operator's.
    assert!(gateway.sell("sale-791").contains("outcome-unknown"));
    let id = id_of(&gateway.typed(at, &list), "sale-791");
    gateway.typed(at, &format!("oncegate records resolve {id} --as executed --reason seen"));
    let answer = gateway.sell("sale-791");
    let http = blocks(OPERATING).into_iter().find(|fence| fence.language == "http").unwrap();
    for line in http.text.lines().filter(|line| !line.is_empty()) {
        let begin = ["date: ", "idempotency-expires: ", "{\"confirmed_at\":\""];
        let kept = begin.iter().find(|begin| line.starts_with(*begin)).unwrap_or(&line);
        assert!(answer.contains(kept), "{kept} is not in {answer}");
    }
    let said = http.text.split("\",\"message\"").nth(1).unwrap().trim();
    assert!(answer.ends_with(said), "{answer}");

    run(&format!("oncegate records resolve {other_documented} --as not-executed"));
    assert_eq!(gateway.typed(at, &list).lines().count(), 1, "nothing is unknown any more");

    // The files of the store, as docs/store.md lists them.
    let files = blocks("docs/store.md").into_iter().find(|fence| fence.text.starts_with("lock "));
    for line in files.unwrap().text.lines().filter(|line| !line.contains("only while")) {
        let file = line.split(' ').next().unwrap();
        assert!(at.join("store").join(file).exists(), "the store has no {file}");
    }
    drop(gateway);
    keys_are_changed(at);
}

/// `docs/how-to/rotate-keys.md`, on the store of a gateway that was stopped.
fn keys_are_changed(at: &Path) {
    const KEYS: &str = "docs/how-to/rotate-keys.md";
    let shell = |line: &str| {
        let line = line.replace("/etc/oncegate/", "");
        let output = Command::new("sh").args(["-c", &line]).current_dir(at).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    };
    shell(&session(KEYS, "umask 077; openssl").0);
    let config = std::fs::read_to_string(at.join("oncegate.toml")).unwrap();
    let sealed = format!("[store]\nencryption = {{ key_file = \"store-2026.key\" }}\n{config}");
    std::fs::write(at.join("oncegate.toml"), sealed).unwrap();
    let (_, shown) = session(KEYS, "oncegate store rotate");
    let arguments = ["store", "rotate", "--config", "oncegate.toml"];
    let output = oncegate(at, &arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // The progress is on standard error, between lines of the log.
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("3 of 3 records"), "{progress}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let (first, shown) = shown.split_once('\n').unwrap();
    assert_eq!(general(first), ["N of N records"]);
    assert_eq!(general(&printed), general(shown), "{printed}");
}

#[test]
fn a_dry_run_prints_what_the_documents_show() {
    const DESCRIBE: &str = "docs/how-to/describe-an-api.md";
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let parts = blocks(DESCRIBE).into_iter().filter(|fence| fence.language == "toml");
    let config: String = parts.map(|fence| fence.text).collect();
    let upstream = "[[upstream]]\nname = \"cards\"\nurl = \"http://127.0.0.1:9\"\n";
    std::fs::write(at.join("oncegate.toml"), format!("{config}{upstream}")).unwrap();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/apis/gift-card-xml");
    for sample in ["request.http", "answer.http"] {
        std::fs::copy(samples.join(sample), at.join(sample)).unwrap();
    }
    let (line, shown) = session(DESCRIBE, "oncegate try");
    let arguments: Vec<&str> = line.split(' ').skip(1).collect();
    let output = oncegate(at, &arguments).output().unwrap();
    let printed = general(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(0));
    let shown = general(&shown);
    assert_eq!(printed.len(), shown.len(), "{printed:?}");
    for (printed, shown) in printed.iter().zip(&shown) {
        // What is cut off ends with an ellipsis.
        match shown.strip_suffix('…') {
            Some(begin) => assert!(printed.starts_with(begin.trim_end()), "{printed}"),
            None => assert_eq!(printed, shown),
        }
    }
}

#[test]
fn callers_get_a_name() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let upstream = "[[upstream]]\nname = \"vouchers\"\nurl = \"http://127.0.0.1:9\"\n";
    std::fs::write(at.join("oncegate.toml"), format!("{CONFIG}{upstream}")).unwrap();
    std::fs::write(at.join("token"), "s3cret").unwrap();
    let mut tenant = oncegate(at, &["tenant", "--config", "oncegate.toml"]);
    let mut child = tenant.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"X-Api-Key: till\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let name = String::from_utf8(output.stdout).unwrap();
    assert_eq!(general(&name), ["ID"], "{name}");
}
