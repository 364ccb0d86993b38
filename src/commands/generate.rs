//! `oncegate generate`: completions for shells and manual pages, from the command line's own
//! description.

use std::io::{self, Write as _};
use std::path::Path;

use clap::CommandFactory as _;

use super::failed;
use crate::cli::{Cli, Exit, GenerateCommand};

/// `oncegate generate …`
pub fn generate(command: &GenerateCommand) -> Exit {
    let generated = match command {
        GenerateCommand::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "oncegate", &mut script);
            io::stdout().lock().write_all(&script)
        }
        GenerateCommand::Man(args) => match &args.dir {
            Some(dir) => manual_in(dir),
            None => {
                let page = clap_mangen::Man::new(Cli::command());
                page.render(&mut io::stdout().lock())
            }
        },
    };
    match generated {
        Ok(()) => Exit::Ok,
        // The reader has stopped.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => failed(&format!("cannot write: {error}")),
    }
}

/// Writes a page for each command into a directory, which is made when there is none.
fn manual_in(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
