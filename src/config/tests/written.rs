//! Values: units, the environment, secrets, paths.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use super::{ROUTE, request_mode, route_with};
use crate::config::paths::{PathError, Paths};
use crate::config::units::{Size, Time};
use crate::config::{EngineConfig, load, parse};
use crate::idempotency::retention::Keep;

#[test]
fn durations_have_units() {
    for (text, millis) in [
        ("500ms", 500),
        ("2s", 2000),
        ("30m", 1_800_000),
        ("24h", 86_400_000),
        ("7d", 604_800_000),
        ("1h30m", 5_400_000),
    ] {
        let config = route_with(&format!("[route.record]\nretention = \"{text}\"\n"));
        let expected = Keep::For(Duration::from_millis(millis));
        assert_eq!(request_mode(&config).record.retention.answer, expected, "{text}");
    }
    let config = route_with("[route.duplicates]\nwait = \"0s\"\n");
    assert_eq!(request_mode(&config).duplicates.wait, Duration::ZERO);
    let config = route_with("[route.record]\nretention = \"forever\"\n");
    assert_eq!(request_mode(&config).record.retention.answer, Keep::Forever);
}

#[test]
fn sizes_have_units_or_are_bytes() {
    for (text, bytes) in [
        ("\"512B\"", 512),
        ("\"32KiB\"", 32 << 10),
        ("\"1MiB\"", 1 << 20),
        ("\"1GiB\"", 1 << 30),
        ("\"700\"", 700),
        ("65536", 65_536),
    ] {
        let config =
            route_with(&format!("[server.limits]\nbuffered = \"1GiB\"\nmax_body = {text}\n"));
        assert_eq!(config.server.limits.max_body, bytes, "{text}");
    }
}

#[test]
fn units_are_printed_as_they_are_written() {
    for (millis, text) in [(0, "0s"), (1500, "1s500ms"), (604_800_000, "7d"), (5_400_000, "1h30m")]
    {
        assert_eq!(Time(Duration::from_millis(millis)).to_string(), text);
    }
    for (bytes, text) in [(0, "0B"), (1000, "1000B"), (32 << 10, "32KiB"), (3 << 20, "3MiB")] {
        assert_eq!(Size(bytes).to_string(), text);
    }
}

#[test]
fn any_string_takes_its_value_from_the_environment() {
    let config = route_with(
        r#"max_body = "${SIZE:-4MiB}"
           [server]
           listen = ["127.0.0.1:${PORT}", "127.0.0.1:${EMPTY:-9001}"]
           [server.limits]
           connections = "${PORT}"
           [admin]
           token = "${TOKEN}"
           [store.embedded]
           path = "/a/$${PORT}/$b"
           [store]
           create = "${CREATE:-false}"
        "#,
    );
    assert_eq!(config.routes[0].max_body, Some(4 << 20));
    let listen: Vec<String> = config.server.listen.iter().map(ToString::to_string).collect();
    assert!(listen[0].ends_with(":9000") && listen[1].ends_with(":9001"), "{listen:?}");
    assert_eq!(config.server.limits.connections, 9000);
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "s3cret");
    let EngineConfig::Embedded { path, .. } = &config.store.engine else {
        panic!("not a directory")
    };
    assert_eq!(path, &PathBuf::from("/a/${PORT}/$b"));
    assert!(!config.store.create);
}

#[test]
fn files_are_looked_for_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("oncegate.toml");
    std::fs::write(directory.path().join("token"), "s3cret\n").unwrap();
    let more = "[admin]\ntoken_file = \"token\"\nlisten = \"0.0.0.0:9090\"\n[store.embedded]\npath = \"records\"\n";
    std::fs::write(&file, format!("{ROUTE}{more}")).unwrap();
    let config = load(&file).unwrap();
    assert_eq!(config.admin.token.as_ref().unwrap().expose(), "s3cret");
    let EngineConfig::Embedded { path, .. } = &config.store.engine else {
        panic!("not a directory")
    };
    assert_eq!(path, &directory.path().join("records"));
    assert!(
        !format!("{config:?}{}{:#}", config.describe(), config.describe_json()).contains("s3cret")
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let mistakes = load(std::path::Path::new("no/such/oncegate.toml")).unwrap_err().to_string();
    assert!(mistakes.starts_with("no/such/oncegate.toml: cannot read this file: "), "{mistakes}");
}

#[test]
fn a_file_that_is_no_text_comes_with_the_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("oncegate.toml");
    let check = |path: &std::path::Path, what: &str| {
        let mistakes = load(path).unwrap_err().to_string();
        assert!(mistakes.ends_with(what), "{mistakes}");
    };
    check(directory.path(), "; name the file in it");
    std::fs::write(&file, b"# a\n# Gutscheinger\xe4t\n").unwrap();
    check(&file, "line 2 of this file is not UTF-8; save the file as UTF-8");
    std::fs::write(&file, b"\xff\xfe#\0\n\0").unwrap();
    check(&file, "this file is UTF-16; save it as UTF-8");
}

#[test]
fn a_file_of_another_editor_is_read() {
    for text in [
        format!("\u{feff}{ROUTE}"),
        ROUTE.replace('\n', "\r\n"),
        ROUTE.replace("name = ", "\tname\t=\t"),
    ] {
        assert!(parse(&text, "t.toml", &|_| None).is_ok(), "{text:?}");
    }
}

#[test]
fn a_variable_without_braces_is_warned_of() {
    let text = format!("{ROUTE}[admin]\ntoken = \"$ADMIN_TOKEN\"\n");
    let config = parse(&text, "t.toml", &|_| None).unwrap();
    let warned = config.warnings.iter().any(|warning| {
        warning.what.starts_with("`admin.token` begins with `$`") && !warning.what.contains("ADMIN")
    });
    assert!(warned, "{:?}", config.warnings);
}

#[test]
fn the_most_specific_path_decides() {
    let mut paths = Paths::default();
    paths.add("/{*rest}", &[Method::GET], 0).unwrap();
    paths.add("/v1/{id}", &[Method::GET], 1).unwrap();
    paths.add("/v1/{id}", &[Method::POST], 2).unwrap();
    let routes = |paths: &Paths, path: &str| -> Option<Vec<usize>> {
        paths.find(path).map(|found| found.iter().map(|(_, route)| *route).collect())
    };
    assert_eq!(routes(&paths, "/v1/5"), Some(vec![1, 2]));
    assert_eq!(routes(&paths, "/v1/5/x"), Some(vec![0]));
    assert_eq!(routes(&paths, "/"), Some(vec![0]));
    paths.add("/", &[Method::GET], 3).unwrap();
    assert_eq!(routes(&paths, "/"), Some(vec![3]));
    assert_eq!(paths.add("/v1/{id}", &[Method::POST], 4), Err(PathError::Taken(Method::POST, 2)));
    assert!(matches!(paths.add("/v1/{name}", &[], 4), Err(PathError::Ambiguous(_))));
}

#[test]
fn nothing_is_served_where_no_path_matches() {
    let mut paths = Paths::default();
    paths.add("/v1/{*rest}", &[Method::GET], 0).unwrap();
    assert_eq!(paths.find("/"), None);
    assert_eq!(paths.find("/v2"), None);
}
