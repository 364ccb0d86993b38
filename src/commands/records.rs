//! `oncegate records list|show|resolve|reopen|purge`, over the admin API.

use std::io::IsTerminal as _;

use http::Method;
use serde_json::{Value, json};

use super::admin_client::{AdminClient, CommandFailure};
use super::response;
use super::{block_on, print, unwritable};
use crate::cli::Exit;
use crate::cli::records::{ListArgs, PurgeArgs, RecordsCommand, ReopenArgs, ResolveArgs};
use crate::unseen::is_unseen;

/// Records asked for at once.
const PAGE: usize = 1000;
/// Characters of a key in a table; the whole key is in `show` and in JSON.
const KEY: usize = 60;

/// `oncegate records …`
pub fn records(command: &RecordsCommand) -> Exit {
    block_on(async move {
        match run(command).await {
            Ok(()) => Exit::Ok,
            Err(CommandFailure(exit, what)) => {
                eprintln!("oncegate: {what}");
                exit
            }
        }
    })
}

async fn run(command: &RecordsCommand) -> Result<(), CommandFailure> {
    let admin = AdminClient::open(command.admin())?;
    match command {
        RecordsCommand::List(args) => list(&admin, args).await,
        RecordsCommand::Show(args) => {
            each(&args.ids, async |id| {
                let record = admin.record(Method::GET, (id, &target(id, "")), None).await?;
                tell(args.admin.json, &record, "")
            })
            .await
        }
        RecordsCommand::Resolve(args) => resolve(&admin, args).await,
        RecordsCommand::Reopen(args) => reopen(&admin, args).await,
        RecordsCommand::Purge(args) => purge(&admin, args).await,
    }
}

async fn list(admin: &AdminClient, args: &ListArgs) -> Result<(), CommandFailure> {
    let filters = [
        ("key", &args.key),
        ("tenant", &args.tenant),
        ("subject", &args.subject),
        ("state", &args.state),
        ("route", &args.route),
        ("since", &args.since),
        ("until", &args.until),
    ];
    let given = filters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let query = query(given);
    let most = args.limit as usize;
    let mut records: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    let shows_progress = !args.admin.json && std::io::stderr().is_terminal();
    let mut pages = 0;
    loop {
        let limit = PAGE.min(most - records.len());
        let at = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = format!("/api/records?{query}limit={limit}{at}");
        let mut page = admin.ask(Method::GET, &page, None).await?;
        let Some(Value::Array(found)) = page.get_mut("records").map(Value::take) else {
            return Err(admin.not_oncegate());
        };
        if !found.iter().all(Value::is_object) {
            return Err(admin.not_oncegate());
        }
        records.extend(found);
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() || records.len() >= most {
            break;
        }
        pages += 1;
        if shows_progress {
            eprint!("\r{pages} pages read, {} records found", records.len());
        }
    }
    if shows_progress && pages > 0 {
        eprintln!();
    }
    let more = cursor.is_some();
    if args.admin.json {
        return tell_text(&format!("{:#}", json!({ "records": records, "more": more })), "");
    }
    tell_text(&table(&records), "")?;
    if more {
        eprintln!("oncegate: there may be more; --limit takes more than {most}");
    }
    Ok(())
}

async fn resolve(admin: &AdminClient, args: &ResolveArgs) -> Result<(), CommandFailure> {
    let mut body = json!({ "as": args.how.as_str(), "reason": args.reason });
    if let Some(by) = &args.by {
        body["by"] = by.as_str().into();
    }
    if let Some(units) = args.units {
        body["units"] = units.into();
    }
    if let Some(attempt) = args.attempt {
        body["attempt"] = attempt.into();
    }
    let mut body = body.to_string();
    if let Some(response) = response::written(args)? {
        // Spliced in as it is written: numbers keep their digits and members their order.
        body.truncate(body.len() - 1);
        body.push_str(&format!(",\"response\":{response}}}"));
    }
    let done = format!("settled as {}", args.how.as_str());
    each(&args.ids, async |id| {
        let target = target(id, "/resolve");
        let record = admin.record(Method::POST, (id, &target), Some(body.clone())).await?;
        tell(args.admin.json, &record, &done)
    })
    .await
}

async fn reopen(admin: &AdminClient, args: &ReopenArgs) -> Result<(), CommandFailure> {
    let mut body = json!({ "reason": args.reason });
    if let Some(by) = &args.by {
        body["by"] = by.as_str().into();
    }
    if let Some(attempt) = args.attempt {
        body["attempt"] = attempt.into();
    }
    let body = body.to_string();
    each(&args.ids, async |id| {
        let target = target(id, "/reopen");
        let record = admin.record(Method::POST, (id, &target), Some(body.clone())).await?;
        tell(args.admin.json, &record, "reopened: the key is free, and a retry is sent again")
    })
    .await
}

async fn purge(admin: &AdminClient, args: &PurgeArgs) -> Result<(), CommandFailure> {
    let attempt = args.attempt.map(|attempt| attempt.to_string());
    let given = [("by", &args.by), ("reason", &args.reason), ("attempt", &attempt)];
    let given = given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let query = query(given);
    each(&args.ids, async |id| {
        let at = format!("{}?{query}", target(id, ""));
        let record = admin.record(Method::DELETE, (id, &at), None).await?;
        tell(args.admin.json, &record, "purged")
    })
    .await
}

/// Ids read from standard input, at most.
const MOST_IDS: usize = 100_000;

/// Does `work` with each id, `-` standing for those of standard input. A failure of one is told and
/// does not keep the others from being done.
///
/// # Errors
/// The only failure, or the number of failures among several ids.
async fn each(
    ids: &[String],
    work: impl AsyncFn(&str) -> Result<(), CommandFailure>,
) -> Result<(), CommandFailure> {
    let mut all = Vec::new();
    for id in ids {
        if id == "-" {
            for line in std::io::stdin().lines() {
                let line = line.map_err(|error| {
                    CommandFailure::failed(format!("standard input cannot be read: {error}"))
                })?;
                // The heading of a table is no id.
                let word = line.split_whitespace().next().filter(|word| *word != "id");
                all.extend(word.map(str::to_owned));
                if all.len() > MOST_IDS {
                    return Err(CommandFailure::usage(format!(
                        "standard input has more than {MOST_IDS} ids, and nothing was done; give \
                         them in several parts"
                    )));
                }
            }
        } else {
            all.push(id.clone());
        }
    }
    if let [only] = all.as_slice() {
        return work(only).await;
    }
    let mut failed = 0;
    for id in &all {
        if let Err(CommandFailure(_, what)) = work(id).await {
            eprintln!("oncegate: {id}: {what}");
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(CommandFailure::failed(format!("{failed} of {} records failed", all.len()))),
    }
}

fn target(id: &str, rest: &str) -> String {
    format!("/api/records/{}{rest}", escaped(id))
}

/// Names and values, each pair with a `&` behind it.
fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("{name}={}&", escaped(value))).collect()
}

/// Every byte that could have a meaning in an address, as `%` and two digits.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The record, for programs or for people; `done`: what was done to it.
///
/// # Errors
/// When it cannot be printed.
fn tell(json: bool, record: &Value, done: &str) -> Result<(), CommandFailure> {
    match json {
        true => tell_text(&format!("{record:#}"), done),
        false => tell_text(&described(record, done), done),
    }
}

/// Prints `text`; `done`: what was done before.
fn tell_text(text: &str, done: &str) -> Result<(), CommandFailure> {
    print(text).map_err(|error| {
        let what = unwritable(&error);
        CommandFailure::failed(match done {
            "" => what,
            _ => format!("the change is made, but {what}; show the record to see it"),
        })
    })
}

fn described(record: &Value, done: &str) -> String {
    let mut lines = Vec::new();
    if !done.is_empty() {
        lines.push(done.to_owned());
    }
    let names = [
        ("id", "id"),
        ("tenant", "tenant"),
        ("route", "route"),
        ("key", "key"),
        ("state", "state"),
        ("status", "status"),
        ("attempts", "attempts"),
        ("first_seen", "first seen"),
        ("updated", "updated"),
        ("expires", "expires"),
        ("reason", "why unknown"),
    ];
    for (name, label) in names {
        if !record[name].is_null() {
            lines.push(format!("{label:<13}{}", text(&record[name])));
        }
    }
    if let Value::Object(item) = &record["item"] {
        let units = ["requested", "fulfilled", "in_flight", "unknown"];
        let units: Vec<String> =
            units.iter().map(|at| format!("{} {at}", text(&item[*at]))).collect();
        lines.push(format!("{:<13}{}", "units", units.join(", ")));
        for (name, label) in [("row", "last row"), ("evidence", "unread")] {
            if let Some(Value::String(row)) = item.get(name) {
                lines.push(format!("{label:<13}{}", clean(row)));
            }
        }
    }
    if let Value::Object(response) = &record["response"] {
        let body = response.get("body").or_else(|| response.get("body_base64"));
        let bytes = body.and_then(Value::as_str).unwrap_or_default();
        let start: String = clean(bytes).chars().take(200).collect();
        lines.push(format!("{:<13}{} {start}", "response", text(&response["status"])));
    }
    for entry in record["history"].as_array().into_iter().flatten() {
        let units = entry["units"].as_u64().map(|units| format!(" ({units} units)"));
        let why = entry["reason"].as_str().filter(|why| !why.is_empty());
        lines.push(format!(
            "{:<13}{} {}{}, attempt {}, by {}{}",
            "history",
            text(&entry["at"]),
            text(&entry["what"]),
            units.unwrap_or_default(),
            text(&entry["attempt"]),
            text(&entry["by"]),
            why.map(|why| format!(": {}", clean(why))).unwrap_or_default(),
        ));
    }
    lines.join("\n")
}

fn table(records: &[Value]) -> String {
    let header = ["id", "state", "status", "attempts", "updated", "route", "key"];
    let mut rows: Vec<Vec<String>> = vec![header.iter().map(|name| (*name).to_owned()).collect()];
    for record in records {
        let mut row: Vec<String> = header.iter().map(|name| text(&record[*name])).collect();
        if let Some(key) = row.last_mut().filter(|key| key.chars().nth(KEY).is_some()) {
            *key = key.chars().take(KEY - 1).chain(['…']).collect();
        }
        rows.push(row);
    }
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A value as people read it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        other => other.to_string(),
    }
}

/// The text without characters that a terminal takes for commands, that reorder text, or that are
/// not seen.
fn clean(text: &str) -> String {
    text.chars().map(|at| if is_unseen(at) { '\u{fffd}' } else { at }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_address_whole() {
        let pairs = [("key", "a&b=c+d %/é"), ("route", "plain-1.0_~")];
        assert_eq!(query(pairs.into_iter()), "key=a%26b%3Dc%2Bd%20%25%2F%C3%A9&route=plain-1.0_~&");
        assert_eq!(target("../x", "/resolve"), "/api/records/..%2Fx/resolve");
    }

    #[test]
    fn a_table_has_straight_columns_and_no_commands_to_the_terminal() {
        let records = [
            json!({ "id": "1", "state": "unknown", "key": "\u{1b}[31mred" }),
            json!({ "id": "22", "state": "final", "status": 201, "key": "k".repeat(61) }),
        ];
        let table = table(&records);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "id  state    status  attempts  updated  route  key");
        assert_eq!(lines[1], "1   unknown  -       -         -        -      \u{fffd}[31mred");
        assert!(lines[2].ends_with("k…"), "{}", lines[2]);
        let turned = "a\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}b";
        assert_eq!(clean(turned), format!("a{}b", "\u{fffd}".repeat(7)));
        assert_eq!(clean("שלום é"), "שלום é");
    }
}
