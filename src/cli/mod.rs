//! The command line: its arguments, and `oncegate check`. The other commands are left to
//! `commands`.

pub mod records;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::{self, Config, Mistakes, StoreConfig};
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
    /// Generate completions for a shell, or the manual pages.
    #[command(subcommand)]
    Generate(GenerateCommand),
}

/// `oncegate run`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["config", "upstream"]))]
pub struct RunArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "store", "admin"])]
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
    /// Address of the admin listener, on loopback [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
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
        if let Some(admin) = self.admin {
            if !admin.ip().is_loopback() {
                return Err(Mistakes::one(
                    "--admin",
                    format!("{admin} is not a loopback address; without a file there is no token"),
                ));
            }
            config.admin.listen = admin;
        }
        Ok(config)
    }
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

/// `oncegate check`: the routes as understood to `out`, or every mistake to `err` (with `--json` to
/// `out`, as `{"mistakes":[{"file","line","column","what"}]}`).
///
/// # Errors
/// When nothing can be written.
pub fn check(args: &CheckArgs, out: &mut dyn Write, err: &mut dyn Write) -> std::io::Result<Exit> {
    let load = if args.no_files { config::load_without_files } else { config::load };
    match load(&args.config) {
        Ok(config) if args.json => {
            writeln!(out, "{:#}", config.describe_json())?;
            Ok(Exit::Ok)
        }
        Ok(config) => {
            out.write_all(config.describe().as_bytes())?;
            Ok(Exit::Ok)
        }
        Err(mistakes) if args.json => {
            writeln!(out, "{:#}", mistakes_json(&mistakes))?;
            Ok(Exit::Usage)
        }
        Err(mistakes) => {
            writeln!(err, "{mistakes}")?;
            Ok(Exit::Usage)
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    fn exit_of(arguments: &str) -> Option<i32> {
        let words = std::iter::once("oncegate").chain(arguments.split_whitespace());
        Cli::try_parse_from(words).err().map(|error| error.exit_code())
    }

    #[test]
    fn usage_decides_the_exit_code() {
        for (arguments, exit) in [
            ("run --config a.toml", None),
            ("run --upstream http://127.0.0.1:9000", None),
            ("run --upstream http://a --listen 127.0.0.1:0 --store s --admin 127.0.0.1:0", None),
            ("demo --keep", None),
            ("store verify --path here --json", None),
            ("store init --path here --if-absent", None),
            ("store info --path here --if-absent", Some(2)),
            ("health", None),
            ("health --config a.toml", None),
            ("health --config a.toml --admin http://a", Some(2)),
            ("generate completions bash", None),
            ("generate completions", Some(2)),
            ("generate completions cobol", Some(2)),
            ("generate man", None),
            ("generate man here", None),
            ("generate", Some(2)),
            ("records list --token-file t --state unknown --limit 5 --json", None),
            ("records list --token-file t --tenant t --subject s", None),
            ("records show 12 --token-file t --admin http://127.0.0.1:1", None),
            ("records resolve 12 --token-file t --as executed --reason r --by b", None),
            ("records resolve 12 --token-file t --as not-executed --reason r", None),
            ("records purge 12 --token-file t", None),
            ("records", Some(2)),
            ("records list", Some(2)),
            ("records list --token-file t --limit 0", Some(2)),
            ("records list --token-file t --subject s --since 2026-01-01T00:00:00Z", None),
            ("records show - 12 13 --token-file t", None),
            ("records resolve 12 --token-file t --as executed --reason r --status 201", None),
            (
                "records resolve - --token-file t --as executed --reason r --body f --header a:b",
                None,
            ),
            (
                "records resolve 1 --token-file t --as executed --reason r --status 1 --response f",
                Some(2),
            ),
            ("records resolve 12 --token-file t --as executed", Some(2)),
            ("records resolve 12 --token-file t --as maybe --reason r", Some(2)),
            ("records show --token-file t", Some(2)),
            ("--version", Some(0)),
            ("--help", Some(0)),
            ("run", Some(2)),
            ("run --config a.toml --upstream http://a", Some(2)),
            ("run --config a.toml --listen 127.0.0.1:0", Some(2)),
            ("run --upstream http://a --listen nowhere", Some(2)),
            ("store init", Some(2)),
            ("store", Some(2)),
            ("walk", Some(2)),
            ("", Some(2)),
        ] {
            assert_eq!(exit_of(arguments), exit, "oncegate {arguments}");
        }
    }

    #[test]
    fn check_prints_routes_or_mistakes() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("oncegate.toml");
        let run = |text: &str, json: bool| {
            std::fs::write(&config, text).unwrap();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (against, token_file) = (None, None);
            let args =
                CheckArgs { config: config.clone(), no_files: false, json, against, token_file };
            let exit = check(&args, &mut out, &mut err).unwrap();
            (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
        };
        let good = include_str!("../../config/minimal.toml");
        let (exit, out, err) = run(good, false);
        assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
        assert!(out.contains("\nROUTE "), "{out}");
        let (exit, out, _) = run(good, true);
        assert_eq!(exit, Exit::Ok);
        let described: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(described["routes"][0]["mode"], "request");
        let (exit, out, err) = run("[servr]", false);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
        assert!(err.contains("oncegate.toml:1:2: unknown key `servr`"), "{err}");
        let (exit, out, _) = run("[servr]", true);
        assert_eq!(exit, Exit::Usage);
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        // What has no place of its own comes first.
        assert_eq!(told["mistakes"][2]["line"], 1);
    }

    #[test]
    fn the_admin_listener_of_a_run_without_a_file_stays_on_loopback() {
        let run = |admin: &str| {
            let words =
                ["oncegate", "run", "--upstream", "http://127.0.0.1:9000", "--admin", admin];
            match Cli::try_parse_from(words).unwrap().command {
                Command::Run(args) => args.configuration(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(run("127.0.0.1:0").unwrap().admin.listen.port(), 0);
        assert_eq!(
            run("0.0.0.0:9090").unwrap_err().to_string(),
            "--admin: 0.0.0.0:9090 is not a loopback address; without a file there is no token"
        );
    }
}
