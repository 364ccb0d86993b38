//! The configurations under `examples/apis`: each passes `check` and `try`, and runs in front of a
//! simulated backend: first, retry, changed, lost answer, duplicates at once, refusal.

use std::path::{Path, PathBuf};

use crate::support::gateway::run;
use crate::support::{Act, Backend, Gate, Gateway, Request, Response, Seen, Setup, at_once};

/// The key in every sample; other keys are put in its place.
const KEY: &str = "KEY-0001";

/// An API with what its samples leave to be said.
struct Api {
    name: &'static str,
    /// A text of the request that makes it another, and the replacement.
    change: (&'static str, &'static str),
    /// `Idempotency-Status` of the refusal.
    refusal: &'static str,
    /// The refusal leaves the key free: a retry reaches the backend.
    is_sent_again: bool,
}

const fn api(name: &'static str, change: (&'static str, &'static str)) -> Api {
    Api { name, change, refusal: "executed", is_sent_again: false }
}

const fn released(api: Api) -> Api {
    Api { refusal: "not-executed", is_sent_again: true, ..api }
}

const fn batch(api: Api) -> Api {
    Api { is_sent_again: true, ..api }
}

const APIS: [Api; 15] = [
    api("redeemsg", ("rsg:5f2a", "rsg:5f2b")),
    api("voucherify", ("2500", "2600")),
    api("square", ("1000", "1001")),
    released(api("gift-card-xml", ("25.00", "26.00"))),
    api("top-up-query", ("amount=10", "amount=11")),
    api("paypal-nvp", ("AMT=10.00", "AMT=11.00")),
    api("swish", ("\"100\"", "\"101\"")),
    released(api("givex-json-rpc", ("15.00", "16.00"))),
    api("soap-redemption", (">500<", ">501<")),
    batch(api("capillary-bulk", ("\"R2\"", "\"R3\""))),
    batch(api("capillary-currency", ("\"value\":100", "\"value\":101"))),
    batch(api("paystack-bulk-transfer", ("20000", "20001"))),
    batch(api("graph-batch", ("\"second\"", "\"other\""))),
    batch(api("sqs-batch", ("\"second\"", "\"other\""))),
    batch(api("bigquery-insert", ("\"sold\":2", "\"sold\":3"))),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/apis")
}

/// A sample: its first line, its header lines and its body.
struct Sample {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Api {
    fn path(&self, file: &str) -> String {
        let path = folder().join(self.name).join(file);
        path.to_str().expect("a UTF-8 path").to_owned()
    }

    fn sample(&self, file: &str, key: &str) -> Sample {
        let path = self.path(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let text = text.replace(KEY, key);
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines().filter(|line| !line.starts_with('#'));
        let line = lines.next().expect("a first line").to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header line");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Sample { line, headers: headers.collect(), body: body.trim_end().to_owned() }
    }

    /// The sample request with this key, changed or not.
    fn request(&self, key: &str, is_changed: bool) -> Request {
        let Sample { line, headers, body } = self.sample("request.http", key);
        let (from, to) = if is_changed { self.change } else { (KEY, KEY) };
        let changed = |text: &str| text.replace(from, to);
        let mut request = Request::exactly(&changed(&line));
        for (name, value) in headers {
            request = request.header(&name, value);
        }
        if body.is_empty() { request } else { request.body(changed(&body).as_bytes()) }
    }

    /// The sample answer to a request, with the request's key.
    fn answer(&self, file: &str, seen: &Seen) -> Act {
        let text = format!("{}\n{}", seen.line, seen.text());
        // A key in a header is kept back.
        let key = text.find("KEY-").map_or(KEY, |at| &text[at..at + KEY.len()]);
        let Sample { line, headers, body } = self.sample(file, key);
        let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Act::whole(status, &headers, body.as_bytes())
    }

    fn start(&self, backend: &Backend) -> Gateway {
        let setup = Setup::before(backend);
        let setup = setup
            .clone()
            .env("BACKEND", format!("http://{}", backend.addr()))
            .env("LISTEN", "127.0.0.1:0")
            .env("ADMIN", "127.0.0.1:0")
            .env("STORE", setup.store_path().to_str().expect("a UTF-8 path"));
        let config = self.path("oncegate.toml");
        setup.launch(&["run", "--config", &config]).unwrap_or_else(|exit| panic!("{exit:?}"))
    }
}

#[test]
fn every_example_is_listed_and_documented() {
    let documented = include_str!("../../docs/apis.md");
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let mut listed: Vec<&str> = APIS.iter().map(|api| api.name).collect();
    listed.sort_unstable();
    assert_eq!(found, listed);
    for name in found {
        assert!(documented.contains(&format!("examples/apis/{name}")), "docs/apis.md lacks {name}");
    }
}

#[test]
fn every_example_passes_check_and_try() {
    for api in &APIS {
        let config = api.path("oncegate.toml");
        let checked = run(&["check", "--config", &config]);
        assert_eq!(checked.code, Some(0), "{}: {checked:?}", api.name);
        for answer in ["answer.http", "refusal.http"] {
            let (request, answer) = (api.path("request.http"), api.path(answer));
            let arguments =
                ["try", "--config", &config, "--request", &request, "--answer", &answer, "--json"];
            let tried = run(&arguments);
            assert_eq!(tried.code, Some(0), "{}: {tried:?}", api.name);
            let report: serde_json::Value = serde_json::from_str(&tried.stdout).unwrap();
            let key = report["records"][0]["key"].as_str().unwrap_or_default();
            assert!(key.contains(KEY), "{}: {report:#}", api.name);
        }
    }
}

/// The same answer to two clients; the merged answers of a batch may differ in their white space.
#[track_caller]
fn same(api: &Api, one: &Response, other: &Response) {
    assert_eq!(one.status, other.status, "{}: {other:?}", api.name);
    match serde_json::from_slice::<serde_json::Value>(&one.body) {
        Ok(json) => assert_eq!(json, other.json(), "{}", api.name),
        Err(_) => assert_eq!(one.body, other.body, "{}", api.name),
    }
}

#[test]
fn every_example_executes_once_whatever_happens() {
    for api in &APIS {
        let backend = Backend::start();
        let answer = |file: &'static str| {
            let api = APIS.iter().find(|other| other.name == api.name).expect("listed");
            move |seen: &Seen| api.answer(file, seen)
        };
        backend.script(answer("answer.http"));
        let gateway = api.start(&backend);
        let send = |key: &str, is_changed| api.request(key, is_changed).send(gateway.addr);

        let first = send("KEY-0001", false);
        assert_eq!(first.disposition(), "executed", "{}: {first:?}", api.name);
        let retry = send("KEY-0001", false);
        assert_eq!(retry.disposition(), "replayed", "{}: {retry:?}", api.name);
        same(api, &first, &retry);
        let changed = send("KEY-0001", true);
        assert_eq!(changed.error(), "key-reused", "{}: {changed:?}", api.name);
        assert_eq!(backend.calls(), 1, "{}", api.name);

        backend.always(Act::close());
        let lost = send("KEY-0002", false);
        assert_eq!(lost.error(), "outcome-unknown", "{}: {lost:?}", api.name);
        backend.script(answer("answer.http"));
        let after = send("KEY-0002", false);
        assert_eq!(after.error(), "outcome-unknown", "{}: {after:?}", api.name);
        assert_eq!(backend.calls(), 2, "{}", api.name);

        at_once_is_once(api, &backend, &gateway);

        backend.script(answer("refusal.http"));
        let refused = send("KEY-0004", false);
        assert_eq!(refused.disposition(), api.refusal, "{}: {refused:?}", api.name);
        let again = send("KEY-0004", false);
        let (calls, disposition) = match api.is_sent_again {
            true => (5, api.refusal),
            false => (4, "replayed"),
        };
        assert_eq!(again.disposition(), disposition, "{}: {again:?}", api.name);
        assert_eq!(backend.calls(), calls, "{}", api.name);
    }
}

/// Four clients send the same request at once, and the backend sees one.
fn at_once_is_once(api: &Api, backend: &Backend, gateway: &Gateway) {
    let gate = Gate::default();
    let (name, held) = (api.name, gate.clone());
    backend.script(move |seen| {
        let api = APIS.iter().find(|api| api.name == name).expect("listed");
        held.pass();
        api.answer("answer.http", seen)
    });
    let answers = std::thread::scope(|scope| {
        let sending =
            scope.spawn(|| at_once(4, |_| api.request("KEY-0003", false).send(gateway.addr)));
        backend.wait_calls(3);
        gate.open();
        sending.join().expect("four answers")
    });
    assert_eq!(backend.calls(), 3, "{}", api.name);
    for answer in &answers {
        same(api, &answers[0], answer);
        assert!(answer.status < 300, "{}: {answer:?}", api.name);
    }
}
