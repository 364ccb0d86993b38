//! The fuzz targets (`fuzz/`) on a stable compiler: each runs over its kept corpus and over changed
//! copies of it. `ONCEGATE_TEST_FUZZ_SECONDS=60` lets each run for so long.

#![allow(unused_attributes, clippy::all, reason = "the targets are programs of another crate")]

use std::path::Path;
use std::time::{Duration, Instant};

use super::support::rng::Rng;

#[path = "../../fuzz/fuzz_targets/configuration.rs"]
mod configuration;
#[path = "../../fuzz/fuzz_targets/exchange.rs"]
mod exchange;
#[path = "../../fuzz/fuzz_targets/form.rs"]
mod form;
#[path = "../../fuzz/fuzz_targets/json.rs"]
mod json;
#[path = "../../fuzz/fuzz_targets/jwt.rs"]
mod jwt;
#[path = "../../fuzz/fuzz_targets/key.rs"]
mod key;
#[path = "../../fuzz/fuzz_targets/matcher.rs"]
mod matcher;
#[path = "../../fuzz/fuzz_targets/multipart.rs"]
mod multipart;
#[path = "../../fuzz/fuzz_targets/place.rs"]
mod place;
#[path = "../../fuzz/fuzz_targets/proxy_header.rs"]
mod proxy_header;
#[path = "../../fuzz/fuzz_targets/record.rs"]
mod record;
#[path = "../../fuzz/fuzz_targets/sealed.rs"]
mod sealed;
#[path = "../../fuzz/fuzz_targets/xml.rs"]
mod xml;

/// Takes the place of the library's macro: a function instead of a program.
#[macro_export]
macro_rules! fuzz_target {
    (|$bytes:ident: &[u8]| $body:block) => {
        pub(super) fn run($bytes: &[u8]) $body
    };
    (|$text:ident: &str| $body:block) => {
        pub(super) fn run(bytes: &[u8]) {
            let Ok($text) = std::str::from_utf8(bytes) else { return };
            $body
        }
    };
}

/// Changed inputs for each target, unless a time is given.
const ROUNDS: u32 = 2000;

/// The same for whole exchanges, which take sockets and time limits.
const EXCHANGES: u32 = 500;

/// Bytes of the longest input.
const LONGEST: usize = 8 << 10;

/// Bytes that mean something in one of the formats.
const SIGNS: &[u8] = b"\0\x01\x02\x7f\x80\xff \t\r\n\"'\\/{}[]()<>&;:=,.?#%*@!+-_0919aAeEzZ~|^$`";

/// Runs a target over its corpus, and over changed copies.
fn fuzz(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!corpus.is_empty(), "{}: no corpus", folder.display());
    let mut rng = Rng::seeded(name);
    for input in &corpus {
        check(name, target, input);
    }
    let seconds = std::env::var("ONCEGATE_TEST_FUZZ_SECONDS").ok().and_then(|it| it.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let most = if name == "exchange" { EXCHANGES } else { ROUNDS };
    let mut rounds = 0;
    while end.map_or(rounds < most, |end| Instant::now() < end) {
        rounds += 1;
        let mut input = pick(&mut rng, &corpus).clone();
        for _ in 0..=rng.below(4) {
            change(&mut rng, &mut input, &corpus);
        }
        input.truncate(LONGEST);
        check(name, target, &input);
    }
    println!("{name}: {rounds} inputs");
}

/// Runs a target once. The input is shown when the target fails.
fn check(name: &str, target: fn(&[u8]), input: &[u8]) {
    if let Err(failure) = std::panic::catch_unwind(|| target(input)) {
        println!("{name} fails with b\"{}\"", input.escape_ascii());
        std::panic::resume_unwind(failure);
    }
}

fn pick<'a>(rng: &mut Rng, corpus: &'a [Vec<u8>]) -> &'a Vec<u8> {
    &corpus[usize::try_from(rng.below(corpus.len() as u64)).unwrap()]
}

fn at(rng: &mut Rng, length: usize) -> usize {
    usize::try_from(rng.below(length as u64 + 1)).unwrap()
}

/// Changes an input in one place.
fn change(rng: &mut Rng, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let (one, other) = (at(rng, input.len()), at(rng, input.len()));
    let (start, end) = (one.min(other), one.max(other));
    let sign = SIGNS[at(rng, SIGNS.len() - 1)];
    match rng.below(8) {
        0 if start < input.len() => input[start] ^= 1 << rng.below(8),
        1 if start < input.len() => input[start] = sign,
        2 => input.insert(start, sign),
        3 => drop(input.drain(start..end.min(start + 16))),
        4 => drop(input.splice(start..start, vec![sign; at(rng, 40)])),
        5 => {
            let part = input[start..end].to_vec();
            drop(input.splice(end..end, part));
        }
        6 => {
            let from = pick(rng, corpus);
            let begin = at(rng, from.len());
            drop(input.splice(start..end, from[begin..].iter().copied()));
        }
        _ => input.truncate(end),
    }
}

macro_rules! tests {
    ($($test:ident $target:ident)*) => {
        $(
            #[test]
            fn $test() {
                fuzz(stringify!($target), $target::run);
            }
        )*
    };
}

tests! {
    the_target_configuration_holds configuration
    the_target_exchange_holds exchange
    the_target_form_holds form
    the_target_json_holds json
    the_target_jwt_holds jwt
    the_target_key_holds key
    the_target_matcher_holds matcher
    the_target_multipart_holds multipart
    the_target_place_holds place
    the_target_proxy_header_holds proxy_header
    the_target_record_holds record
    the_target_sealed_holds sealed
    the_target_xml_holds xml
}
