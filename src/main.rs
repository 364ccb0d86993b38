//! The binary: arguments, telemetry, the command, the exit code.

use std::process::ExitCode;

use clap::Parser as _;
use oncegate::cli::{Cli, Command, Exit};
use oncegate::commands;
use oncegate::observe::log::{self, LogFormat};

/// Memory of a request is allocated on a thread and freed on a different thread; with the system's
/// allocator this costs a third of the gateway's own work.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Whatever the umask was: all files are the store's, and hold keys and answers.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    // A gateway starts its log with its configuration. The demo's faults are deliberate.
    let level = match cli.command {
        Command::Run(_) => None,
        // Nor is a dry run's gateway one to watch.
        Command::Demo(_) | Command::Try(_) => Some("error"),
        _ => Some("info"),
    };
    if let Some(Err(mistake)) = level.map(|level| log::start(level, LogFormat::Text)) {
        eprintln!("oncegate: {mistake}");
        return Exit::Usage.into();
    }
    let exit = match &cli.command {
        Command::Run(args) => commands::run(args),
        Command::Check(args) => commands::check(args),
        Command::Try(args) => commands::try_samples(args),
        Command::Demo(args) => commands::demo(args),
        Command::Store(command) => commands::store(command),
        Command::Records(command) => commands::records(command),
        Command::Health(args) => commands::health(args),
        Command::Tenant(args) => commands::tenant(args),
        Command::Generate(command) => commands::generate(command),
    };
    log::finish();
    exit.into()
}
