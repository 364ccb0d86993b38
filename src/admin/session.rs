//! Sessions of the operator's page, and the limit on wrong tokens.
//!
//! A session is kept by the digest of its cookie, in memory: a restart ends all sessions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::hex;

/// Name of the cookie, before the port of the page's address. Without the prefix `__Host-`, which
/// browsers accept over TLS only, while the listener is meant for loopback.
const COOKIE_NAME: &str = "oncegate_session";
/// Cookies of the name that are looked at. Another application of the host may have set one too.
const MOST_COOKIES: usize = 64;
/// Time without a request after which a session ends.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Longest time of a session.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; a further one ends the session that was idle for the longest time.
const MOST_SESSIONS: usize = 64;
/// Wrong tokens of an address within [`WINDOW`].
const MOST_WRONG: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses with wrong tokens that are remembered.
const MOST_ADDRESSES: usize = 1024;

/// The sessions, and the addresses that gave wrong tokens.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    state: Mutex<SessionState>,
}

#[derive(Debug, Default)]
struct SessionState {
    sessions: HashMap<[u8; 32], SessionEntry>,
    wrong: HashMap<IpAddr, Vec<Instant>>,
}

#[derive(Debug)]
struct SessionEntry {
    csrf: String,
    began: Instant,
    seen: Instant,
}

impl SessionEntry {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= LONGEST || now.duration_since(self.seen) >= IDLE
    }
}

/// A session that a request belongs to.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// The value that every form of the session carries.
    pub(super) csrf: String,
}

impl Sessions {
    fn state(&self) -> MutexGuard<'_, SessionState> {
        // No code under the lock can panic; the maps are consistent in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session instead of that of the request's cookie, and returns the value of
    /// `Set-Cookie`.
    pub(super) fn begin(&self, headers: &HeaderMap, now: Instant) -> String {
        let (value, csrf, name) = (random(), random(), cookie_name(headers));
        let mut state = self.state();
        for value in cookies(headers) {
            state.sessions.remove(&digest(value));
        }
        state.sessions.retain(|_, session| !session.is_over(now));
        if state.sessions.len() >= MOST_SESSIONS {
            let oldest = state.sessions.iter().min_by_key(|(_, session)| session.seen);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                state.sessions.remove(&oldest);
            }
        }
        state.sessions.insert(digest(&value), SessionEntry { csrf, began: now, seen: now });
        let seconds = LONGEST.as_secs();
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}")
    }

    /// The session of the request's cookie; `None`: there is none, or it is over.
    pub(super) fn find(&self, headers: &HeaderMap, now: Instant) -> Option<Session> {
        let mut state = self.state();
        for value in cookies(headers) {
            let digest = digest(value);
            let Some(entry) = state.sessions.get_mut(&digest) else { continue };
            if entry.is_over(now) {
                state.sessions.remove(&digest);
                continue;
            }
            entry.seen = now;
            return Some(Session { csrf: entry.csrf.clone() });
        }
        None
    }

    /// Ends the session of the request's cookie, and returns the `Set-Cookie` that removes it.
    pub(super) fn end(&self, headers: &HeaderMap) -> String {
        for value in cookies(headers) {
            self.state().sessions.remove(&digest(value));
        }
        let name = cookie_name(headers);
        format!("{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
    }

    /// The time after which this address may try a token; `None`: at once.
    pub(super) fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        let wrong = state.wrong.get_mut(&address)?;
        wrong.retain(|at| now.duration_since(*at) < WINDOW);
        let first = wrong.first()?;
        (wrong.len() >= MOST_WRONG).then(|| WINDOW.saturating_sub(now.duration_since(*first)))
    }

    /// Notes a wrong token.
    pub(super) fn wrong(&self, address: IpAddr, now: Instant) {
        let mut state = self.state();
        let is_new = !state.wrong.contains_key(&address);
        if is_new && state.wrong.len() >= MOST_ADDRESSES {
            state.wrong.retain(|_, wrong| {
                wrong.last().is_some_and(|last| now.duration_since(*last) < WINDOW)
            });
            if state.wrong.len() >= MOST_ADDRESSES {
                // As many addresses at once are an attack; the token's length is the protection.
                state.wrong.clear();
            }
        }
        let wrong = state.wrong.entry(address).or_default();
        if wrong.len() < MOST_WRONG {
            wrong.push(now);
        }
    }
}

/// True if the request has a cookie of a session, valid or not.
pub(super) fn has_cookie(headers: &HeaderMap) -> bool {
    cookies(headers).next().is_some()
}

/// Name of the cookie for the address under which the browser asks. Browsers send cookies to every
/// port of a host, so without the port two gateways of a host would end each other's sessions.
fn cookie_name(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let port = host.and_then(|host| Authority::try_from(host).ok()?.port_u16());
    port.map_or_else(|| COOKIE_NAME.to_owned(), |port| format!("{COOKIE_NAME}_{port}"))
}

/// The values of all cookies of the name, whatever the port: who can set cookies for the host must
/// not keep operators out by one more of this name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = pairs(headers).filter_map(|pair| {
        let (port, value) = pair.strip_prefix(COOKIE_NAME)?.split_once('=')?;
        (port.is_empty() || port.starts_with('_')).then_some(value)
    });
    values.filter(|value| !value.is_empty()).take(MOST_COOKIES)
}

/// Names and values of all cookies, each `name=value`.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).map(str::trim)
}

fn digest(value: &str) -> [u8; 32] {
    Sha256::digest(value).into()
}

/// A value that cannot be guessed: three random UUIDs have 366 random bits.
fn random() -> String {
    let mut hash = Sha256::new();
    for _ in 0..3 {
        hash.update(uuid::Uuid::new_v4().as_bytes());
    }
    hex::encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set_cookie: &str) -> HeaderMap {
        let pair = set_cookie.split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, format!("a=b; {pair}").parse().unwrap())])
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_at_last_in_any_case() {
        let (sessions, none) = (Sessions::default(), HeaderMap::new());
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let (idle, used) =
            (with(&sessions.begin(&none, start)), with(&sessions.begin(&none, start)));
        let csrf = sessions.find(&idle, start).unwrap().csrf;
        assert_ne!(csrf, sessions.find(&used, start).unwrap().csrf);
        for minutes in (0..12 * 60).step_by(29) {
            assert!(sessions.find(&used, after(minutes)).is_some(), "{minutes}");
        }
        assert!(sessions.find(&idle, after(30)).is_none());
        assert!(sessions.find(&used, after(12 * 60)).is_none());
        assert!(sessions.find(&HeaderMap::new(), start).is_none());
    }

    #[test]
    fn sessions_and_addresses_are_limited() {
        let (sessions, none) = (Sessions::default(), HeaderMap::new());
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let first = with(&sessions.begin(&none, start));
        for _ in 0..MOST_SESSIONS {
            sessions.begin(&none, after(1));
        }
        assert!(sessions.find(&first, after(1)).is_none());
        assert_eq!(sessions.state().sessions.len(), MOST_SESSIONS);
        let address = IpAddr::from([127, 0, 0, 1]);
        for second in 0..MOST_WRONG as u64 {
            assert_eq!(sessions.blocked(address, after(second)), None);
            sessions.wrong(address, after(second));
        }
        assert_eq!(sessions.blocked(address, after(10)), Some(Duration::from_secs(50)));
        assert_eq!(sessions.blocked(IpAddr::from([127, 0, 0, 2]), after(10)), None);
        assert_eq!(sessions.blocked(address, after(60)), None);
        for last in 0..3000_u32 {
            sessions.wrong(IpAddr::from(last.to_be_bytes()), after(60));
        }
        assert!(sessions.state().wrong.len() <= MOST_ADDRESSES);
        let ended = with(&sessions.begin(&none, start));
        sessions.end(&ended);
        assert!(sessions.find(&ended, start).is_none());
    }
}
