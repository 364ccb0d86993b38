//! Warnings about files readable by more users than necessary, and about old certificates.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::clock::{self, Timestamp};
use crate::config::{Config, EngineConfig};
use crate::net::tls_server::ListenerTls;
use crate::observe::metrics::Metrics;

/// Bits of a mode for the owner's group and for all other users.
const NOT_OWNER: u32 = 0o077;
/// Mode bit for reading by all users. A group may read a token: containers get secrets from a
/// different owner in that way.
const READ_BY_ALL: u32 = 0o004;

/// Logs a warning for the store's directory and for the token file, if readable by others. The
/// store itself creates private files only: wider permissions are older, or set by an operator.
pub(super) fn warn_of_wide(config: &Config) {
    if let EngineConfig::Embedded { path, .. } = &config.store.engine {
        let mut wide = Wide::default();
        // Files without access are not the store's.
        let _ = wide.look(path);
        if let Some((first, mode)) = &wide.first {
            tracing::warn!(
                path = %first,
                mode = %format_args!("{mode:04o}"),
                files = wide.count,
                "the store has wider permissions than 0700 for directories and 0600 for files, and \
                 holds keys and answers; run `chmod -R go= {}`",
                path.display()
            );
        }
    }
    if let Some(path) = &config.admin.token_file
        && let Ok(found) = fs::metadata(path)
        && found.permissions().mode() & READ_BY_ALL != 0
    {
        tracing::warn!(
            path = %path.display(),
            mode = %format_args!("{:04o}", found.permissions().mode() & 0o7777),
            "every user of this machine may read the token of the records API, which shows answers \
             and settles outcomes; run `chmod o= {}`",
            path.display()
        );
    }
}

/// Seconds before the end of a certificate's validity in which it should have been renewed. The
/// usual renewals leave 30 days.
const RENEWAL: u64 = 14 * 86_400;

/// Notes the end of the validity of the listener's certificate, and warns when the end is near.
pub(super) fn note_expiry(metrics: &Metrics, tls: Option<&ListenerTls>) {
    if let Some(expires) = tls.and_then(ListenerTls::expires) {
        metrics.certificate_expires(Timestamp::from_millis(expires.saturating_mul(1000)));
        warn_of_expiry(expires);
    }
}

/// Logs a warning for a certificate that is not valid any more, or not for long; `expires` counts
/// seconds since 1970.
fn warn_of_expiry(expires: u64) {
    let now = clock::now().as_millis() / 1000;
    if now >= expires {
        tracing::warn!("the certificate of the listener has expired; clients refuse it");
    } else if expires - now < RENEWAL {
        let days = (expires - now) / 86_400;
        tracing::warn!(days, "the certificate of the listener expires soon; renew it");
    }
}

/// Directories and files with permissions for others than their owner.
#[derive(Default)]
struct Wide {
    count: usize,
    /// The first such path, with its mode.
    first: Option<(String, u32)>,
}

impl Wide {
    fn look(&mut self, path: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(path)?;
        let mode = found.permissions().mode() & 0o7777;
        // The mode of a symbolic link is meaningless.
        if mode & NOT_OWNER != 0 && !found.is_symlink() {
            self.count += 1;
            self.first.get_or_insert_with(|| (path.display().to_string(), mode));
        }
        if found.is_dir() {
            for entry in fs::read_dir(path)? {
                let _ = self.look(&entry?.path());
            }
        }
        Ok(())
    }
}
