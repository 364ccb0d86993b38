//! The authorization service of a gateway.

use super::{Backend, Setup};

impl Setup {
    /// With `service` as the upstream `auth`, which has `timeout`.
    pub(crate) fn authorization_service(self, service: &Backend, timeout: &str) -> Self {
        let backend = "[[upstream]]\nname = \"backend\"";
        let both = format!(
            "[[upstream]]\nname = \"auth\"\nurl = \"http://{}\"\ntimeout = \"{timeout}\"\n{backend}",
            service.addr()
        );
        self.replacing(backend, both)
    }
}
