//! Steps of the server's clock: nobody is given up, and nothing expires, because of one.

use super::*;

/// Time for which a lease is seen as ended before its owner is given up.
const WAIT: Duration = Duration::from_millis(50);
/// More than a lease, and more than any retention.
const STEP: Duration = Duration::from_secs(100 * 86_400);
/// The longest a test waits for something that must happen.
const WAIT_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_step_forward_gives_up_no_living_process_and_those_that_ended_a_moment_later() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let (other, here) = (open(&memory, TIMING).await, open(&memory, TIMING).await);
    let claim = Record { owner: other.owner(), ..samples::claim(1) };
    done(&*other, vec![put_new(id(1), claim.clone())]).await;
    let mut ended = EndedOwners::new(WAIT);
    let pass = async |ended: &mut EndedOwners| reaper::pass(&*here, ended).await.unwrap();
    assert_eq!(pass(&mut ended).await, 0);
    *locked(&memory.steps) += STEP;
    // All leases have ended, until their owners renew them.
    assert_eq!(pass(&mut ended).await, 0);
    memory.heartbeat(other.owner(), TIMING.lease).await.unwrap();
    tokio::time::sleep(2 * WAIT).await;
    assert_eq!(pass(&mut ended).await, 0);
    *locked(&memory.steps) += STEP;
    assert_eq!(pass(&mut ended).await, 0, "what was seen before the renewal counts no more");
    assert_eq!(here.get(id(1)).await, Ok(Some(claim)));
    tokio::time::sleep(2 * WAIT).await;
    assert_eq!(pass(&mut ended).await, 1, "a process that does not renew has ended");
    assert_eq!(pass(&mut ended).await, 0);
}

#[tokio::test]
async fn a_step_forward_expires_nothing_and_a_step_back_is_followed() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let timing = Timing { lease: Duration::from_secs(1), ..TIMING };
    let store = open(&memory, timing).await;
    let before = store.now();
    let until = async |what: &str, reached: &dyn Fn(Timestamp) -> bool| {
        let start = std::time::Instant::now();
        while !reached(store.now()) {
            assert!(start.elapsed() < WAIT_LIMIT, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    *locked(&memory.steps) = STEP;
    until("stamps follow the server", &|now| now >= before.saturating_add(STEP)).await;
    let day = Duration::from_secs(86_400);
    assert!(store.expiry_time().at < before.saturating_add(day));
    *locked(&memory.steps) = Duration::ZERO;
    until("the clock is set back", &|now| now < before.saturating_add(day)).await;
    assert!(store.expiry_time().at >= before);
    assert!(store.expiry_time().at < before.saturating_add(day));
}

#[tokio::test]
async fn a_process_that_starts_far_ahead_of_the_newest_record_deletes_nothing() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let earlier = open(&memory, TIMING).await;
    assert!(earlier.expiry_time().deletes, "an empty store has nothing to protect");
    let now = earlier.now();
    let claim =
        Record { owner: earlier.owner(), first_seen: now, updated: now, ..samples::claim(1) };
    done(&*earlier, vec![put_new(id(1), claim)]).await;
    assert!(open(&memory, TIMING).await.expiry_time().deletes);
    *locked(&memory.steps) += STEP;
    let later = open(&memory, TIMING).await;
    assert!(!later.expiry_time().deletes);
    assert!(later.expiry_time().at > now.saturating_add(STEP / 2), "answers end as the clock says");
    assert!(earlier.expiry_time().deletes);
}
