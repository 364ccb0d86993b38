//! The commands: `run`, `demo`, `health`, `tenant` and `generate`; `check` in `against`; `try` in
//! `try_samples`; `store …` in `store`; `records …` in `records` and `response`, which ask a
//! running gateway through `admin_client`. Their arguments are in `cli`.

mod admin_client;
mod against;
mod generate;
mod health;
mod records;
mod response;
mod run;
mod store;
mod tenant;
mod try_samples;

use std::io::{self, Write as _};

pub use self::against::check;
pub use self::generate::generate;
pub use self::health::health;
pub use self::records::records;
pub use self::run::run;
pub use self::store::store;
pub use self::tenant::tenant;
pub use self::try_samples::try_samples;

use crate::cli::Exit;

/// `oncegate demo`
pub fn demo(args: &crate::cli::DemoArgs) -> Exit {
    let options = crate::demo::DemoOptions { keep: args.keep, json: args.json };
    block_on(async move {
        match crate::demo::run(options).await {
            Ok(()) => Exit::Ok,
            Err(error) => failed(&error),
        }
    })
}

/// Runs a command that serves no clients.
fn block_on(work: impl Future<Output = Exit>) -> Exit {
    block_on_workers(1, work)
}

fn block_on_workers(workers: usize, work: impl Future<Output = Exit>) -> Exit {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => failed(&format!("cannot start the runtime: {error}")),
    }
}

/// Prints a line on standard output that nobody has to read.
fn say(line: &str) {
    let _ = print(line);
}

/// Prints what was asked for on standard output, and ends the command.
fn printed(text: &str) -> Exit {
    match print(text) {
        Ok(()) => Exit::Ok,
        Err(error) => failed(&unwritable(&error)),
    }
}

/// Prints a line on standard output. A closed output is no failure: the reader has stopped. A full
/// disk is.
fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn unwritable(error: &io::Error) -> String {
    format!("standard output cannot be written: {error}")
}

fn failed(what: &str) -> Exit {
    eprintln!("oncegate: {what}");
    Exit::Failed
}
