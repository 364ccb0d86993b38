//! Whatever a configuration says, reading it ends with a configuration or a list of mistakes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::config;

fuzz_target!(|text: &str| {
    match config::parse(text, "fuzz.toml", &|_| None) {
        Ok(config) => assert!(!config.describe().is_empty()),
        Err(mistakes) => assert!(!mistakes.list.is_empty()),
    }
});
