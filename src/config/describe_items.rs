//! Routes in items mode, as `oncegate check` shows them.

use serde::{Serialize, Serializer};
use serde_json::json;

use super::model::ItemsMode;
use super::shown::outcome_json;

/// The place of the keys in the bodies of a route, for people.
pub(super) fn items_key_cell(mode: &ItemsMode) -> String {
    let rules = &mode.rules;
    let list = match (rules.at.to_string(), rules.single) {
        (at, false) => format!("{at}/*"),
        (at, true) => at,
    };
    format!("body {list}{}", rules.id)
}

impl Serialize for ItemsMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = json!(self.rules);
        items["ledger"] = json!(self.ledger);
        let shown = json!({
            "items": items,
            "duplicates": self.duplicates,
            "outcome": outcome_json(&self.outcome),
            "record": self.record,
            "errors": self.dialect.name(),
        });
        shown.serialize(serializer)
    }
}
