//! The query of a listing: parameters and the cursor.

use super::cursor;
use super::view::StateName;
use crate::admin::error::ApiError;
use crate::clock::{Timestamp, parse_rfc3339};
use crate::idempotency::TenantId;
use crate::percent;
use crate::store::ListPosition;

/// Default and maximum records of a page.
const LIMIT: usize = 100;
const MOST: usize = 1000;

/// The filters of a listing.
#[derive(Debug, Default)]
pub(in crate::admin) struct Filters {
    pub(in crate::admin) key: Option<String>,
    pub(in crate::admin) tenant: Option<TenantId>,
    /// The name of the caller.
    pub(in crate::admin) caller: Option<String>,
    pub(in crate::admin) subject: Option<String>,
    pub(in crate::admin) state: Option<StateName>,
    pub(in crate::admin) route: Option<String>,
    pub(in crate::admin) limit: usize,
    /// Lists only records first claimed at this time or later.
    pub(in crate::admin) since: Option<Timestamp>,
    /// Lists only records first claimed at this time or earlier.
    pub(in crate::admin) until: Option<Timestamp>,
    /// The position to continue at.
    pub(in crate::admin) position: Option<ListPosition>,
}

/// Names and values of a query: `&` separates pairs, `%` starts two hex digits, nothing else has
/// a meaning. `+` stands for itself, as in a telephone number. Empty values count as absent.
///
/// # Errors
/// A name is not in `names` or repeated, or a value is not UTF-8.
pub(in crate::admin) fn pairs<'n>(
    query: &str,
    names: &[&'n str],
) -> Result<Vec<(&'n str, String)>, ApiError> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(known) = names.iter().find(|known| **known == name) else {
            return Err(match names {
                [] => invalid("this address takes no query; leave it out"),
                _ => {
                    let names = names.join(", ");
                    invalid(format!("there is no parameter of this name; there is {names}"))
                }
            });
        };
        if found.iter().any(|(other, _)| other == known) {
            return Err(invalid(format!("`{known}` stands twice; keep one of them")));
        }
        let Some(value) = percent::decode(value) else {
            return Err(invalid(format!("`{known}` is not UTF-8 written with percent signs")));
        };
        found.push((known, value));
    }
    found.retain(|(_, value)| !value.is_empty());
    Ok(found)
}

impl Filters {
    /// Records of the largest page.
    pub(in crate::admin) const MOST: usize = MOST;

    /// Reads a query.
    ///
    /// # Errors
    /// For the first thing in it that is wrong.
    pub(in crate::admin) fn parse(query: &str) -> Result<Self, ApiError> {
        const NAMES: [&str; 9] =
            ["key", "tenant", "subject", "state", "route", "since", "until", "limit", "cursor"];
        let pairs = pairs(query, &NAMES)?;
        Self::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// The filters of these names and values.
    ///
    /// # Errors
    /// For the first of them that is wrong.
    pub(in crate::admin) fn from_pairs<'p>(
        pairs: impl Iterator<Item = (&'p str, &'p str)>,
    ) -> Result<Self, ApiError> {
        let mut filters = Self { limit: LIMIT, ..Self::default() };
        let mut cursor = None;
        for (name, value) in pairs {
            let value = value.to_owned();
            match name {
                "key" => filters.key = Some(value),
                "subject" => filters.subject = Some(value),
                "route" => filters.route = Some(value),
                "tenant" => match TenantId::parse(&value) {
                    Some(tenant) => filters.tenant = Some(tenant),
                    None => filters.caller = Some(value),
                },
                "state" => {
                    let state = StateName::parse(&value);
                    filters.state = Some(state.ok_or_else(|| {
                        invalid(format!("`state` is one of {}", StateName::all()))
                    })?);
                }
                "since" => filters.since = Some(time("since", &value)?),
                "until" => filters.until = Some(time("until", &value)?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    filters.limit = limit
                        .ok_or_else(|| invalid(format!("`limit` is a number, 1 to {MOST}")))?;
                }
                "cursor" => cursor = Some(value),
                _ => return Err(invalid("there is no parameter of this name")),
            }
        }
        if let Some(cursor) = cursor {
            let position = filters.read_cursor(&cursor).ok_or_else(|| {
                invalid("this `cursor` is not one that a listing with these filters gave")
            })?;
            filters.position = Some(position);
        }
        Ok(filters)
    }

    /// The cursor of the next page.
    pub(in crate::admin) fn cursor(&self, position: ListPosition) -> String {
        let text = cursor::text(position);
        format!("{text}{:08x}", self.checksum(&text))
    }

    fn read_cursor(&self, text: &str) -> Option<ListPosition> {
        let (position, _) = text.split_at_checked(text.len().checked_sub(8)?)?;
        let position = cursor::parse(position)?;
        (self.cursor(position) == text).then_some(position)
    }

    /// Checksum over the filters and the position, so that a cursor fits its own listing only.
    fn checksum(&self, position: &str) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        let mut field = |text: Option<&str>| {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(&length.to_le_bytes());
            hash.update(text.unwrap_or_default().as_bytes());
        };
        field(Some("oncegate/cursor/3"));
        field(self.key.as_deref());
        field(self.tenant.map(|tenant| tenant.to_string()).as_deref());
        field(self.caller.as_deref());
        field(self.subject.as_deref());
        field(self.state.map(StateName::as_str));
        field(self.route.as_deref());
        for time in [self.since, self.until] {
            field(time.map(|time| time.as_millis().to_string()).as_deref());
        }
        field(Some(position));
        hash.finalize()
    }
}

/// The number of an attempt.
pub(super) fn attempt(text: &str) -> Result<u32, ApiError> {
    text.parse().map_err(|_| invalid("`attempt` is a number, as the record counts attempts"))
}

fn time(name: &str, text: &str) -> Result<Timestamp, ApiError> {
    parse_rfc3339(text).ok_or_else(|| {
        invalid(format!("`{name}` is a time such as 2026-01-31T23:59:59Z (RFC 3339)"))
    })
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::invalid("query-invalid", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::idempotency::RecordId;

    const TENANT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn values_are_read_as_they_were_meant() {
        let query =
            format!("key=a%2Bb%26c&tenant={TENANT}&subject=+65%209&state=unknown&route=&limit=7");
        let filters = Filters::parse(&query).unwrap();
        assert_eq!(filters.key.as_deref(), Some("a+b&c"));
        assert_eq!(filters.tenant.map(|it| it.to_string()).as_deref(), Some(TENANT));
        assert_eq!(filters.subject.as_deref(), Some("+65 9"));
        assert_eq!(
            (filters.state, filters.route, filters.limit),
            (Some(StateName::Unknown), None, 7)
        );
        assert_eq!(Filters::parse("").unwrap().limit, 100);
        assert_eq!(Filters::parse("key=&limit=&&").unwrap().key, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, wanted) in [
            ("colour=red", "there is no parameter of this name; there is key, tenant, "),
            ("key=a&key=b", "`key` stands twice"),
            ("key=%zz", "`key` is not UTF-8"),
            ("key=%e", "`key` is not UTF-8"),
            ("key=%ff", "`key` is not UTF-8"),
            ("state=lost", "`state` is one of in_flight, unknown, final, "),
            ("limit=0", "`limit` is a number, 1 to 1000"),
            ("limit=1001", "`limit` is a number"),
            ("limit=-1", "`limit` is a number"),
            ("limit=ten", "`limit` is a number"),
            ("since=yesterday", "`since` is a time such as"),
            ("until=2026-01-31", "`until` is a time such as"),
            ("cursor=x", "this `cursor` is not one"),
        ] {
            let error = Filters::parse(query).unwrap_err();
            assert!(error.detail.starts_with(wanted), "{query}: {}", error.detail);
            assert_eq!((error.status.as_u16(), error.code), (400, "query-invalid"));
        }
    }

    #[test]
    fn an_address_without_parameters_says_so() {
        assert!(pairs("", &[]).is_ok());
        let error = pairs("x=1", &[]).unwrap_err();
        assert_eq!(error.detail, "this address takes no query; leave it out");
    }

    #[test]
    fn a_cursor_goes_on_with_its_own_filters_only() {
        let id = RecordId::from_bytes([7; 16]);
        let position = ListPosition { first_seen: Timestamp::from_millis(1 << 40), id };
        let cursor = Filters::parse("key=a").unwrap().cursor(position);
        let after = |query: &str| Filters::parse(query).map(|filters| filters.position);
        assert_eq!(after(&format!("key=a&limit=3&cursor={cursor}")).unwrap(), Some(position));
        for query in [
            format!("key=b&cursor={cursor}"),
            format!("cursor={cursor}"),
            format!("key=a&route=a&cursor={cursor}"),
            format!("key=a&since=2026-01-31T23:59:59Z&cursor={cursor}"),
            format!("key=a&cursor={}", cursor.replacen('0', "1", 1)),
            format!("key=a&cursor={}", &cursor[..39]),
            "key=a&cursor=%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9".to_owned(),
            format!("key=a&cursor={cursor}0"),
        ] {
            assert!(after(&query).is_err(), "{query}");
        }
    }
}
