//! `[server]`, `[server.limits]` and `[admin]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::uri::Authority;

use super::cors::cors;
use super::model::{AdminConfig, LimitsConfig, ServerConfig};
use super::table::TableReader;
use super::units::Size;
use super::values::{LARGEST_BODY, LONGEST_WAIT};
use super::{defaults, listener};

/// Threads that serve requests, at most.
const MOST_WORKERS: u64 = 1024;
/// HTTP/2 streams of a connection, at most.
const MOST_STREAMS: u64 = 10_000;
/// Connections and claims at once, at most.
const MOST_AT_ONCE: u64 = 10_000_000;
/// Keys stored for a caller, at most.
const MOST_KEYS: u64 = 1_000_000_000_000;

pub(super) fn server(table: &TableReader<'_>) -> ServerConfig {
    let listen = listener::listen(table, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)));
    let drain = table.time("drain", defaults::DRAIN, Duration::ZERO..=LONGEST_WAIT);
    let drain_delay = table.time("drain_delay", Duration::ZERO, Duration::ZERO..=LONGEST_WAIT);
    let workers = table.count("workers", defaults::workers(), 1..=MOST_WORKERS);
    ServerConfig {
        listen,
        drain,
        drain_delay,
        workers,
        tls: listener::tls(table),
        proxy_protocol: listener::peers(table, "proxy_protocol"),
        trusted_proxies: listener::peers(table, "trusted_proxies"),
        cors: cors(table),
        limits: table.table("limits", limits),
    }
}

fn limits(table: &TableReader<'_>) -> LimitsConfig {
    let at_once = 1..=MOST_AT_ONCE;
    // Below 8 KiB ordinary requests fail, and the HTTP parser takes no less.
    let head = 8 << 10..=1 << 20;
    let mut limits = LimitsConfig {
        connections: table.count("connections", defaults::CONNECTIONS, at_once.clone()),
        idle_timeout: table.timeout("idle_timeout", defaults::IDLE_TIMEOUT),
        header_timeout: table.timeout("header_timeout", defaults::HEADER_TIMEOUT),
        body_timeout: table.timeout("body_timeout", defaults::BODY_TIMEOUT),
        max_head: usize::try_from(table.size("max_head", defaults::MAX_HEAD as u64, head))
            .unwrap_or(usize::MAX),
        max_body: table.size("max_body", defaults::MAX_BODY, 1..=LARGEST_BODY),
        buffered: table.size("buffered", defaults::buffered(), 1..=1 << 40),
        in_flight: table.count("in_flight", defaults::IN_FLIGHT, at_once.clone()),
        in_flight_per_tenant: table.optional_count("in_flight_per_tenant", at_once.clone()),
        rate_per_tenant: table.optional("rate_per_tenant").map(|rate| rate.value),
        burst_per_tenant: table.optional_count("burst_per_tenant", at_once),
        stored_keys_per_tenant: table.optional_count("stored_keys_per_tenant", 1..=MOST_KEYS),
        streams: table.count("streams", defaults::STREAMS, 1..=MOST_STREAMS),
    };
    if !table.has("buffered") {
        // A default that follows the machine does not contradict what is written.
        limits.buffered = limits.buffered.max(limits.max_body);
    }
    if limits.max_body > limits.buffered {
        let what = format!(
            "`buffered` ({}) is less than `max_body` ({}), so that no body of that size could \
             ever be taken",
            Size(limits.buffered),
            Size(limits.max_body)
        );
        table.wrong_at(&["buffered", "max_body"], what);
    }
    if limits.in_flight_per_tenant.is_some_and(|own| own > limits.in_flight) {
        let what =
            format!("`in_flight_per_tenant` is more than `in_flight` ({})", limits.in_flight);
        table.wrong_at(&["in_flight_per_tenant"], what);
    }
    if limits.burst_per_tenant.is_some() && !table.has("rate_per_tenant") {
        let what = "`burst_per_tenant` has no use without `rate_per_tenant`; write a rate, such as \
                    rate_per_tenant = \"100/s\"";
        table.wrong_at(&["burst_per_tenant"], what);
    }
    limits
}

/// `[admin]`; `server` and `public_place`: the public listener, and the place of its addresses.
pub(super) fn admin(
    table: &TableReader<'_>,
    server: &ServerConfig,
    public_place: Option<usize>,
) -> AdminConfig {
    let listen = table.optional("listen").and_then(|written| table.address(&written));
    let listen = listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)));
    let token = table.secret("token", "token_file");
    if let Some(written) = &token {
        let word = written.value.expose();
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            table.wrong(written, "the token must be one word of visible ASCII characters");
        }
    } else if !listen.ip().is_loopback() {
        let what = format!(
            "the admin listener is on {listen}, which is not a loopback address; set \
             `token_file`, or listen on 127.0.0.1"
        );
        table.missing_at(table.place("listen"), &["token", "token_file"], what);
    }
    if server.listen.iter().any(|public| listener::takes(public, listen)) {
        let what = format!("the admin listener on {listen} takes an address of [server] `listen`");
        table.wrong_elsewhere(table.place("listen").or(public_place), what);
    }
    let token_file = token.is_some().then(|| table.path("token_file")).flatten();
    AdminConfig { listen, token: token.map(|token| token.value), hosts: hosts(table), token_file }
}

/// `hosts`: names without a port.
fn hosts(table: &TableReader<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    for written in table.list::<String>("hosts").unwrap_or_default() {
        let is_name =
            written.value.parse::<Authority>().is_ok_and(|authority| {
                authority.host() == written.value && authority.port().is_none()
            }) && !written.value.contains('*');
        if is_name {
            hosts.push(written.value.to_ascii_lowercase());
        } else {
            let what = "`hosts` takes host names without a port, such as \"oncegate.internal\"";
            table.wrong(&written, what);
        }
    }
    hosts
}
