//! `[[route]]`: what was written, on top of its profile, made sure of.

use std::time::Duration;

use http::Method;
use toml::Spanned;

use super::file::{self, Table, Written};
use super::mistakes::nearest;
use super::paths::{PathError, Paths};
use super::profiles::Profile;
use super::read::{LARGEST_BODY, LONGEST_WAIT, Reader, elements, span_of};
use super::units::{Size, Time};
use super::{Config, Duplicates, Mode, RecordRules, RequestMode, Route, Upstream};
use crate::idempotency::fingerprint::{BodyCompare, FingerprintRules, Select};
use crate::idempotency::key::{Format, KeyRules, KeySource, Scope, Syntax};
use crate::idempotency::outcome::{OutcomeRules, StatusPattern, Verdict};
use crate::json::Pointer;

/// The methods that have a meaning of their own; another is taken unless it looks like a slip.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// Characters of a hyphenated UUID.
const UUID_LENGTH: usize = 36;

#[derive(Clone, Copy)]
enum ModeName {
    Request,
    Off,
}

impl Reader {
    /// The routes; `config` has everything else.
    pub(super) fn routes(&mut self, file: &file::File, config: &Config) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::with_capacity(file.route.len());
        let mut paths = Paths::default();
        for table in &file.route {
            let route = self.route(table, file, config, &routes);
            if let Some(path) = &table.get_ref().path {
                let added = paths.add(&route.path, &route.methods, routes.len());
                if let Err(error) = added {
                    self.path_error(path, &error, &routes);
                }
            }
            routes.push(route);
        }
        routes
    }

    fn path_error(&mut self, path: &Spanned<String>, error: &PathError, routes: &[Route]) {
        let text = path.get_ref();
        let what = match error {
            PathError::Syntax(what) => format!("`path` \"{text}\" {what}"),
            PathError::Ambiguous(other) => format!(
                "`path` \"{text}\" cannot be told from \"{other}\" of another route; give their parameters the same name"
            ),
            PathError::Taken(method, other) => format!(
                "{method} {text} belongs to route \"{}\" already",
                routes.get(*other).map_or("", |route| route.name.as_str())
            ),
        };
        self.say(path, what);
    }

    fn route(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        file: &file::File,
        config: &Config,
        others: &[Route],
    ) -> Route {
        let written = table.get_ref();
        self.unsupported("route.items", &written.items);
        self.unsupported("route.probe", &written.probe);
        self.unsupported("route.already_done", &written.already_done);
        let taken = |name: &str| others.iter().any(|other| other.name == name);
        let name = match &written.name {
            Some(name) => self.name("[[route]]", name, taken),
            None => {
                self.missing(
                    table,
                    "name",
                    "this [[route]] has no `name`; logs and records need it",
                );
                String::new()
            }
        };
        if written.path.is_none() {
            let what = "this [[route]] has no `path`, such as \"/v1/orders/{id}\" or \"/{*rest}\"";
            self.missing(table, "path", what);
        }
        let upstream = self.upstream_of(table, file);
        let mode = self.choice(
            "mode",
            &written.mode,
            ModeName::Request,
            &[
                ("request", Some(ModeName::Request)),
                ("off", Some(ModeName::Off)),
                ("items", None),
                ("observe", None),
            ],
        );
        let mode = match mode {
            ModeName::Request => {
                let upstream = upstream.and_then(|at| config.upstreams.get(at));
                Mode::Request(Box::new(self.request_mode(written, config, upstream)))
            }
            ModeName::Off => {
                self.nothing_keyed(written);
                Mode::Off
            }
        };
        let max_body = written.max_body.as_ref().map(|_| {
            let most = match mode {
                Mode::Request(_) => LARGEST_BODY.min(Size(config.server.limits.buffered)),
                Mode::Off => Size(u64::MAX),
            };
            self.bounded("max_body", &written.max_body, Size(0), Size(0)..=most).0
        });
        Route {
            name,
            methods: self.methods(table),
            path: written.path.as_ref().map(|path| path.get_ref().clone()).unwrap_or_default(),
            upstream: upstream.unwrap_or_default(),
            max_body,
            mode,
        }
    }

    fn methods(&mut self, table: &Spanned<Table<file::Route>>) -> Vec<Method> {
        let written = &table.get_ref().methods;
        match written {
            None => {
                let what = "this [[route]] has no `methods`, such as [\"POST\"]";
                self.missing(table, "methods", what);
            }
            Some(list) if list.get_ref().is_empty() && !self.was_removed("methods") => {
                self.say(list, "`methods` is empty; name at least one");
            }
            Some(_) => {}
        }
        let mut methods = Vec::new();
        for written in elements(written) {
            match method(written.get_ref()) {
                Ok(method) if methods.contains(&method) => {
                    self.say(written, format!("`methods` names {method} twice"));
                }
                Ok(method) => methods.push(method),
                Err(what) => self.say(written, format!("`methods`: {what}")),
            }
        }
        methods
    }

    fn upstream_of(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        file: &file::File,
    ) -> Option<usize> {
        let Some(written) = &table.get_ref().upstream else {
            self.missing(
                table,
                "upstream",
                "this [[route]] has no `upstream`; name an [[upstream]]",
            );
            return None;
        };
        let wanted = written.get_ref();
        let names: Vec<Option<&str>> = file
            .upstream
            .iter()
            .map(|upstream| upstream.get_ref().name.as_ref().map(|name| name.get_ref().as_str()))
            .collect();
        let at = names.iter().position(|name| *name == Some(wanted.as_str()));
        // While some upstream has no name that could be read, it may be the one that is meant.
        if at.is_none() && names.iter().all(Option::is_some) && !names.is_empty() {
            let known = names.iter().copied().flatten();
            let advice = match nearest(wanted, known.clone()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("there is {}", known.collect::<Vec<_>>().join(", ")),
            };
            self.say(written, format!("there is no upstream \"{wanted}\"; {advice}"));
        }
        at
    }

    fn nothing_keyed(&mut self, route: &file::Route) {
        let tables = [
            ("profile", span_of(&route.profile)),
            ("key", span_of(&route.key)),
            ("fingerprint", span_of(&route.fingerprint)),
            ("duplicates", span_of(&route.duplicates)),
            ("outcome", span_of(&route.outcome)),
            ("record", span_of(&route.record)),
        ];
        for (name, span) in tables {
            if span.is_some() {
                self.say_at(
                    span,
                    format!(
                        "`{name}` has no use on a route with mode = \"off\"; remove one of them"
                    ),
                );
            }
        }
    }

    fn request_mode(
        &mut self,
        route: &file::Route,
        config: &Config,
        upstream: Option<&Upstream>,
    ) -> RequestMode {
        let profile = self.choice(
            "profile",
            &route.profile,
            Profile::default(),
            &[
                ("ietf", Some(Profile::Ietf)),
                ("stripe", Some(Profile::Stripe)),
                ("redeemsg", Some(Profile::RedeemSg)),
                ("capillary", None),
            ],
        );
        let mut mode = profile.request_mode(config.store.retention);
        if let Some(key) = &route.key {
            mode.key = self.key(key.get_ref(), mode.key, config);
        }
        if let Some(fingerprint) = &route.fingerprint {
            mode.fingerprint = self.fingerprint(fingerprint.get_ref(), mode.fingerprint);
        }
        if let Some(duplicates) = &route.duplicates {
            mode.duplicates = self.duplicates(duplicates.get_ref(), mode.duplicates, upstream);
        }
        if let Some(outcome) = &route.outcome {
            mode.outcome = self.outcome(outcome, &mode.outcome);
        }
        if let Some(record) = &route.record {
            mode.record = self.record(record.get_ref(), mode.record, config);
        }
        mode
    }

    fn key(&mut self, written: &file::Key, preset: KeyRules, config: &Config) -> KeyRules {
        if let (Some(header), Some(_)) = (&written.header, &written.pointer) {
            self.say(header, "`header` and `pointer` are both given; a key has one place");
        }
        let header = written.header.as_ref().and_then(|header| self.header("header", header));
        if let (Some(name), Some(header)) = (&header, &written.header)
            && config.tenant.headers.contains(name)
        {
            self.say(header, format!("{name} is one of [tenant] `headers`, so that every key would be another caller's"));
        }
        let pointer = written.pointer.as_ref().and_then(|at| self.pointer("pointer", at));
        if written.pointer.is_some() {
            if let Some(syntax) = &written.syntax {
                self.say(syntax, "`syntax` is about headers; a key in the body has none");
            }
            if let Some(forward) = &written.forward {
                self.say(forward, "`forward` is about headers; a body goes upstream as it is");
            }
        }
        let flag = |written: &Written<super::units::Flag>, preset| {
            written.as_ref().map_or(preset, |flag| flag.get_ref().0)
        };
        let lengths = 1..=1024;
        let rules = KeyRules {
            source: match (pointer, header) {
                (Some(pointer), _) => KeySource::Pointer(pointer),
                (None, Some(name)) => KeySource::Header(name),
                (None, None) => preset.source,
            },
            required: flag(&written.required, preset.required),
            scope: self.choice(
                "scope",
                &written.scope,
                preset.scope,
                &[("tenant", Some(Scope::Tenant)), ("route", Some(Scope::Route))],
            ),
            syntax: self.choice(
                "syntax",
                &written.syntax,
                preset.syntax,
                &[("any", Some(Syntax::Any)), ("strict", Some(Syntax::Strict))],
            ),
            min_length: self.count(
                "min_length",
                &written.min_length,
                preset.min_length,
                lengths.clone(),
            ),
            max_length: self.count("max_length", &written.max_length, preset.max_length, lengths),
            format: self.choice(
                "format",
                &written.format,
                preset.format,
                &[("uuid", Some(Some(Format::Uuid)))],
            ),
            forward: flag(&written.forward, preset.forward),
        };
        self.key_lengths(written, &rules);
        rules
    }

    fn key_lengths(&mut self, written: &file::Key, rules: &KeyRules) {
        let (least, most) = (rules.min_length, rules.max_length);
        if least > most {
            self.say_at(
                span_of(&written.min_length).or(span_of(&written.max_length)),
                format!("`min_length` ({least}) is more than `max_length` ({most})"),
            );
        } else if rules.format == Some(Format::Uuid) && !(least..=most).contains(&UUID_LENGTH) {
            self.say_at(
                span_of(&written.format),
                format!(
                    "a UUID has {UUID_LENGTH} characters, which `min_length` ({least}) and `max_length` ({most}) leave out"
                ),
            );
        }
    }

    fn fingerprint(
        &mut self,
        written: &file::Fingerprint,
        preset: FingerprintRules,
    ) -> FingerprintRules {
        if let (Some(include), Some(_)) = (&written.include, &written.exclude) {
            self.say(include, "`include` and `exclude` are both given; keep one of them");
        }
        let mut pointers = |key, list| -> Vec<Pointer> {
            elements(list).iter().filter_map(|written| self.pointer(key, written)).collect()
        };
        let select = match (&written.include, &written.exclude) {
            (Some(_), _) => Select::Include(pointers("include", &written.include)),
            (None, Some(list)) if list.get_ref().is_empty() => Select::All,
            (None, Some(_)) => Select::Exclude(pointers("exclude", &written.exclude)),
            (None, None) => preset.select,
        };
        let body = self.choice(
            "body",
            &written.body,
            preset.body,
            &[("json", Some(BodyCompare::Json)), ("raw", Some(BodyCompare::Raw))],
        );
        if body == BodyCompare::Raw {
            for (key, list) in [("include", &written.include), ("exclude", &written.exclude)] {
                if let Some(list) = list {
                    let what =
                        format!("`{key}` has no use with body = \"raw\"; remove one of them");
                    self.say(list, what);
                }
            }
        }
        let headers = match &written.headers {
            Some(_) => self.headers("headers", &written.headers),
            None => preset.headers,
        };
        FingerprintRules { body, select, headers }
    }

    fn duplicates(
        &mut self,
        written: &file::Duplicates,
        preset: Duplicates,
        upstream: Option<&Upstream>,
    ) -> Duplicates {
        let answer_within = match &written.answer_within {
            Some(_) => Some(self.timeout("answer_within", &written.answer_within, Duration::ZERO)),
            None => preset.answer_within,
        };
        if let (Some(limit), Some(place), Some(upstream)) =
            (answer_within, &written.answer_within, upstream)
            && limit > upstream.timeout
        {
            self.say(
                place,
                format!(
                    "`answer_within` ({}) is longer than the `timeout` of upstream \"{}\" ({}) and would never matter",
                    Time(limit),
                    upstream.name,
                    Time(upstream.timeout)
                ),
            );
        }
        let marker = written.replayed_header.as_ref();
        Duplicates {
            wait: self.time(
                "wait",
                &written.wait,
                preset.wait,
                Time(Duration::ZERO)..=LONGEST_WAIT,
            ),
            max_waiters: self.count(
                "max_waiters",
                &written.max_waiters,
                preset.max_waiters,
                0..=10_000_000,
            ),
            answer_within,
            replayed_header: marker
                .and_then(|written| self.header("replayed_header", written))
                .unwrap_or(preset.replayed_header),
        }
    }

    fn outcome(
        &mut self,
        table: &Spanned<Table<file::Outcome>>,
        preset: &OutcomeRules,
    ) -> OutcomeRules {
        let written = table.get_ref();
        self.choice(
            "on_unknown",
            &written.on_unknown,
            (),
            &[("hold", Some(())), ("probe", None), ("resend", None)],
        );
        let lists = [
            ("final", &written.finals, Verdict::Final),
            ("retry", &written.retry, Verdict::Released),
            ("unknown", &written.unknown, Verdict::Unknown),
        ];
        let mut entries: Vec<(StatusPattern, Verdict)> = Vec::new();
        for (key, list, verdict) in lists {
            for status in elements(list) {
                let pattern = status.get_ref().0;
                let success = match pattern {
                    StatusPattern::Exact(status) => status < 300,
                    StatusPattern::Class(digit) => digit == 2,
                };
                if success && verdict == Verdict::Released {
                    self.say(status, format!("`retry` names {pattern}, but a client that saw a success must never run again"));
                } else if entries
                    .iter()
                    .any(|(other, meaning)| *other == pattern && *meaning != verdict)
                {
                    self.say(
                        status,
                        format!("`{key}` names {pattern}, which stands in another list already"),
                    );
                } else {
                    entries.push((pattern, verdict));
                }
            }
        }
        // A list that is left out keeps its preset, but for the entries that were moved elsewhere.
        for (pattern, verdict) in preset.entries() {
            let replaced = lists.iter().any(|(_, list, of)| of == verdict && list.is_some());
            if !replaced && entries.iter().all(|(other, _)| other != pattern) {
                entries.push((*pattern, *verdict));
            }
        }
        if !entries.iter().any(|(_, verdict)| *verdict == Verdict::Final) {
            self.say(table, "no status is final, so that no answer could ever be replayed");
        }
        OutcomeRules::new(entries).unwrap_or_default()
    }

    fn record(
        &mut self,
        written: &file::Record,
        preset: RecordRules,
        config: &Config,
    ) -> RecordRules {
        let subject = match &written.subject {
            Some(subject) => self.pointer("subject", subject),
            None => preset.subject,
        };
        let most = LARGEST_BODY.min(Size(config.server.limits.buffered));
        let max_stored_body = self.bounded(
            "max_stored_body",
            &written.max_stored_body,
            Size(preset.max_stored_body),
            Size(0)..=most,
        );
        RecordRules {
            subject,
            max_stored_body: max_stored_body.0,
            retention: self.retention(&written.retention, &written.tombstone, preset.retention),
        }
    }
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    let method =
        Method::from_bytes(upper.as_bytes()).map_err(|_| format!("\"{text}\" is not a method"))?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(format!("{method} is never forwarded"));
    }
    if upper != text {
        return Err(format!("methods are upper-case; write \"{upper}\""));
    }
    let slip = METHODS
        .iter()
        .find(|known| **known != method && strsim::damerau_levenshtein(known.as_str(), text) == 1);
    match slip {
        Some(meant) if !METHODS.contains(&method) => {
            Err(format!("\"{text}\" is not a method; did you mean \"{meant}\"?"))
        }
        Some(_) | None => Ok(method),
    }
}
