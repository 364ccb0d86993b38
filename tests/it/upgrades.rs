//! Stores that an earlier version wrote, opened by the present one.
//!
//! `tests/fixtures/stores` has a folder for each form of the store: the configuration it was written
//! under, the answers that its keys had by then, and the store as a directory, as SQL and as the
//! dumps of Redis. The folder of the present form is written anew by
//! `ONCEGATE_TEST_WRITE_STORES=1 .ci/test --test it upgrades`, before a release that changes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::gateway::run;
use crate::support::rewards::{batch, issue, rows};
use crate::support::{
    Act, Backend, Gate, Gateway, Kind, Request, Response, Rewards, Setup, Shop, answer, eventually,
};

/// The form that the present version writes.
const FORM: &str = "schema-6";

/// The form of builds before the first release.
const REFUSED: &str = "schema-5";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stores")
}

/// Where a store is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Directory,
    Server(Kind),
}

const PLACES: [Place; 3] =
    [Place::Directory, Place::Server(Kind::Postgres), Place::Server(Kind::Redis)];

/// The two backends, and a gateway before them under the configuration of a form.
struct Scene {
    vouchers: Backend,
    rewards: Rewards,
    setup: Setup,
    shop: Option<Shop>,
}

impl Scene {
    fn new(form: &Path, place: Place) -> Self {
        let (vouchers, rewards) = (Backend::start(), Rewards::start());
        let setup = Setup::before(&vouchers)
            .env("VOUCHERS", format!("http://{}", vouchers.addr()))
            .env("REWARDS", format!("http://{}", rewards.backend.addr()));
        let (shop, table) = match place {
            Place::Directory => {
                (None, format!("[store.embedded]\npath = {:?}\n", setup.store_path()))
            }
            Place::Server(kind) => {
                let shop = Shop::own(kind);
                let table = shop.table("lease = \"1s\"");
                (Some(shop), table)
            }
        };
        let text = std::fs::read_to_string(form.join("oncegate.toml")).unwrap();
        std::fs::write(setup.dir().join("written.toml"), text + &table).unwrap();
        Self { vouchers, rewards, setup, shop }
    }

    fn start(&self) -> Gateway {
        let config = self.setup.dir().join("written.toml");
        self.setup.launch(&["run", "--config", config.to_str().unwrap()]).unwrap()
    }

    /// The file or directory of a form that has this scene's store.
    fn kept(&self, form: &Path) -> PathBuf {
        form.join(match &self.shop {
            None => "embedded",
            Some(shop) if shop.postgres().is_some() => "postgres.sql",
            Some(_) => "redis.json",
        })
    }

    fn save(&self, form: &Path) {
        let to = self.kept(form);
        let Some(shop) = &self.shop else {
            let _ = std::fs::remove_dir_all(&to);
            copy(&self.setup.store_path(), &to);
            return;
        };
        if let Some((server, database)) = shop.postgres() {
            let url = server.url_at(server.addr(), database);
            let dump = of_postgres("pg_dump", &["--inserts", "--no-owner", "--dbname", &url]);
            std::fs::write(to, dump).unwrap();
        } else {
            let mut redis = connect(shop);
            let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query(&mut redis).unwrap();
            let mut dumps = BTreeMap::new();
            for key in keys {
                let lasts: i64 = redis::cmd("PTTL").arg(&key).query(&mut redis).unwrap();
                assert!(lasts == -1, "{} ends by itself", String::from_utf8_lossy(&key));
                let dump: Vec<u8> = redis::cmd("DUMP").arg(&key).query(&mut redis).unwrap();
                dumps.insert(to_hex(&key), to_hex(&dump));
            }
            std::fs::write(to, serde_json::to_string_pretty(&dumps).unwrap() + "\n").unwrap();
        }
    }

    fn load(&self, form: &Path) {
        let from = self.kept(form);
        let Some(shop) = &self.shop else {
            copy(&from, &self.setup.store_path());
            return;
        };
        if let Some((server, database)) = shop.postgres() {
            let url = server.url_at(server.addr(), database);
            let file = from.to_str().unwrap();
            let strict = ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", &url, "--file", file];
            of_postgres("psql", &strict);
        } else {
            let mut redis = connect(shop);
            let text = std::fs::read_to_string(from).unwrap();
            let dumps: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
            for (key, dump) in dumps {
                let mut restore = redis::cmd("RESTORE");
                restore.arg(from_hex(&key)).arg(0).arg(from_hex(&dump));
                restore.exec(&mut redis).unwrap();
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--recursive").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Runs a program of the newest PostgreSQL that is installed.
fn of_postgres(program: &str, arguments: &[&str]) -> Vec<u8> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let newest = versions.map(|entry| entry.unwrap().path()).max().unwrap();
    let output = Command::new(newest.join("bin").join(program)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn connect(shop: &Shop) -> redis::Connection {
    let server = shop.redis().unwrap();
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn redeem(key: &str) -> Request {
    let body = format!(r#"{{"qr":"rsg:{key}","metadata":"receipt_number:7"}}"#);
    Request::redeem(key, &body).tenant("shop-1")
}

fn whole() -> Request {
    issue(&batch("+65", &[("w1", "R1", 2), ("w2", "R2", 1)])).tenant("shop-1")
}

fn lost() -> Request {
    issue(&batch("+66", &[("l1", "R1", 1)])).tenant("shop-1")
}

fn partial() -> Request {
    issue(&batch("+67", &[("p1", "R3", 2), ("p2", "R4", 1)])).tenant("shop-1")
}

/// The requests whose answer is the same however often they are sent.
fn repeated() -> [(&'static str, Request); 7] {
    let brief = Request::new("POST", "/brief").key("brief").tenant("shop-1").json("{}");
    [
        ("executed", redeem("executed")),
        ("refused", redeem("refused")),
        ("lost", redeem("lost")),
        ("held", redeem("held")),
        ("expired", brief),
        ("batch", whole()),
        ("batch, lost", lost()),
    ]
}

/// What must stay of an answer: of the gateway's own ones the meaning, of stored ones the bytes.
fn lasting(answer: &Response) -> Value {
    let stored = answer.disposition() == "replayed";
    json!({
        "status": answer.status,
        "disposition": answer.disposition(),
        "error": answer.error(),
        "note": answer.header("x-note"),
        "body": stored.then(|| answer.text()),
    })
}

fn write(form: &Path, place: Place) {
    let scene = Scene::new(form, place);
    let gate = Gate::default();
    let held = gate.clone();
    scene.vouchers.script(move |seen| match seen.text() {
        text if text.contains("lost") => Act::close(),
        text if text.contains("held") => answer(200, "{}").after(&held),
        text if text.contains("refused") => answer(404, r#"{"error":"no such voucher"}"#),
        _ => Act::whole(201, &[("x-note", "kept")], br#"{"id":"r-1", "points": 5}"#),
    });
    let mut gateway = scene.start();
    redeem("executed").send(gateway.addr).is(201, "executed", "");
    scene.rewards.limit("R3", 1);
    partial().send(gateway.addr).is(400, "executed", "");
    redeem("lost").send(gateway.addr).is(502, "unknown", "outcome-unknown");
    // One part of the directory stands in the table then, the other in the log.
    gateway.stop();
    let mut gateway = scene.start();
    redeem("refused").send(gateway.addr).is(404, "executed", "");
    whole().send(gateway.addr).is(200, "executed", "");
    scene.rewards.answering(|_, _, _| Act::close());
    lost().send(gateway.addr).is(502, "unknown", "outcome-unknown");
    let brief = &repeated()[4].1;
    brief.send(gateway.addr).is(201, "executed", "");
    eventually("the answer ends", || {
        (brief.send(gateway.addr).error() == "key-expired").then_some(())
    });
    let calls = scene.vouchers.calls();
    let _cut = redeem("held").begin(gateway.addr);
    scene.vouchers.wait_calls(calls + 1);
    gateway.kill9();
    scene.save(form);
    gate.open();
    let gateway = scene.start();
    let answers: BTreeMap<_, _> = repeated()
        .iter()
        .map(|(name, request)| (*name, lasting(&settled(request, &gateway))))
        .collect();
    let text = serde_json::to_string_pretty(&answers).unwrap() + "\n";
    std::fs::write(form.join("answers.json"), text).unwrap();
}

/// The answer once the call of the replica that was killed counts as lost.
fn settled(request: &Request, gateway: &Gateway) -> Response {
    eventually("the killed replica's lease ends", || {
        let answer = request.send(gateway.addr);
        (answer.error() != "request-in-progress").then_some(answer)
    })
}

#[test]
fn stores_of_earlier_versions_keep_every_key() {
    if std::env::var_os("ONCEGATE_TEST_WRITE_STORES").is_some() {
        PLACES.into_iter().for_each(|place| write(&fixtures().join(FORM), place));
    }
    let forms = std::fs::read_dir(fixtures()).unwrap();
    let mut forms: Vec<PathBuf> = forms.map(|entry| entry.unwrap().path()).collect();
    forms.retain(|form| !form.ends_with(REFUSED));
    forms.sort();
    assert!(forms.iter().any(|form| form.ends_with(FORM)), "the present form has no fixture");
    for (form, place) in forms.iter().flat_map(|form| PLACES.map(|place| (form, place))) {
        let scene = Scene::new(form, place);
        scene.load(form);
        println!("{}", scene.kept(form).display());
        let mut gateway = scene.start();
        let text = std::fs::read_to_string(form.join("answers.json")).unwrap();
        let expected: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        for (name, request) in repeated() {
            assert_eq!(lasting(&settled(&request, &gateway)), expected[name], "{name}");
        }
        assert_eq!((scene.vouchers.calls(), scene.rewards.sent().len()), (0, 0));
        // The units that were missing then are sent now, and no others.
        let answer = partial().send(gateway.addr);
        assert_eq!(rows(&answer), "p1:2/2 200, p2:1/1 200 = 200");
        assert_eq!(scene.rewards.sent(), ["R3x1"]);
        // A new key runs, and is kept in the present form.
        redeem("new").send(gateway.addr).is(200, "executed", "");
        gateway.stop();
        let directory = scene.setup.store_path();
        let verify = ["store", "verify", "--path", directory.to_str().unwrap()];
        if place == Place::Directory {
            let exit = run(&verify);
            assert_eq!(exit.code, Some(0), "{exit:?}");
        }
        let gateway = scene.start();
        redeem("new").send(gateway.addr).is(200, "replayed", "");
        assert_eq!(scene.vouchers.calls(), 1);
    }
}

#[test]
fn a_store_from_before_the_first_release_is_refused() {
    let form = fixtures().join(REFUSED);
    let scene = Scene::new(&form, Place::Directory);
    scene.load(&form);
    let config = scene.setup.dir().join("written.toml");
    let exit = scene.setup.launch(&["run", "--config", config.to_str().unwrap()]).unwrap_err();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("has schema 5, written before the first release"), "{exit:?}");
}
