//! `[route.outcome]`: the meaning of a backend's answers.

use super::matcher::{MatchScope, matcher};
use super::table::{Located, TableReader};
use super::table_lists::ListElement;
use crate::idempotency::outcome::{OutcomeRules, Verdict};
use crate::matcher::{Matcher, StatusPattern};

/// The lists of entries.
const LISTS: [(&str, Verdict); 4] = [
    ("final", Verdict::Final),
    ("retry", Verdict::Released),
    ("pending", Verdict::Pending),
    ("unknown", Verdict::Unknown),
];

/// The policies for unknown outcomes.
const POLICIES: [&str; 4] = ["hold", "probe", "resend", "reverse"];

/// The entries read so far.
#[derive(Default)]
struct Entries {
    statuses: Vec<(StatusPattern, Verdict)>,
    matchers: Vec<(Matcher, Verdict)>,
}

/// The meaning of a route's answers, and the name of its policy for unknown outcomes.
pub(super) type OutcomeTable = (OutcomeRules, Option<&'static str>);

/// The rules of a route. A list left out keeps the preset, except for entries of written lists. In
/// items mode they decide about answers without rows.
pub(super) fn outcome(table: &TableReader<'_>, preset: &OutcomeRules) -> OutcomeTable {
    let mut entries = Entries::default();
    for (key, verdict) in LISTS {
        let list = table.mixed_list(key, |table| matcher(table, MatchScope::Answer));
        for element in list.into_iter().flatten() {
            match element {
                ListElement::Plain(status) => entries.add_status(table, &status, verdict),
                ListElement::Table(matcher) => entries.add_matcher(table, matcher, verdict),
            }
        }
    }
    finished(table, preset, entries)
}

impl Entries {
    fn add_status(
        &mut self,
        table: &TableReader<'_>,
        status: &Located<StatusPattern>,
        verdict: Verdict,
    ) {
        let (key, pattern) = (status.key, status.value);
        let is_other =
            |(other, meaning): &(StatusPattern, Verdict)| *other == pattern && *meaning != verdict;
        if pattern.is_success() && verdict == Verdict::Released {
            let what = format!(
                "`retry` names {pattern}, but a client that saw a success must never run again"
            );
            table.wrong(status, what);
        } else if self.statuses.iter().any(is_other) {
            let what = format!("`{key}` names {pattern}, which stands in another list already");
            table.wrong(status, what);
        } else {
            self.statuses.push((pattern, verdict));
        }
    }

    fn add_matcher(
        &mut self,
        table: &TableReader<'_>,
        matcher: Located<Matcher>,
        verdict: Verdict,
    ) {
        let key = matcher.key;
        let is_success = matcher.value.status.is_some_and(StatusPattern::is_success);
        let is_other =
            |(other, meaning): &(Matcher, Verdict)| *other == matcher.value && *meaning != verdict;
        if verdict == Verdict::Released && is_success && matcher.value.is_status_only() {
            let what = "`retry` names a success without saying what else the answer holds, but a \
                        client that saw a success must never run again";
            table.wrong(&matcher, what);
        } else if self.matchers.iter().any(is_other) {
            let what = format!("`{key}` has a matcher that stands in another list already");
            table.wrong(&matcher, what);
        } else {
            self.matchers.push((matcher.value, verdict));
        }
    }
}

/// The rules with the entries of the preset's lists that are not written.
fn finished(table: &TableReader<'_>, preset: &OutcomeRules, entries: Entries) -> OutcomeTable {
    let Entries { mut statuses, matchers } = entries;
    let policies = POLICIES.map(|name| (name, Some(Some(name))));
    let on_unknown = table.choice("on_unknown", None, &policies);
    for (pattern, verdict) in preset.entries() {
        let replaced = LISTS.iter().any(|(key, of)| of == verdict && table.has(key));
        if !replaced && statuses.iter().all(|(other, _)| other != pattern) {
            statuses.push((*pattern, *verdict));
        }
    }
    let is_final = |verdict: &Verdict| *verdict == Verdict::Final;
    let finals = statuses.iter().any(|(_, verdict)| is_final(verdict))
        || matchers.iter().any(|(_, verdict)| is_final(verdict));
    if !finals {
        table.missing(&["final"], "no answer is final, so that none could ever be replayed");
    }
    let rules = OutcomeRules::new(statuses).unwrap_or_default().with_matchers(matchers);
    (rules, on_unknown)
}
