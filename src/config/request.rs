//! The tables of a route in request mode: what was written, on top of its profile, made sure of.

use std::time::Duration;

use toml::Spanned;

use super::file::{self, Table, Written};
use super::profiles::Profile;
use super::units::{Size, Time};
use super::values::{LARGEST_BODY, LONGEST_WAIT, Reader, elements, span_of};
use super::{Config, DuplicateRules, RecordRules, RequestMode, UpstreamConfig};
use crate::idempotency::fingerprint::{BodyCompare, FingerprintRules, Select};
use crate::idempotency::key::{Format, KeyRules, KeySource, Scope, Syntax};
use crate::idempotency::outcome::{OutcomeRules, StatusPattern, Verdict};
use crate::json::Pointer;

/// Characters of a hyphenated UUID.
const UUID_LENGTH: usize = 36;

impl Reader {
    pub(super) fn request_mode(
        &mut self,
        route: &file::Route,
        config: &Config,
        upstream: Option<&UpstreamConfig>,
    ) -> RequestMode {
        if let Some(items) = &route.items {
            let what = "[route.items] needs mode = \"items\": with one key for each request, a \
                        partial result would be replayed for ever";
            self.say(items, what);
        }
        let of_items = |profile: &&Spanned<String>| profile.get_ref() == "capillary";
        if let Some(profile) = route.profile.as_ref().filter(of_items) {
            let what = "profile = \"capillary\" is about batches whose items are fulfilled over \
                        several tries; write mode = \"items\"";
            self.say(profile, what);
            return Profile::default().request_mode(config.store.retention);
        }
        let profile = self.choice(
            "profile",
            &route.profile,
            Profile::default(),
            &[
                ("ietf", Some(Profile::Ietf)),
                ("stripe", Some(Profile::Stripe)),
                ("redeemsg", Some(Profile::RedeemSg)),
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
            self.say(
                header,
                format!(
                    "{name} is one of [tenant] `headers`, so that every key \
             would be another caller's"
                ),
            );
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
                    "a UUID has {UUID_LENGTH} characters, which `min_length` ({least}) and \
                     `max_length` ({most}) leave out"
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

    pub(super) fn duplicates(
        &mut self,
        written: &file::Duplicates,
        preset: DuplicateRules,
        upstream: Option<&UpstreamConfig>,
    ) -> DuplicateRules {
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
                    "`answer_within` ({}) is longer than the `timeout` of upstream \"{}\" ({}) \
                     and would never matter",
                    Time(limit),
                    upstream.name,
                    Time(upstream.timeout)
                ),
            );
        }
        let marker = written.replayed_header.as_ref();
        DuplicateRules {
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

    pub(super) fn outcome(
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
                    self.say(
                        status,
                        format!(
                            "`retry` names {pattern}, but a client that saw a \
                     success must never run again"
                        ),
                    );
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

    pub(super) fn record(
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
