//! Fenced blocks of the documents, with their marks.
//!
//! An HTML comment directly above a block marks it: `<!-- tested by it::chapter -->` names the test
//! that has this block as its input, `<!-- not tested: reason -->` a block that no test can run,
//! and `<!-- after the block above -->` a part of a file whose beginning is the block before.

use std::path::Path;

use crate::documents_below;

/// The meaning of the comment above a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing: the block's language decides how it is tested.
    None,
    /// The block belongs behind the one before.
    After,
    /// A test of its own, such as `it::tutorial`.
    TestedBy(String),
    /// The reason why there is no test.
    NotTested(String),
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Fence {
    /// Document and line, `docs/deploy.md:14` for example.
    pub(crate) place: String,
    pub(crate) language: String,
    pub(crate) mark: Mark,
    /// The lines, without the indentation of the fence.
    pub(crate) text: String,
}

/// A document: its name from the root of the repository, and its text.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Every document that a reader of the repository finds.
pub(crate) fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    for directory in ["docs", "deploy", "examples", "fuzz/README.md", "bench", ".github"] {
        let path = root.join(directory);
        match path.is_dir() {
            true => paths.extend(documents_below(&path)),
            false => paths.push(path),
        }
    }
    paths.sort();
    let read = |path: &std::path::PathBuf| Document {
        name: path.strip_prefix(root).unwrap().display().to_string(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    let documents: Vec<_> = paths.iter().map(read).collect();
    assert!(documents.len() > 30, "only {} documents seen", documents.len());
    documents
}

/// The mark that a line is.
fn mark(line: &str) -> Mark {
    let Some(comment) = line.trim().strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->"))
    else {
        return Mark::None;
    };
    let comment = comment.trim();
    if let Some(test) = comment.strip_prefix("tested by ") {
        return Mark::TestedBy(test.to_owned());
    }
    if let Some(reason) = comment.strip_prefix("not tested: ") {
        return Mark::NotTested(reason.to_owned());
    }
    if comment == "after the block above" { Mark::After } else { Mark::None }
}

/// The fenced blocks of a document.
pub(crate) fn fences(document: &Document) -> Vec<Fence> {
    let (mut found, mut above) = (Vec::new(), Mark::None);
    let mut lines = document.text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            above = mark(line);
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let place = format!("{}:{}", document.name, number + 1);
        let mut text = String::new();
        loop {
            let (_, inside) = lines.next().unwrap_or_else(|| panic!("{place} has no end"));
            if inside.trim() == "```" {
                break;
            }
            let outside = inside.len() - inside.trim_start().len();
            text.push_str(&inside[indent.min(outside)..]);
            text.push('\n');
        }
        let mark = std::mem::replace(&mut above, Mark::None);
        found.push(Fence { place, language: language.trim().to_owned(), mark, text });
    }
    found
}

/// A document without its fenced blocks.
pub(crate) fn prose(document: &Document) -> String {
    let mut inside = false;
    let outside = document.text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}
