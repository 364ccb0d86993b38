//! The files under `config/`.

use std::path::Path;

use super::{Mode, read, request_mode, route_with};
use crate::config::catalog::KnownKey;
use crate::config::load::known_keys;
use crate::config::parse;
use crate::place::Place;

fn examples() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_is_a_configuration() {
    let files = examples();
    assert!(files.len() >= 4, "only {} examples were seen", files.len());
    for (name, text) in files {
        let config = parse(&text, &name, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(!config.routes.is_empty(), "{name}");
        assert!(config.describe().contains(&config.routes[0].path), "{name}");
    }
}

#[test]
fn the_full_example_shows_the_defaults() {
    let full = include_str!("../../../config/full.toml");
    let short = r#"
        [[upstream]]
        name = "vouchers"
        url = "http://127.0.0.1:9000"
        [[route]]
        name = "redeem"
        methods = ["POST"]
        path = "/v1/vouchers/redeem"
        upstream = "vouchers"
    "#;
    let (full, short) = (read(full).unwrap(), read(short).unwrap());
    let sorted = |config: &crate::config::Config| {
        let mut described = config.describe_json();
        for list in ["final", "retry", "unknown"] {
            let list = described["routes"][0]["outcome"][list].as_array_mut().unwrap();
            list.sort_by_key(ToString::to_string);
        }
        described
    };
    assert_eq!(sorted(&full), sorted(&short));
}

#[test]
fn the_full_example_and_the_reference_name_every_key() {
    let full = include_str!("../../../config/full.toml");
    let reference = include_str!("../../../docs/configuration.md");
    let mut seen = 0;
    for KnownKey { table, key, .. } in known_keys() {
        // Items have an example and a reference of their own.
        if table.contains("[route.items") || key == "items" {
            continue;
        }
        seen += 1;
        let written = [format!("{key} ="), format!("[{key}]"), format!(".{key}]")];
        assert!(written.iter().any(|text| full.contains(text)), "full.toml lacks {table} {key}");
        let described = [format!("`{key}`"), format!("[{key}]"), format!(".{key}]")];
        let described = described.iter().any(|text| reference.contains(text));
        assert!(described, "configuration.md lacks {table} {key}");
    }
    assert!(seen > 60, "only {seen} keys were seen");
}

#[test]
fn the_voucher_example_keeps_redemptions_and_passes_the_rest() {
    let config = read(include_str!("../../../config/redeemsg.toml")).unwrap();
    let redeem = request_mode(&config);
    assert_eq!(redeem.record.subject, [Place::parse("/qr").unwrap()]);
    assert!(matches!(config.routes[1].mode, Mode::Off));
}

#[test]
fn a_description_shows_each_route_on_a_line() {
    let config = route_with("[route.key]\nrequired = false\n");
    let described = config.describe();
    let lines: Vec<&str> = described.lines().collect();
    assert_eq!(
        lines,
        [
            "listen    0.0.0.0:8080",
            "admin     127.0.0.1:9090 (no token)",
            "store     embedded, /var/lib/oncegate",
            "callers   authorization, x-api-key",
            "upstream  api at http://127.0.0.1:9000/ (connect 2s, timeout 1m, keep-alive 4s)",
            "",
            "ROUTE   METHODS  PATH        MODE     UPSTREAM  KEY                         WAIT  ANSWER  KEPT  THEN",
            "create  POST     /v1/orders  request  api       idempotency-key (optional)  5s    -       7d    refused 30d",
        ]
    );
}
