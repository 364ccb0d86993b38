//! Lives of gateways, what they leave behind, and what they tell each other.

use tokio::sync::mpsc;

use super::*;
use crate::clock::Timestamp;
use crate::idempotency::record::Nonce;
use crate::shutdown;
use crate::store::shared::message::{EVERYONE, Message};

const MINUTE: Duration = Duration::from_secs(60);

async fn claimed(engine: &PostgresEngine, n: u64, owner: Nonce) {
    let claim = Record { owner, ..samples::claim(n) };
    let put = [group(vec![put_new(id(n), claim)])];
    assert_eq!(engine.commit(0, &put).await.unwrap(), [CasResult::Done]);
}

async fn abandoned(engine: &PostgresEngine) -> Vec<RecordId> {
    listed(engine, Query { abandoned: true, limit: 100, ..Query::default() }).await
}

#[tokio::test]
async fn claims_are_abandoned_once_nobody_renews_their_owners_lease() {
    let engine = open(&fresh()).await;
    let (alive, ended, left, never) = ([1; 16], [2; 16], [3; 16], [4; 16]);
    for (n, owner) in [(1, alive), (2, ended), (3, left), (4, never), (5, alive)] {
        claimed(&engine, n, owner).await;
    }
    // An unknown one is nobody's.
    claimed(&engine, 6, never).await;
    let reason = crate::idempotency::outcome::UnknownReason::Timeout;
    let unknown = Record { owner: never, ..samples::claim(6) }.lost(reason, samples::T0);
    let lost = [group(vec![replace(id(6), 1, Some(unknown))])];
    assert_eq!(engine.commit(0, &lost).await.unwrap(), [CasResult::Done]);

    for owner in [alive, left] {
        engine.heartbeat(owner, MINUTE).await.unwrap();
    }
    engine.heartbeat(ended, Duration::ZERO).await.unwrap();
    assert_eq!(abandoned(&engine).await, [2, 4].map(id));
    engine.leave(left).await.unwrap();
    assert_eq!(abandoned(&engine).await, [2, 3, 4].map(id));
    engine.heartbeat(ended, MINUTE).await.unwrap();
    assert_eq!(abandoned(&engine).await, [3, 4].map(id));
    let page = Query { abandoned: true, after: Some(samples::at(4)), limit: 1, ..Query::default() };
    assert_eq!(listed(&engine, page).await, [id(3)]);
}

#[tokio::test]
async fn a_beat_tells_the_servers_time_and_forgets_who_ended_long_ago() {
    let options = fresh();
    let engine = open(&options).await;
    let database = options.url.rsplit('/').next().unwrap();
    let sql = |text: &str| servers::Postgres::shared().run_sql_in(database, text);
    sql("INSERT INTO oncegate.replica SELECT md5(n::text)::uuid, now() - interval '61 minutes' \
         FROM generate_series(1, 150) AS n");
    sql("INSERT INTO oncegate.replica SELECT md5(n::text)::uuid, now() - interval '59 minutes' \
         FROM generate_series(1001, 1002) AS n");
    let time = || sql("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8");
    let millis = |text: String| Timestamp::from_millis(text.parse().unwrap());
    let before = millis(time());
    let now = engine.heartbeat([1; 16], MINUTE).await.unwrap();
    assert!(before <= now && now <= millis(time()), "{before:?} {now:?}");
    // A hundred at once, so that no beat takes long.
    assert_eq!(sql("SELECT count(*) FROM oncegate.replica"), "53");
    engine.heartbeat([1; 16], MINUTE).await.unwrap();
    assert_eq!(sql("SELECT count(*) FROM oncegate.replica"), "3");
    let lease = "SELECT lease_until BETWEEN now() + interval '50 s' AND now() + interval '60 s' \
                 FROM oncegate.replica WHERE lease_until > now()";
    assert_eq!(sql(lease), "t");
}

/// Sends until something is heard, because nobody hears what was said before the listening began.
async fn first_heard(
    engine: &PostgresEngine,
    to: Nonce,
    message: Message,
    heard: &mut mpsc::Receiver<Message>,
) {
    let said = async {
        loop {
            // While the server is away nothing can be said.
            let _ = engine.publish(vec![(to, message)]).await;
            let next = tokio::time::timeout(Duration::from_millis(50), heard.recv()).await;
            // Words of earlier attempts may still come.
            if next == Ok(Some(message)) {
                return;
            }
        }
    };
    tokio::time::timeout(TIMEOUT, said).await.expect("nothing was heard");
}

#[tokio::test]
async fn messages_reach_the_one_they_are_for_also_after_a_lost_connection() {
    let options = fresh();
    let (one, two) = (open(&options).await, open(&options).await);
    let (owner, stranger) = ([0xab; 16], [0xcd; 16]);
    let (sink, mut heard) = mpsc::channel(16);
    let (trigger, end) = shutdown::channel();
    let tasks = tokio_util::task::TaskTracker::default();
    tasks.spawn(one.clone().listen(owner, sink, end));
    let first = Message::Waiting { id: id(1), from: stranger };
    first_heard(&two, owner, first, &mut heard).await;

    // Many at once, those to others among them.
    let changed = |n| Message::Changed { id: id(n) };
    let messages = (10..14).map(|n| ([owner, stranger][n as usize % 2], changed(n))).collect();
    two.publish(messages).await.unwrap();
    let to_all = Message::Replaced { id: id(30) };
    two.publish(vec![(EVERYONE, to_all)]).await.unwrap();
    let mut next = Vec::new();
    while next.len() < 3 {
        let message = tokio::time::timeout(TIMEOUT, heard.recv()).await.unwrap().unwrap();
        // Words of the first attempts may still come.
        if message != first {
            next.push(message);
        }
    }
    assert_eq!(next, [changed(10), changed(12), to_all]);

    let database = options.url.rsplit('/').next().unwrap();
    servers::Postgres::shared().run_sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    ));
    first_heard(&two, owner, changed(20), &mut heard).await;
    trigger.fire();
    assert!(shutdown::ended(&tasks, TIMEOUT).await, "the listening goes on");
}
