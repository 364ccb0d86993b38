//! Names in code spans of the documents: keys and tables of the configuration, metrics, headers,
//! problems, addresses, commands and their flags, variables of the environment, files and tests.
//! Each that looks like one of ours has to stand in the code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use crate::fences::{Document, documents, fences, prose};
use crate::read;
use crate::shell::{exists, file_of_repository, has_flag, prose_mistake};

/// Addresses of the gateway and of its admin listener.
const ADDRESSES: [&str; 11] = [
    "/.well-known/idempotency",
    "/.well-known/idempotency/status",
    "/.well-known/idempotency/answer",
    "/healthz",
    "/readyz",
    "/metrics",
    "/api/stats",
    "/api/config",
    "/api/records",
    "/api/records/{id}/resolve",
    "/api/records/{id}/reopen",
];

/// Documents that tell of earlier code or of other programs: their names are not looked up.
const HISTORY: [&str; 2] = ["docs/development/performance-notebook.md", "docs/dependencies.md"];

/// Names of other programs, of examples, and of what was removed, that look like ours.
const OF_OTHERS: [&str; 27] = [
    // Directives of nginx, options of HAProxy, PostgreSQL and Redis.
    "grpc_next_upstream",
    "proxy_read_timeout",
    "send-proxy-v2",
    "conn-failure",
    "empty-response",
    "response-timeout",
    "junk-response",
    "0rtt-rejected",
    "retry-on",
    "cluster-port",
    "min-replicas-max-lag",
    "pg_basebackup",
    "enable_multiple_modifications_of_table",
    // Options and tools of clients and of the release.
    "--retry-all-errors",
    "--stop-timeout",
    "--dist",
    "dpkg-deb",
    // Cases of tests/it/clients.rs and clients_hops.rs, and values of examples.
    "front-closes",
    "front-is-cut",
    "front-is-silent",
    "front-resets",
    "is-cut",
    "is-silent",
    "limited-once",
    "sale-789",
    "x_tenant",
    // Headers that the gateway passes on or sends by the name of a library.
    "Access-Control-Allow-Origin",
];

/// The names that the code has.
#[derive(Debug)]
pub(crate) struct Names {
    /// All source text; that of scripts; that of scripts, tests and examples.
    source: String,
    scripts: String,
    around: String,
    words: BTreeSet<String>,
    /// Words with hyphens, in lower case.
    hyphened: BTreeSet<String>,
    metrics: String,
    /// The keys of each table, by docs/reference/keys.md, which is generated.
    tables: BTreeMap<String, BTreeSet<String>>,
}

fn text_below(directory: &str) -> String {
    let mut text = String::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)];
    while let Some(path) = waiting.pop() {
        match path.is_dir() {
            true => waiting.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path())),
            // Pictures and binaries are no text.
            false => text.push_str(&std::fs::read_to_string(path).unwrap_or_default()),
        }
    }
    text
}

fn words(text: &str, also: char) -> impl Iterator<Item = &str> {
    text.split(move |c: char| !c.is_ascii_alphanumeric() && c != also)
}

/// The words of a text that are metrics of the gateway.
pub(crate) fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    words(text, '_').filter(|word| {
        word.starts_with("oncegate_") && word.chars().all(|c| !c.is_ascii_uppercase())
    })
}

impl Names {
    /// The names, which are read once for all tests.
    pub(crate) fn of_the_code() -> &'static Self {
        static NAMES: LazyLock<Names> = LazyLock::new(Names::read);
        &NAMES
    }

    fn read() -> Self {
        let source = text_below("src");
        // The names that the tests of this file look for stand in tests/project.
        let around = [".ci", "tests/it", "tests/servers", "bench", "Dockerfile", "build.rs"];
        let around = around.map(text_below);
        for address in ADDRESSES {
            assert!(source.contains(address), "the code does not name {address}");
        }
        Self {
            words: words(&source, '_').map(str::to_owned).collect(),
            hyphened: words(&source, '-').map(str::to_ascii_lowercase).collect(),
            metrics: text_below("src/observe/metrics"),
            tables: tables(),
            scripts: [".ci", "bench"].map(text_below).concat(),
            around: around.concat(),
            source,
        }
    }

    pub(crate) fn has_text(&self, text: &str) -> bool {
        self.source.contains(&format!("{text}\""))
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    pub(crate) fn is_metric(&self, name: &str) -> bool {
        let name = name.trim_start_matches("oncegate_");
        let endings = ["_total", "_count", "_sum", "_bucket"];
        let base = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
        self.metrics.contains(&format!("\"{base}\""))
    }

    pub(crate) fn is_address(&self, path: &str) -> bool {
        let mut parts: Vec<&str> = path.split('/').collect();
        if parts.starts_with(&["", "api", "records"]) && parts.len() > 3 {
            parts[3] = "{id}";
        }
        let path = parts.join("/");
        path == "/" || path == "/api/records/{id}" || ADDRESSES.contains(&path.as_str())
    }

    /// The mistake in a table's name and, behind it, a key, as in `[server] drain`.
    fn key_mistake(&self, span: &str) -> Option<String> {
        let (table, key) = span.split_once(']')?;
        let table = table.trim_start_matches('[');
        let Some(keys) = self.tables.get(table) else {
            // Tables whose keys are free, such as [route.errors].
            let (parent, key) = table.rsplit_once('.').unwrap_or_default();
            let known = self.tables.get(parent).is_some_and(|keys| keys.contains(key));
            return (!known).then(|| format!("no table {table}"));
        };
        let key = key.trim_start_matches(']').split(['=', ',']).next().unwrap_or_default().trim();
        let first = key.split('.').next().unwrap_or_default();
        (!first.is_empty() && !keys.contains(first)).then(|| format!("[{table}] has no key {key}"))
    }

    /// The mistake in a code span that looks like a name of ours.
    fn mistake(&self, span: &str) -> Option<String> {
        if OF_OTHERS.contains(&span.split([' ', '=']).next().unwrap_or_default()) {
            return None;
        }
        let is_name =
            |also: char, c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == also;
        let joined = |by: char| {
            span.split(by).count() > 1
                && span.split(by).all(|part| !part.is_empty())
                && span.chars().all(|c| is_name(by, c))
        };
        let missing = |known: bool, kind: &str| (!known).then(|| format!("no {kind} {span}"));
        // A header may stand with its value.
        let span = span.split(": ").next().unwrap_or_default();
        let first = span.split([' ', '=', '{']).next().unwrap_or_default();
        if let Some(metric) = metrics_in(first).next().filter(|metric| *metric == first) {
            return missing(self.is_metric(metric), "metric");
        }
        if span.starts_with('[')
            && span[1..].starts_with(|c: char| c == '[' || c.is_ascii_lowercase())
        {
            return self.key_mistake(span);
        }
        if span.starts_with("oncegate ") {
            return prose_mistake(span).filter(|_| !self.has_text(span));
        }
        if let Some(flag) = first.strip_prefix("--") {
            return missing(has_flag(flag) || self.scripts.contains(first), "flag");
        }
        if let Some(chapters) = span.strip_prefix("it::") {
            let mut chapters = chapters.trim_matches(['{', '}']).split(',');
            return missing(chapters.all(|name| exists(&format!("tests/it/{name}.rs"))), "test");
        }
        if first.starts_with("ONCEGATE_") {
            let known = self.source.contains(first) || self.around.contains(first);
            return missing(known, "variable");
        }
        if let Some(address) = span.split(' ').find(|word| {
            ["/api/", "/.well-known/", "/healthz", "/readyz", "/metrics"]
                .iter()
                .any(|start| word.starts_with(start))
        }) {
            let path = address.split('?').next().unwrap_or_default();
            return missing(path.ends_with('…') || self.is_address(path), "address");
        }
        if let Some(file) = file_of_repository(first).filter(|file| !file.contains(['{', '*'])) {
            let known = exists(file) || exists(&format!("src/{file}"));
            return missing(known, "file");
        }
        if span.ends_with(".rs") && span.contains('/') && !span.contains('{') {
            return missing(self.has_module(span), "file");
        }
        if joined('_') {
            return missing(self.is_word(span) || self.around.contains(span), "name");
        }
        let is_header = span.contains('-')
            && span.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_uppercase()));
        if joined('-') || is_header {
            let lower = span.to_ascii_lowercase();
            let constant = span.to_ascii_uppercase().replace('-', "_");
            return missing(self.hyphened.contains(&lower) || self.is_word(&constant), "name");
        }
        None
    }

    /// Says whether `proxy/routes.rs`, or `shared/batching.rs` somewhere, is a file of the source.
    fn has_module(&self, path: &str) -> bool {
        fn below(directory: &Path, path: &Path) -> bool {
            directory.join(path).exists()
                || std::fs::read_dir(directory).unwrap().any(|entry| {
                    let entry = entry.unwrap().path();
                    entry.is_dir() && below(&entry, path)
                })
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        exists(path) || below(&root.join("src"), Path::new(path)) || self.around.contains(path)
    }
}

/// The tables of the generated reference, with their keys.
fn tables() -> BTreeMap<String, BTreeSet<String>> {
    let mut tables = BTreeMap::<String, BTreeSet<String>>::new();
    let mut open = Vec::new();
    for line in read("docs/reference/keys.md").lines() {
        if line.starts_with('#') {
            open.clear();
        }
        if let Some(row) = line.strip_prefix("| `") {
            let key = row.split('`').next().unwrap_or_default();
            for table in &open {
                tables.entry(String::clone(table)).or_default().insert(key.to_owned());
            }
        } else if line.starts_with("## ") || line.starts_with("Also ") {
            // Several tables may have the same keys.
            let named = line.split('`').skip(1).step_by(2);
            open.extend(named.map(|name| name.trim_matches(['[', ']']).to_owned()));
        }
    }
    assert!(tables.len() > 50, "only {} tables seen", tables.len());
    tables
}

/// The code spans of a document's prose.
fn spans(document: &Document) -> Vec<String> {
    let text = prose(document);
    // Spans may go over the end of a line, and not over that of a paragraph.
    let paragraphs = text.split("\n\n").flat_map(|paragraph| {
        let parts: Vec<&str> = paragraph.split('`').collect();
        parts.into_iter().skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect::<Vec<_>>()
    });
    paragraphs.collect()
}

#[test]
fn names_in_the_documents_are_those_of_the_code() {
    let names = Names::of_the_code();
    let (mut wrong, mut seen, mut used) = (Vec::new(), 0, BTreeSet::<&str>::new());
    for document in documents().iter().filter(|one| !HISTORY.contains(&one.name.as_str())) {
        for span in spans(document) {
            seen += 1;
            used.extend(OF_OTHERS.iter().filter(|other| span.contains(*other)));
            if let Some(mistake) = names.mistake(&span) {
                wrong.push(format!("{}: `{span}`: {mistake}", document.name));
            }
        }
        for fence in fences(document) {
            let unknown = metrics_in(&fence.text).find(|metric| !names.is_metric(metric));
            wrong.extend(unknown.map(|metric| format!("{}: no metric {metric}", fence.place)));
        }
    }
    assert!(wrong.is_empty(), "{} names are not of the code:\n{}", wrong.len(), wrong.join("\n"));
    let stale: Vec<_> = OF_OTHERS.iter().filter(|other| !used.contains(*other)).collect();
    assert!(stale.is_empty(), "no document names {stale:?} any more");
    assert!(seen > 2_000, "only {seen} names were seen");
}

#[test]
fn wrong_names_are_found() {
    let names = Names::of_the_code();
    for wrong in [
        "oncegate_request_total",
        "oncegate_reload_total{result=\"refused\"}",
        "[server] drian",
        "[servers]",
        "[route.key] form = \"x\"",
        "oncegate records lists",
        "oncegate check --agains URL",
        "--tokenfile FILE",
        "it::no_such_chapter",
        "ONCEGATE_NO_SUCH",
        "GET /api/recrods",
        "/api/records/{id}/resolved",
        "docs/none.md",
        "proxy/none.rs",
        "drain_dalay",
        "key-mising",
        "Idempotency-Outcome",
    ] {
        assert!(names.mistake(wrong).is_some(), "{wrong}");
    }
    for right in
        ["[server] drain_delay", "[[route]]", "key-missing", "GET /api/records/{id}", "--json"]
    {
        assert_eq!(names.mistake(right), None, "{right}");
    }
}
