//! References in a backend's answers, resolved to targets on the same backend.

use super::Upstream;

impl Upstream {
    /// The target of a reference in the answer to a request for `base`; `None`: the reference leads
    /// to another server, or out of its path by dot segments.
    pub(crate) fn own_target(&self, base: &str, reference: &str) -> Option<String> {
        let target = match reference.split_once("://") {
            Some((scheme, rest)) if !reference.starts_with('/') => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                let name = format!("{}://{authority}", scheme.to_ascii_lowercase());
                let own = self.endpoints.iter().find(|endpoint| {
                    let host = endpoint.target.host_header.as_bytes();
                    endpoint.target.name.eq_ignore_ascii_case(&name)
                        // A backend that is called by its public name links with this name.
                        || host.eq_ignore_ascii_case(authority.as_bytes())
                });
                own?;
                if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
            }
            _ if reference.starts_with("//") => return None,
            _ if reference.starts_with('/') => reference.to_owned(),
            _ if reference.starts_with('?') => {
                format!("{}{reference}", base.split('?').next().unwrap_or_default())
            }
            _ => {
                let path = base.split('?').next().unwrap_or_default();
                let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
                format!("{folder}{reference}")
            }
        };
        let target = target.split('#').next().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return None;
        }
        // A request's target has no prefix: it is added for each URL.
        let prefix = self.endpoints.iter().map(|endpoint| endpoint.target.prefix.as_str());
        let mut prefix = prefix.filter(|prefix| !prefix.is_empty());
        let inner = prefix.find_map(|prefix| {
            target.strip_prefix(prefix).filter(|rest| rest.starts_with(['/', '?']))
        });
        Some(inner.unwrap_or(target).to_owned())
    }
}
