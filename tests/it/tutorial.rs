//! The tutorial, to the letter: its backend, its configuration and its curl lines, on free ports.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::{Backend, Setup};

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");

/// The fenced blocks of a language, in their order.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    TUTORIAL.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// The tutorial's curl commands, continuation lines joined.
fn curls() -> Vec<String> {
    let joined = blocks("sh").join("\n").replace("\\\n", "");
    joined.lines().filter(|line| line.starts_with("curl ")).map(str::to_owned).collect()
}

/// The tutorial's backend. Dropped, it is killed.
struct TutorialBackend {
    child: Child,
    port: u16,
}

impl TutorialBackend {
    fn start(setup: &Setup) -> Self {
        let code = blocks("python").join("\n");
        let last =
            "http.server.ThreadingHTTPServer((\"127.0.0.1\", 9000), Backend).serve_forever()";
        assert!(code.contains(last), "the tutorial starts its backend otherwise:\n{code}");
        let on_free_port = "server = http.server.ThreadingHTTPServer((\"127.0.0.1\", 0), Backend)\n\
             print(server.server_port, flush=True)\nserver.serve_forever()";
        let file = setup.dir().join("backend.py");
        std::fs::write(&file, code.replace(last, on_free_port)).unwrap();
        let mut command = Command::new("python3");
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().expect("the backend prints its port") }
    }
}

impl Drop for TutorialBackend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(line: &str) -> String {
    let line = line.replacen("curl ", "curl -sS --max-time 20 ", 1);
    let output = Command::new("sh").arg("-c").arg(&line).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn check(answer: &str, words: &[&str]) {
    let lower = answer.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "{word:?} is missing:\n{answer}");
    }
}

#[test]
fn the_tutorial_does_what_it_says() {
    let setup = Setup::before(&Backend::start());
    let backend = TutorialBackend::start(&setup);
    let (url, own) = ("127.0.0.1:9000", format!("127.0.0.1:{}", backend.port));
    let config = blocks("toml").join("\n").replace(url, &own);
    let config = config.replace("127.0.0.1:8080", "127.0.0.1:0");
    let store = format!("{:?}", setup.store_path());
    let config = config.replace("\"./oncegate-store\"", &store);
    assert!(config.contains(&store) && config.contains(&own), "{config}");
    let config = format!("admin.listen = \"127.0.0.1:0\"\n{config}");
    std::fs::write(setup.config_path(), config).unwrap();
    let file = setup.config_path();
    let arguments = ["run", "--config", file.to_str().unwrap()];
    let mut gateway = setup.launch(&arguments).expect("the tutorial's gateway starts");
    let call = |line: &str, gateway: std::net::SocketAddr| {
        shell(&line.replace(url, &own).replace("127.0.0.1:8080", &gateway.to_string()))
    };

    let lines = curls();
    let [first, second, keyed, lost] = lines.as_slice() else { panic!("{lines:?}") };
    check(&call(first, gateway.addr), &["\"redemptions\": 1"]);
    check(&call(second, gateway.addr), &["\"redemptions\": 2"]);

    check(&call(keyed, gateway.addr), &["Idempotency-Status: executed", "\"redemptions\": 3"]);
    let replay = ["Idempotency-Status: replayed", "\"redemptions\": 3"];
    check(&call(keyed, gateway.addr), &replay);
    gateway.stop();
    drop(gateway);
    let gateway = setup.launch(&arguments).expect("the tutorial's gateway starts again");
    check(&call(keyed, gateway.addr), &replay);

    let unkeyed = keyed.replace("-H 'Idempotency-Key: sale-1'", "");
    check(&call(&unkeyed, gateway.addr), &[" 400 ", "key-missing"]);
    let reused = keyed.replace("A1", "B2");
    check(&call(&reused, gateway.addr), &[" 422 ", "key-reused"]);

    check(&call(lost, gateway.addr), &[" 502 ", "outcome-unknown"]);
    check(&call(lost, gateway.addr), &[" 409 ", "outcome-unknown"]);
    let after = keyed.replace("sale-1", "sale-3");
    check(&call(&after, gateway.addr), &["executed", "\"redemptions\": 5"]);

    drop(backend);
    let unreachable = keyed.replace("sale-1", "sale-4");
    let words = [" 502 ", "upstream-unreachable", "Idempotency-Status: not-executed"];
    check(&call(&unreachable, gateway.addr), &words);
}
