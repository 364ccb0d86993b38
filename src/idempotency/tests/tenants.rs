//! Callers: spellings of one set of credentials are one tenant, different credentials never are.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::idempotency::TenantId;
use crate::idempotency::tenant::CredentialHeaders;

const NAMES: [&str; 5] = ["authorization", "host", "proxy-authorization", "x-api-key", "x-shop"];

/// Random numbers from a seed that is printed, and taken from `ONCEGATE_TEST_SEED` when set.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| crate::clock::now().as_millis());
        println!("ONCEGATE_TEST_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("a small number")
    }
}

/// Credentials as they are meant: name, scheme and value of each header line.
type Credentials = BTreeSet<(&'static str, &'static str, &'static str)>;

fn tenant(names: &[&'static str], lines: &[(&'static str, String)]) -> TenantId {
    let names = names.iter().map(|name| HeaderName::from_static(name)).collect();
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).expect("a header value"));
    }
    TenantId::of(&CredentialHeaders::new(names), &headers)
}

/// A way to write and to configure these credentials.
fn any_spelling(random: &mut Random, meant: &Credentials) -> TenantId {
    let mut names = NAMES.to_vec();
    // Absent headers name nobody, so they may be configured or not.
    names.retain(|name| meant.iter().any(|line| line.0 == *name) || random.below(2) == 0);
    let mut lines: Vec<(&'static str, String)> = Vec::new();
    for (name, scheme, value) in meant {
        for _ in 0..=random.below(2) {
            let case: String = scheme
                .chars()
                .map(|letter| match random.below(2) {
                    0 => letter.to_ascii_uppercase(),
                    _ => letter.to_ascii_lowercase(),
                })
                .collect();
            lines.push((name, format!("{case}{value}")));
        }
    }
    for name in &names {
        if random.below(3) == 0 {
            lines.push((name, String::new()));
        }
    }
    shuffle(random, &mut names);
    shuffle(random, &mut lines);
    lines.push(("accept", random.below(9).to_string()));
    tenant(&names, &lines)
}

fn shuffle<T>(random: &mut Random, list: &mut [T]) {
    for at in (1..list.len()).rev() {
        list.swap(at, random.below(at + 1));
    }
}

fn some_credentials(random: &mut Random) -> Credentials {
    let mut meant = Credentials::new();
    for _ in 0..random.below(4) {
        let name = NAMES[random.below(NAMES.len())];
        let scheme = match name {
            "authorization" | "proxy-authorization" => ["", "bearer ", "basic "][random.below(3)],
            "host" => ["shop.example", "till.example"][random.below(2)],
            _ => "",
        };
        let value = match name {
            "host" => "",
            _ => ["a", "A", "b", "bearer", "a a", "1"][random.below(6)],
        };
        // "a a" without a scheme is the scheme "a" with the credential "a".
        let value = if scheme.is_empty() && value == "a a" { "c" } else { value };
        meant.insert((name, scheme, value));
    }
    meant
}

#[test]
fn one_set_of_credentials_is_one_tenant_in_any_spelling_and_no_other() {
    let mut random = Random::new();
    let mut kinds = [0, 0];
    for _ in 0..5000 {
        let (one, other) = (some_credentials(&mut random), some_credentials(&mut random));
        let named = any_spelling(&mut random, &one);
        assert_eq!(any_spelling(&mut random, &one), named, "{one:?}");
        let same = any_spelling(&mut random, &other) == named;
        assert_eq!(same, one == other, "{one:?} and {other:?}");
        kinds[usize::from(same)] += 1;
    }
    assert!(kinds.iter().all(|count| *count > 50), "{kinds:?}");
}

#[test]
fn the_scheme_alone_has_no_case() {
    let names = ["authorization", "x-api-key", "host"];
    let same = |name: &'static str, one: &str, other: &str| {
        tenant(&names, &[(name, one.to_owned())]) == tenant(&names, &[(name, other.to_owned())])
    };
    for (name, one, other, equal) in [
        ("authorization", "Bearer Abc", "bearer Abc", true),
        ("authorization", "Bearer Abc", "Bearer abc", false),
        ("authorization", "Bearer Abc", "Basic Abc", false),
        ("authorization", "Abc", "abc", false),
        ("x-api-key", "Key Abc", "key Abc", false),
        ("host", "Shop.example", "shop.example", true),
        ("host", "shop.example", "shop.example:81", false),
    ] {
        assert_eq!(same(name, one, other), equal, "{name}: {one}, {other}");
    }
}

#[test]
fn names_values_and_lines_do_not_run_into_each_other() {
    let names = ["x-a", "x-ab", "x-b"];
    let lines = |lines: &[(&'static str, &str)]| {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, (*value).into())).collect();
        tenant(&names, &lines)
    };
    let callers = [
        lines(&[]),
        lines(&[("x-a", "a")]),
        lines(&[("x-b", "a")]),
        lines(&[("x-a", "a"), ("x-b", "a")]),
        lines(&[("x-a", "a"), ("x-a", "b")]),
        lines(&[("x-a", "ab")]),
        lines(&[("x-a", "a, b")]),
        lines(&[("x-ab", "a")]),
        lines(&[("x-a", "ba")]),
    ];
    for (at, left) in callers.iter().enumerate() {
        assert!(callers[..at].iter().all(|right| right != left), "caller {at}");
    }
}
