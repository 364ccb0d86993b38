//! A server that serves some connections and refuses others.

use super::*;

#[tokio::test]
async fn what_one_connection_cannot_send_another_sends() {
    let memory =
        Arc::new(MemoryEngine { connections: AtomicU32::new(4), ..MemoryEngine::default() });
    let store = open(&memory, TIMING).await;
    memory.broken.store(3, Ordering::Relaxed);
    for number in 1..=40 {
        done(&*store, vec![put_new(id(number), samples::claim(1))]).await;
    }
    // At once as well, with several changes of one record in their order.
    let claim = samples::claim(1);
    let puts = (41..=80).map(|number| store.swap(vec![put_new(id(number), claim.clone())]));
    let ends = (41..=80).map(|number| store.swap(vec![replace(id(number), 1, None)]));
    let swaps: Vec<_> = puts.chain(ends).collect();
    for swap in swaps {
        assert!(matches!(swap.await, Ok(Swap::Done)));
    }
    memory.broken.store(4, Ordering::Relaxed);
    let hasty = open(&memory, Timing { timeout: Duration::from_millis(200), ..TIMING }).await;
    let refused = hasty.swap(vec![put_new(id(90), claim)]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "got {refused:?}");
    memory.broken.store(0, Ordering::Relaxed);
    done(&*store, vec![put_new(id(91), samples::claim(1))]).await;
}
