//! Reading a configuration: from a file, from text, or without any.
//!
//! Nothing is opened but the configuration file and the files named by `*_file` keys.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Method;

use super::catalog::KnownKey;
use super::diagnostics::{Mistakes, Warning};
use super::document::{TomlNode, TomlValue};
use super::files::ConfigFiles;
use super::model::{Config, EngineConfig, Mode, RouteConfig, StoreConfig};
use super::profiles::Profile;
use super::table::{Reading, TableReader};
use super::units::Size;
use super::warnings::{renewed_credentials, warn_of_renewed_credentials};
use super::{backend_url, document, log, paths, routes, server, stores, tenant, traces, upstreams};

/// Largest answer kept on a server, in bytes.
const LARGEST_SHARED: u64 = 16 << 20;

/// Reads and checks the file at `path`, with the environment of this process.
///
/// # Errors
/// When the file cannot be read, or with the mistakes in the file.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    load_with_files(path).0
}

/// Checks the file at `path` as [`load`] does, without the files of secrets that it names: for a
/// machine that has none of them. The result is not for running a gateway.
///
/// # Errors
/// When the file cannot be read, or with the mistakes in the file.
pub fn load_without_files(path: &Path) -> Result<Config, Mistakes> {
    load_file(path, false).0
}

/// [`load`], with the file and the files that it names, also those of a configuration with
/// mistakes.
pub fn load_with_files(path: &Path) -> (Result<Config, Mistakes>, ConfigFiles) {
    load_file(path, true)
}

fn load_file(path: &Path, reads_files: bool) -> (Result<Config, Mistakes>, ConfigFiles) {
    let name = path.display().to_string();
    // A running gateway and `check --against` compare paths, from different working directories.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("")).to_owned();
    let mut files = ConfigFiles::default();
    files.add(&absolute);
    let text = match read_text(path) {
        Ok(text) => text,
        Err(what) => return (Err(Mistakes::one(&name, what)), files),
    };
    let env = |variable: &str| std::env::var(variable).ok();
    let (mut config, named) = read(&text, (&name, base), &env, reads_files);
    files.add_all(&named);
    if let Ok(config) = &mut config {
        config.files = files.clone();
    }
    (config, files)
}

/// The text of a configuration, or the reason why there is none and the remedy.
fn read_text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::IsADirectory => "; name the file in it",
            ErrorKind::PermissionDenied => "; let the user of this process read it",
            _ => "",
        };
        format!("cannot read this file: {error}{remedy}")
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let line = 1 + bytes.iter().take(valid).filter(|byte| **byte == b'\n').count();
        match is_utf16 {
            true => "this file is UTF-16; save it as UTF-8".to_owned(),
            false => format!("line {line} of this file is not UTF-8; save the file as UTF-8"),
        }
    })
}

/// Checks the configuration `text`. Mistakes are reported under `source_name`, and relative paths
/// start at its directory; `env` gives the value of an environment variable.
///
/// # Errors
/// With the mistakes in the text.
pub fn parse(
    text: &str,
    source_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Mistakes> {
    let base = Path::new(source_name).parent().unwrap_or(Path::new("")).to_owned();
    read(text, (source_name, base), env, true).0
}

/// [`parse`], with the files that the text names; relative paths start at the given directory.
fn read(
    text: &str,
    (source_name, base): (&str, PathBuf),
    env: &dyn Fn(&str) -> Option<String>,
    files: bool,
) -> (Result<Config, Mistakes>, ConfigFiles) {
    let mut reading = Reading::new(base, known_keys);
    reading.files = files;
    let members = document::parse(text, env, &reading.diagnostics);
    // A text other than TOML is not checked for missing keys.
    let config = members.map(|members| reading.root(&members, config));
    let files = reading.named.into_inner();
    let config = match (reading.diagnostics.finish(source_name, text), config) {
        (Ok(warnings), Some(config)) => Ok(Config { warnings, ..config }),
        (Err(mistakes), _) => Err(mistakes),
        (Ok(_), None) => Err(Mistakes::one(source_name, "this is not TOML")),
    };
    (config, files)
}

/// Every key of every table.
pub(super) fn known_keys() -> Vec<KnownKey> {
    // Each mode reads tables of its own.
    let skeleton = "[[route]]\nmode = \"request\"\n[[route]]\nmode = \"items\"";
    let reading = Reading::new(PathBuf::new(), Vec::new);
    let members = document::parse(skeleton, &|_| None, &reading.diagnostics).unwrap_or_default();
    Reading::catalog(&members, |root| {
        config(root);
    })
}

/// The configuration of a gateway without a file, in front of the backend at `upstream_url`: every
/// unsafe method needs a key, safe ones pass. `listen` is the default's when left out.
///
/// # Errors
/// When the URL is not one of a backend.
pub fn without_file(
    upstream_url: &str,
    listen: Option<SocketAddr>,
    store: PathBuf,
) -> Result<Config, Mistakes> {
    let url = backend_url::parse_url(upstream_url)
        .map_err(|what| Mistakes::one("--upstream", format!("the URL {what}")))?;
    let mut config = Reading::new(PathBuf::new(), known_keys).root(&[], general);
    config.server.listen = listen.map_or(config.server.listen, |address| vec![address.into()]);
    config.store = StoreConfig::in_directory(store);
    config.upstreams = vec![upstreams::at("backend", url)];
    let route = |name: &str, methods: &[Method], mode| RouteConfig {
        name: name.into(),
        methods: methods.to_vec(),
        path: paths::EVERYTHING.to_owned(),
        when: Vec::new(),
        upstream: 0,
        max_body: None,
        replaced_errors: Vec::new(),
        tenant: None,
        mode,
    };
    let keyed = Profile::default().request_mode(config.store.retention);
    config.routes = vec![
        route(
            "unsafe",
            &[Method::POST, Method::PUT, Method::PATCH, Method::DELETE],
            Mode::Request(Box::new(keyed)),
        ),
        route("safe", &[Method::GET, Method::HEAD, Method::OPTIONS], Mode::Off),
    ];
    let source = || String::from("oncegate run --upstream");
    let warnings = renewed_credentials(&config).into_iter();
    config.warnings = warnings.map(|what| Warning { source: source(), line: None, what }).collect();
    Ok(config)
}

/// The root table.
fn config(root: &TableReader<'_>) -> Config {
    let mut config = general(root);
    config.upstreams = upstreams::upstreams(root);
    tenant::check_upstream(root, root.place("tenant"), &config.tenant, &config.upstreams);
    let client_ca = config.server.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    if config.tenant.certificate.is_some() && client_ca.is_none() {
        let what = "`certificate` names callers by verified client certificates; set `client_ca` \
                    in [server] `tls`, by which they are verified";
        root.wrong_elsewhere(root.place("tenant"), what);
    }
    config.routes = routes::routes(root, &config);
    for (key, what) in [
        ("upstream", "there is no [[upstream]]; name at least one backend"),
        ("route", "there is no [[route]]; without one nothing is served"),
    ] {
        match root.node(key) {
            None => root.missing(&[key], what),
            Some(TomlNode { at, value: TomlValue::List(elements) }) if elements.is_empty() => {
                root.fail(key, *at, what);
            }
            Some(_) => {}
        }
    }
    answers_fit_the_store(root, &config);
    warn_of_renewed_credentials(root, &config);
    config
}

/// Everything but upstreams and routes.
fn general(root: &TableReader<'_>) -> Config {
    let (server, listen_at) =
        root.table("server", |table| (server::server(table), table.place("listen")));
    let admin = root.table("admin", |table| server::admin(table, &server, listen_at));
    Config {
        server,
        log: root.table("log", log::log),
        traces: root.table("traces", traces::traces),
        admin,
        store: root.table("store", stores::store),
        tenant: root.table("tenant", tenant::tenant),
        upstreams: Vec::new(),
        routes: Vec::new(),
        files: ConfigFiles::default(),
        warnings: Vec::new(),
    }
}

/// Notes answers too large for a server: a record is written in a single statement.
fn answers_fit_the_store(root: &TableReader<'_>, config: &Config) {
    if let EngineConfig::Embedded { .. } = config.store.engine {
        return;
    }
    for route in &config.routes {
        let most = match &route.mode {
            Mode::Request(mode) => mode.record.max_stored_body,
            Mode::Items(_) | Mode::Off => continue,
        };
        if most > LARGEST_SHARED {
            let what = format!(
                "route `{}` has `max_stored_body` = {}; on a store that several replicas share \
                 it is at most {}",
                route.name,
                Size(most),
                Size(LARGEST_SHARED)
            );
            root.wrong_elsewhere(None, what);
        }
    }
}
