//! The store goes away and comes back: nothing is sent meanwhile, nothing is lost, and nobody has to
//! restart anything.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use crate::servers::{Chaos, Direction};
use crate::support::{
    Backend, Gate, Gateway, Kind, Request, Response, Setup, Shop, answer, eventually,
};

/// The contract says 3 s; a busy machine may take longer, a gateway that hangs much longer.
const SOON: Duration = Duration::from_secs(6);
const SHORT: &str = "lease = \"2s\"";

fn redeem(key: &str) -> Request {
    Request::redeem(key, &format!(r#"{{"qr":"{key}"}}"#))
}

/// The ways in which a store goes away.
#[derive(Debug, Clone, Copy)]
enum Away {
    Killed,
    Paused,
    Frozen,
    Refusing,
}

const WAYS: [Away; 4] = [Away::Killed, Away::Paused, Away::Frozen, Away::Refusing];

impl Away {
    fn begin(self, shop: &Shop, chaos: &Chaos) {
        match self {
            Self::Killed => shop.kill(),
            Self::Paused => shop.pause(),
            Self::Frozen => chaos.freeze(true),
            Self::Refusing => {
                chaos.refuse(true);
                chaos.cut_all();
            }
        }
    }

    fn end(self, shop: &Shop, chaos: &Chaos) {
        match self {
            Self::Killed => shop.restart(),
            Self::Paused => shop.resume(),
            Self::Frozen | Self::Refusing => chaos.keep(),
        }
    }
}

fn ready(gateway: &Gateway) -> Response {
    Request::get("/readyz").send(gateway.admin)
}

#[track_caller]
fn refused(key: &str, gateway: &Gateway) {
    let asked = Instant::now();
    let reply = redeem(key).send(gateway.addr);
    reply.is(503, "rejected", "store-unavailable");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(asked.elapsed() < SOON, "503 took {:?}", asked.elapsed());
}

#[track_caller]
fn until_replayed(key: &str, gateway: &Gateway, kept: &Response) {
    let reply = eventually("it is recorded", || {
        let reply = redeem(key).send(gateway.addr);
        (reply.disposition() == "replayed").then_some(reply)
    });
    assert_eq!(&reply.kept(), kept);
}

#[test]
fn without_the_store_nothing_is_sent_and_with_it_all_goes_on() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let shop = Shop::own(kind);
        let setup = Setup::before(&backend);
        let (gateway, chaos) = shop.replica_behind(&setup, SHORT);
        for way in WAYS {
            println!("{way:?}");
            let before = redeem(&format!("before-{way:?}")).send(gateway.addr);
            before.is(200, "executed", "");
            let calls = backend.calls();
            way.begin(&shop, &chaos);
            refused(&format!("first-{way:?}"), &gateway);
            let not_ready = eventually("the probe says so", || {
                Some(ready(&gateway)).filter(|reply| reply.status == 503)
            });
            assert!(not_ready.text().contains("the store is unavailable"), "{not_ready:?}");
            refused(&format!("second-{way:?}"), &gateway);
            // What is in memory is final and true.
            let again = redeem(&format!("before-{way:?}")).send(gateway.addr);
            assert_eq!(again.is(200, "replayed", "").kept(), before.kept());
            assert_eq!(backend.calls(), calls, "sent without a claim");
            way.end(&shop, &chaos);
            eventually("it is ready by itself", || (ready(&gateway).status == 200).then_some(()));
            for name in ["first", "second"] {
                let reply = eventually("a refused key runs", || {
                    let reply = redeem(&format!("{name}-{way:?}")).send(gateway.addr);
                    (reply.status == 200).then_some(reply)
                });
                reply.is(200, "executed", "");
            }
        }
        assert!(backend.executions().values().all(|count| *count == 1));
        eventually("nothing is in flight", || (shop.in_flight() == 0).then_some(()));
    });
}

#[test]
fn an_answer_that_comes_while_the_store_is_away_is_recorded_when_it_is_back() {
    Kind::both(|kind| {
        let backend = Backend::start();
        let shop = Shop::own(kind);
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
        let (owner, chaos) = shop.replica_behind(&setup, SHORT);
        let other = shop.replica(&setup, SHORT);
        for way in WAYS {
            println!("{way:?}");
            eventually("the store is there", || {
                (redeem(&format!("before-{way:?}")).send(owner.addr).status == 200).then_some(())
            });
            let gate = Gate::default();
            backend.always(answer(200, &format!(r#"{{"during":"{way:?}"}}"#)).after(&gate));
            let (key, calls) = (format!("k-{way:?}"), backend.calls());
            let mut call = redeem(&key).begin(owner.addr);
            backend.wait_calls(calls + 1);
            way.begin(&shop, &chaos);
            gate.open();
            let reply = call.read();
            reply.is(200, "unrecorded", "");
            // Away for longer than the lease: the others have given the call up for lost.
            eventually("its lease has ended", || (ready(&owner).status == 503).then_some(()));
            if matches!(way, Away::Frozen | Away::Refusing) {
                eventually("the others say that it is unknown", || {
                    (redeem(&key).send(other.addr).disposition() == "unknown").then_some(())
                });
            }
            way.end(&shop, &chaos);
            until_replayed(&key, &other, &reply.kept());
            until_replayed(&key, &owner, &reply.kept());
            assert_eq!(backend.calls(), calls + 1);
            backend.always(answer(200, "{}"));
        }
        assert_eq!(shop.in_flight(), 0);
    });
}

#[test]
fn a_claim_whose_confirmation_was_lost_is_withdrawn_when_the_store_is_back() {
    /// A renewal of the lease may be in the way of the cut.
    const TRIES: usize = 20;
    /// Enough changes, one after the other, that each connection has had some: nothing but the claim
    /// is then asked.
    const WARM: usize = 8;
    Kind::both(|kind| {
        let backend = Backend::start();
        let shop = Shop::own(kind);
        let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
        let (owner, chaos) = shop.replica_behind(&setup, SHORT);
        let other = shop.replica(&setup, SHORT);
        let claimed = (0..TRIES).find_map(|n| {
            let key = format!("k-{n}");
            for warm in 0..WARM {
                redeem(&format!("warm-{n}-{warm}")).send(owner.addr).is(200, "executed", "");
            }
            // The question arrives; whatever is answered does not, and nobody can ask again.
            chaos.refuse(true);
            chaos.cut_after_messages(Direction::ToClient, 0);
            redeem(&key).send(owner.addr).is(503, "rejected", "store-unavailable");
            chaos.cut_all();
            let claimed = other_knows(&other, &key);
            if !claimed {
                chaos.keep();
                eventually("the store is there", || (ready(&owner).status == 200).then_some(()));
            }
            claimed.then_some(key)
        });
        let key = claimed.expect("no claim arrived");
        let calls = backend.calls();
        eventually("the claim counts as lost", || {
            (redeem(&key).send(other.addr).disposition() == "unknown").then_some(())
        });
        chaos.keep();
        // Who made it knows that nothing was sent.
        let reply = eventually("the key is free", || {
            let reply = redeem(&key).send(other.addr);
            (reply.status == 200).then_some(reply)
        });
        reply.is(200, "executed", "");
        until_replayed(&key, &owner, &reply.kept());
        assert_eq!((backend.calls(), shop.in_flight()), (calls + 1, 0));
    });
}

/// Whether the store has a record of this key.
fn other_knows(replica: &Gateway, key: &str) -> bool {
    let asked = Request::get("/.well-known/idempotency/status").key(key).send(replica.addr);
    assert!([200, 404].contains(&asked.status), "{asked:?}");
    asked.status == 200
}

#[test]
fn an_emptied_redis_is_not_one_where_no_key_was_ever_used() {
    let gate = Gate::default();
    let backend = Backend::start();
    let shop = Shop::own(Kind::Redis);
    let setup = Setup::before(&backend).redeem(r#"duplicates.wait = "200ms""#);
    let (first, second) = (shop.replica(&setup, SHORT), shop.replica(&setup, SHORT));
    for key in ["a", "b", "c"] {
        redeem(key).send(first.addr).is(200, "executed", "");
    }
    backend.always(answer(200, "{}").after(&gate));
    let mut call = redeem("running").begin(first.addr);
    backend.wait_calls(4);
    shop.redis().unwrap().cli(&["FLUSHALL"]);
    gate.open();
    call.read().is(200, "unrecorded", "");
    for key in ["a", "b", "c", "running", "new"] {
        refused(key, &second);
    }
    for replica in [&first, &second] {
        refused("newer", replica);
        let reply = eventually("the probe says so", || {
            Some(ready(replica)).filter(|reply| reply.status == 503)
        });
        assert!(reply.text().contains("no longer holds this store"), "{reply:?}");
    }
    assert_eq!(backend.calls(), 4, "a second execution");
    drop((first, second));
    let strict = setup.elsewhere().store("create = false").on(shop.table(""));
    let exit = strict.try_start().unwrap_err();
    assert_eq!((exit.code, exit.stderr.trim().lines().count()), (Some(1), 1), "{exit:?}");
}

#[test]
fn a_redis_without_memory_stops_claims_and_loses_nothing() {
    let gate = Gate::default();
    let backend = Backend::start();
    let shop = Shop::own(Kind::Redis);
    let server = shop.redis().unwrap();
    let replicas = shop.replicas(&Setup::before(&backend), 2);
    let before = redeem("before").send(replicas[0].addr);
    before.is(200, "executed", "");
    backend.always(answer(200, r#"{"n":2}"#).after(&gate));
    let mut call = redeem("running").begin(replicas[0].addr);
    backend.wait_calls(2);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    gate.open();
    let reply = call.read();
    reply.is(200, "unrecorded", "");
    replicas.iter().for_each(|replica| refused("late", replica));
    redeem("before").send(replicas[1].addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 2, "sent without a claim");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    until_replayed("running", &replicas[1], &reply.kept());
    let late = eventually("the key runs", || {
        let reply = redeem("late").send(replicas[0].addr);
        (reply.status == 200).then_some(reply)
    });
    late.is(200, "executed", "");
    eventually("nothing is in flight", || (shop.in_flight() == 0).then_some(()));
    assert_eq!(backend.calls(), 3);
}

#[test]
fn a_postgres_that_cannot_grow_stops_claims_and_loses_nothing() {
    const FILL: &str = "INSERT INTO oncegate.record (id, version, data, open, first_seen)
        SELECT md5(n::text)::uuid, 1, decode(repeat('00', 500), 'hex'), false, n
        FROM generate_series(1, 40000) AS n";
    let backend = Backend::start();
    let shop = Shop::own(Kind::Postgres);
    let (server, database) = shop.postgres().unwrap();
    let replicas = shop.replicas(&Setup::before(&backend), 2);
    let before = redeem("before").send(replicas[0].addr);
    before.is(200, "executed", "");
    let limit = |most: &str| {
        let pids = server
            .run_sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'");
        let lock = std::fs::read_to_string(server.dir().join("data/postmaster.pid")).unwrap();
        // Those to come inherit it; one that ended meanwhile needs none.
        set_file_size(lock.lines().next().unwrap(), most).unwrap();
        pids.lines().for_each(|pid| _ = set_file_size(pid, most));
    };
    // The size of a segment of its log: the log goes on, the tables do not grow.
    limit("16777216");
    let full = server.try_sql_in(database, FILL).expect_err("no room");
    assert!(full.contains("could not extend file"), "{full}");
    // What room is left in the last pages is soon used up.
    let calls = backend.calls();
    let (mut sent, mut kept) = (0, Vec::new());
    let refused = (0..2000).find_map(|n| {
        let request = redeem(&format!("k-{n}"));
        let reply = request.send(replicas[n % 2].addr);
        match (reply.status, reply.disposition().as_str()) {
            (200, "executed") => kept.push((request, reply.kept())),
            (200, "unrecorded") => {}
            _ => return Some(reply),
        }
        sent += 1;
        None
    });
    refused.expect("the disk is full at last").is(503, "rejected", "store-unavailable");
    assert_eq!(backend.calls(), calls + sent, "sent without a claim");
    limit("unlimited");
    redeem("before").send(replicas[1].addr).is(200, "replayed", "");
    eventually("claims are made again", || {
        (redeem("late").send(replicas[0].addr).status == 200).then_some(())
    });
    for (request, first) in &kept {
        assert_eq!(&request.send(replicas[1].addr).kept(), first);
    }
    assert!(backend.executions().values().all(|count| *count == 1));
    eventually("nothing is in flight", || (shop.in_flight() == 0).then_some(()));
}

/// No file may grow over this many bytes by a process: a full disk. As the process's own user, who
/// may always do that.
fn set_file_size(pid: &str, most: &str) -> std::io::Result<()> {
    let owner = std::fs::metadata(format!("/proc/{pid}"))?;
    let mut command = std::process::Command::new("prlimit");
    command.args(["--pid", pid, &format!("--fsize={most}:")]).current_dir("/");
    if owner.uid() != rustix::process::getuid().as_raw() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let output = command.output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(())
}
