//! `[route.outcome]`: the meaning of a backend's statuses.

use super::table::TableReader;
use crate::idempotency::outcome::{OutcomeRules, StatusPattern, Verdict};

/// The rules of a route. A list left out keeps the preset, except for entries of written lists.
pub(super) fn outcome(table: &TableReader<'_>, preset: &OutcomeRules) -> OutcomeRules {
    let lists =
        [("final", Verdict::Final), ("retry", Verdict::Released), ("unknown", Verdict::Unknown)];
    let mut entries: Vec<(StatusPattern, Verdict)> = Vec::new();
    for (key, verdict) in lists {
        for status in table.list::<StatusPattern>(key).into_iter().flatten() {
            let pattern = status.value;
            let success = match pattern {
                StatusPattern::Exact(status) => status < 300,
                StatusPattern::Class(digit) => digit == 2,
            };
            let elsewhere =
                entries.iter().any(|(other, meaning)| *other == pattern && *meaning != verdict);
            if success && verdict == Verdict::Released {
                let what = format!(
                    "`retry` names {pattern}, but a client that saw a success must never run again"
                );
                table.wrong(&status, what);
            } else if elsewhere {
                let what = format!("`{key}` names {pattern}, which stands in another list already");
                table.wrong(&status, what);
            } else {
                entries.push((pattern, verdict));
            }
        }
    }
    let policies = [("hold", Some(())), ("probe", None), ("resend", None)];
    table.choice("on_unknown", (), &policies);
    for (pattern, verdict) in preset.entries() {
        let replaced = lists.iter().any(|(key, of)| of == verdict && table.has(key));
        if !replaced && entries.iter().all(|(other, _)| other != pattern) {
            entries.push((*pattern, *verdict));
        }
    }
    if !entries.iter().any(|(_, verdict)| *verdict == Verdict::Final) {
        table.missing(&["final"], "no status is final, so that no answer could ever be replayed");
    }
    OutcomeRules::new(entries).unwrap_or_default()
}
