//! Fills a store with final records, to measure what a full one costs.
//!
//! `fill-store STORE COUNT` writes many at once, `STORE` being a directory, or the URL of PostgreSQL
//! or Redis; `fill-store DIR COUNT WRITERS` as requests do, each with a durable claim and a durable
//! completion, by so many at a time. Prints how long filling and opening again took, the memory of
//! the process, and the times of reads and listings. A count of 0 fills nothing, and measures a
//! store of `FILLED` records (an environment variable). With `UNKNOWN` set the outcomes are unknown.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncegate::clock::{self, Timestamp};
use oncegate::idempotency::fingerprint::{Fingerprint, MemberDigest, RuleId};
use oncegate::idempotency::id::IdScheme;
use oncegate::idempotency::outcome::UnknownReason;
use oncegate::idempotency::record::StoredResponse;
use oncegate::idempotency::retention::{Keep, Retention};
use oncegate::idempotency::{Answer, Record, RecordId, State, TenantId};
use oncegate::store::codec::Codec;
use oncegate::store::embedded::{DirectoryOptions, Embedded};
use oncegate::store::postgres::PostgresOptions;
use oncegate::store::redis::RedisOptions;
use oncegate::store::server::{Server, Timing};
use oncegate::store::{Change, ListPosition, Query, Store, Swap};

/// Records in one compare-and-swap.
const AT_ONCE: u64 = 500;
/// Compare-and-swaps under way at once.
const SWAPS: usize = 8;
/// Number of callers.
const CALLERS: u64 = 1000;
/// Number of keys with the same business id.
const KEYS_OF_A_VOUCHER: u64 = 3;
/// Time over which the first claims are spread, up to now.
const PERIOD: Duration = Duration::from_secs(30 * 86_400);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fill-store DIR|URL COUNT [WRITERS]".into());
    };
    let count: u64 = count.parse()?;
    let writers: Option<u64> = arguments.next().map(|text| text.parse()).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if count > 0 {
        let store = runtime.block_on(open(&target))?;
        let (started, before) = (Instant::now(), processor_time()?);
        match writers {
            None => runtime.block_on(fill(&store, count))?,
            Some(writers) => runtime.block_on(request(store.clone(), count, writers))?,
        }
        let (took, used) = (started.elapsed(), processor_time()? - before);
        println!(
            "wrote {count} records in {took:.2?}, {:.2?} of processor each",
            used / count as u32
        );
        runtime.block_on(store.leave())?;
    }
    let started = Instant::now();
    let store = runtime.block_on(open(&target))?;
    println!("opened in {:.2?}", started.elapsed());
    println!("resident after opening: {} KiB", resident()?);
    let filled = match std::env::var("FILLED") {
        Ok(filled) => filled.parse()?,
        Err(_) => count,
    };
    if filled > 0 {
        runtime.block_on(read(&store, filled))?;
        runtime.block_on(list(&store, filled))?;
        println!("resident after reading: {} KiB", resident()?);
    }
    runtime.block_on(store.leave())?;
    Ok(())
}

/// Opens the directory or the server, and creates a store there.
async fn open(target: &str) -> Result<Arc<dyn Store>, Failure> {
    let (create, expect_id) = (true, None);
    let (ca, client_cert) = (None, None);
    let (connect_timeout, timeout) = (Duration::from_secs(5), Duration::from_secs(60));
    let server = if target.starts_with("postgres") {
        let (url, connections, prepared) = (target.to_owned(), 4, true);
        let options = PostgresOptions {
            url,
            connections,
            connect_timeout,
            timeout,
            ca,
            client_cert,
            create,
            expect_id,
            prepared,
        };
        Server::Postgres(options)
    } else if target.starts_with("redis") {
        Server::Redis(RedisOptions {
            urls: vec![target.to_owned()],
            cluster: false,
            sentinel: None,
            strict: false,
            replicas: 0,
            prefix: "oncegate".to_owned(),
            connect_timeout,
            timeout,
            ca,
            client_cert,
            create,
            expect_id,
        })
    } else {
        let (path, cache) = (PathBuf::from(target), oncegate::config::defaults::CACHE);
        let codec = Codec::plain();
        let (store, recovered) =
            Embedded::open(&DirectoryOptions { path, cache, create, expect_id, codec })?;
        println!("{recovered:?}");
        return Ok(store);
    };
    let timing = Timing { timeout, lease: Duration::from_secs(120) };
    let opened = server.open(Codec::plain(), timing).await;
    Ok(opened.map_err(|failure| failure.to_string())?.store)
}

/// The caller of a record: records that are written at once have one, because a group of changes
/// stays in one shard of Redis.
fn tenant(n: u64) -> TenantId {
    let caller = (n / AT_ONCE) % CALLERS;
    let mut bytes = [1; 16];
    bytes[..2].copy_from_slice(&(caller as u16).to_le_bytes());
    TenantId::from_bytes(bytes)
}

fn key(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

/// The business id of a record: several keys have the same.
fn voucher(n: u64) -> String {
    format!("rsg:{}", n / KEYS_OF_A_VOUCHER)
}

#[expect(clippy::disallowed_methods, reason = "no drain waits for a measurement's tasks")]
async fn fill(store: &Arc<dyn Store>, count: u64) -> Result<(), Failure> {
    let started = clock::now();
    let mut from = 0;
    let mut running = VecDeque::new();
    while from < count || !running.is_empty() {
        while from < count && running.len() < SWAPS {
            let to = (from + AT_ONCE).min(count);
            let change = |n: u64| {
                let id = RecordId::new(&tenant(n), "", &key(n));
                let ago = PERIOD.mul_f64((count - n) as f64 / count as f64);
                let first_seen = started.as_millis().saturating_sub(ago.as_millis() as u64);
                let record = record(n, Timestamp::from_millis(first_seen));
                Change { id, expect: None, put: Some(record.into()) }
            };
            let (store, changes) = (store.clone(), (from..to).map(change).collect());
            running.push_back(tokio::spawn(async move { store.swap(changes).await }));
            from = to;
        }
        if let Some(swap) = running.pop_front()
            && let Swap::Lost { .. } = swap.await??
        {
            return Err("the store has these records already".into());
        }
    }
    Ok(())
}

/// Claims and completes as requests do, by `writers` tasks.
#[expect(clippy::disallowed_methods, reason = "no drain waits for a measurement's tasks")]
async fn request(store: Arc<dyn Store>, count: u64, writers: u64) -> Result<(), Failure> {
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in (writer..count).step_by(writers as usize) {
                    let id = RecordId::new(&tenant(n), "", &key(n));
                    let record = record(n, clock::now());
                    let claim = Record { state: State::InFlight, ..record.clone() };
                    let expect = Some(claim.version);
                    let record = Record { version: n + 1, ..record };
                    store.get(id).await?;
                    store.swap(vec![Change { id, expect: None, put: Some(claim.into()) }]).await?;
                    store.swap(vec![Change { id, expect, put: Some(record.into()) }]).await?;
                }
                Ok::<_, oncegate::store::StoreError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Reads keys that are there and keys that are not, a thousand of each.
async fn read(store: &Arc<dyn Store>, count: u64) -> Result<(), Failure> {
    for (name, from) in [("present", 0), ("absent", count)] {
        let started = Instant::now();
        for n in 0..1000 {
            let n = from + n * 7919 % count;
            store.get(RecordId::new(&tenant(n), "", &key(n))).await?;
        }
        println!("a read of a key that is {name}: {:.2?}", started.elapsed() / 1000);
    }
    Ok(())
}

/// Lists records of every kind of look-up, a hundred times each, and prints the median and the
/// slowest.
async fn list(store: &Arc<dyn Store>, count: u64) -> Result<(), Failure> {
    let ids = IdScheme::plain();
    let place = |n: u64| ListPosition {
        first_seen: Timestamp::from_millis(clock::now().as_millis() - n % 2_000_000_000),
        id: RecordId::from_bytes([7; 16]),
    };
    let newest = |_: u64| Query::default();
    let older = |n: u64| Query { after: Some(place(n * 7_919_317)), ..Query::default() };
    let of_voucher = |n: u64| {
        let subject = Some(ids.subject(&voucher(n * 7919 % count)));
        Query { subject, ..Query::default() }
    };
    let of_key = |n: u64| Query { keys: vec![ids.key(&key(n * 7919 % count))], ..Query::default() };
    let open = |_: u64| Query { open: true, ..Query::default() };
    let shard = |n: u64| Query { shard: Some(n as u8), ..Query::default() };
    let kinds: [(&str, &dyn Fn(u64) -> Query); 6] = [
        ("the newest 100", &newest),
        ("100 behind some time", &older),
        ("of a voucher", &of_voucher),
        ("of a key", &of_key),
        ("open ones", &open),
        ("100 of callers in a shard", &shard),
    ];
    for (name, query) in kinds {
        let (mut times, mut found) = (Vec::new(), 0);
        for n in 0..100 {
            let started = Instant::now();
            found += store.list(Query { limit: 100, ..query(n) }).await?.len();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let (median, slowest) = (times[50], times[99]);
        println!("listing {name}: median {median:.2?}, slowest {slowest:.2?}, {found} records");
    }
    Ok(())
}

/// A record of about 600 bytes, as a voucher backend's answer makes it.
fn record(n: u64, first_seen: Timestamp) -> Record {
    let now = clock::now();
    let member = |name: &str| MemberDigest { name: name.into(), digest: [n as u8; 4] };
    let header = |name: &'static str, value: &'static str| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    let body = format!(
        r#"{{"object":"redemption","id":"red_{n:016}","voucher":"{n:032x}","status":"redeemed","amount":1000,"currency":"SGD","outlet":"outlet-{:04}","created":"2024-01-01T00:00:00Z"}}"#,
        n % 1000
    );
    let response = StoredResponse {
        status: 200,
        headers: vec![
            header("content-type", "application/json"),
            header("date", "Mon, 01 Jan 2024 00:00:00 GMT"),
            header("server", "legacy/1.0"),
        ],
        body: body.into(),
    };
    let claim = Record {
        version: n,
        tenant: tenant(n),
        caller: None,
        route: "redeem".into(),
        key: key(n).into(),
        subject: Some(IdScheme::plain().subject(&voucher(n))),
        fingerprint: Fingerprint {
            digest: [n as u8; 32],
            verbatim: [n as u8 ^ 0x40; 32],
            rule: RuleId::from_bytes([5; 8]),
            members: vec![member("qr"), member("outlet"), member("amount")].into(),
        },
        first_seen,
        updated: now,
        attempts: 1,
        attempt: [2; 16],
        owner: [3; 16],
        state: State::InFlight,
        settlement_unreported: false,
        history: Vec::new(),
        settling: None,
    };
    if std::env::var_os("UNKNOWN").is_some() {
        return claim.lost(UnknownReason::Timeout, now);
    }
    let day = |days: u64| Keep::For(Duration::from_secs(days * 86_400));
    let retention = Retention { answer: day(7), tombstone: day(30) };
    claim.completed(Answer::Kept(Arc::new(response)), retention, now)
}

/// Processor time of this process, all threads.
fn processor_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().ok_or("no stat")?.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Kibibytes of memory that this process has.
fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let number = line.split_whitespace().nth(1).ok_or("no number")?;
    Ok(number.parse()?)
}
