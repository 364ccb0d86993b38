//! `oncegate records …`: its arguments.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `oncegate records …`
#[derive(Debug, Subcommand)]
pub enum RecordsCommand {
    /// List records, all or those that fit.
    List(ListArgs),
    /// Show a record, with its history and what is kept of the answer.
    Show(ShowArgs),
    /// Settle a record whose outcome is unknown: you found out whether the backend carried it out.
    Resolve(ResolveArgs),
    /// Take back an answer that was stored as final and was none: the key is free again.
    Reopen(ReopenArgs),
    /// Remove the answer that is kept; the key stays used.
    Purge(PurgeArgs),
}

/// The gateway's admin listener, and the credentials for it.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The admin listener.
    #[arg(
        long,
        value_name = "URL",
        env = "ONCEGATE_ADMIN",
        default_value = "http://127.0.0.1:9090"
    )]
    pub admin: String,
    /// The file with the token of `[admin]`; white space around it does not count.
    #[arg(long, value_name = "FILE", env = "ONCEGATE_TOKEN_FILE")]
    pub token_file: PathBuf,
    /// Print JSON, for programs.
    #[arg(long)]
    pub json: bool,
}

/// `oncegate records list`
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of the command")]
    pub admin: AdminArgs,
    /// Only this key, or the id of an item.
    #[arg(long)]
    pub key: Option<String>,
    /// Only this tenant: a name or 32 hex digits, as records show it.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Only this business id, such as a voucher.
    #[arg(long)]
    pub subject: Option<String>,
    /// Only in this state: in_flight, unknown, final, tombstone, released; of items also complete,
    /// partial, none.
    #[arg(long)]
    pub state: Option<String>,
    /// Only of this route.
    #[arg(long)]
    pub route: Option<String>,
    /// Only first seen at this time or later, such as 2026-01-31T23:59:59Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only first seen at this time or earlier.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `oncegate records show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The records' ids; `-` reads them from standard input, the first word of each line.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of the command")]
    pub admin: AdminArgs,
}

/// `oncegate records resolve`
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// The records' ids; `-` reads them from standard input, the first word of each line.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of the command")]
    pub admin: AdminArgs,
    /// The outcome that you found out.
    #[arg(long = "as", value_enum)]
    pub how: How,
    /// The evidence that you looked at; kept with the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Your name; kept with the record.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// The response to replay from now on: JSON with `status`, `headers`, and `body` or
    /// `body_base64`. Without it the client reads that an operator has confirmed the request.
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["status", "body", "header"])]
    pub response: Option<PathBuf>,
    /// The status of the response to replay [default: 200]
    #[arg(long, value_name = "N")]
    pub status: Option<u16>,
    /// The file with the body of the response to replay, byte for byte.
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// A header line of the response to replay, such as "content-type: text/xml"; repeatable.
    #[arg(long, value_name = "LINE")]
    pub header: Vec<String>,
    /// Of an item: how many of its unknown units were issued; the others are sent again. Without it
    /// all were.
    #[arg(long, value_name = "N", conflicts_with_all = ["response", "status", "body", "header"])]
    pub units: Option<u64>,
    /// The attempt that you looked at, as `show` counts: refused when there was another since.
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

/// An outcome that an operator found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// The backend carried it out.
    Executed,
    /// The backend did not carry it out: the key is free, the units of an item are missing again.
    NotExecuted,
}

impl How {
    /// The name of the outcome in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::NotExecuted => "not-executed",
        }
    }
}

/// `oncegate records reopen`
#[derive(Debug, Args)]
pub struct ReopenArgs {
    /// The records' ids; `-` reads them from standard input, the first word of each line.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of the command")]
    pub admin: AdminArgs,
    /// The reason why the answer was not final; kept with the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Your name; kept with the record.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// The attempt that you looked at, as `show` counts: refused when there was another since.
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

/// `oncegate records purge`
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// The records' ids; `-` reads them from standard input, the first word of each line.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the text of the command")]
    pub admin: AdminArgs,
    /// Your name; kept with the record.
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// The reason; kept with the record.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The attempt that you looked at, as `show` counts: refused when there was another since.
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
}

impl RecordsCommand {
    /// The gateway of the command.
    pub fn admin(&self) -> &AdminArgs {
        match self {
            Self::List(args) => &args.admin,
            Self::Show(args) => &args.admin,
            Self::Resolve(args) => &args.admin,
            Self::Reopen(args) => &args.admin,
            Self::Purge(args) => &args.admin,
        }
    }
}
