//! The keys that a running gateway cannot change.

use super::model::Config;

/// The keys, and the tables, that a running gateway cannot change.
pub(crate) const NEEDS_RESTART: [&str; 9] = [
    "admin.listen",
    "log.format",
    "server.listen",
    "server.workers",
    "store.embedded",
    "store.encryption",
    "store.postgres",
    "store.redis",
    "traces",
];

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

#[cfg(test)]
mod tests {
    use super::NEEDS_RESTART;

    #[test]
    fn what_is_kept_is_among_the_keys_that_need_a_restart() {
        let routes = "upstream = [{ name = 'b', url = 'http://127.0.0.1:1' }]\n\
                      route = [{ name = 'r', methods = ['POST'], path = '/', upstream = 'b' }]\n";
        let read = |rest: &str| {
            crate::config::parse(&format!("{routes}{rest}"), "x.toml", &|_| None).unwrap()
        };
        let running = read("store.embedded.path = 's'");
        let mut changed = read(
            "server = { listen = ['127.0.0.1:1'], workers = 3 }\nadmin.listen = '127.0.0.1:2'\n\
             log.format = 'json'\ntraces.otlp = 'http://127.0.0.1:3'\nstore.embedded.path = 't'",
        );
        let kept = changed.keep_unreloadable(&running);
        assert_eq!(kept.len(), 6, "{kept:?}");
        for key in kept {
            let is_key = |other: &&str| **other == *key || other.starts_with(&format!("{key}."));
            assert!(NEEDS_RESTART.iter().any(is_key), "{key}");
        }
        assert!(changed.keep_unreloadable(&running).is_empty());
    }
}
