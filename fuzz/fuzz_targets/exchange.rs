//! Whatever a client and a backend send, every exchange ends, the backend is called at most once for
//! a key, and what it receives can be read in one way only.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use oncegate::fuzzing::play;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let played = RUNTIME.block_on(play(bytes)).expect("sockets");
    assert!(played.ended, "an exchange without an end");
    assert!(played.faults.is_empty(), "{:?}", played.faults);
    assert!(played.calls.values().all(|calls| *calls == 1), "{:?}", played.calls);
    assert_eq!((played.without_key, played.in_flight), (0, 0));
});
