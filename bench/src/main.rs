//! The benchmark of oncegate: one binary with a subcommand per role.
//!
//! `bench/run` installs, builds and calls `http` and `stores`; `store-engines` is called by hand when
//! the choice of the embedded store's engine is to be measured again. Every other subcommand is a
//! process that these start.

mod args;
mod backend;
mod cases;
mod engines;
mod http;
mod load;
mod machine;
mod memory;
mod peers;
mod process;
mod report;
mod secure;
mod servers;
mod siege;
mod stores;
mod tls;

use std::process::ExitCode;

use args::Args;

/// What goes wrong in a benchmark is told to whoever runs it; nothing recovers.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: oncegate-bench http --tmp DIR --pids FILE [--oncegate FILE] [--bench-dir DIR] [--quick] [--alone]
                      [--rounds N] [--seconds S] [--connections N] [--records N] [--only TEXT] [--out FILE]
       oncegate-bench stores --tmp DIR --pids FILE --oncegate FILE [--bench-dir DIR] [--quick] [--alone]
                      [--rounds N] [--seconds S] [--connections N] [--wakes N] [--pool N]
                      [--only TEXT] [--out FILE]
       oncegate-bench siege --tmp DIR --pids FILE --oncegate FILE [--quick] [--out FILE]
       oncegate-bench store-engines --dir DIR [--seconds S] [--writers N] [--records N]
       oncegate-bench hyper-proxy --listen ADDR --backend ADDR
       oncegate-bench hyper-replay --listen ADDR";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let ran = Args::parse(words).and_then(|args| match command.as_str() {
        "http" => http::run(&args),
        "siege" => siege::run(&args),
        "stores" => stores::run(&args),
        "hyper-proxy" => peers::proxy(&args),
        "hyper-replay" => peers::replay(&args),
        "store-engines" => engines::compare(&args),
        "engine" => engines::measure_one(&args),
        "fjall-fill" => engines::reopen::fill(&args),
        "fjall-reopen" => engines::reopen::reopen(&args),
        _ => Err(USAGE.into()),
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("oncegate-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
