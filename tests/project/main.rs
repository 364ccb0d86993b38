//! Tests of dependencies and documents. Documents are read as their readers use them: links are
//! followed, snippets are checked, and names are looked up in the code.

#![expect(clippy::unwrap_used, reason = "what cannot be read fails the test, as it should")]

mod consoles;
mod dependencies;
mod fences;
mod links;
mod names;
mod shell;
mod snippets;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The output of a program that has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The markdown files in a directory and below it.
pub(crate) fn documents_below(directory: &Path) -> Vec<PathBuf> {
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
