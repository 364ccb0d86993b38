//! `[[upstream]]`: what was written, made sure of.

use std::path::PathBuf;

use http::Uri;
use toml::Spanned;

use super::file::{self, Table};
use super::units::Time;
use super::values::{LONGEST_WAIT, Reader, elements};
use super::{UpstreamConfig, defaults};

/// Characters of the longest name.
const LONGEST_NAME: usize = 64;

/// An upstream with one address and every default.
pub(super) fn at(name: &str, url: Uri) -> UpstreamConfig {
    UpstreamConfig {
        name: name.to_owned(),
        urls: vec![url],
        connect_timeout: defaults::CONNECT_TIMEOUT,
        timeout: defaults::TIMEOUT,
        keep_alive: defaults::KEEP_ALIVE,
        ca: None,
        client_cert: None,
    }
}

/// The URL of a backend. The error goes on after "the URL" and does not repeat it: there may be a
/// password in it.
pub(super) fn parse_url(text: &str) -> Result<Uri, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(String::from("must start with http:// or https://"));
    };
    if !matches!(scheme, "http" | "https") {
        return Err(format!("must start with http:// or https://, not {scheme}://"));
    }
    if rest.contains(['?', '#']) {
        return Err(String::from("may not have a query or a fragment"));
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(String::from(
            "may not hold a user name or password; send credentials as headers",
        ));
    }
    let no_host = || String::from("has no host, or a port that is not one");
    if authority.is_empty() {
        return Err(no_host());
    }
    let url: Uri = text.parse().map_err(|error| format!("is not one: {error}"))?;
    let port_is_wrong = url.port_u16().is_none() && has_port(authority);
    if url.host().is_none_or(str::is_empty) || port_is_wrong || url.port_u16() == Some(0) {
        return Err(no_host());
    }
    if url.path().split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(String::from("may not hold the segments \".\" and \"..\""));
    }
    Ok(url)
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}

impl Reader {
    pub(super) fn upstreams(
        &mut self,
        written: &[Spanned<Table<file::Upstream>>],
    ) -> Vec<UpstreamConfig> {
        let mut upstreams: Vec<UpstreamConfig> = Vec::with_capacity(written.len());
        for upstream in written {
            let upstream = self.upstream(upstream, &upstreams);
            upstreams.push(upstream);
        }
        upstreams
    }

    fn upstream(
        &mut self,
        table: &Spanned<Table<file::Upstream>>,
        others: &[UpstreamConfig],
    ) -> UpstreamConfig {
        let written = table.get_ref();
        let taken = |name: &str| others.iter().any(|other| other.name == name);
        let name = match &written.name {
            Some(name) => self.name("[[upstream]]", name, taken),
            None => {
                self.missing(table, "name", "this [[upstream]] has no `name`; routes need it");
                String::new()
            }
        };
        let urls = self.urls(table);
        let upstream = UpstreamConfig {
            name,
            connect_timeout: self.timeout(
                "connect_timeout",
                &written.connect_timeout,
                defaults::CONNECT_TIMEOUT,
            ),
            timeout: self.timeout("timeout", &written.timeout, defaults::TIMEOUT),
            keep_alive: self.time(
                "keep_alive",
                &written.keep_alive,
                defaults::KEEP_ALIVE,
                Time(std::time::Duration::ZERO)..=LONGEST_WAIT,
            ),
            ca: written.ca.as_ref().map(|ca| self.path(ca)),
            client_cert: written.client_cert.as_ref().and_then(|pair| self.client_cert(pair)),
            urls,
        };
        let plain = upstream.urls.iter().all(|url| url.scheme_str() == Some("http"));
        if plain && !upstream.urls.is_empty() {
            let unused = "has no use: every url of this upstream is http://";
            if let Some(ca) = &written.ca {
                self.say(ca, format!("`ca` {unused}"));
            }
            if let Some(pair) = &written.client_cert {
                self.say(pair, format!("`client_cert` {unused}"));
            }
        }
        upstream
    }

    /// The files of a certificate chain and its key.
    pub(super) fn client_cert(
        &mut self,
        pair: &Spanned<Table<file::ClientCert>>,
    ) -> Option<(PathBuf, PathBuf)> {
        let (cert, key) = (&pair.get_ref().cert, &pair.get_ref().key);
        if cert.is_none() {
            self.missing(pair, "cert", "`client_cert` needs `cert`, a PEM file");
        }
        if key.is_none() {
            self.missing(pair, "key", "`client_cert` needs `key`, a PEM file");
        }
        Some((self.path(cert.as_ref()?), self.path(key.as_ref()?)))
    }

    fn urls(&mut self, table: &Spanned<Table<file::Upstream>>) -> Vec<Uri> {
        let written = table.get_ref();
        match (&written.url, &written.urls) {
            (Some(url), Some(_)) => {
                self.say(url, "`url` and `urls` are both given; keep one of them");
            }
            (None, None) => {
                let what = "this [[upstream]] has no `url`; write url = \"http://host:port\"";
                if !self.was_removed("urls") {
                    self.missing(table, "url", what);
                }
            }
            (None, Some(urls)) if urls.get_ref().is_empty() && !self.was_removed("urls") => {
                self.say(urls, "`urls` is empty; name at least one address");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let mut urls = Vec::new();
        let one = written.url.iter().map(|url| ("url", url));
        let several = elements(&written.urls).iter().map(|url| ("urls", url));
        for (key, written) in one.chain(several) {
            match parse_url(written.get_ref()) {
                Ok(url) if urls.contains(&url) => {
                    self.say(written, format!("`{key}` names the same address twice"));
                }
                Ok(url) => urls.push(url),
                Err(what) => self.say(written, format!("`{key}` {what}")),
            }
        }
        urls
    }

    /// A name: unique among its kind, and fit for a metric label.
    pub(super) fn name(
        &mut self,
        kind: &str,
        written: &Spanned<String>,
        taken: impl Fn(&str) -> bool,
    ) -> String {
        self.named("name", kind, written, taken)
    }

    /// A name under another key than `name`.
    pub(super) fn named(
        &mut self,
        key: &str,
        kind: &str,
        written: &Spanned<String>,
        taken: impl Fn(&str) -> bool,
    ) -> String {
        let name = written.get_ref();
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(fit) {
            self.say(
                written,
                format!(
                    "`{key}` must be 1 to {LONGEST_NAME} of the characters a-z, A-Z, 0-9, \"-\", \
                     \"_\" and \".\""
                ),
            );
        } else if taken(name) {
            self.say(written, format!("another {kind} is named \"{name}\" already"));
        }
        name.clone()
    }
}
