//! The house itself: which module may use which, how large a file may grow, and how things are named.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::SourceFile;

/// The parts of the crate that each part may name; see ARCHITECTURE.md.
const MAY_USE: &[(&str, &[&str])] = &[
    ("idempotency", &["clock", "form", "hex", "json", "matcher", "media_type", "place", "xml"]),
    ("items", &["idempotency", "json", "matcher"]),
    ("matcher", &["form", "json", "place", "xml"]),
    (
        "store",
        &[
            "clock",
            "failpoint",
            "hex",
            "idempotency",
            "machine",
            "net",
            "nonce",
            "observe",
            "shutdown",
        ],
    ),
    (
        "config",
        &[
            "caller",
            "clock",
            "hex",
            "idempotency",
            "ip_network",
            "items",
            "json",
            "listen_address",
            "machine",
            "matcher",
            "observe",
            "percent",
            "place",
            "problem",
            "store",
            "template",
            "xml",
        ],
    ),
    (
        "admin",
        &[
            "body",
            "clock",
            "config",
            "hex",
            "idempotency",
            "items",
            "limit",
            "net",
            "nonce",
            "observe",
            "percent",
            "problem",
            "settle",
            "shutdown",
            "store",
            "unseen",
        ],
    ),
    (
        "proxy",
        &[
            "body",
            "caller",
            "clock",
            "config",
            "content_coding",
            "failpoint",
            "hex",
            "idempotency",
            "ip_network",
            "items",
            "json",
            "limit",
            "listen_address",
            "machine",
            "matcher",
            "net",
            "nonce",
            "observe",
            "percent",
            "place",
            "problem",
            "settle",
            "shutdown",
            "store",
            "template",
            "upstream",
        ],
    ),
    ("caller", &["idempotency", "json"]),
    ("place", &["form", "json", "media_type", "percent", "xml"]),
    ("form", &["percent"]),
    ("xml", &[]),
    ("media_type", &[]),
    ("content_coding", &[]),
    (
        "settle",
        &[
            "body",
            "clock",
            "config",
            "failpoint",
            "idempotency",
            "json",
            "limit",
            "matcher",
            "nonce",
            "observe",
            "percent",
            "problem",
            "shutdown",
            "store",
            "template",
            "upstream",
        ],
    ),
    ("hex", &[]),
    ("percent", &[]),
    ("template", &["clock", "json", "percent", "place"]),
    ("ip_network", &[]),
    ("listen_address", &["ip_network"]),
    ("json", &[]),
    ("machine", &[]),
    ("clock", &[]),
    ("upstream", &["body", "clock", "config", "net", "observe"]),
    ("failpoint", &[]),
    ("nonce", &[]),
    ("body", &[]),
    ("shutdown", &[]),
    ("limit", &[]),
    ("net", &["limit", "listen_address", "machine", "observe"]),
    ("observe", &["clock", "hex", "nonce", "problem", "shutdown", "unseen"]),
    ("unseen", &[]),
    ("problem", &["body"]),
    ("cli", &["config"]),
    (
        "gateway",
        &[
            "admin",
            "body",
            "caller",
            "clock",
            "config",
            "hex",
            "idempotency",
            "listen_address",
            "machine",
            "net",
            "observe",
            "place",
            "proxy",
            "shutdown",
            "store",
            "upstream",
        ],
    ),
    (
        "demo",
        &[
            "clock",
            "config",
            "gateway",
            "listen_address",
            "loopback",
            "problem",
            "shutdown",
            "temporary",
        ],
    ),
    ("dry_run", &["config", "gateway", "loopback", "nonce", "shutdown", "temporary"]),
    ("loopback", &["shutdown"]),
    ("temporary", &[]),
    (
        "commands",
        &[
            "admin",
            "caller",
            "cli",
            "clock",
            "config",
            "demo",
            "dry_run",
            "gateway",
            "idempotency",
            "machine",
            "observe",
            "shutdown",
            "store",
            "unseen",
        ],
    ),
];

/// Lines of the longest file, and of the longest one of tests; a file that grows beyond is split.
const MOST_LINES: usize = 400;
const MOST_TEST_LINES: usize = 500;

/// Columns of the longest line; rustfmt leaves strings and comments alone.
const MOST_COLUMNS: usize = 100;

/// Type names that may stand for several types: each pair is one concept in two places.
const MAY_SHARE_A_NAME: [&str; 0] = [];

/// The part of the crate a file belongs to: `proxy` for `proxy/server/mod.rs`.
fn part(file: &SourceFile) -> &str {
    file.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

#[test]
fn the_arrows_between_modules_point_one_way() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in source::files() {
        let part = part(&file);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == part) else { continue };
        for (number, line) in file.code.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                seen += 1;
                // `use crate::{a, b}` would hide names from this test.
                let name: String =
                    used.chars().take_while(|at| at.is_alphanumeric() || *at == '_').collect();
                // Tests may take their rules from the configurations that are shipped, and start
                // servers.
                let may = allowed.contains(&name.as_str())
                    || (file.is_test && matches!(name.as_str(), "config" | "servers"));
                if name != part && !may {
                    wrong.push(format!("src/{}:{}: {part} uses {name:?}", file.name, number + 1));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} uses seen");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// In each folder, its files and subfolders (each seen as one) name each other in one direction.
#[test]
fn no_files_and_no_folders_name_each_other_in_a_circle() {
    let files = source::files();
    let arrows = source::arrows(&files);
    let seen: usize = arrows.values().map(BTreeMap::len).sum();
    assert!(seen > 200, "only {seen} arrows seen");
    let mut folders = BTreeSet::from([String::new()]);
    for file in &files {
        let parents = file.name.match_indices('/').map(|(at, _)| file.name[..=at].to_owned());
        folders.extend(parents);
    }
    let mut circles = Vec::new();
    for folder in folders {
        circles.extend(circles_in(&folder, &arrows));
    }
    assert!(circles.is_empty(), "\n{}", circles.join("\n"));
}

/// The circles among the entries of a folder, each described with the lines that tie it.
fn circles_in(folder: &str, arrows: &source::Arrows) -> Vec<String> {
    let entry = |name: &str| {
        let below = name.strip_prefix(folder)?;
        // Crate roots only declare modules.
        (!matches!(name, "lib.rs" | "main.rs"))
            .then(|| below.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned())
    };
    let mut graph: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (from, targets) in arrows {
        for (to, line) in targets {
            let (Some(source), Some(target)) = (entry(from), entry(to)) else { continue };
            if source != target {
                let place = format!("src/{from}:{line} names {to}");
                graph.entry(source).or_default().entry(target).or_insert(place);
            }
        }
    }
    let reaches = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut left = vec![from];
        while let Some(at) = left.pop() {
            for next in graph.get(at).into_iter().flat_map(BTreeMap::keys) {
                if reached.insert(next.clone()) {
                    left.push(next);
                }
            }
        }
        reached
    };
    let reach: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|entry| (entry, reaches(entry))).collect();
    let mut circles = Vec::new();
    for (from, targets) in &graph {
        for (to, place) in targets {
            let is_back = reach.get(to).is_some_and(|reached| reached.contains(from));
            if is_back {
                circles.push(format!("in src/{folder}: {from} and {to} are in a circle: {place}"));
            }
        }
    }
    circles
}

#[test]
fn no_file_and_no_line_grows_beyond_its_limit() {
    let mut long = Vec::new();
    for file in source::files() {
        let lines = file.text.lines().count();
        if lines > if file.is_test { MOST_TEST_LINES } else { MOST_LINES } {
            long.push(format!("src/{}: {lines} lines; split the file", file.name));
        }
        for (number, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            // Tests hold configurations and messages as they are written.
            if columns > MOST_COLUMNS && !file.is_test {
                long.push(format!("src/{}:{}: {columns} columns", file.name, number + 1));
            }
        }
    }
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn a_type_name_stands_for_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in source::files().iter().filter(|file| !file.is_test) {
        for (number, line) in file.code.lines().enumerate() {
            if let Some(name) = declared_type(line) {
                let place = format!("src/{}:{}", file.name, number + 1);
                places.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    assert!(places.len() > 200, "only {} types seen", places.len());
    let shared: Vec<String> = places
        .iter()
        .filter(|(name, places)| places.len() > 1 && !MAY_SHARE_A_NAME.contains(&name.as_str()))
        .map(|(name, places)| format!("{name}: {}", places.join(", ")))
        .collect();
    assert!(shared.is_empty(), "\n{}", shared.join("\n"));
}

/// The type that a line of code outside functions declares.
fn declared_type(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(rest) => {
            rest.strip_prefix('(').map_or(rest, |rest| rest.split_once(')').map_or(rest, |at| at.1))
        }
        None => line,
    };
    let (keyword, rest) = item.trim_start().split_once(' ')?;
    let declares = matches!(keyword, "struct" | "enum" | "trait" | "union" | "type");
    if !declares || line.starts_with(' ') {
        return None;
    }
    let end = rest.find(|at: char| !at.is_alphanumeric() && at != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

/// A doc comment names its subject: it opens with a noun phrase or a verb.
#[test]
fn doc_comments_do_not_open_with_a_question_word() {
    const QUESTIONS: [&str; 10] =
        ["What", "Whether", "Who", "Whom", "Whose", "Which", "Where", "When", "How", "Why"];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in source::files().iter().filter(|file| !file.is_test) {
        let mut is_inside = false;
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
            if let Some(comment) = comment.filter(|_| !is_inside) {
                seen += 1;
                let first = comment.split_whitespace().next().unwrap_or_default();
                let first = first.trim_end_matches(|at: char| !at.is_alphanumeric());
                if QUESTIONS.contains(&first) {
                    wrong.push(format!("src/{}:{}:{comment}", file.name, number + 1));
                }
            }
            is_inside = comment.is_some();
        }
    }
    assert!(seen > 1000, "only {seen} doc comments seen");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
