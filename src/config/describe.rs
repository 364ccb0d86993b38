//! The configuration as understood, for people and for programs, without secrets.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::callers::{TenantConfig, UnknownCaller};
use super::describe_items::{batch_lines, items_key_cell};
use super::model::{
    Config, DuplicateRules, EngineConfig, Mode, RecordRules, RequestMode, RouteConfig,
    UpstreamConfig,
};
use super::shown::{durability_name, strings, without_credentials};
use super::units::{Period, Size, Time};
use crate::place::Place;

const COLUMNS: [&str; 10] =
    ["ROUTE", "METHODS", "PATH", "MODE", "UPSTREAM", "KEY", "WAIT", "ANSWER", "KEPT", "THEN"];

impl Config {
    /// The output of `oncegate check`: the listeners, the store, the upstreams, a table of the
    /// routes, and the batches with their rows. Every line ends with a line feed.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let listen: Vec<String> = self.server.listen.iter().map(ToString::to_string).collect();
        let guarded = if self.admin.token.is_some() { "with a token" } else { "no token" };
        let mut line = |name: &str, value: String| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name:<10}{value}");
        };
        line("listen", listen.join(", "));
        line("admin", format!("{} ({guarded})", self.admin.listen));
        line("store", self.store.engine.line());
        line("callers", callers_line(&self.tenant));
        for upstream in &self.upstreams {
            line("upstream", upstream_line(upstream));
        }
        text.push('\n');
        let rows: Vec<[String; COLUMNS.len()]> =
            self.routes.iter().map(|route| self.row(route)).collect();
        table(&mut text, &rows);
        for route in &self.routes {
            if let Mode::Items(mode) = &route.mode {
                text.push('\n');
                text.push_str(&batch_lines(&route.name, mode));
            }
        }
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
            path_cell(route),
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
        let mut described = json!(self);
        let routes = described["routes"].as_array_mut().into_iter().flatten();
        for (route, shown) in self.routes.iter().zip(routes) {
            let upstream = self.upstreams.get(route.upstream);
            shown["mode"] = json!(mode_name(&route.mode));
            shown["upstream"] = json!(upstream.map(|upstream| &upstream.name));
            if route.max_body.is_none() && !matches!(route.mode, Mode::Off) {
                shown["max_body"] = json!(Size(self.server.limits.max_body).to_string());
            }
        }
        described
    }
}

/// The kinds of names of callers in their order, and the treatment of others.
fn callers_line(tenant: &TenantConfig) -> String {
    let mut names = tenant.kinds();
    match tenant.unknown {
        UnknownCaller::Allow => names.extend(tenant.headers.iter().map(|name| name.as_str())),
        UnknownCaller::Reject => names.push("others are refused"),
    }
    if names.is_empty() { "all are one".to_owned() } else { names.join(", ") }
}

impl EngineConfig {
    /// The engine and its place, on a line.
    fn line(&self) -> String {
        match self {
            Self::Embedded { path, .. } => format!("embedded, {}", path.display()),
            Self::Postgres(store) => format!("postgres, {}", without_credentials(&store.url)),
            Self::Redis(store) => {
                let places: Vec<String> = store.urls.iter().map(without_credentials).collect();
                let kind = match (store.cluster, &store.sentinel) {
                    (true, _) => " (cluster)".to_owned(),
                    (false, Some(name)) => format!(" (sentinels of {name})"),
                    (false, None) => String::new(),
                };
                let durability = durability_name(store.strict);
                format!("redis{kind}, {}, {durability}", places.join(" "))
            }
        }
    }
}

/// The path, and the condition under which the route takes a request.
fn path_cell(route: &RouteConfig) -> String {
    let when: Vec<String> = route.when.iter().map(ToString::to_string).collect();
    match when.as_slice() {
        [] => route.path.clone(),
        when => format!("{} when {}", route.path, when.join(" or ")),
    }
}

fn mode_name(mode: &Mode) -> &'static str {
    match mode {
        Mode::Request(mode) if mode.observes => "observe",
        Mode::Request(_) => "request",
        Mode::Items(_) => "items",
        Mode::Off => "off",
    }
}

fn upstream_line(upstream: &UpstreamConfig) -> String {
    format!(
        "{} at {} (connect {}, timeout {}, keep-alive {})",
        upstream.name,
        strings(&upstream.urls).join(", "),
        Time(upstream.connect_timeout),
        Time(upstream.timeout),
        Time(upstream.keep_alive)
    )
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
    let shown = |place: &Place| match place {
        Place::Header(name) => name.to_string(),
        Place::Pointer(pointer) => format!("body {pointer}"),
        other => other.to_string(),
    };
    let places = mode.key.places.iter().map(shown).collect::<Vec<_>>().join(" + ");
    if mode.key.required { places } else { format!("{places} (optional)") }
}

/// Columns as wide as the widest cell, two spaces apart, without spaces at the end of a line.
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
