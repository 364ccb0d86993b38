//! Matchers and templates of `[route.items]`.

use std::ops::Range;

use toml::Spanned;

use super::file::{Table, Written};
use super::file_items as written;
use super::units::Status;
use super::values::{Reader, elements};
use crate::idempotency::outcome::StatusPattern;
use crate::items::rules::{Matcher, MemberTest, Refusal, RenderRules, Template, TemplateMember};
use crate::json::Pointer;

impl Reader {
    pub(super) fn matchers(&mut self, list: &Spanned<written::Matchers>) -> Vec<Matcher> {
        let matchers = &list.get_ref().0;
        let place = |span: Range<usize>| if span.is_empty() { list.span() } else { span };
        matchers
            .iter()
            .filter_map(|matcher| self.matcher(place(matcher.span()), matcher.get_ref(), true))
            .collect()
    }

    /// A matcher; `of_answer`: whether what it matches came with a status.
    pub(super) fn matcher(
        &mut self,
        at: Range<usize>,
        written: &written::Matcher,
        of_answer: bool,
    ) -> Option<Matcher> {
        if let Some(status) = written.status.as_ref().filter(|_| !of_answer) {
            self.say(status, "`status` has no use here: a request has none");
        }
        let tests = [
            written.equals.as_ref().map(|text| MemberTest::OneOf(vec![text.get_ref().0.clone()])),
            written.one_of.as_ref().map(|_| {
                MemberTest::OneOf(
                    elements(&written.one_of).iter().map(|text| text.get_ref().0.clone()).collect(),
                )
            }),
            written.absent_or_null.as_ref().map(|_| MemberTest::AbsentOrNull),
        ];
        if let Some(flag) = written.absent_or_null.as_ref().filter(|flag| !flag.get_ref().0) {
            self.say(flag, "`absent_or_null` can only be true; leave it out instead");
        }
        if written.one_of.as_ref().is_some_and(|list| list.get_ref().is_empty()) {
            self.say_at(Some(at.clone()), "`one_of` is empty, so that nothing could ever match");
        }
        let mut tests = tests.into_iter().flatten();
        let member = match (&written.pointer, tests.next(), tests.next()) {
            (Some(pointer), Some(test), None) => {
                self.pointer("pointer", pointer).map(|pointer| (pointer, test))
            }
            // One that holds `unless` another does is how "not" is written.
            (None, None, None) if written.status.is_some() || written.unless.is_some() => None,
            (None, None, None) => {
                self.say_at(
                    Some(at),
                    "a matcher needs a `status`, or a `pointer` with `equals`, `one_of` or \
                     `absent_or_null`",
                );
                return None;
            }
            (Some(_), None, _) | (None, Some(_), None) => {
                self.say_at(
                    Some(at),
                    "a matcher's `pointer` goes with one of `equals`, `one_of` and `absent_or_null`",
                );
                return None;
            }
            (_, Some(_), Some(_)) | (None, None, Some(_)) => {
                self.say_at(
                    Some(at),
                    "`equals`, `one_of` and `absent_or_null` exclude each other; keep one of them",
                );
                return None;
            }
        };
        let unless = written
            .unless
            .as_ref()
            .and_then(|other| self.matcher(other.span(), other.get_ref(), of_answer))
            .map(Box::new);
        let status = written.status.as_ref().map(|status| status.get_ref().0);
        Some(Matcher { status, member, unless })
    }

    pub(super) fn render_rules(
        &mut self,
        written: &written::Render,
        preset: RenderRules,
    ) -> RenderRules {
        RenderRules {
            complete: self.template(&written.complete, preset.complete),
            partial: self.template(&written.partial, preset.partial),
            none: self.template(&written.none, preset.none),
            unknown: self.template(&written.unknown, preset.unknown),
            mismatch: self.refusal(&written.mismatch, preset.mismatch),
            duplicate: self.refusal(&written.duplicate, preset.duplicate),
            parallel: self.refusal(&written.parallel, preset.parallel),
        }
    }

    fn template(
        &mut self,
        written: &Written<Table<written::Template>>,
        preset: Template,
    ) -> Template {
        let Some(table) = written else { return preset };
        let written = table.get_ref();
        let item = self.puts("item", &written.item);
        let top = self.puts("top", &written.top);
        Template { item, top, http: self.http(&written.http) }
    }

    fn refusal(
        &mut self,
        written: &Written<Table<written::Refusal>>,
        preset: Option<Refusal>,
    ) -> Option<Refusal> {
        let Some(table) = written else { return preset };
        let written = table.get_ref();
        let top = self.puts("top", &written.top);
        let place = written.top.as_ref().map(|top| top.span().start);
        let unreadable = self.removed.iter().any(|(table, _)| Some(*table) == place);
        if top.is_empty() && !unreadable {
            self.say(table, "a refusal needs `top`, the members of its body");
        }
        let http = self.http(&written.http);
        if let Some(written) = written.http.as_ref().filter(|_| http.is_some_and(|it| it < 400)) {
            self.say(written, "a refusal cannot have the status of a success");
        }
        Some(Refusal { top, http })
    }

    fn http(&mut self, written: &Written<Status>) -> Option<u16> {
        let status = written.as_ref()?;
        match status.get_ref().0 {
            StatusPattern::Exact(code @ (100..200 | 204 | 205 | 304)) => {
                let what = format!(
                    "an answer with the status {code} has no body, so that no row \
                                    would reach the client; `http` is another, such as 200"
                );
                self.say(status, what);
                None
            }
            StatusPattern::Exact(code) => Some(code),
            StatusPattern::Class(_) => {
                self.say(status, "`http` is one status, such as 409");
                None
            }
        }
    }

    fn puts(&mut self, key: &str, written: &Written<written::Puts>) -> Vec<TemplateMember> {
        let Some(table) = written else { return Vec::new() };
        let mut puts = Vec::new();
        for (at, value) in &table.get_ref().0 {
            match Pointer::parse(at) {
                Ok(pointer) if !pointer.tokens().is_empty() => {
                    puts.push((pointer, value.get_ref().0.clone()));
                }
                Ok(_) => self.say(value, format!("`{key}` names the whole value; name a member")),
                Err(error) => self.say(value, format!("`{key}`: \"{at}\": {error}")),
            }
        }
        puts
    }
}
