//! Matchers: conditions on answers, rows, items and requests.

use http::HeaderName;

use super::document::{TomlNode, TomlValue};
use super::table::{Located, TableReader};
use super::units::{Scalar, ScalarText};
use crate::matcher::{Condition, MatchPlace, Matcher, StatusPattern, ValueTest};
use crate::xml::XmlPath;

/// The message that a matcher looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchScope {
    /// An answer of a backend.
    Answer,
    /// A row of an answer, or an answer without rows.
    Row,
    /// An item of a request.
    Item,
    /// A request.
    Request,
}

impl MatchScope {
    /// The keys of places that nothing stands at, and the reason.
    fn without(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Answer => (&["query"], "an answer has no query"),
            Self::Row | Self::Item => (
                &["header", "xml", "form", "query"],
                "rows and items are JSON values; name a member with `pointer`",
            ),
            Self::Request => (&[], ""),
        }
    }
}

/// The tests of a value, of which a place has at most one; `contains` may stand beside a test.
const TESTS: [&str; 5] = ["equals", "one_of", "class", "present", "absent_or_null"];

/// A matcher, or a list of alternative matchers; `None`: the key is not in the file.
pub(super) fn matchers(
    table: &TableReader<'_>,
    key: &'static str,
    scope: MatchScope,
) -> Option<Vec<Matcher>> {
    let expected = "a matcher such as { pointer = \"/code\", equals = 5 }, or a list of them";
    let matchers = table.one_or_more_tables(key, expected, |table| matcher(table, scope))?;
    Some(matchers.into_iter().flatten().collect())
}

/// `{ status = 402, header = { name = "x-a", equals = "…" }, pointer = "/error/code", equals = "…",
/// contains = "…", unless = { … } }`; `None`: a mistake was noted.
pub(super) fn matcher(table: &TableReader<'_>, scope: MatchScope) -> Option<Matcher> {
    let status = table.optional::<StatusPattern>("status");
    let of_request = matches!(scope, MatchScope::Item | MatchScope::Request);
    if let Some(status) = status.as_ref().filter(|_| of_request) {
        table.wrong(status, "`status` has no use here: a request has none");
    }
    let (keys, why) = scope.without();
    for key in keys.iter().filter(|key| table.has(key)) {
        table.wrong_at(&[key], format!("`{key}` has no use here: {why}"));
    }
    // Rows of an answer with several arrays are told apart by theirs.
    let array = if scope == MatchScope::Row { table.pointer("array") } else { None };
    let (of_header, header_place) = header(table);
    let places = places(table);
    let tests = tests(table);
    let contains = contains(table);
    let unless = matchers(table, "unless", scope);
    let others = status.is_some() || array.is_some() || of_header.is_some() || unless.is_some();
    if !is_complete(table, header_place.is_some(), others) {
        return None;
    }
    let (mut conditions, mut text) = (Vec::new(), None);
    conditions.extend(of_header.into_iter().flatten());
    match header_place.or(places) {
        Some(place) => {
            let tests = tests.into_iter().chain(contains.map(ValueTest::Contains));
            conditions.extend(tests.map(|test| Condition { place: place.clone(), test }));
        }
        None => text = contains,
    }
    Some(Matcher {
        status: status.map(|status| status.value),
        conditions,
        contains: text,
        array,
        unless: unless.unwrap_or_default(),
    })
}

/// Checks that a matcher has a part, one place at most, and a test for it. `has_others`: there is a
/// part beside these.
fn is_complete(table: &TableReader<'_>, has_short_header: bool, has_others: bool) -> bool {
    let in_short = has_short_header.then_some("header");
    let named: Vec<&str> =
        in_short.into_iter().chain(PLACES.into_iter().filter(|key| table.has(key))).collect();
    if let [_, second, ..] = named.as_slice() {
        let what = match in_short {
            Some(_) => format!(
                "a matcher tests one place, and `{second}` is a second; write the header with its \
                 own test, as header = {{ name = \"…\", equals = \"…\" }}"
            ),
            None => format!("a matcher tests one place, and `{second}` is a second; keep one"),
        };
        table.wrong_at(&["header"], what);
        return false;
    }
    let test_key = TESTS.into_iter().find(|key| table.has(key));
    match (named.first(), test_key) {
        (Some(place), None) if !table.has("contains") => {
            let what = format!(
                "a matcher's `{place}` goes with one of `equals`, `one_of`, `class`, `present`, \
                 `absent_or_null` and `contains`"
            );
            table.missing(&[TESTS[0], TESTS[1], TESTS[2], TESTS[3], TESTS[4], "contains"], what);
            return false;
        }
        (None, Some(test)) => {
            let what = format!(
                "`{test}` tests the value of a place; name the place, as pointer = \"/error/code\""
            );
            table.missing(&["pointer", "header", "xml", "form", "query"], what);
            return false;
        }
        (None, None) if !has_others && !table.has("contains") && !table.has("status") => {
            let what = "a matcher needs a part: `status`, `contains`, or a place such as \
                        `pointer` with `equals`, `one_of`, `class`, `present` or `absent_or_null`";
            table.missing(&["status", "header", "pointer", "contains"], what);
            return false;
        }
        (Some(_) | None, _) => {}
    }
    true
}

/// The keys of places beside the header.
const PLACES: [&str; 4] = ["pointer", "xml", "form", "query"];

/// The place beside the header.
fn places(table: &TableReader<'_>) -> Option<MatchPlace> {
    let name = |key| {
        let name = table.optional::<String>(key)?;
        if name.value.is_empty() {
            table.wrong(&name, format!("`{key}` is empty; write the name"));
        }
        Some(name.value)
    };
    let xml = table.optional::<String>("xml").and_then(|written| {
        let path = XmlPath::parse(&written.value);
        if let Err(error) = &path {
            table.wrong(&written, format!("`xml`: \"{}\": {error}", written.value));
        }
        path.ok()
    });
    let pointer = table.pointer("pointer").map(MatchPlace::Pointer);
    let (form, query) = (name("form"), name("query"));
    pointer
        .or(xml.map(MatchPlace::Xml))
        .or(form.map(MatchPlace::Form))
        .or(query.map(MatchPlace::Query))
}

/// `header = { name = "x-a", equals = "…" }`, or the short form `header = "x-a"`, whose test stands
/// beside the header.
fn header(table: &TableReader<'_>) -> (Option<Vec<Condition>>, Option<MatchPlace>) {
    if let Some(TomlNode { value: TomlValue::Text(_), .. }) = table.node("header") {
        let name = table.optional::<String>("header").and_then(|name| header_name(table, &name));
        return (None, name.map(MatchPlace::Header));
    }
    let conditions = table.optional_table("header", |table| {
        let name = table.required::<String>("name", "a matcher's `header` needs its `name`");
        let name = name.and_then(|name| header_name(table, &name));
        let tests = tests(table).into_iter().chain(contains(table).map(ValueTest::Contains));
        let tests: Vec<ValueTest> = tests.collect();
        if tests.is_empty() {
            let what = "a matcher's `header` needs one of `equals`, `one_of`, `present`, \
                        `absent_or_null` and `contains`";
            table.missing(&["equals", "one_of", "present", "absent_or_null", "contains"], what);
        }
        let place = name.map(MatchPlace::Header);
        let condition = |test| Some(Condition { place: place.clone()?, test });
        tests.into_iter().filter_map(condition).collect()
    });
    (conditions, None)
}

fn header_name(table: &TableReader<'_>, written: &Located<String>) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(written.value.as_bytes());
    if name.is_err() {
        let (key, text) = (written.key, &written.value);
        table.wrong(written, format!("`{key}`: \"{text}\" is not the name of a header"));
    }
    name.ok()
}

/// The test of a place.
fn tests(table: &TableReader<'_>) -> Option<ValueTest> {
    let given: Vec<&str> = TESTS.into_iter().filter(|key| table.has(key)).collect();
    let equals = table.optional::<ScalarText>("equals").map(|text| vec![text]);
    let one_of = table.list::<ScalarText>("one_of");
    if one_of.as_ref().is_some_and(Vec::is_empty) {
        table.missing(&["one_of"], "`one_of` is empty, so that nothing could ever match");
    }
    let class = table.optional::<NumberClass>("class");
    for key in ["present", "absent_or_null"] {
        let opposite = if key == "present" { "absent_or_null" } else { "present" };
        if let Some(flag) = table.optional::<bool>(key).filter(|flag| !flag.value) {
            let what =
                format!("`{key}` can only be true; for the contrary write {opposite} = true");
            table.wrong(&flag, what);
        }
    }
    if let [one, other, ..] = given.as_slice() {
        let what = format!("`{one}` and `{other}` exclude each other; keep one of them");
        table.wrong_at(&[other_key(other)], what);
    }
    let texts = equals.or(one_of).map(|texts| {
        for text in &texts {
            no_class(table, text);
        }
        ValueTest::OneOf(texts.into_iter().map(|text| text.value.0).collect())
    });
    let flag = |key, test| table.has(key).then_some(test);
    texts
        .or(class.map(|class| ValueTest::Class(class.value.0)))
        .or(flag("present", ValueTest::Present))
        .or(flag("absent_or_null", ValueTest::AbsentOrNull))
}

/// The key of [`TESTS`] with this name.
fn other_key(name: &str) -> &'static str {
    TESTS.into_iter().find(|key| *key == name).unwrap_or_default()
}

/// Notes a text such as `4xx`, which stands in no body; `status` takes a class in this form.
fn no_class(table: &TableReader<'_>, text: &Located<ScalarText>) {
    if NumberClass::from_text(&text.value.0).is_ok() {
        let (key, text_of) = (text.key, &text.value.0);
        let what = format!(
            "`{key}` compares texts, and no value is \"{text_of}\"; for all numbers of this class \
             write class = \"{text_of}\""
        );
        table.wrong(text, what);
    }
}

fn contains(table: &TableReader<'_>) -> Option<String> {
    let text = table.optional::<String>("contains")?;
    if text.value.is_empty() {
        table.wrong(&text, "`contains` is empty, so that every text would match; name a text");
    }
    Some(text.value)
}

/// A class of numbers of three digits, such as `"4xx"`, by its first digit.
struct NumberClass(u8);

impl Scalar for NumberClass {
    const EXPECTED: &'static str = "a class of numbers such as \"4xx\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            [digit @ b'1'..=b'9', b'x', b'x'] => Ok(Self(digit - b'0')),
            _ => Err(format!("\"{text}\" is not a class of numbers; write \"4xx\" for 400 to 499")),
        }
    }
}
