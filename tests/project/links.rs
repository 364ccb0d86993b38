//! Links of the documents: each leads to a file and a heading that are there, and every document is
//! a page of the book.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{documents_below, read};

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
