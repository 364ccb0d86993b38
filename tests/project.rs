//! What surrounds the code. Dependencies: licenses, crates in several versions, and a reason for
//! each direct one, after `deny.toml` and `docs/dependencies.md`. Documents: the README's
//! configuration is accepted and no link leads nowhere.

#![expect(clippy::unwrap_used, reason = "what cannot be read fails the test, as it should")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The packages of this platform's build, as `cargo metadata` describes them.
fn packages() -> Vec<Value> {
    let about = run("rustc", &["-vV"]);
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", host];
    let mut metadata: Value = serde_json::from_str(&run(env!("CARGO"), &arguments)).unwrap();
    let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages") };
    assert!(packages.len() > 50, "only {} packages seen", packages.len());
    packages
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn rules() -> toml::Table {
    read("deny.toml").parse().unwrap()
}

/// Whether an SPDX expression can be met with allowed licenses only. `/` is the old spelling of
/// `OR`; `AND` binds closer than `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = any(&tokens, &mut at, allowed);
    met && at == tokens.len()
}

fn any(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut met = all(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(tokens, at, allowed);
    }
    met
}

fn all(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let mut met = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(tokens, at, allowed);
    }
    met
}

fn one(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<&str>) -> bool {
    let Some(first) = tokens.get(*at) else { return false };
    *at += 1;
    if *first == "(" {
        let met = any(tokens, at, allowed);
        let closed = tokens.get(*at) == Some(&")");
        *at += 1;
        return met && closed;
    }
    if tokens.get(*at) == Some(&"WITH") {
        let exception = tokens.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed.contains(format!("{first} WITH {exception}").as_str());
    }
    allowed.contains(first)
}

#[test]
fn every_dependency_has_an_allowed_license() {
    let rules = rules();
    let allow = rules["licenses"]["allow"].as_array().unwrap();
    let allowed: BTreeSet<_> = allow.iter().filter_map(toml::Value::as_str).collect();
    let refused: Vec<_> = packages()
        .iter()
        .filter(|package| !is_allowed(text(package, "license"), &allowed))
        .map(|package| {
            let license = text(package, "license");
            format!("{} {}: {license:?}", text(package, "name"), text(package, "version"))
        })
        .collect();
    assert!(refused.is_empty(), "not allowed by deny.toml:\n{}", refused.join("\n"));
}

#[test]
fn license_expressions_are_read_as_spdx_reads_them() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for met in
        ["MIT", "GPL-3.0/MIT", "MIT AND ISC", "(GPL-3.0 OR MIT) AND ISC", "GPL-3.0 AND X OR MIT"]
    {
        assert!(is_allowed(met, &allowed), "{met}");
    }
    assert!(is_allowed("Apache-2.0 WITH LLVM-exception OR GPL-3.0", &allowed));
    for refused in
        ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", "(MIT", "MIT ISC", "Apache-2.0"]
    {
        assert!(!is_allowed(refused, &allowed), "{refused}");
    }
}

#[test]
fn a_crate_is_there_in_one_version_unless_a_reason_is_written_down() {
    let rules = rules();
    let skip = rules["bans"]["skip"].as_array().unwrap();
    let mut excused = BTreeSet::new();
    for entry in skip {
        let reason = entry.get("reason").and_then(toml::Value::as_str).unwrap_or_default();
        let spec = entry["crate"].as_str().unwrap();
        assert!(!reason.is_empty(), "deny.toml: {spec} has no reason");
        excused.insert(spec.to_owned());
    }

    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        let of_crate = versions.entry(text(&package, "name").to_owned()).or_default();
        of_crate.insert(text(&package, "version").to_owned());
    }
    versions.retain(|_, of_crate| of_crate.len() > 1);
    let twice: BTreeSet<_> = versions
        .iter()
        .flat_map(|(name, all)| all.iter().map(move |version| format!("{name}@{version}")))
        .collect();
    let stale: Vec<_> = excused.difference(&twice).collect();
    assert!(stale.is_empty(), "deny.toml excuses what is not there twice any more: {stale:?}");
    for (name, all) in versions {
        let left = all.iter().filter(|version| !excused.contains(&format!("{name}@{version}")));
        assert!(left.count() <= 1, "{name} is there in several versions: {all:?}");
    }
}

#[test]
fn every_direct_dependency_is_explained() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let explained = read("docs/dependencies.md");
    let mut seen = 0;
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let of_section = manifest.get(section).and_then(toml::Value::as_table);
        for name in of_section.into_iter().flat_map(toml::Table::keys) {
            seen += 1;
            let line = format!("| `{name}` |");
            assert!(explained.contains(&line), "docs/dependencies.md has no line for {name}");
        }
    }
    assert!(seen > 10, "only {seen} dependencies seen");
}

#[test]
fn the_configuration_in_the_readme_is_accepted() {
    let readme = read("README.md");
    let blocks: Vec<_> = readme.split("```toml\n").skip(1).collect();
    assert!(!blocks.is_empty(), "no configuration seen");
    for block in blocks {
        let (text, _) = block.split_once("```").unwrap();
        let config = oncegate::config::parse(text, "README.md", &|_| None);
        config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
    }
}

/// The markdown files in a directory and below it.
fn documents_below(directory: &Path) -> Vec<PathBuf> {
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents.extend(documents_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    documents
}

#[test]
fn every_document_is_a_page_of_the_book() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let summary = read("docs/SUMMARY.md");
    let documents = documents_below(&docs);
    assert!(documents.len() > 10, "only {} documents seen", documents.len());
    let missing: Vec<_> = documents
        .iter()
        .map(|document| document.strip_prefix(&docs).unwrap().display().to_string())
        .filter(|name| name != "SUMMARY.md" && !summary.contains(&format!("]({name})")))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<_> = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .map(|name| root.join(name))
        .into();
    documents.extend(documents_below(&root.join("docs")));
    let mut seen = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            seen += 1;
            let target = document.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link} leads nowhere", document.display());
        }
    }
    assert!(seen > 3, "only {seen} links seen");
}

/// The names that a site gives to the headings of a document, so that links can lead to them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let title = line.trim_start_matches('#');
        if in_code || title.len() == line.len() {
            continue;
        }
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let name: String = kept.collect::<String>().to_lowercase().replace(' ', "-");
        found.insert(name);
    }
    found
}

#[test]
fn links_lead_to_headings_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = documents_below(&root.join("docs"));
    documents.push(root.join("README.md"));
    let mut seen = 0;
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let Some((file, anchor)) = link.split_once('#') else { continue };
            if file.contains("://") {
                continue;
            }
            let target = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            let headings = anchors(&std::fs::read_to_string(&target).unwrap());
            seen += 1;
            assert!(headings.contains(anchor), "{}: no heading {link}", document.display());
        }
    }
    assert!(seen > 20, "only {seen} links were seen");
}

/// The code blocks of a language in a document.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Adds what a snippet leaves out: an upstream, and a route when its tables are a route's.
fn completed(snippet: &str) -> String {
    let of_route = |line: &str| line.starts_with("[route.") || line.starts_with("at = ");
    let mut text = String::new();
    let first_route = snippet.find("[[route]]").unwrap_or(snippet.len());
    if snippet[..first_route].lines().any(of_route) {
        text.push_str("[[route]]\nname = \"snippet\"\nmethods = [\"POST\"]\n");
        text.push_str("path = \"/snippet/{card}\"\nupstream = \"snippet\"\n");
        // A shape of a batch begins inside its table.
        let begins_inside = snippet.starts_with("at = ");
        if begins_inside || snippet.contains("[route.items") {
            text.push_str("mode = \"items\"\n");
        }
        if begins_inside {
            text.push_str("[route.items]\n");
        }
    }
    text.push_str(snippet);
    if !snippet.contains("[[upstream]]") {
        let name = snippet.lines().find_map(|line| line.strip_prefix("upstream = "));
        let name = name.unwrap_or("\"snippet\"").split(" #").next().unwrap_or_default();
        text.push_str(&format!("\n[[upstream]]\nname = {name}\nurl = \"http://127.0.0.1:9000\"\n"));
    }
    text
}

/// Mistakes of a snippet that shows one table of a file: what the rest of the file would say.
const LEFT_OUT: [&str; 6] = [
    "there is no [[route]]",
    "there is no [[upstream]]",
    "there is no upstream",
    "; it belongs to ",
    ": cannot read ",
    "set `client_ca`",
];

#[test]
fn snippets_of_the_documents_are_what_they_say() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let (mut toml, mut python, mut refused) = (0, 0, Vec::new());
    for document in documents_below(&docs) {
        let (text, name) = (std::fs::read_to_string(&document).unwrap(), document.display());
        // Callers stand in a file of their own, which is not a configuration.
        let is_whole = |block: &&str| !block.contains('…') && !block.contains("digests = [");
        for block in blocks(&text, "toml").into_iter().filter(is_whole) {
            toml += 1;
            let parsed: Result<toml::Table, _> = block.parse();
            parsed.unwrap_or_else(|error| panic!("{name}: {error}\n{block}"));
            let config = oncegate::config::parse(&completed(block), "snippet", &|_| {
                Some("0198f3a0-7c1e-7d5b-9a3e-2f5d8c6b4a10".to_owned())
            });
            let mistakes = config.err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
            let wrong =
                mistakes.lines().find(|line| !LEFT_OUT.iter().any(|why| line.contains(why)));
            if let Some(wrong) = wrong {
                refused.push(format!("{name}: {wrong}\n{block}"));
            }
        }
        for block in blocks(&text, "json") {
            let parsed: Result<Value, _> = serde_json::from_str(block);
            parsed.unwrap_or_else(|error| panic!("{name}: {error}\n{block}"));
        }
        for block in blocks(&text, "python") {
            python += 1;
            run("python3", &["-c", "import sys; compile(sys.argv[1], 'snippet', 'exec')", block]);
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(toml > 20 && python > 1, "{toml} and {python} snippets were seen");
}
