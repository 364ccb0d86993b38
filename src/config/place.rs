//! Places of values in requests, as keys of a table name them.

use http::HeaderName;

use super::diagnostics::nearest;
use super::document::{TomlNode, TomlValue};
use super::table::{Located, TableReader};
use super::values::never_matches;
use crate::place::{Place, PlaceError};

const KINDS: [&str; 6] = ["header", "pointer", "path", "query", "form", "xml"];

/// Headers that hold credentials whatever `[tenant]` says.
const CREDENTIALS: [HeaderName; 3] =
    [http::header::AUTHORIZATION, http::header::COOKIE, http::header::PROXY_AUTHORIZATION];

/// Reports a header that holds a credential; `callers` are the headers of `[tenant]`.
pub(super) fn is_credential(name: &HeaderName, callers: &[HeaderName]) -> bool {
    CREDENTIALS.contains(name) || callers.contains(name)
}

impl TableReader<'_> {
    /// A place, or a list of places that is not empty; `None`: the key is not in the file.
    pub(super) fn request_places(&self, key: &'static str) -> Option<Vec<Located<Place>>> {
        self.note_kind(key, || "a place, or a list of places".to_owned());
        let written = match self.node(key) {
            Some(TomlNode { value: TomlValue::List(_), .. }) => {
                self.filled_list::<String>(key, "name at least one place")?
            }
            Some(TomlNode { value: TomlValue::Text(_), .. }) => vec![self.optional(key)?],
            Some(node) => {
                self.other_kind(key, node, "a place such as \"pointer:/id\", or a list of places");
                return None;
            }
            None => return None,
        };
        let mut places: Vec<Located<Place>> = Vec::new();
        for written in &written {
            let Some(place) = self.parsed_place(written) else { continue };
            if places.iter().any(|other| other.value == place.value) {
                self.wrong(&place, format!("`{key}` names {} twice", place.value));
            }
            places.push(place);
        }
        Some(places)
    }

    /// The place that a string of the file names.
    pub(super) fn parsed_place(&self, written: &Located<String>) -> Option<Located<Place>> {
        let (key, text) = (written.key, written.value.as_str());
        let place = match Place::parse(text) {
            Ok(place) => place,
            Err(error) => {
                self.wrong(written, format!("`{key}`: \"{text}\": {}", advice(text, &error)));
                return None;
            }
        };
        match &place {
            Place::Pointer(pointer) => {
                if let Some(advice) = never_matches(pointer) {
                    self.wrong(written, format!("`{key}`: \"{text}\" can never match: {advice}"));
                }
            }
            Place::Header(name) => {
                let value = name.to_string();
                self.header_name(Located { key, at: written.at, value })?;
            }
            Place::Path(_) | Place::Query(_) | Place::Form(_) | Place::Xml(_) => {}
        }
        Some(Located { key, at: written.at, value: place })
    }

    /// Notes a parameter that the route's `path` does not have: nothing would ever stand there.
    pub(super) fn check_parameter(&self, place: &Located<Place>, path: &str) {
        let Place::Path(name) = &place.value else { return };
        let names = parameters(path);
        if names.contains(&name.as_str()) {
            return;
        }
        let advice = match nearest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean \"path:{meant}\"?"),
            None if names.is_empty() => format!("write it there as \"{{{name}}}\""),
            None => format!("it has {}", names.join(", ")),
        };
        let key = place.key;
        let what = format!("`{key}`: the route's `path` has no parameter \"{name}\"; {advice}");
        self.wrong(place, what);
    }
}

/// The mistake of a text that is no place, with what to write.
fn advice(text: &str, error: &PlaceError) -> String {
    if *error != PlaceError::Kind {
        return error.to_string();
    }
    match text.split_once(':') {
        Some((kind, rest)) => match nearest(kind, KINDS) {
            Some(meant) => format!("did you mean \"{meant}:{rest}\"?"),
            None => error.to_string(),
        },
        None if !text.is_empty() && HeaderName::from_bytes(text.as_bytes()).is_ok() => {
            format!("{error}; for a header write \"header:{text}\"")
        }
        None => error.to_string(),
    }
}

/// The names of the parameters of a path in matchit's syntax.
fn parameters(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let braces = &rest[at..];
        // Doubled braces stand for themselves.
        if braces.starts_with("{{") || braces.starts_with("}}") {
            rest = &braces[2..];
            continue;
        }
        let Some((name, behind)) = braces.split_once('}') else { break };
        names.push(name.trim_start_matches('{').trim_start_matches('*'));
        rest = behind;
    }
    names
}
