//! Warnings: notes on configurations that are valid and have a trap. `oncegate check` prints the
//! warnings, and every start logs them.

use http::header::AUTHORIZATION;

use super::document::TomlValue;
use super::model::{Config, Mode};
use super::table::TableReader;

impl TableReader<'_> {
    /// Notes a warning at the place of a table or a value ([`TableReader::place`]).
    pub(super) fn warn(&self, at: Option<usize>, what: impl Into<String>) {
        self.reading.diagnostics.warn(at, what);
    }
}

/// Warns of callers that are named by a credential which clients renew.
pub(super) fn warn_of_renewed_credentials(root: &TableReader<'_>, config: &Config) {
    let Some(what) = renewed_credentials(config) else { return };
    let table = root.node("tenant");
    let headers = table.and_then(|table| match &table.value {
        TomlValue::Table(members) => members.iter().find(|member| member.key == "headers"),
        _ => None,
    });
    let at = headers.map(|member| member.node.at).or(table.map(|table| table.at));
    root.warn(at, what);
}

/// The warning about renewed credentials, where a keyed route names its callers by one.
pub(super) fn renewed_credentials(config: &Config) -> Option<String> {
    let is_keyed = config.routes.iter().any(|route| !matches!(route.mode, Mode::Off));
    (is_keyed && config.tenant.headers.contains(&AUTHORIZATION)).then(|| {
        "callers are named by their `authorization` header as it is: whoever renews a token is \
         another caller, and a retry under the new token runs again. Name callers by a credential \
         that stays the same, such as [tenant] headers = [\"x-api-key\"]"
            .to_owned()
    })
}
