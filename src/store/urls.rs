//! Parsing of the URLs of stores on servers, both when the configuration is checked and when the
//! store is opened, so that both accept the same.
//!
//! No message repeats a part of a URL, because the part may belong to the password.

use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};
use tokio_postgres::Config;

/// Parses a URL of PostgreSQL, or libpq's `key=value` form. `require` here means the same as
/// libpq's `verify-full` and `verify-ca`.
///
/// # Errors
/// One line that never shows the password.
pub(crate) fn postgres(url: &str) -> Result<Config, String> {
    let mut text = url.to_owned();
    for mode in ["verify-full", "verify-ca"] {
        text = text.replace(&format!("sslmode={mode}"), "sslmode=require");
    }
    for (option, instead) in [("sslrootcert", "ca"), ("sslcert", "client_cert")] {
        if text.contains(&format!("{option}=")) {
            return Err(format!("`{option}` in the URL of PostgreSQL: use the key `{instead}`"));
        }
    }
    let config: Config = text.parse().map_err(|_| {
        "the URL of PostgreSQL cannot be read: expected \
         postgresql://user:password@host:port/database?sslmode=require, with the password \
         percent-encoded"
            .to_owned()
    })?;
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let count = hosts.max(addresses);
    if count == 0 {
        return Err("the URL of PostgreSQL names no host".to_owned());
    }
    let fits = |len: usize| len <= 1 || len == count;
    if !fits(config.get_ports().len()) || (hosts > 0 && addresses > 0 && !fits(hosts)) {
        return Err("the URL of PostgreSQL names more or fewer ports than hosts".to_owned());
    }
    Ok(config)
}

/// A parsed URL of Redis.
pub(crate) struct RedisUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Credentials and number of the database.
    pub(crate) user: RedisConnectionInfo,
    /// Set for `rediss://`.
    pub(crate) secure: bool,
}

/// Parses a URL: `redis://[user[:password]@]host[:port][/database]`, `rediss://` for TLS.
///
/// # Errors
/// One line that never shows the password.
pub(crate) fn redis(url: &str) -> Result<RedisUrl, String> {
    let form = "a Redis URL is redis://user:password@host:port/database, rediss:// for TLS; \
                percent-encode special characters of the password";
    let (secure, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err(format!("the URL of the Redis server cannot be read: {form}")),
    };
    if rest.contains('#') || rest.contains('?') {
        return Err(format!(
            "the URL of the Redis server has parts that mean nothing here: {form}"
        ));
    }
    // The library's own error could show a part of the URL.
    let unreadable = |_| format!("the URL of the Redis server cannot be read: {form}");
    let info = format!("redis://{rest}").into_connection_info().map_err(unreadable)?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(format!("the URL of the Redis server names no host: {form}"));
    };
    let user = info.redis_settings().clone().set_skip_set_lib_name();
    Ok(RedisUrl { host: host.clone(), port: *port, user, secure })
}
