//! Fills a store with final records, to measure what a full one costs.
//!
//! `fill-store DIR COUNT` writes many at once; `fill-store DIR COUNT WRITERS` as requests do, each
//! with a durable claim and a durable completion, by so many at a time. Prints how long filling and
//! opening again took, the processor time of each request, and the memory of the process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oncegate::clock;
use oncegate::idempotency::fingerprint::{Fingerprint, MemberDigest, RuleId};
use oncegate::idempotency::record::StoredResponse;
use oncegate::idempotency::retention::{Keep, Retention};
use oncegate::idempotency::{Answer, Record, RecordId, State, TenantId};
use oncegate::store::codec::Codec;
use oncegate::store::embedded::{DirectoryOptions, Embedded};
use oncegate::store::{Change, Store, Swap};

/// Records in one compare-and-swap.
const AT_ONCE: u64 = 500;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err("usage: fill-store DIR COUNT [WRITERS]".into());
    };
    let count: u64 = count.parse()?;
    let writers: Option<u64> = arguments.next().map(|text| text.parse()).transpose()?;
    let cache = oncegate::config::defaults::CACHE;
    let options = DirectoryOptions {
        path: PathBuf::from(path),
        cache,
        create: true,
        expect_id: None,
        codec: Codec::plain(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;

    if count > 0 {
        let (store, _) = Embedded::open(&options)?;
        let (started, before) = (Instant::now(), processor_time()?);
        match writers {
            None => runtime.block_on(fill(&*store, count))?,
            Some(writers) => runtime.block_on(request(store.clone(), count, writers))?,
        }
        let (took, used) = (started.elapsed(), processor_time()? - before);
        println!(
            "wrote {count} records in {took:.2?}, {:.2?} of processor each",
            used / count as u32
        );
        drop(store);
    }
    let started = Instant::now();
    let (store, recovered) = Embedded::open(&options)?;
    println!("opened in {:.2?}: {recovered:?}", started.elapsed());
    println!("resident after opening: {} KiB", resident()?);
    if count > 0 {
        runtime.block_on(read(&store, count))?;
        println!("resident after reading: {} KiB", resident()?);
    }
    Ok(())
}

async fn fill(store: &dyn Store, count: u64) -> Result<(), Failure> {
    let tenant = TenantId::from_bytes([1; 16]);
    let mut from = 0;
    while from < count {
        let to = (from + AT_ONCE).min(count);
        let change = |n: u64| {
            let key = format!("00000000-0000-4000-8000-{n:012}");
            let id = RecordId::new(&tenant, "", &key);
            Change { id, expect: None, put: Some(record(tenant, key, n).into()) }
        };
        match store.swap((from..to).map(change).collect()).await? {
            Swap::Done => from = to,
            Swap::Lost { .. } => return Err("the directory has these records already".into()),
        }
    }
    Ok(())
}

/// Claims and completes as requests do, by `writers` tasks.
#[expect(clippy::disallowed_methods, reason = "no drain waits for a measurement's tasks")]
async fn request(store: Arc<Embedded>, count: u64, writers: u64) -> Result<(), Failure> {
    let tenant = TenantId::from_bytes([1; 16]);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in (writer..count).step_by(writers as usize) {
                    let key = format!("00000000-0000-4000-8000-{n:012}");
                    let id = RecordId::new(&tenant, "", &key);
                    let record = record(tenant, key, n);
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
async fn read(store: &Arc<Embedded>, count: u64) -> Result<(), Failure> {
    let tenant = TenantId::from_bytes([1; 16]);
    for (name, from) in [("present", 0), ("absent", count)] {
        let started = Instant::now();
        for n in 0..1000 {
            let n = from + n * 7919 % count;
            let key = format!("00000000-0000-4000-8000-{n:012}");
            store.get(RecordId::new(&tenant, "", &key)).await?;
        }
        println!("a read of a key that is {name}: {:.2?}", started.elapsed() / 1000);
    }
    Ok(())
}

/// A record of about 600 bytes, as a voucher backend's answer makes it.
fn record(tenant: TenantId, key: String, n: u64) -> Record {
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
        tenant,
        caller: None,
        route: "redeem".into(),
        key: key.into(),
        subject: None,
        fingerprint: Fingerprint {
            digest: [n as u8; 32],
            verbatim: [n as u8 ^ 0x40; 32],
            rule: RuleId::from_bytes([5; 8]),
            members: vec![member("qr"), member("outlet"), member("amount")].into(),
        },
        first_seen: now,
        updated: now,
        attempts: 1,
        attempt: [2; 16],
        owner: [3; 16],
        state: State::InFlight,
        settlement_unreported: false,
        history: Vec::new(),
        settling: None,
    };
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
