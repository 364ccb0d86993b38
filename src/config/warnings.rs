//! Warnings: notes on configurations that are valid and have a trap. `oncegate check` prints the
//! warnings, and every start logs them.

use super::document::TomlValue;
use super::model::{Config, Mode, RouteConfig};
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
    let is_at_risk = |route: &RouteConfig| {
        let callers = route.tenant.as_ref().unwrap_or(&config.tenant);
        !matches!(route.mode, Mode::Off) && callers.is_by_raw_token()
    };
    config.routes.iter().any(is_at_risk).then(|| {
        "callers are named by their `authorization` header as it is: whoever renews a token is \
         another caller, and a retry under the new token runs again. Name callers by a credential \
         that stays the same, such as [tenant] headers = [\"x-api-key\"]"
            .to_owned()
    })
}
