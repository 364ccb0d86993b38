//! The keys that a running gateway cannot change.

use super::model::Config;

impl Config {
    /// Puts the values of `running` back for keys that need a restart, and returns the keys whose
    /// values differ.
    pub fn keep_unreloadable(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let mut keep = |key, is_same: bool| {
            if !is_same {
                kept.push(key);
            }
        };
        keep("server.listen", self.server.listen == running.server.listen);
        self.server.listen.clone_from(&running.server.listen);
        keep("server.workers", self.server.workers == running.server.workers);
        self.server.workers = running.server.workers;
        keep("admin.listen", self.admin.listen == running.admin.listen);
        self.admin.listen = running.admin.listen;
        keep("log.format", self.log.format == running.log.format);
        self.log.format = running.log.format;
        keep("traces", self.traces == running.traces);
        self.traces.clone_from(&running.traces);
        let is_same = self.store.encryption == running.store.encryption;
        keep("store.encryption", is_same);
        self.store.encryption.clone_from(&running.store.encryption);
        keep("store", self.store.engine == running.store.engine);
        self.store.engine = running.store.engine.clone();
        kept
    }
}
