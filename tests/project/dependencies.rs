//! Dependencies: licenses, crates in several versions, and a reason for each direct one, after
//! `deny.toml` and `docs/dependencies.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{read, run};

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
