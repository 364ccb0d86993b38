//! `[route.suspect]`: another key of one caller about one subject.

use std::time::Duration;

use serde::Serialize;

use super::shown;
use super::table::TableReader;
use super::values::SHORTEST;

/// `[route.suspect]`
#[derive(Debug, Clone, Serialize)]
pub struct SuspectRules {
    /// Time after an attempt in which another key for its subject is suspicious.
    #[serde(serialize_with = "shown::time")]
    pub within: Duration,
    /// The reply to a suspicious request.
    pub then: SuspectAction,
}

/// The reply to a suspicious request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SuspectAction {
    /// The usual answer, with the earlier attempt in a header.
    Tell,
    /// 409, unless the client insists.
    Refuse,
}

/// The longest time to look back; records of older attempts may be gone.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The table; `None`: it is not in the file. `has_subject`: `[route.record]` names a subject.
pub(super) fn suspect(route: &TableReader<'_>, has_subject: bool) -> Option<SuspectRules> {
    let place = route.place("suspect");
    let rules = route.optional_table("suspect", |table| {
        if !table.has("within") {
            let what = "[route.suspect] has no `within`, the time between two sales that may be \
                        one, such as \"10m\"";
            table.missing(&["within"], what);
        }
        let actions =
            [("tell", Some(SuspectAction::Tell)), ("refuse", Some(SuspectAction::Refuse))];
        SuspectRules {
            within: table.time("within", SHORTEST, SHORTEST..=LONGEST),
            then: table.choice("then", SuspectAction::Tell, &actions),
        }
    });
    if place.is_some() && !has_subject {
        let what = "[route.suspect] needs a `subject` in [route.record], which says what two \
                    requests may both be about";
        route.wrong_elsewhere(place, what);
    }
    rules
}
