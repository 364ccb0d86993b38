//! The reference of the configuration: its keys are those that are read, its defaults are those of
//! `config/full.toml`, which are compared with the code by `examples`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::catalog::KnownKey;
use crate::config::load::known_keys;

/// A line of a table of keys.
struct Row<'a> {
    /// The tables that the heading above names, `route.key` for example.
    tables: Vec<&'a str>,
    /// The table whose keys are listed, `key` for example; empty: that of the heading.
    part: &'a str,
    keys: Vec<&'a str>,
    default: &'a str,
}

/// The texts between backquotes.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let (mut rows, mut tables, mut part) = (Vec::new(), Vec::new(), None);
    for line in text.lines() {
        if line.starts_with('#') {
            let named = code(line).into_iter().filter(|name| name.starts_with('['));
            tables = named.map(|name| name.trim_matches(['[', ']'])).collect();
        }
        let Some(cells) = line.strip_prefix("| ") else {
            part = part.filter(|_| line.starts_with('|'));
            continue;
        };
        let mut cells = cells.splitn(3, " | ");
        let (first, second) = (cells.next().unwrap(), cells.next().unwrap_or_default());
        if first.starts_with("key") && second.starts_with("default") {
            part = Some(code(first).first().copied().unwrap_or_default());
        } else if let Some(part) = part {
            let tables = tables.clone();
            rows.push(Row { tables, part, keys: code(first), default: second.trim() });
        }
    }
    rows
}

/// The values in the full example that are in force, by table and key.
fn defaults() -> BTreeMap<(String, &'static str), &'static str> {
    let (mut found, mut table) = (BTreeMap::new(), String::new());
    for line in include_str!("../../../config/full.toml").lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once(" = ")
            && !line.starts_with('#')
        {
            found.insert((table.clone(), key), value);
        }
    }
    found
}

#[test]
fn the_defaults_in_the_reference_are_those_of_the_code() {
    let reference = include_str!("../../../docs/configuration.md");
    let rows = rows(reference);
    let mut seen = 0;
    for ((table, key), value) in defaults() {
        let row = rows.iter().find(|row| {
            row.tables.contains(&table.as_str())
                && row.keys.contains(&key)
                && (row.part.is_empty() || table.ends_with(row.part))
        });
        let row = row.unwrap_or_else(|| panic!("configuration.md has no row [{table}] {key}"));
        // Keys that are needed have no default, and some defaults depend on others.
        let given = code(row.default);
        let depends = ["needed", "the store's"].iter().any(|word| row.default.contains(word));
        let at = row.keys.iter().position(|name| *name == key).unwrap();
        if depends || given.is_empty() {
            continue;
        }
        seen += 1;
        assert_eq!(given.get(at), Some(&value), "configuration.md, [{table}] {key}");
    }
    assert!(seen > 40, "only {seen} defaults were seen");
}

#[test]
fn the_reference_lists_no_key_that_is_not_read() {
    let known: BTreeSet<&str> = known_keys().into_iter().map(|known| known.key).collect();
    let mut seen = 0;
    for text in [
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/items.md"),
        include_str!("../../../docs/settling.md"),
    ] {
        for key in rows(text).iter().flat_map(|row| &row.keys) {
            // `response.status` is a key of a table that is written on one line.
            let last = key.rsplit('.').next().unwrap_or_default();
            seen += 1;
            assert!(known.contains(last), "the reference lists {key}, which is not read");
        }
    }
    assert!(seen > 150, "only {seen} keys were seen");
}

/// Defaults that follow the machine, as docs/configuration.md says.
const FOLLOW_THE_MACHINE: [&str; 3] = ["workers", "buffered", "cache"];

fn quoted(titles: &[&str]) -> String {
    titles.iter().map(|title| format!("`{title}`")).collect::<Vec<_>>().join(", ")
}

/// Reports whether the reference says that a table cannot do without a key, or has one of its own.
fn is_needed(rows: &[Row<'_>], table: &str, key: &str) -> bool {
    rows.iter().any(|row| {
        row.default.starts_with("needed")
            && row.tables.contains(&table)
            && row.part.is_empty()
            && row.keys.contains(&key)
    })
}

/// The table of a list of keys; `written`: the defaults of the full example, for those that a key's
/// reader does not know of.
fn key_list<'a>(
    keys: impl Iterator<Item = &'a KnownKey>,
    written: &BTreeMap<(String, &'static str), &'static str>,
) -> String {
    let mut list = "| key | value | when absent |\n|---|---|---|\n".to_owned();
    let reference = rows(include_str!("../../../docs/configuration.md"));
    for KnownKey { table, key, kind, default } in keys {
        let title = table.trim_matches(['[', ']']);
        let kind = if kind.is_empty() { "as described there" } else { kind };
        let default = match written.get(&(title.to_owned(), *key)) {
            // `url`, `urls`, `url_file`.
            _ if key.starts_with("url") => "one of these is needed".to_owned(),
            _ if is_needed(&reference, title, key) => "needed".to_owned(),
            _ if FOLLOW_THE_MACHINE.contains(key) => "follows the machine".to_owned(),
            Some(value) if default.is_empty() => format!("`{value}`"),
            _ if default.is_empty() => "–".to_owned(),
            _ => format!("`{default}`"),
        };
        list += &format!("| `{key}` | {} | {default} |\n", kind.replace('|', "\\|"));
    }
    list
}

/// The list of keys in Markdown, from the code's own catalog.
fn generated() -> String {
    let found = include_str!("../../../docs/reference/keys.md");
    // The introduction stays.
    let mut text = found.split_inclusive("-->\n").next().unwrap_or_default().to_owned();
    let mut titles: Vec<&str> = Vec::new();
    let (keys, written) = (known_keys(), defaults());
    for known in &keys {
        if !titles.contains(&known.table.as_str()) {
            titles.push(known.table.as_str());
        }
    }
    // Tables with the same keys, such as matchers, have one list.
    let mut lists: Vec<(Vec<&str>, String)> = Vec::new();
    for title in titles {
        let list = key_list(keys.iter().filter(|known| known.table == title), &written);
        match lists.iter_mut().find(|(_, known)| *known == list) {
            Some((titles, _)) => titles.push(title),
            None => lists.push((vec![title], list)),
        }
    }
    for (titles, list) in lists {
        let first = if titles[0].is_empty() { "At the top".into() } else { quoted(&titles[..1]) };
        text += &format!("\n## {first}\n");
        if titles.len() > 1 {
            text += &format!("\nAlso {}.\n", quoted(&titles[1..]));
        }
        text += &format!("\n{list}");
    }
    text
}

/// `ONCEGATE_UPDATE=1` writes the list instead of comparing it.
#[test]
fn the_list_of_keys_is_generated_from_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/keys.md");
    let text = generated();
    if std::env::var_os("ONCEGATE_UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == text, "{} is old: run this test with ONCEGATE_UPDATE=1", path.display());
}
