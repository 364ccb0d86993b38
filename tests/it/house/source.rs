//! The source files of the crate as data: text without comments and strings, module paths, and the
//! arrows between files. Enough of Rust's grammar for `use` trees and paths, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A source file below `src`.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Path below `src`, such as `proxy/request/mod.rs`.
    pub(crate) name: String,
    /// Module path, such as `["proxy", "request"]`.
    pub(crate) module: Vec<String>,
    /// The text as written.
    pub(crate) text: String,
    /// The text without comments, string contents and inline test modules; lines are kept.
    pub(crate) code: String,
    /// A file that only tests compile.
    pub(crate) is_test: bool,
}

/// Every file below `src`, in the order of their names.
pub(crate) fn files() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a source folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    assert!(paths.len() > 100, "only {} files seen", paths.len());
    paths.sort();
    let mut files: Vec<SourceFile> = paths.iter().map(|path| read(&root, path)).collect();
    mark_test_only(&mut files);
    files
}

fn read(root: &Path, path: &PathBuf) -> SourceFile {
    let name = path.strip_prefix(root).expect("a path below src").to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).expect("a source file");
    let mut module: Vec<String> =
        name.trim_end_matches(".rs").split('/').map(ToOwned::to_owned).collect();
    if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        module.pop();
    }
    let is_test = module.iter().any(|part| part == "tests" || part.ends_with("_tests"));
    let code = without_test_modules(&blanked(&text));
    SourceFile { name, module, text, code, is_test }
}

/// Marks files that are declared under `#[cfg(test)]`, and all below them.
fn mark_test_only(files: &mut [SourceFile]) {
    let mut test_only = BTreeSet::new();
    for file in files.iter() {
        let mut is_next = false;
        for line in file.code.lines().map(str::trim) {
            if let Some(name) = line.split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';'))
                && is_next
            {
                let mut module = file.module.clone();
                module.push(name.to_owned());
                test_only.insert(module);
            }
            is_next = line.starts_with("#[cfg(test)]") || (is_next && line.starts_with("#["));
        }
    }
    for file in files {
        file.is_test |= test_only.iter().any(|module| file.module.starts_with(module));
    }
}

/// The text with comments and the contents of strings replaced by blanks.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if rest.starts_with("r\"") => rest[2..].find('"').map_or(rest.len(), |end| end + 3),
            'r' if rest.starts_with("r#\"") => {
                rest[3..].find("\"#").map_or(rest.len(), |end| end + 5)
            }
            '"' => string_length(rest),
            '\'' => character_length(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        code.extend(rest[..length].chars().map(|at| if at == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    code
}

fn string_length(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes of a character literal; zero for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((next, _))) => {
            rest[next + 1..].find('\'').map_or(0, |end| next + 1 + end + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 0,
    }
}

/// The code up to the first inline `#[cfg(test)] mod`, which is the last item of its file.
fn without_test_modules(code: &str) -> String {
    let mut from = 0;
    while let Some(at) = code[from..].find("#[cfg(test)]") {
        let start = from + at;
        let item = code[start + "#[cfg(test)]".len()..].trim_start();
        let first_line = item.lines().next().unwrap_or_default();
        if item.starts_with("mod ") && first_line.ends_with('{') {
            return code[..start].to_owned();
        }
        from = start + 1;
    }
    code.to_owned()
}

/// A file's arrows: the files it names, each with the line of the first mention.
pub(crate) type Arrows = BTreeMap<String, BTreeMap<String, usize>>;

/// The arrows between all files that are no tests. A name that a module re-exports leads to the file
/// that defines it; the re-export itself is no arrow.
pub(crate) fn arrows(files: &[SourceFile]) -> Arrows {
    let modules: BTreeMap<&[String], &SourceFile> =
        files.iter().map(|file| (file.module.as_slice(), file)).collect();
    let uses: BTreeMap<&str, Vec<Use>> =
        files.iter().map(|file| (file.name.as_str(), uses(file))).collect();
    let mut reexports = BTreeMap::new();
    for file in files {
        for used in uses[file.name.as_str()].iter().filter(|used| used.is_reexport) {
            let mut name = file.module.clone();
            name.push(used.alias.clone());
            reexports.insert(name, used.path.clone());
        }
    }
    let resolve = |path: &[String]| resolved(path, &modules, &reexports);
    let mut arrows = Arrows::new();
    for file in files.iter().filter(|file| !file.is_test) {
        let mut targets: BTreeMap<String, usize> = BTreeMap::new();
        let mut add = |target: Option<&SourceFile>, line: usize| {
            if let Some(target) = target.filter(|target| target.name != file.name) {
                targets.entry(target.name.clone()).or_insert(line);
            }
        };
        for used in uses[file.name.as_str()].iter().filter(|used| !used.is_reexport) {
            if modules.contains_key(used.path.as_slice()) {
                // A module's name stands for what is named through it.
                for (deeper, line) in paths_from(file, &used.alias) {
                    add(resolve(&[used.path.as_slice(), &deeper].concat()), line);
                }
            } else {
                add(resolve(&used.path), used.line);
            }
        }
        for (path, line) in inline_paths(file) {
            add(resolve(&path), line);
        }
        arrows.insert(file.name.clone(), targets);
    }
    arrows
}

fn resolved<'a>(
    path: &[String],
    modules: &BTreeMap<&[String], &'a SourceFile>,
    reexports: &BTreeMap<Vec<String>, Vec<String>>,
) -> Option<&'a SourceFile> {
    let mut path = path.to_vec();
    for _ in 0..8 {
        let (length, file) = (1..=path.len())
            .rev()
            .find_map(|length| modules.get(&path[..length]).map(|file| (length, *file)))?;
        if length == path.len() {
            return Some(file);
        }
        let Some(target) = reexports.get(&path[..=length]) else { return Some(file) };
        path = [target.as_slice(), &path[length + 1..]].concat();
    }
    None
}

/// A leaf of a `use` tree.
#[derive(Debug)]
struct Use {
    path: Vec<String>,
    alias: String,
    is_reexport: bool,
    line: usize,
}

fn uses(file: &SourceFile) -> Vec<Use> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = file.code[from..].find("use ") {
        let start = from + at;
        from = start + 4;
        let before = file.code[..start].lines().next_back().unwrap_or_default();
        let before = if file.code[..start].ends_with('\n') { "" } else { before.trim() };
        if !before.is_empty() && !before.starts_with("pub") {
            continue;
        }
        let Some(end) = file.code[from..].find(';') else { continue };
        let tree: String =
            file.code[from..from + end].split_whitespace().collect::<Vec<_>>().join(" ");
        let line = file.code[..start].matches('\n').count() + 1;
        for (path, alias) in leaves(&tree) {
            let Some(path) = absolute(&path, &file.module) else { continue };
            let alias = alias.unwrap_or_else(|| path.last().cloned().unwrap_or_default());
            found.push(Use { path, alias, is_reexport: before.starts_with("pub"), line });
        }
    }
    found
}

/// The leaves of a `use` tree, each as its segments and its alias.
fn leaves(tree: &str) -> Vec<(Vec<String>, Option<String>)> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, alias) = match tree.split_once(" as ") {
            Some((path, alias)) => (path, Some(alias.trim().to_owned())),
            None => (tree, None),
        };
        let path = path.split("::").map(|part| part.trim().to_owned());
        return vec![(path.filter(|part| part != "*" && part != "self").collect(), alias)];
    };
    let prefix: Vec<String> = tree[..open]
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    let inside = tree[open + 1..].strip_suffix('}').unwrap_or(&tree[open + 1..]);
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in inside.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("one part").push(character);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| leaves(part))
        .map(|(path, alias)| ([prefix.as_slice(), &path].concat(), alias))
        .collect()
}

/// The module path that a path means in a module; `None` for other crates.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate") => return Some(path[1..].to_vec()),
        Some("self") => rest = &path[1..],
        Some("super") => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        // A child module or another crate; the caller finds no file for the latter.
        Some(_) => {}
        None => return None,
    }
    Some([base.as_slice(), rest].concat())
}

/// The paths in the code that begin with `crate`, `super` or `self`.
fn inline_paths(file: &SourceFile) -> Vec<(Vec<String>, usize)> {
    let starts = ["crate", "super", "self"];
    let found = starts.iter().flat_map(|start| {
        paths_from(file, start)
            .into_iter()
            .map(move |(path, line)| ([&[(*start).to_owned()], path.as_slice()].concat(), line))
    });
    found.filter_map(|(path, line)| Some((absolute(&path, &file.module)?, line))).collect()
}

/// What follows `first::` in the code outside `use` items, up to the end of each path.
fn paths_from(file: &SourceFile, first: &str) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let mut is_use = false;
    for (number, line) in file.code.lines().enumerate() {
        let trimmed = line.trim_start();
        let declares = trimmed.trim_start_matches("pub").trim_start_matches("(crate)");
        let declares = declares.trim_start_matches("(super)").trim_start();
        is_use |= declares.starts_with("use ");
        if is_use {
            is_use = !line.contains(';');
            continue;
        }
        let pattern = format!("{first}::");
        let mut from = 0;
        while let Some(at) = line[from..].find(&pattern) {
            let start = from + at;
            from = start + pattern.len();
            let is_whole = !line[..start]
                .ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':'));
            if !is_whole {
                continue;
            }
            let mut path = Vec::new();
            let mut rest = &line[from..];
            loop {
                let length =
                    rest.find(|at: char| !at.is_alphanumeric() && at != '_').unwrap_or(rest.len());
                if length == 0 {
                    break;
                }
                path.push(rest[..length].to_owned());
                match rest[length..].strip_prefix("::") {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            found.push((path, number + 1));
        }
    }
    found
}
