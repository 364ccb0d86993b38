//! `oncegate try`: a dry run of a configuration on samples of a vendor's documentation.

use std::path::Path;

use super::{block_on, printed};
use crate::cli::{Exit, TryArgs};
use crate::config;
use crate::dry_run::{self, Samples};

/// `oncegate try`: 0 when the gateway takes the request and can read the answers, 1 when not.
pub fn try_samples(args: &TryArgs) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    let samples = match samples(args) {
        Ok(samples) => samples,
        Err(what) => {
            eprintln!("oncegate: {what}");
            return Exit::Usage;
        }
    };
    block_on(async move {
        let report = match dry_run::run(&config, &samples).await {
            Ok(report) => report,
            Err(what) => {
                eprintln!("oncegate: {what}");
                return Exit::Failed;
            }
        };
        let text = match args.json {
            true => serde_json::to_string_pretty(&report).unwrap_or_default(),
            false => report.text(),
        };
        let exit = printed(text.trim_end_matches('\n'));
        if report.passes() { exit } else { Exit::Failed }
    })
}

/// Reads the files of the samples.
fn samples(args: &TryArgs) -> Result<Samples, String> {
    let read = |path: &Path| {
        let name = path.display().to_string();
        match std::fs::read(path) {
            Ok(text) => Ok((name, text)),
            Err(error) => Err(format!("{name}: cannot be read: {error}")),
        }
    };
    let (name, request) = read(&args.request)?;
    let answers = args.answer.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    Samples::parse((&name, &request), &answers)
}
