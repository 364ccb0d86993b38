//! The house itself: which module may use which, and how large a file may grow.

use std::path::{Path, PathBuf};

/// What each part of the crate may name of the others; see ARCHITECTURE.md.
const MAY_USE: [(&str, &[&str]); 20] = [
    ("idempotency", &["clock", "json"]),
    ("items", &["idempotency", "json"]),
    ("store", &["clock", "failpoint", "idempotency", "net", "nonce", "shutdown"]),
    ("config", &["clock", "idempotency", "items", "json", "percent", "problem", "store"]),
    (
        "admin",
        &[
            "body",
            "clock",
            "config",
            "idempotency",
            "items",
            "net",
            "nonce",
            "percent",
            "problem",
            "shutdown",
            "store",
        ],
    ),
    (
        "proxy",
        &[
            "body",
            "clock",
            "config",
            "failpoint",
            "idempotency",
            "items",
            "json",
            "net",
            "nonce",
            "percent",
            "problem",
            "settle",
            "shutdown",
            "store",
            "upstream",
        ],
    ),
    ("settle", &["idempotency", "shutdown", "store"]),
    ("percent", &[]),
    ("json", &[]),
    ("clock", &[]),
    ("upstream", &["body", "clock", "config", "net"]),
    ("failpoint", &[]),
    ("nonce", &[]),
    ("body", &[]),
    ("shutdown", &[]),
    ("net", &[]),
    ("observe", &[]),
    ("problem", &["body"]),
    ("cli", &["config"]),
    ("gateway", &["admin", "config", "net", "proxy", "shutdown", "store"]),
];

/// Lines of the longest file; what grows beyond is split.
const MOST_LINES: usize = 500;

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 40, "only {} files seen", files.len());
    files
}

/// The part of the crate a file belongs to: `proxy` for `src/proxy/server/mod.rs`.
fn part(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src");
    let first = below.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn the_arrows_between_modules_point_one_way() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in sources() {
        let part = part(&path);
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == part) else { continue };
        // Tests may take their rules from the configurations that are shipped, and start servers.
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        let text = std::fs::read_to_string(&path).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for used in code.split("crate::").skip(1) {
                seen += 1;
                // `use crate::{a, b}` would hide names from this test.
                let name: String =
                    used.chars().take_while(|at| at.is_alphanumeric() || *at == '_').collect();
                let may = allowed.contains(&name.as_str())
                    || (is_test && matches!(name.as_str(), "config" | "servers"));
                if name != part && !may {
                    wrong.push(format!("{}:{}: {part} uses {name:?}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} uses seen");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_file_grows_beyond_its_limit() {
    let mut long = Vec::new();
    for path in sources() {
        let lines = std::fs::read_to_string(&path).expect("a source file").lines().count();
        if lines > MOST_LINES {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}
