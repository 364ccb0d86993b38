//! From what was written to what it means; every mistake is reported at once.
//!
//! The tables of the whole gateway are read here, upstreams in `upstreams`, routes in `routes`.
//! Nothing is opened but the configuration file and the files named by `*_file` keys.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, Method};
use toml::Spanned;

use super::file::{self, List, Unsupported, Written};
use super::mistakes::{Mistake, Mistakes, alternatives, nearest, place};
use super::profiles::Profile;
use super::units::{Count, Period, Secret, Size, Time};
use super::{Admin, Config, Engine, Limits, Mode, Route, Server, Store, Tenant, defaults, tree};
use super::{paths, upstreams};
use crate::idempotency::record::{Keep, Retention};
use crate::json::Pointer;

/// The longest a timeout or wait may be; beyond a day it is no limit any more.
pub(super) const LONGEST_WAIT: Time = Time(Duration::from_secs(86_400));
/// Bodies beyond this cannot be buffered.
pub(super) const LARGEST_BODY: Size = Size(1 << 30);
const SHORTEST: Time = Time(Duration::from_millis(1));

/// Headers that frame a message or name its hop; none of them can mean anything to the gateway.
const RESERVED_HEADERS: [&str; 14] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-error",
    "idempotency-expires",
    "idempotency-status",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

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
    let tree = tree::read(text, env);
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
    let Engine::Embedded { path, .. } = &mut config.store.engine;
    *path = store;
    config.upstreams = vec![upstreams::at("backend", url)];
    let route = |name: &str, methods: &[Method], mode| Route {
        name: name.to_owned(),
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

/// Collects the mistakes of one file while it is read.
pub(super) struct Reader {
    /// Where relative paths start.
    pub(super) base: PathBuf,
    /// See [`tree::Tree::removed`].
    removed: Vec<(usize, String)>,
    mistakes: Vec<(Option<usize>, String)>,
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
        config
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

    fn server(&mut self, server: &file::Server) -> Server {
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
        Server { listen, drain, limits: self.limits(&server.limits) }
    }

    fn limits(&mut self, written: &file::Limits) -> Limits {
        let waits = SHORTEST..=LONGEST_WAIT;
        let counts = 1..=10_000_000;
        let limits = Limits {
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
        if limits.max_body > limits.buffered {
            let span = span_of(&written.buffered).or(span_of(&written.max_body));
            self.say_at(
                span,
                format!(
                    "`buffered` ({}) is less than `max_body` ({}), so that no body of that size could ever be taken",
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
        limits
    }

    fn admin(&mut self, admin: &file::Admin, server: &Server, written: &file::Server) -> Admin {
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
                        return Admin { listen, token: None };
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
                    "the admin listener is on {listen}, which is not a loopback address; set `token_file`, or listen on 127.0.0.1"
                ),
            );
        }
        if server.listen.iter().any(|public| overlap(*public, listen)) {
            self.say_at(
                span_of(&admin.listen).or(span_of(&written.listen)),
                format!("the admin listener on {listen} takes an address of [server] `listen`"),
            );
        }
        Admin { listen, token: token.map(|(token, _)| token) }
    }

    fn store(&mut self, store: &file::Store) -> Store {
        self.unsupported("store.encryption", &store.encryption);
        self.unsupported("store.postgres", &store.postgres);
        self.unsupported("store.redis", &store.redis);
        let expect_id = store.expect_id.as_ref().and_then(|written| {
            let id = uuid::Uuid::parse_str(written.get_ref()).ok();
            if id.is_none() {
                let what = "`expect_id` is not a UUID; `oncegate store info` prints the store's";
                self.say(written, what);
            }
            id
        });
        let empty = file::Table::default();
        let embedded = store.embedded.as_ref().map_or(&empty, Spanned::get_ref);
        let path = match &embedded.path {
            Some(path) if path.get_ref().is_empty() => {
                self.say(path, "`path` is empty; name a directory");
                PathBuf::new()
            }
            Some(path) => self.path(path),
            None => PathBuf::from(defaults::STORE_PATH),
        };
        let cache = self.bounded(
            "cache",
            &embedded.cache,
            Size(defaults::CACHE),
            Size(64 << 10)..=Size(1 << 40),
        );
        Store {
            retention: self.retention(
                &store.retention,
                &store.tombstone,
                Retention { answer: defaults::RETENTION, tombstone: defaults::TOMBSTONE },
            ),
            create: store.create.as_ref().is_none_or(|create| create.get_ref().0),
            expect_id,
            engine: Engine::Embedded { path, cache: cache.0 },
        }
    }

    fn tenant(&mut self, tenant: &file::Tenant) -> Tenant {
        self.unsupported("tenant.directory", &tenant.directory);
        self.unsupported("tenant.unknown", &tenant.unknown);
        let headers = match &tenant.headers {
            None => defaults::TENANT_HEADERS.map(HeaderName::from_static).to_vec(),
            Some(_) => self.headers("headers", &tenant.headers),
        };
        Tenant { headers }
    }

    // What upstreams and routes are read with.

    /// Notes a mistake at a value.
    pub(super) fn say<T>(&mut self, at: &Spanned<T>, what: impl Into<String>) {
        self.say_at(Some(at.span()), what);
    }

    pub(super) fn say_at(&mut self, at: Option<Range<usize>>, what: impl Into<String>) {
        self.mistakes.push((at.map(|span| span.start), what.into()));
    }

    /// Notes that `key` is missing in `table`, unless it was there and could not be read.
    pub(super) fn missing<T>(&mut self, table: &Spanned<T>, key: &str, what: &str) {
        let start = table.span().start;
        if !self.removed.iter().any(|(at, removed)| *at == start && removed == key) {
            self.say(table, what);
        }
    }

    /// Whether some value of this name could not be read.
    pub(super) fn was_removed(&self, key: &str) -> bool {
        self.removed.iter().any(|(_, removed)| removed == key)
    }

    pub(super) fn unsupported(&mut self, name: &str, written: &Written<Unsupported>) {
        if let Some(written) = written {
            self.say(written, format!("`{name}` is not supported by this version; remove it"));
        }
    }

    /// The value, or the default; a value outside `range` is a mistake.
    pub(super) fn bounded<T: Copy + PartialOrd + Display>(
        &mut self,
        key: &str,
        written: &Written<T>,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let Some(written) = written else { return default };
        let value = *written.get_ref();
        if !range.contains(&value) {
            let (least, most) = range.into_inner();
            self.say(written, format!("`{key}` is {value}, but must be {least} to {most}"));
        }
        value
    }

    pub(super) fn time(
        &mut self,
        key: &str,
        written: &Written<Time>,
        default: Duration,
        range: RangeInclusive<Time>,
    ) -> Duration {
        self.bounded(key, written, Time(default), range).0
    }

    /// A timeout: more than nothing, and at most a day.
    pub(super) fn timeout(
        &mut self,
        key: &str,
        written: &Written<Time>,
        default: Duration,
    ) -> Duration {
        self.time(key, written, default, SHORTEST..=LONGEST_WAIT)
    }

    pub(super) fn count(
        &mut self,
        key: &str,
        written: &Written<Count>,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        let (least, most) = range.into_inner();
        let value = self.bounded(key, written, Count(default as u64), Count(least)..=Count(most)).0;
        usize_of(value)
    }

    pub(super) fn retention(
        &mut self,
        answer: &Written<Period>,
        tombstone: &Written<Period>,
        default: Retention,
    ) -> Retention {
        if let Some(written) = answer
            && written.get_ref().0 == Keep::For(Duration::ZERO)
        {
            self.say(written, "`retention` is 0s, so that no answer could ever be replayed");
        }
        let value = |written: &Written<Period>, default| {
            written.as_ref().map_or(default, |written| written.get_ref().0)
        };
        Retention {
            answer: value(answer, default.answer),
            tombstone: value(tombstone, default.tombstone),
        }
    }

    /// One of `choices`; `None` there means a name this version does not support.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        written: &Written<String>,
        default: T,
        choices: &[(&str, Option<T>)],
    ) -> T {
        let Some(written) = written else { return default };
        let text = written.get_ref().as_str();
        let quoted = |name: &str| format!("\"{name}\"");
        let possible = || {
            let supported = choices.iter().filter(|(_, value)| value.is_some());
            alternatives(supported.map(|(name, _)| *name), quoted)
        };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, Some(value))) => return *value,
            Some((_, None)) => self.say(
                written,
                format!(
                    "`{key} = \"{text}\"` is not supported by this version; use {}",
                    possible()
                ),
            ),
            None => {
                let advice = match nearest(text, choices.iter().map(|(name, _)| *name)) {
                    Some(meant) => format!("did you mean \"{meant}\"?"),
                    None => format!("use {}", possible()),
                };
                self.say(written, format!("`{key}` cannot be \"{text}\"; {advice}"));
            }
        }
        default
    }

    pub(super) fn header(&mut self, key: &str, written: &Spanned<String>) -> Option<HeaderName> {
        let text = written.get_ref();
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if RESERVED_HEADERS.contains(&name.as_str()) => {
                self.say(
                    written,
                    format!(
                        "`{key}` cannot be {text}, which belongs to HTTP or to the gateway itself"
                    ),
                );
                None
            }
            Ok(name) => Some(name),
            Err(_) => {
                self.say(written, format!("`{key}`: \"{text}\" is not the name of a header"));
                None
            }
        }
    }

    pub(super) fn headers(&mut self, key: &str, written: &List<String>) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for written in elements(written) {
            let Some(name) = self.header(key, written) else { continue };
            if names.contains(&name) {
                self.say(written, format!("`{key}` names {name} twice"));
            }
            names.push(name);
        }
        names
    }

    pub(super) fn pointer(&mut self, key: &str, written: &Spanned<String>) -> Option<Pointer> {
        match Pointer::parse(written.get_ref()) {
            Ok(pointer) => Some(pointer),
            Err(error) => {
                self.say(written, format!("`{key}`: \"{}\": {error}", written.get_ref()));
                None
            }
        }
    }

    /// A path of the file system; a relative one starts at the configuration's directory.
    pub(super) fn path(&self, written: &Spanned<String>) -> PathBuf {
        self.base.join(written.get_ref())
    }

    fn address(&mut self, key: &str, written: &Spanned<String>) -> Option<SocketAddr> {
        let text = written.get_ref();
        let address = text.parse().ok();
        if address.is_none() {
            self.say(
                written,
                format!(
                    "`{key}`: \"{text}\" is not an IP address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\""
                ),
            );
        }
        address
    }
}

/// The elements of a list, none when it was not written.
pub(super) fn elements<T>(written: &List<T>) -> &[Spanned<T>] {
    written.as_ref().map_or(&[], |list| list.get_ref())
}

pub(super) fn span_of<T>(written: &Written<T>) -> Option<Range<usize>> {
    written.as_ref().map(Spanned::span)
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
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
