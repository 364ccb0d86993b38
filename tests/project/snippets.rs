//! Fenced blocks: each is tested by its language, or says why it is not.
//!
//! A part of a configuration gets the smallest frame in which it can stand: an upstream of the name
//! it uses, and a route where its tables are a route's. Nothing else is added, so that a key outside
//! of its table, a misspelt key or a value out of range fails the test.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fences::{Document, Fence, Mark, documents, fences};
use crate::names::{Names, metrics_in};
use crate::shell::{commands, exists, mistake, typed};
use crate::{read, run};

/// Blocks that no test runs, at most: a new one needs a good reason.
const MOST_UNTESTED: usize = 2;

/// Parts of a file get what they lack.
fn framed(snippet: &str) -> String {
    let of_route = |line: &str| line.starts_with("[route.");
    let line_of = |start: &str| snippet.lines().find_map(|line| line.strip_prefix(start));
    let mut text = String::new();
    let first_route = snippet.find("[[route]]").unwrap_or(snippet.len());
    if snippet[..first_route].lines().any(of_route) {
        text.push_str("[[route]]\nname = \"snippet\"\nmethods = [\"POST\"]\n");
        text.push_str("path = \"/snippet/{card}\"\nupstream = \"snippet\"\n");
        if snippet.contains("[route.items") {
            text.push_str("mode = \"items\"\n");
        }
    }
    text.push_str(snippet);
    let whole = snippet.contains("route = [");
    if !snippet.contains("[[route]]") && !snippet.lines().any(of_route) && !whole {
        text.push_str("\n[[route]]\nname = \"rest\"\nmethods = [\"GET\"]\npath = \"/{*rest}\"\n");
        text.push_str("upstream = \"snippet\"\nmode = \"off\"\n");
    }
    if !snippet.lines().any(|line| line.starts_with("[[upstream]]")) && !whole {
        let named = line_of("upstream = ").and_then(|line| line.split('"').nth(1));
        let mut names = BTreeSet::from([named.unwrap_or("snippet")]);
        if text.contains("upstream = \"snippet\"") {
            names.insert("snippet");
        }
        for name in names {
            let url = "http://127.0.0.1:9000";
            text.push_str(&format!("\n[[upstream]]\nname = {name:?}\nurl = {url:?}\n"));
        }
    } else if text.contains("upstream = \"snippet\"") {
        text.push_str("\n[[upstream]]\nname = \"snippet\"\nurl = \"http://127.0.0.1:9000\"\n");
    }
    if line_of("certificate = ").is_some() && !snippet.contains("client_ca") {
        text.push_str("\n[server.tls]\ncert = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n");
    }
    text
}

/// Replaces references to the environment, which is not the reader's here.
fn with_variables(text: &str) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('}').unwrap_or(("", part));
        filled.push_str("0198f3a0-7c1e-7d5b-9a3e-2f5d8c6b4a10");
        filled.push_str(rest);
    }
    filled
}

/// The result of `oncegate check --no-files` for a block.
fn configuration(text: &str, directory: &Path) -> Result<(), String> {
    let load = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).unwrap();
        directory.join(name)
    };
    // Callers stand in a file of their own, which the configuration names.
    if text.lines().any(|line| line.starts_with("digests = ")) {
        load("tenants.toml", text);
        let config = framed("[tenant]\ndirectory = \"tenants.toml\"\n");
        let loaded = oncegate::config::load(&load("oncegate.toml", &config));
        return loaded.map(drop).map_err(|mistakes| mistakes.to_string());
    }
    let file = load("snippet.toml", &with_variables(&framed(text)));
    let loaded = oncegate::config::load_without_files(&file);
    loaded.map(drop).map_err(|mistakes| mistakes.to_string())
}

/// Says whether the path of a route takes a path.
fn takes(route: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for part in route.split('/') {
        if part.starts_with("{*") {
            return true;
        }
        let segment = segments.next();
        if segment.is_none_or(|segment| !part.starts_with('{') && part != segment) {
            return false;
        }
    }
    segments.next().is_none()
}

/// The mistake in the address of a curl command: port 8080 is the gateway of the document's
/// configuration, 9090 its admin listener, 9000 the backend.
fn address_mistake(words: &[String], document: &Document, names: &Names) -> Option<String> {
    let url = words.iter().find(|word| word.starts_with("http://"))?;
    let (host, path) = url["http://".len()..].split_once('/').unwrap_or((url, ""));
    let path = format!("/{}", path.split('?').next().unwrap_or_default());
    let routes = || {
        let quoted = document.text.split("path = \"").skip(1);
        quoted.filter_map(|rest| rest.split('"').next()).any(|route| takes(route, &path))
    };
    let known = match host.rsplit_once(':').map(|(_, port)| port) {
        Some("8080") => path.starts_with("/.well-known/") && names.is_address(&path) || routes(),
        Some("9090") => names.is_address(&path),
        Some("9000") => true,
        _ => false,
    };
    (!known).then(|| format!("{url} is no address of this document's gateway"))
}

/// Checks the typed lines; gives their number.
fn shell_lines(fence: &Fence, document: &Document, names: &Names) -> Result<usize, String> {
    let lines = typed(fence);
    let commands = commands(&lines);
    for command in &commands {
        let wrong = mistake(command);
        let wrong = wrong.or_else(|| match command.words[0].as_str() {
            "curl" => address_mistake(&command.words, document, names),
            _ => None,
        });
        if let Some(wrong) = wrong {
            return Err(format!("{}: {wrong}", command.words.join(" ")));
        }
    }
    match commands.len() {
        0 => Err("no command is typed here".to_owned()),
        number => Ok(number),
    }
}

/// Lines of the log: the message and each field are those of the code.
fn log_lines(text: &str, names: &Names) -> Result<(), String> {
    for line in text.lines() {
        let levels = ["INFO ", "WARN ", "ERROR "];
        let Some((_, event)) = levels.iter().find_map(|level| line.split_once(level)) else {
            return Err(format!("no level: {line}"));
        };
        let words: Vec<&str> = event.split(' ').collect();
        let message = words.iter().take_while(|word| !word.contains('=')).copied();
        let message = message.collect::<Vec<_>>().join(" ");
        if !names.has_text(message.trim_end_matches(" …")) {
            return Err(format!("no message {message:?}"));
        }
        let fields = words.iter().filter_map(|word| word.split_once('='));
        if let Some((field, _)) = fields.into_iter().find(|(field, _)| !names.is_word(field)) {
            return Err(format!("no field {field}"));
        }
    }
    Ok(())
}

/// Checks the syntax of a module by Node.
fn syntax_of_js(text: &str) -> Result<(), String> {
    let mut node = Command::new("node");
    node.args(["--input-type=module", "--check", "-"]).stdin(Stdio::piped());
    let mut child = node.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn json(text: &str) -> Result<(), String> {
    serde_json::from_str::<Value>(text).map(drop).map_err(|error| error.to_string())
}

/// Tests a block by the rules of its language.
fn tested(
    fence: &Fence,
    before: &str,
    document: &Document,
    names: &Names,
    directory: &Path,
) -> Result<(), String> {
    match fence.language.as_str() {
        "toml" if fence.mark == Mark::After => {
            configuration(&format!("{before}{}", fence.text), directory)
        }
        "toml" => configuration(&fence.text, directory),
        "json" => json(&fence.text),
        "sh" | "console" => shell_lines(fence, document, names).map(drop),
        "python" => {
            let compiles = "import sys; compile(sys.argv[1], 'snippet', 'exec')";
            run("python3", &["-c", compiles, &fence.text]);
            Ok(())
        }
        "js" => syntax_of_js(&fence.text),
        "log" => log_lines(&fence.text, names),
        "promql" => match metrics_in(&fence.text).find(|metric| !names.is_metric(metric)) {
            Some(metric) => Err(format!("no metric {metric}")),
            None => Ok(()),
        },
        // Drawings of how the code works.
        "" if document.name == "ARCHITECTURE.md" => Ok(()),
        language => {
            Err(format!("no test knows how to read {language:?}; see tests/project/fences.rs"))
        }
    }
}

/// A test that a mark names: a chapter or a module whose text names the document.
fn names_its_test(test: &str, document: &Document) -> bool {
    let file = match test.split_once("::") {
        Some(("it", chapter)) => format!("tests/it/{chapter}.rs"),
        Some(("project", module)) => format!("tests/project/{module}.rs"),
        _ => format!("src/{}.rs", test.replace("::", "/")),
    };
    exists(&file) && read(&file).contains(document.name.as_str())
}

#[test]
fn every_block_of_the_documents_is_tested() {
    let names = Names::of_the_code();
    let directory = tempfile::tempdir().unwrap();
    let (mut wrong, mut untested, mut seen) = (Vec::new(), Vec::new(), 0);
    for document in documents() {
        let mut before = String::new();
        for fence in fences(&document) {
            seen += 1;
            match &fence.mark {
                Mark::NotTested(reason) => untested.push(format!("{}: {reason}", fence.place)),
                Mark::TestedBy(test) if names_its_test(test, &document) => {}
                Mark::TestedBy(test) => {
                    wrong.push(format!("{}: {test} does not test this", fence.place));
                }
                Mark::None | Mark::After => {
                    let result = tested(&fence, &before, &document, names, directory.path());
                    if let Err(what) = result {
                        wrong.push(format!("{}: {what}\n{}", fence.place, fence.text));
                    }
                }
            }
            before = fence.text;
        }
    }
    assert!(wrong.is_empty(), "{} blocks are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(untested.len() <= MOST_UNTESTED, "not tested:\n{}", untested.join("\n"));
    assert!(seen > 80, "only {seen} blocks were seen");
}

#[test]
fn mistakes_in_blocks_are_found() {
    let (names, directory) = (Names::of_the_code(), tempfile::tempdir().unwrap());
    for (language, text) in [
        ("toml", "[server]\ndrian = \"30s\"\n"),
        ("toml", "drain = \"30s\"\n"),
        ("toml", "[server]\ndrain = \"30\"\n"),
        ("toml", "[route.outcome]\nfinal = [\"9xx\"]\n"),
        ("toml", "[shop-1]\ndigests = [\"12\"]\n"),
        ("json", "{\"a\":1,}"),
        ("sh", "oncegate check --confg x"),
        ("console", "oncegate check --config x"),
        ("sh", "curl http://127.0.0.1:8080/nowhere"),
        ("sh", "curl http://127.0.0.1:9090/api/recrods"),
        ("log", "2026-11-29 INFO oncegate has begun version=1"),
        ("log", "2026-11-29 INFO oncegate has started verzion=1"),
        ("promql", "sum(oncegate_request_total)"),
        ("js", "const a = ;"),
        ("cobol", "STOP RUN."),
    ] {
        let text = format!("```{language}\n{text}\n```\n");
        let document = Document { name: "x.md".to_owned(), text };
        let fence = fences(&document).remove(0);
        let result = tested(&fence, "", &document, names, directory.path());
        assert!(result.is_err(), "{}", document.text);
    }
}
