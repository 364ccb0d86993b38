//! The command line: its arguments, and `oncegate check`. The other commands are left to
//! `commands`.

pub mod records;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::{self, Config, Mistakes, Secret, StoreConfig, Warning};
use records::RecordsCommand;

/// Version and commit of this build.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ONCEGATE_COMMIT"), ")");

/// Makes existing HTTP APIs safe to retry: one execution per idempotency key.
#[derive(Debug, Parser)]
#[command(name = "oncegate", version = VERSION, propagate_version = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed at run time, 2 bad usage or configuration.")]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway.
    Run(RunArgs),
    /// Check a configuration: print every mistake, or the routes as understood.
    Check(CheckArgs),
    /// Try a configuration on samples of a vendor's documentation: what is read, sent and kept.
    Try(TryArgs),
    /// Show the gateway at work: a backend that loses answers, with and without it in front.
    Demo(DemoArgs),
    /// Create, inspect and verify a store.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Find records of a running gateway, settle unknown outcomes, purge answers.
    #[command(subcommand)]
    Records(RecordsCommand),
    /// Ask a running gateway whether it is ready; the exit code is the answer.
    Health(HealthArgs),
    /// Print the name of a caller, from the header lines of a request on standard input.
    Tenant(TenantArgs),
    /// Generate completions for a shell, or the manual pages.
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// `oncegate run`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["config", "upstream"]))]
pub struct RunArgs {
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["listen", "store", "admin", "token_file"]
    )]
    pub config: Option<PathBuf>,
    /// Without a file: the backend to protect. Unsafe methods need a key, safe ones pass.
    #[arg(long, value_name = "URL")]
    pub upstream: Option<String>,
    /// Address of the public listener [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// The store's directory.
    #[arg(long, value_name = "DIR", default_value = "oncegate-store")]
    pub store: PathBuf,
    /// Address of the admin listener; on loopback unless there is a token
    /// [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// The file with the token of the admin listener; without one, the records API and the page
    /// are closed.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// `oncegate check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Check without the files of secrets that the configuration names.
    #[arg(long)]
    pub no_files: bool,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
    /// Show what the file would change in the running gateway with this admin listener.
    #[arg(long, value_name = "URL", requires = "token_file")]
    pub against: Option<String>,
    /// The file of the gateway's token, for --against.
    #[arg(long, value_name = "FILE", requires = "against")]
    pub token_file: Option<PathBuf>,
}

/// `oncegate try`
#[derive(Debug, Args)]
pub struct TryArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// A sample request as HTTP sends it: a first line, header lines, an empty line, the body.
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// The sample of its answer. Given several times, the next is for a retry, and so on.
    #[arg(long, value_name = "FILE")]
    pub answer: Vec<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `oncegate tenant`
#[derive(Debug, Args)]
pub struct TenantArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The route, where it has a [route.tenant] of its own.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
}

/// `oncegate demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave backend and gateway running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Print the table as JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `oncegate store …`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Create an empty store.
    Init(InitArgs),
    /// Print the store's identity and contents.
    Info(StoreArgs),
    /// Read every record and check it.
    Verify(StoreArgs),
    /// Seal every record under the present key of `[store] encryption`: the gateway stopped on a
    /// directory, at any time on a server.
    Rotate(StoreArgs),
}

/// `oncegate store init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The store to create.
    #[command(flatten)]
    pub place: StoreArgs,
    /// Succeed if there is a store already, and leave it as it is.
    #[arg(long)]
    pub if_absent: bool,
}

/// The store of a command.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("place").required(true).args(["config", "path"]))]
pub struct StoreArgs {
    /// The configuration file that names the store.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The store's directory.
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `oncegate health`
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The admin listener [default: http://127.0.0.1:9090]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// The configuration file that names the admin listener.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    pub config: Option<PathBuf>,
}

/// `oncegate generate …`
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Print the completions for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page, or write a page for each command into a directory.
    Man(ManArgs),
}

/// `oncegate generate completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// `oncegate generate man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory for a page of each command; made when there is none.
    pub dir: Option<PathBuf>,
}

/// Exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Ok,
    /// 1: failed at run time.
    Failed,
    /// 2: bad usage or configuration.
    Usage,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

impl RunArgs {
    /// The configuration to run with.
    ///
    /// # Errors
    /// For everything that is wrong with the file or the arguments.
    pub fn configuration(&self) -> Result<Config, Mistakes> {
        let upstream = match (&self.config, &self.upstream) {
            (Some(file), _) => return config::load(file),
            (None, Some(upstream)) => upstream,
            (None, None) => {
                return Err(Mistakes::one("oncegate run", "needs --config FILE or --upstream URL"));
            }
        };
        let mut config = config::without_file(upstream, self.listen, self.store.clone())?;
        if let Some(file) = &self.token_file {
            config.admin.token = Some(token_in(file)?);
            config.admin.token_file = Some(file.clone());
        }
        if let Some(admin) = self.admin {
            if !admin.ip().is_loopback() && config.admin.token.is_none() {
                return Err(Mistakes::one(
                    "--admin",
                    format!("{admin} is not a loopback address, and needs --token-file FILE"),
                ));
            }
            config.admin.listen = admin;
        }
        Ok(config)
    }
}

/// The token in a file; white space around it does not count.
fn token_in(file: &Path) -> Result<Secret, Mistakes> {
    let wrong = |what: String| Mistakes::one("--token-file", what);
    let name = file.display();
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong(format!(
            "{name} must hold one word of visible ASCII characters, the token"
        )));
    }
    Ok(Secret::new(token.to_owned()))
}

impl StoreArgs {
    /// The configuration of the store.
    ///
    /// # Errors
    /// For everything that is wrong with the file.
    pub fn store(&self) -> Result<StoreConfig, Mistakes> {
        match (&self.path, &self.config) {
            (Some(path), _) => Ok(StoreConfig::in_directory(path.clone())),
            (None, Some(file)) => Ok(config::load(file)?.store),
            (None, None) => {
                Err(Mistakes::one("oncegate store", "needs --config FILE or --path DIR"))
            }
        }
    }
}

/// `oncegate check`: the routes as understood to `out`, or every mistake to `err`, and in both
/// cases the warnings to `err` (with `--json` all to `out`: `{"mistakes":[{"file","line","column",
/// "what"}]}` and `"warnings":[{"file","line","what"}]`).
///
/// `read_files` reads the files that a configuration without mistakes names, unless `--no-files`
/// leaves them out.
///
/// # Errors
/// When nothing can be written.
pub fn check(
    args: &CheckArgs,
    read_files: &dyn Fn(&Config) -> Result<(), String>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> std::io::Result<Exit> {
    let loaded = match args.no_files {
        true => config::load_without_files(&args.config),
        false => config::load(&args.config).and_then(|config| match read_files(&config) {
            Ok(()) => Ok(config),
            Err(what) => {
                let file = args.config.display().to_string();
                Err(Mistakes { warnings: config.warnings, ..Mistakes::one(&file, what) })
            }
        }),
    };
    let (warnings, exit) = match &loaded {
        Ok(config) => (&config.warnings, Exit::Ok),
        Err(mistakes) => (&mistakes.warnings, Exit::Usage),
    };
    if args.json {
        let mut described = match &loaded {
            Ok(config) => config.describe_json(),
            Err(mistakes) => mistakes_json(mistakes),
        };
        described["warnings"] = warnings_json(warnings);
        writeln!(out, "{described:#}")?;
        return Ok(exit);
    }
    if let Err(mistakes) = &loaded {
        writeln!(err, "{mistakes}")?;
    }
    for warning in warnings {
        writeln!(err, "warning: {warning}")?;
    }
    if let Ok(config) = &loaded {
        out.write_all(config.describe().as_bytes())?;
    }
    Ok(exit)
}

fn mistakes_json(mistakes: &Mistakes) -> serde_json::Value {
    let each = mistakes.list.iter().map(|mistake| {
        serde_json::json!({
            "file": mistakes.source,
            "line": mistake.at.map(|(line, _)| line),
            "column": mistake.at.map(|(_, column)| column),
            "what": mistake.what,
        })
    });
    serde_json::json!({ "mistakes": each.collect::<Vec<_>>() })
}

fn warnings_json(warnings: &[Warning]) -> serde_json::Value {
    let each = warnings.iter().map(|warning| {
        let Warning { source, line, what } = warning;
        serde_json::json!({ "file": source, "line": line, "what": what })
    });
    each.collect()
}
