//! `oncegate store init|info|verify|rotate`, for a directory and for a server.

use serde_json::{Value, json};

use super::{block_on, failed, printed};
use crate::cli::{Exit, InitArgs, StoreArgs, StoreCommand};
use crate::clock::rfc3339;
use crate::config::EngineConfig;
use crate::gateway::store::{codec, server};
use crate::idempotency::RecordId;
use crate::store::codec::Codec;
use crate::store::embedded::{self, DirectoryOptions, OpenError};
use crate::store::rotation::RecordsByKey;
use crate::store::seal::KeyId;
use crate::store::server::{OpenFailure, Server, Timing};
use crate::store::{Identity, ListPosition, Query, Store};

/// Open records that `info` counts on a server; a store with more has more pressing needs.
const COUNTED: u64 = 1_000_000;
/// Records asked for at once.
const PAGE: usize = 256;

/// `oncegate store …`
pub fn store(command: &StoreCommand) -> Exit {
    let args = match command {
        StoreCommand::Init(InitArgs { place: args, .. })
        | StoreCommand::Info(args)
        | StoreCommand::Verify(args)
        | StoreCommand::Rotate(args) => args,
    };
    let mut config = match args.store() {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    let codec = codec(&config);
    if matches!(command, StoreCommand::Rotate(_)) && config.encryption.is_none() {
        eprintln!(
            "oncegate: there is no key to seal with; name it in [store] encryption, and give the \
             configuration by --config"
        );
        return Exit::Usage;
    }
    if let EngineConfig::Embedded { path, cache, .. } = &config.engine {
        let (path, cache) = (path.clone(), *cache);
        let options = DirectoryOptions { path, cache, create: false, expect_id: None, codec };
        return in_directory(command, args, &options);
    }
    // Only `init` makes a store.
    config.create = matches!(command, StoreCommand::Init(_));
    let Some((server, timing)) = server(&config) else {
        return failed("this store is neither a directory nor on a server");
    };
    block_on(on_server(command, args, (server, codec), timing))
}

fn in_directory(command: &StoreCommand, args: &StoreArgs, options: &DirectoryOptions) -> Exit {
    let path = options.path.as_path();
    match command {
        StoreCommand::Init(InitArgs { if_absent, .. }) => match embedded::init(options) {
            Ok((identity, true)) => made(args, &identity),
            Ok((identity, false)) if *if_absent => left(args, &identity),
            Ok((_, false)) => failed(&OpenError::Exists(path.to_owned()).to_string()),
            // A gateway has it open: it is not absent.
            Err(error @ OpenError::Locked(_)) if *if_absent && embedded::is_store(path) => {
                printed(&format!("nothing was created: {error}"))
            }
            Err(error) => failed(&error.to_string()),
        },
        StoreCommand::Info(_) => match embedded::info(options) {
            Ok(info) => {
                let mut rows = identity_rows(&info.identity);
                rows.extend([
                    ("records", "records", info.records.into()),
                    ("in_flight", "in flight", info.in_flight.into()),
                    ("unknown", "unknown", info.unknown.into()),
                    ("corrupt", "corrupt", info.corrupt.into()),
                    ("disk_bytes", "bytes on disk", info.disk_bytes.into()),
                ]);
                print_rows(args, rows)
            }
            Err(error) => not_opened(&error),
        },
        StoreCommand::Verify(_) => {
            let verified = embedded::verify(options, |progress| {
                if !args.json {
                    eprint!("\r{} of {} records", progress.done, progress.total);
                }
            });
            match verified {
                Ok(found) => verified_to(args, found.sound, &found.problems, found.problem_count),
                Err(error) => not_opened(&error),
            }
        }
        StoreCommand::Rotate(_) => {
            let rotated = embedded::rotate(options, |progress| {
                if !args.json {
                    eprint!("\r{} of {} records", progress.done, progress.total);
                }
            });
            match rotated {
                Ok(records) => rotated_to(args, &embedded_counts(options, records)),
                Err(error) => not_opened(&error),
            }
        }
    }
}

async fn on_server(
    command: &StoreCommand,
    args: &StoreArgs,
    (server, codec): (Server, Codec),
    timing: Timing,
) -> Exit {
    match command {
        StoreCommand::Init(InitArgs { if_absent, .. }) => match server.init().await {
            Ok((identity, true)) => made(args, &identity),
            Ok((identity, false)) if *if_absent => left(args, &identity),
            Ok((identity, false)) => {
                let id = identity.store_id;
                failed(&format!("there is a store already, id {id}; it was left as it was"))
            }
            Err(error) => failed(&error),
        },
        StoreCommand::Info(_) => match info(&server, codec, timing).await {
            Ok(rows) => print_rows(args, rows),
            Err(failure) => server_failed(&failure),
        },
        StoreCommand::Verify(_) => {
            let progress = |done| {
                if !args.json {
                    eprint!("\r{done} records");
                }
            };
            match server.verify(&codec, progress).await {
                Ok((_, found)) => {
                    let problems: Vec<_> =
                        found.problems.into_iter().map(|(id, what)| (Some(id), what)).collect();
                    verified_to(args, found.sound, &problems, found.problem_count)
                }
                Err(failure) => server_failed(&failure),
            }
        }
        StoreCommand::Rotate(_) => {
            let progress = |done| {
                if !args.json {
                    eprint!("\r{done} records");
                }
            };
            match server.rotate(codec, timing, progress).await {
                Ok(counts) => rotated_to(args, &counts),
                Err(failure) => server_failed(&failure),
            }
        }
    }
}

/// A row of output: its name for programs, its name for people, its value.
type OutputRow = (&'static str, &'static str, Value);

async fn info(
    server: &Server,
    codec: Codec,
    timing: Timing,
) -> Result<Vec<OutputRow>, OpenFailure> {
    let store = server.open(codec, timing).await?.store;
    let counted = count_open(&*store).await;
    let identity = store.identity().clone();
    // Best effort: the other processes never waited for this one.
    let _ = store.leave().await;
    let (in_flight, unknown) = counted.map_err(|error| error.to_string())?;
    let mut rows = identity_rows(&identity);
    rows.push(("in_flight", "in flight", in_flight.into()));
    rows.push(("unknown", "unknown", unknown.into()));
    Ok(rows)
}

/// Counts the records in flight and the unknown ones, up to [`COUNTED`] together.
async fn count_open(store: &dyn Store) -> Result<(u64, u64), crate::store::StoreError> {
    let (mut in_flight, mut unknown) = (0, 0);
    let mut after = None;
    while in_flight + unknown < COUNTED {
        let query = Query { open: true, after, limit: PAGE, ..Query::default() };
        let page = store.list(query).await?;
        for (_, record) in &page {
            if record.is_in_flight() {
                in_flight += 1;
            } else {
                unknown += 1;
            }
        }
        after = page.last().map(|(id, record)| ListPosition::of(id, record));
        if page.len() < PAGE {
            break;
        }
    }
    Ok((in_flight, unknown))
}

/// The end of a command on a directory that cannot be opened.
fn not_opened(error: &OpenError) -> Exit {
    let exit = failed(&error.to_string());
    if matches!(error, OpenError::Sealed { .. }) { Exit::Usage } else { exit }
}

/// The end of a command on a server that cannot be opened.
fn server_failed(failure: &OpenFailure) -> Exit {
    let exit = failed(&failure.to_string());
    if matches!(failure, OpenFailure::Key(_)) { Exit::Usage } else { exit }
}

/// The counts after a rotation of a directory, which has sealed all records under the present key.
fn embedded_counts(options: &DirectoryOptions, records: u64) -> RecordsByKey {
    RecordsByKey::from([(options.codec.current_key(), records)])
}

fn rotated_to(args: &StoreArgs, counts: &RecordsByKey) -> Exit {
    let name = |key: &Option<KeyId>| key.map_or_else(|| "plain".to_owned(), |key| key.to_string());
    if args.json {
        let counts: serde_json::Map<String, Value> =
            counts.iter().map(|(key, count)| (name(key), (*count).into())).collect();
        return printed(&format!("{:#}", json!({ "records_by_key": counts })));
    }
    eprintln!();
    let total: u64 = counts.values().sum();
    let mut text = format!("{total} records, by the key that they are sealed under:");
    for (key, count) in counts {
        text.push_str(&format!("\n{}  {count}", name(key)));
    }
    printed(&text)
}

fn made(args: &StoreArgs, identity: &Identity) -> Exit {
    if args.json {
        return print_rows(args, identity_rows(identity));
    }
    printed(&format!("made an empty store, id {}", identity.store_id))
}

/// Reports a store that was there already.
fn left(args: &StoreArgs, identity: &Identity) -> Exit {
    if args.json {
        return print_rows(args, identity_rows(identity));
    }
    printed(&format!("there is a store already, id {}; it was left as it is", identity.store_id))
}

fn identity_rows(identity: &Identity) -> Vec<OutputRow> {
    vec![
        ("store_id", "store id", identity.store_id.to_string().into()),
        ("schema", "schema", identity.schema.into()),
        ("created", "created", rfc3339(identity.created).into()),
    ]
}

fn print_rows(args: &StoreArgs, rows: Vec<OutputRow>) -> Exit {
    if args.json {
        let document: serde_json::Map<String, Value> =
            rows.into_iter().map(|(name, _, value)| (name.to_owned(), value)).collect();
        return printed(&format!("{:#}", Value::Object(document)));
    }
    let line = |(_, name, value): &OutputRow| match value {
        Value::String(text) => format!("{name:<16}{text}"),
        other => format!("{name:<16}{other}"),
    };
    printed(&rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn verified_to(
    args: &StoreArgs,
    sound: u64,
    problems: &[(Option<RecordId>, String)],
    problem_count: u64,
) -> Exit {
    let text = if args.json {
        let problems: Vec<_> = problems
            .iter()
            .map(|(id, what)| json!({ "record": id.map(|id| id.to_string()), "what": what }))
            .collect();
        let document = json!({
            "sound": sound,
            "problem_count": problem_count,
            "problems": problems,
        });
        format!("{document:#}")
    } else {
        let mut text = format!("{sound} records are sound");
        for (id, what) in problems {
            let id = id.map_or_else(|| "-".to_owned(), |id| id.to_string());
            text.push_str(&format!("\n{id}  {what}"));
        }
        if problem_count > 0 {
            text.push_str(&format!(
                "\n{problem_count} problems; the keys of corrupt records are refused"
            ));
        }
        text
    };
    let exit = printed(&text);
    if problem_count == 0 { exit } else { Exit::Failed }
}
