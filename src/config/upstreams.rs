//! `[[upstream]]`.

use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;

use super::backend_url::{BackendUrl, has_port, parse_url};
use super::defaults;
use super::model::UpstreamConfig;
use super::table::TableReader;
use super::upstream_kinds::{CloseDelimited, HostPolicy, HttpVersion};
use super::values::LONGEST_WAIT;

/// An upstream with one address and every default.
pub(crate) fn at(name: &str, url: BackendUrl) -> UpstreamConfig {
    UpstreamConfig {
        name: name.to_owned(),
        urls: vec![url],
        connect_timeout: defaults::CONNECT_TIMEOUT,
        timeout: defaults::TIMEOUT,
        keep_alive: defaults::KEEP_ALIVE,
        http: HttpVersion::Http1,
        streams: defaults::UPSTREAM_STREAMS,
        host: HostPolicy::Upstream,
        close_delimited: CloseDelimited::Checked,
        ca: None,
        client_cert: None,
    }
}

pub(super) fn upstreams(root: &TableReader<'_>) -> Vec<UpstreamConfig> {
    let mut upstreams: Vec<UpstreamConfig> = Vec::new();
    root.each_table("upstream", |table| {
        let upstream = upstream(table, &upstreams);
        upstreams.push(upstream);
    });
    upstreams
}

fn upstream(table: &TableReader<'_>, others: &[UpstreamConfig]) -> UpstreamConfig {
    let taken = |name: &str| others.iter().any(|other| other.name == name);
    let name = table.required("name", "this [[upstream]] has no `name`; routes need it");
    let upstream = UpstreamConfig {
        name: name.map(|name| table.name(&name, "[[upstream]]", taken)).unwrap_or_default(),
        urls: urls(table),
        connect_timeout: table.timeout("connect_timeout", defaults::CONNECT_TIMEOUT),
        timeout: table.timeout("timeout", defaults::TIMEOUT),
        keep_alive: table.time("keep_alive", defaults::KEEP_ALIVE, Duration::ZERO..=LONGEST_WAIT),
        http: table.choice("http", HttpVersion::Http1, &HTTP),
        streams: table.count("streams", defaults::UPSTREAM_STREAMS, 1..=MOST_STREAMS),
        host: host(table),
        close_delimited: table.choice("close_delimited", CloseDelimited::Checked, &CLOSE_DELIMITED),
        ca: table.path("ca"),
        client_cert: table.client_cert(),
    };
    if upstream.http == HttpVersion::Http1 && table.has("streams") {
        table.wrong_at(&["streams"], "`streams` has no use without `http = \"2\"`");
    }
    let plain = !upstream.urls.iter().any(BackendUrl::is_tls);
    if plain && !upstream.urls.is_empty() {
        for key in ["ca", "client_cert"] {
            if table.has(key) {
                let what = format!("`{key}` has no use: no url of this upstream is https://");
                table.wrong_at(&[key], what);
            }
        }
    }
    upstream
}

const HTTP: [(&str, Option<HttpVersion>); 2] =
    [("1.1", Some(HttpVersion::Http1)), ("2", Some(HttpVersion::Http2))];

/// HTTP/2 streams of a connection, at most: a connection that breaks makes the outcomes of all its
/// calls unknown.
const MOST_STREAMS: u64 = 1000;

const CLOSE_DELIMITED: [(&str, Option<CloseDelimited>); 2] =
    [("checked", Some(CloseDelimited::Checked)), ("trusted", Some(CloseDelimited::Trusted))];

fn host(table: &TableReader<'_>) -> HostPolicy {
    let Some(written) = table.optional::<String>("host") else { return HostPolicy::Upstream };
    match written.value.as_str() {
        "upstream" => HostPolicy::Upstream,
        "client" => HostPolicy::Client,
        name => match host_name(name) {
            Some(name) => HostPolicy::Name(name),
            None => {
                let what = "`host` must be \"upstream\", \"client\", or a host name with an \
                            optional port";
                table.wrong(&written, what.to_owned());
                HostPolicy::Upstream
            }
        },
    }
}

/// The `Host` that `text` names: a host, and perhaps a port.
fn host_name(text: &str) -> Option<HeaderValue> {
    let authority: Authority = text.parse().ok()?;
    let port_is_wrong = authority.port_u16().is_none() && has_port(text);
    let wrong = text.contains('@') || authority.host().is_empty() || port_is_wrong;
    if wrong { None } else { HeaderValue::from_str(text).ok() }
}

fn urls(table: &TableReader<'_>) -> Vec<BackendUrl> {
    match (table.has("url"), table.has("urls")) {
        (true, true) => {
            table.wrong_at(&["url"], "`url` and `urls` are both given; keep one of them");
        }
        (false, false) => {
            let what = "this [[upstream]] has no `url`; write url = \"http://host:port\"";
            table.missing(&["url", "urls"], what);
        }
        (true, false) | (false, true) => {}
    }
    let one = table.optional::<String>("url");
    let several = table.filled_list::<String>("urls", "name at least one address");
    let mut urls = Vec::new();
    for written in one.into_iter().chain(several.into_iter().flatten()) {
        let key = written.key;
        let url = parse_url(&written.value).map(|url| match url {
            BackendUrl::Unix(path) => BackendUrl::Unix(table.reading.base.join(path)),
            url => url,
        });
        match url {
            Ok(url) if urls.contains(&url) => {
                table.wrong(&written, format!("`{key}` names the same address twice"));
            }
            Ok(url) => urls.push(url),
            Err(what) => table.wrong(&written, format!("`{key}` {what}")),
        }
    }
    urls
}
