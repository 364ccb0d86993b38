//! The configuration as it was understood, for people and for programs. No secret stands in it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::describe_items::{items_json, items_key_cell};
use super::model::{
    Config, DuplicateRules, Mode, RecordRules, RequestMode, RouteConfig, UpstreamConfig,
};
use super::units::{Period, Size, Time};
use crate::idempotency::fingerprint::{BodyCompare, Select};
use crate::idempotency::key::{Format, KeySource, Scope, Syntax};
use crate::idempotency::outcome::{OutcomeRules, Verdict};
use crate::json::Pointer;
use crate::problem::Dialect;

const COLUMNS: [&str; 10] =
    ["ROUTE", "METHODS", "PATH", "MODE", "UPSTREAM", "KEY", "WAIT", "ANSWER", "KEPT", "THEN"];

impl Config {
    /// What `oncegate check` prints: the listeners, the store, the upstreams, and a table of the
    /// routes. Every line ends with a line feed.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let listen: Vec<String> = self.server.listen.iter().map(ToString::to_string).collect();
        let tenant: Vec<&str> = self.tenant.headers.iter().map(|name| name.as_str()).collect();
        let guarded = if self.admin.token.is_some() { "with a token" } else { "no token" };
        let mut line = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<10}{value}");
        };
        line("listen", listen.join(", "));
        line("admin", format!("{} ({guarded})", self.admin.listen));
        line("store", self.store.engine.line());
        line("callers", if tenant.is_empty() { "all are one".into() } else { tenant.join(", ") });
        for upstream in &self.upstreams {
            line("upstream", upstream_line(upstream));
        }
        text.push('\n');
        let rows: Vec<[String; COLUMNS.len()]> =
            self.routes.iter().map(|route| self.row(route)).collect();
        table(&mut text, &rows);
        text
    }

    fn row(&self, route: &RouteConfig) -> [String; COLUMNS.len()] {
        let upstream = self.upstreams.get(route.upstream).map_or("", |it| it.name.as_str());
        let dash = || String::from("-");
        let [key, wait, answer, kept, then] = match &route.mode {
            Mode::Off => [dash(), dash(), dash(), dash(), dash()],
            Mode::Request(mode) => keyed_cells(key_cell(mode), &mode.duplicates, &mode.record),
            Mode::Items(mode) => keyed_cells(items_key_cell(mode), &mode.duplicates, &mode.record),
        };
        let methods: Vec<&str> = route.methods.iter().map(|method| method.as_str()).collect();
        [
            route.name.to_string(),
            methods.join(","),
            route.path.clone(),
            mode_name(&route.mode).to_owned(),
            upstream.to_owned(),
            key,
            wait,
            answer,
            kept,
            then,
        ]
    }

    /// The same for programs, and in full: durations and sizes as they are written in a file.
    pub fn describe_json(&self) -> Value {
        let limits = &self.server.limits;
        let (engine, place) = self.store.engine.json();
        let upstreams: Vec<Value> = self.upstreams.iter().map(upstream_json).collect();
        let routes: Vec<Value> = self.routes.iter().map(|route| self.route_json(route)).collect();
        json!({
            "server": {
                "listen": self.server.listen,
                "drain": time(self.server.drain),
                "workers": self.server.workers,
                "limits": {
                    "connections": limits.connections,
                    "header_timeout": time(limits.header_timeout),
                    "body_timeout": time(limits.body_timeout),
                    "max_head": Size(limits.max_head as u64).to_string(),
                    "max_body": Size(limits.max_body).to_string(),
                    "buffered": Size(limits.buffered).to_string(),
                    "in_flight": limits.in_flight,
                    "in_flight_per_tenant": limits.in_flight_per_tenant,
                },
            },
            "admin": {
                "listen": self.admin.listen,
                "token": self.admin.token.as_ref().map(|_| "redacted"),
            },
            "store": {
                "retention": Period(self.store.retention.answer).to_string(),
                "tombstone": Period(self.store.retention.tombstone).to_string(),
                "create": self.store.create,
                "expect_id": self.store.expect_id.map(|id| id.to_string()),
                engine: place,
            },
            "tenant": { "headers": texts(&self.tenant.headers) },
            "upstreams": upstreams,
            "routes": routes,
        })
    }

    fn route_json(&self, route: &RouteConfig) -> Value {
        let mut described = json!({
            "name": route.name,
            "methods": texts(&route.methods),
            "path": route.path,
            "upstream": self.upstreams.get(route.upstream).map(|upstream| &upstream.name),
            "mode": mode_name(&route.mode),
        });
        match &route.mode {
            Mode::Off => {
                described["max_body"] = json!(route.max_body.map(|most| Size(most).to_string()));
            }
            Mode::Request(mode) => {
                let most = route.max_body.unwrap_or(self.server.limits.max_body);
                described["max_body"] = json!(Size(most).to_string());
                let Value::Object(rules) = request_json(mode) else { return described };
                for (name, rule) in rules {
                    described[name] = rule;
                }
            }
            Mode::Items(mode) => {
                let most = route.max_body.unwrap_or(self.server.limits.max_body);
                described["max_body"] = json!(Size(most).to_string());
                described["items"] = items_json(mode);
                described["duplicates"] = duplicates_json(&mode.duplicates);
                described["outcome"] = outcome_json(&mode.outcome);
                described["record"] = record_json(&mode.record);
                described["errors"] = json!(dialect_name(mode.dialect));
            }
        }
        described
    }
}

fn mode_name(mode: &Mode) -> &'static str {
    match mode {
        Mode::Request(_) => "request",
        Mode::Items(_) => "items",
        Mode::Off => "off",
    }
}

fn upstream_line(upstream: &UpstreamConfig) -> String {
    format!(
        "{} at {} (connect {}, timeout {}, keep-alive {})",
        upstream.name,
        texts(&upstream.urls).join(", "),
        Time(upstream.connect_timeout),
        Time(upstream.timeout),
        Time(upstream.keep_alive)
    )
}

fn upstream_json(upstream: &UpstreamConfig) -> Value {
    json!({
        "name": upstream.name,
        "urls": texts(&upstream.urls),
        "connect_timeout": time(upstream.connect_timeout),
        "timeout": time(upstream.timeout),
        "keep_alive": time(upstream.keep_alive),
        "ca": upstream.ca,
        "client_cert": upstream.client_cert.as_ref().map(|(cert, key)| {
            json!({ "cert": cert, "key": key })
        }),
    })
}

fn request_json(mode: &RequestMode) -> Value {
    let (header, pointer) = match &mode.key.source {
        KeySource::Header(name) => (Some(name.to_string()), None),
        KeySource::Pointer(pointer) => (None, Some(pointer.to_string())),
    };
    let (include, exclude) = match &mode.fingerprint.select {
        Select::All => (None, None),
        Select::Include(pointers) => (Some(texts(pointers)), None),
        Select::Exclude(pointers) => (None, Some(texts(pointers))),
    };
    json!({
        "key": {
            "header": header,
            "pointer": pointer,
            "required": mode.key.required,
            "scope": match mode.key.scope { Scope::Tenant => "tenant", Scope::Route => "route" },
            "syntax": match mode.key.syntax { Syntax::Any => "any", Syntax::Strict => "strict" },
            "min_length": mode.key.min_length,
            "max_length": mode.key.max_length,
            "format": mode.key.format.map(|format| match format { Format::Uuid => "uuid" }),
            "forward": mode.key.forward,
        },
        "fingerprint": {
            "body": match mode.fingerprint.body {
                BodyCompare::ByMediaType => "by media type",
                BodyCompare::Json => "json",
                BodyCompare::Raw => "raw",
            },
            "include": include,
            "exclude": exclude,
            "headers": texts(&mode.fingerprint.headers),
        },
        "duplicates": duplicates_json(&mode.duplicates),
        "outcome": outcome_json(&mode.outcome),
        "record": record_json(&mode.record),
        "errors": dialect_name(mode.dialect),
    })
}

fn duplicates_json(duplicates: &DuplicateRules) -> Value {
    json!({
        "wait": time(duplicates.wait),
        "max_waiters": duplicates.max_waiters,
        "answer_within": duplicates.answer_within.map(time),
        "replayed_header": duplicates.replayed_header.as_str(),
    })
}

fn outcome_json(outcome: &OutcomeRules) -> Value {
    json!({
        "final": statuses(outcome, Verdict::Final),
        "retry": statuses(outcome, Verdict::Released),
        "unknown": statuses(outcome, Verdict::Unknown),
        "on_unknown": "hold",
    })
}

fn record_json(record: &RecordRules) -> Value {
    json!({
        "subject": record.subject.as_ref().map(Pointer::to_string),
        "max_stored_body": Size(record.max_stored_body).to_string(),
        "retention": Period(record.retention.answer).to_string(),
        "tombstone": Period(record.retention.tombstone).to_string(),
    })
}

fn dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Problem => "problem+json",
        Dialect::Stripe => "stripe",
        Dialect::RedeemSg => "redeemsg",
    }
}

fn keyed_cells(key: String, duplicates: &DuplicateRules, record: &RecordRules) -> [String; 5] {
    let answer = duplicates.answer_within;
    [
        key,
        Time(duplicates.wait).to_string(),
        answer.map_or_else(|| String::from("-"), |time| Time(time).to_string()),
        Period(record.retention.answer).to_string(),
        match Period(record.retention.tombstone).to_string() {
            none if none == "0s" => String::from("runs again"),
            period => format!("refused {period}"),
        },
    ]
}

fn key_cell(mode: &RequestMode) -> String {
    let source = match &mode.key.source {
        KeySource::Header(name) => name.to_string(),
        KeySource::Pointer(pointer) => format!("body {pointer}"),
    };
    if mode.key.required { source } else { format!("{source} (optional)") }
}

fn statuses(rules: &OutcomeRules, verdict: Verdict) -> Vec<String> {
    let of = rules.entries().iter().filter(|(_, meaning)| *meaning == verdict);
    of.map(|(pattern, _)| pattern.to_string()).collect()
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn time(duration: std::time::Duration) -> String {
    Time(duration).to_string()
}

/// Columns as wide as their widest cell, two spaces between, none at the end of a line.
fn table(text: &mut String, rows: &[[String; COLUMNS.len()]]) {
    let heads = COLUMNS.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|at| all().map(|row| row[at].chars().count()).max().unwrap_or(0))
        .collect();
    for row in all() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
}
