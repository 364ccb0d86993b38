//! From what was written to what it means; every mistake is reported at once.
//!
//! The tables of the whole gateway are read here, upstreams in `upstreams`, routes in `routes` and
//! `request`, single values in `reader`.
//! Nothing is opened but the configuration file and the files named by `*_file` keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, Method};

use super::diagnostics::{Mistake, Mistakes, place};
use super::file;
use super::profiles::Profile;
use super::units::{Secret, Size, Time};
use super::values::{LARGEST_BODY, LONGEST_WAIT, Reader, SHORTEST, elements, span_of, usize_of};
use super::{
    AdminConfig, Config, EngineConfig, LimitsConfig, Mode, RouteConfig, ServerConfig, StoreConfig,
    TenantConfig, defaults, document,
};
use super::{paths, upstreams};

/// Threads that serve requests.
const MOST_WORKERS: u64 = 1024;
/// Bytes of the largest answer that is kept on a server.
const LARGEST_SHARED: u64 = 16 << 20;

/// Reads and checks the file at `path`, with the environment of this process.
///
/// # Errors
/// When the file cannot be read, or for everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Mistakes::one(&name, format!("cannot read this file: {error}")))?;
    parse(&text, &name, &|variable| std::env::var(variable).ok())
}

/// Checks the configuration `text`. Mistakes are reported under `source_name`, and relative paths
/// start at its directory; `env` gives the value of an environment variable.
///
/// # Errors
/// For everything that is wrong with it.
pub fn parse(
    text: &str,
    source_name: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Mistakes> {
    let tree = document::read(text, env);
    let base = Path::new(source_name).parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { base, removed: tree.removed, mistakes: Vec::new() };
    let mut mistakes: Vec<(Option<usize>, String)> =
        tree.mistakes.into_iter().map(|(at, what)| (Some(at), what)).collect();
    // A text that is not TOML says nothing; there is no point in asking for what is missing.
    let unreadable = mistakes.iter().any(|(_, what)| what.starts_with("this is not TOML"));
    let config = (!unreadable).then(|| reader.config(&tree.file));
    mistakes.append(&mut reader.mistakes);
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        Some(_) | None => {
            let mut list: Vec<Mistake> = mistakes
                .into_iter()
                .map(|(at, what)| Mistake { at: at.map(|at| place(text, at)), what })
                .collect();
            list.sort();
            list.dedup();
            Err(Mistakes { source: source_name.to_owned(), list })
        }
    }
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
    let url = upstreams::parse_url(upstream_url)
        .map_err(|what| Mistakes::one("--upstream", format!("the URL {what}")))?;
    let mut reader = Reader { base: PathBuf::new(), removed: Vec::new(), mistakes: Vec::new() };
    let mut config = reader.general(&file::File::default());
    config.server.listen = listen.map_or(config.server.listen, |address| vec![address]);
    config.store = StoreConfig::in_directory(store);
    config.upstreams = vec![upstreams::at("backend", url)];
    let route = |name: &str, methods: &[Method], mode| RouteConfig {
        name: name.into(),
        methods: methods.to_vec(),
        path: paths::EVERYTHING.to_owned(),
        upstream: 0,
        max_body: None,
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
    Ok(config)
}

impl Reader {
    fn config(&mut self, file: &file::File) -> Config {
        let mut config = self.general(file);
        let known = |name: &str| self.removed.iter().any(|(at, key)| *at == 0 && key == name);
        let (no_upstream, no_route) = (
            file.upstream.is_empty() && !known("upstream"),
            file.route.is_empty() && !known("route"),
        );
        if no_upstream {
            let what = "there is no [[upstream]]; name at least one backend";
            self.mistakes.push((None, what.to_owned()));
        }
        if no_route {
            let what = "there is no [[route]]; without one nothing is served";
            self.mistakes.push((None, what.to_owned()));
        }
        config.upstreams = self.upstreams(&file.upstream);
        config.routes = self.routes(file, &config);
        self.answers_fit_the_store(&config);
        config
    }

    /// A server takes a record in one statement, within the time of one.
    fn answers_fit_the_store(&mut self, config: &Config) {
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
                    "route `{}` has `max_stored_body` = {}; on a store that several replicas \
                     share it is at most {}",
                    route.name,
                    Size(most),
                    Size(LARGEST_SHARED)
                );
                self.mistakes.push((None, what));
            }
        }
    }

    /// Everything but upstreams and routes.
    fn general(&mut self, file: &file::File) -> Config {
        let server = self.server(&file.server);
        let admin = self.admin(&file.admin, &server, &file.server);
        Config {
            server,
            admin,
            store: self.store(&file.store),
            tenant: self.tenant(&file.tenant),
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }

    fn server(&mut self, server: &file::Server) -> ServerConfig {
        self.unsupported("server.tls", &server.tls);
        let mut listen: Vec<SocketAddr> = Vec::new();
        for written in elements(&server.listen) {
            let Some(address) = self.address("listen", written) else { continue };
            if listen.iter().any(|other| overlap(*other, address)) {
                self.say(written, format!("`listen` names {address} twice"));
            }
            listen.push(address);
        }
        match &server.listen {
            None => listen.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))),
            Some(list) if list.get_ref().is_empty() && !self.was_removed("listen") => {
                self.say(list, "`listen` is empty; name at least one address");
            }
            Some(_) => {}
        }
        let drain =
            self.time("drain", &server.drain, defaults::DRAIN, Time(Duration::ZERO)..=LONGEST_WAIT);
        let workers = self.count("workers", &server.workers, defaults::workers(), 1..=MOST_WORKERS);
        ServerConfig { listen, drain, workers, limits: self.limits(&server.limits) }
    }

    fn limits(&mut self, written: &file::Limits) -> LimitsConfig {
        let waits = SHORTEST..=LONGEST_WAIT;
        let counts = 1..=10_000_000;
        let limits = LimitsConfig {
            connections: self.count(
                "connections",
                &written.connections,
                defaults::CONNECTIONS,
                counts.clone(),
            ),
            header_timeout: self.time(
                "header_timeout",
                &written.header_timeout,
                defaults::HEADER_TIMEOUT,
                waits.clone(),
            ),
            body_timeout: self.time(
                "body_timeout",
                &written.body_timeout,
                defaults::BODY_TIMEOUT,
                waits,
            ),
            max_head: usize_of(
                self.bounded(
                    "max_head",
                    &written.max_head,
                    Size(defaults::MAX_HEAD as u64),
                    // Below 8 KiB ordinary requests fail, and the HTTP parser takes no less.
                    Size(8 << 10)..=Size(1 << 20),
                )
                .0,
            ),
            max_body: self
                .bounded(
                    "max_body",
                    &written.max_body,
                    Size(defaults::MAX_BODY),
                    Size(1)..=LARGEST_BODY,
                )
                .0,
            buffered: self
                .bounded(
                    "buffered",
                    &written.buffered,
                    Size(defaults::BUFFERED),
                    Size(1)..=Size(1 << 40),
                )
                .0,
            in_flight: self.count(
                "in_flight",
                &written.in_flight,
                defaults::IN_FLIGHT,
                counts.clone(),
            ),
            in_flight_per_tenant: written.in_flight_per_tenant.as_ref().map(|_| {
                self.count("in_flight_per_tenant", &written.in_flight_per_tenant, 1, counts)
            }),
        };
        self.limits_agree(written, &limits);
        limits
    }

    fn limits_agree(&mut self, written: &file::Limits, limits: &LimitsConfig) {
        if limits.max_body > limits.buffered {
            let span = span_of(&written.buffered).or(span_of(&written.max_body));
            self.say_at(
                span,
                format!(
                    "`buffered` ({}) is less than `max_body` ({}), so that no body of that size \
                     could ever be taken",
                    Size(limits.buffered),
                    Size(limits.max_body)
                ),
            );
        }
        if let Some(own) = &written.in_flight_per_tenant
            && limits.in_flight_per_tenant.is_some_and(|own| own > limits.in_flight)
        {
            self.say(
                own,
                format!("`in_flight_per_tenant` is more than `in_flight` ({})", limits.in_flight),
            );
        }
    }

    fn admin(
        &mut self,
        admin: &file::Admin,
        server: &ServerConfig,
        written: &file::Server,
    ) -> AdminConfig {
        let listen = admin.listen.as_ref().and_then(|listen| self.address("listen", listen));
        let listen = listen.unwrap_or_else(default_admin);
        if let (Some(token), Some(_)) = (&admin.token, &admin.token_file) {
            self.say(token, "`token` and `token_file` are both given; keep one of them");
        }
        let token = match (&admin.token, &admin.token_file) {
            (Some(token), _) => Some((token.get_ref().clone(), token.span())),
            (None, Some(name)) => {
                let path = self.path(name);
                match std::fs::read_to_string(&path) {
                    Ok(text) => Some((Secret::new(text.trim().to_owned()), name.span())),
                    Err(error) => {
                        let what = format!("`token_file`: cannot read {}: {error}", path.display());
                        self.say(name, what);
                        return AdminConfig { listen, token: None };
                    }
                }
            }
            (None, None) => None,
        };
        if let Some((token, span)) = &token
            && (token.expose().is_empty()
                || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let what = "the token must be one word of visible ASCII characters";
            self.say_at(Some(span.clone()), what);
        }
        let unguarded =
            token.is_none() && !self.was_removed("token") && !self.was_removed("token_file");
        if unguarded && !listen.ip().is_loopback() {
            self.say_at(
                span_of(&admin.listen),
                format!(
                    "the admin listener is on {listen}, which is not a loopback address; set \
                     `token_file`, or listen on 127.0.0.1"
                ),
            );
        }
        if server.listen.iter().any(|public| overlap(*public, listen)) {
            self.say_at(
                span_of(&admin.listen).or(span_of(&written.listen)),
                format!("the admin listener on {listen} takes an address of [server] `listen`"),
            );
        }
        AdminConfig { listen, token: token.map(|(token, _)| token) }
    }

    fn tenant(&mut self, tenant: &file::Tenant) -> TenantConfig {
        self.unsupported("tenant.directory", &tenant.directory);
        self.unsupported("tenant.unknown", &tenant.unknown);
        let headers = match &tenant.headers {
            None => defaults::TENANT_HEADERS.map(HeaderName::from_static).to_vec(),
            Some(_) => self.headers("headers", &tenant.headers),
        };
        TenantConfig { headers }
    }
}

fn default_admin() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 9090))
}

/// Whether both addresses cannot be listened on at once. Port 0 is always another free port.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same = |one: IpAddr, other: IpAddr| {
        one == other
            || (one.is_ipv4() == other.is_ipv4()
                && (one.is_unspecified() || other.is_unspecified()))
    };
    one.port() != 0 && one.port() == other.port() && same(one.ip(), other.ip())
}
