//! Paths of routes: the syntax, and the table in which requests find a route.

use http::Method;

use super::path_dialects::refuse_dialects;
use crate::percent;

/// The pattern for every path. Unlike in matchit it also stands for `/`.
pub const EVERYTHING: &str = "/{*rest}";

/// Paths reserved for the gateway's own contract; no route can have them.
pub const WELL_KNOWN: [&str; 3] = [
    "/.well-known/idempotency",
    "/.well-known/idempotency/status",
    "/.well-known/idempotency/answer",
];

/// The routes of each path.
///
/// The most specific pattern decides alone: a path does not fall through to `/{*rest}` for a method
/// that the specific pattern lacks.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// Finds an index into `patterns`.
    router: matchit::Router<usize>,
    /// Patterns, with methods and the index of the route of each method.
    patterns: Vec<(String, Vec<(Method, usize)>)>,
}

/// Reason to refuse a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathError {
    /// The path has a mistake of syntax; holds the mistake and the remedy.
    Syntax(String),
    /// The path matches the same requests as the given pattern.
    Ambiguous(String),
    /// The route with this index serves the method on the path already.
    Taken(Method, usize),
}

impl Paths {
    /// Adds a route.
    ///
    /// # Errors
    /// When the path has a mistake of syntax, or requests could belong to a second route as well.
    pub fn add(&mut self, path: &str, methods: &[Method], route: usize) -> Result<(), PathError> {
        check(path).map_err(PathError::Syntax)?;
        let at = match self.patterns.iter().position(|(pattern, _)| pattern == path) {
            Some(at) => at,
            None => {
                let at = self.patterns.len();
                self.router.insert(path, at).map_err(|error| match error {
                    matchit::InsertError::Conflict { with } => PathError::Ambiguous(with),
                    other => PathError::Syntax(reason(&other).to_owned()),
                })?;
                self.patterns.push((path.to_owned(), Vec::new()));
                at
            }
        };
        let serves = &mut self.patterns[at].1;
        let taken = serves.iter().find(|(method, _)| methods.contains(method));
        if let Some((method, other)) = taken {
            return Err(PathError::Taken(method.clone(), *other));
        }
        serves.extend(methods.iter().map(|method| (method.clone(), route)));
        Ok(())
    }

    /// The methods of the most specific pattern matching `path`, each with the index of its route;
    /// `None`: no route. `/` belongs to the pattern `/` if present, otherwise to `/{*rest}`.
    pub fn find(&self, path: &str) -> Option<&[(Method, usize)]> {
        self.most_specific(path).map(|(_, methods)| methods.as_slice())
    }

    /// The most specific pattern matching `path`.
    pub fn pattern(&self, path: &str) -> Option<&str> {
        self.most_specific(path).map(|(pattern, _)| pattern.as_str())
    }

    fn most_specific(&self, path: &str) -> Option<&(String, Vec<(Method, usize)>)> {
        let at = match self.router.at(path) {
            Ok(found) => *found.value,
            Err(matchit::MatchError::NotFound) if path == "/" => {
                self.patterns.iter().position(|(pattern, _)| is_everything(pattern))?
            }
            Err(matchit::MatchError::NotFound) => return None,
        };
        self.patterns.get(at)
    }
}

/// `/{*rest}`, with any parameter name.
fn is_everything(pattern: &str) -> bool {
    pattern.starts_with("/{*") && pattern.ends_with('}')
}

fn check(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(String::from("must start with \"/\""));
    }
    if path.contains(['?', '#']) {
        return Err(String::from("must end before \"?\" and \"#\"; the query is not matched"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err(String::from("may hold visible ASCII characters only, and no \"\\\""));
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(String::from("may not hold the segments \".\" and \"..\""));
    }
    if path.contains("//") {
        return Err(String::from("may not hold an empty segment (\"//\")"));
    }
    refuse_dialects(path)?;
    escapes(path)?;
    if WELL_KNOWN.contains(&path) {
        return Err(String::from("is the gateway's own; it publishes its contract there"));
    }
    Ok(())
}

/// Checks percent-encodings. Requests are matched after normalization: unreserved characters
/// decoded, digits in upper case (RFC 3986 sections 2.3 and 6.2.2). In a different spelling the
/// route would never match, and a wider route without keys might.
fn escapes(path: &str) -> Result<(), String> {
    for escape in path.split('%').skip(1) {
        let byte = percent::byte(escape.as_bytes());
        match byte.map(char::from) {
            None => return Err(String::from("holds a \"%\" without two hexadecimal digits")),
            Some(plain) if plain.is_ascii_alphanumeric() || "-._~".contains(plain) => {
                return Err(format!("must write \"%{}\" as \"{plain}\"", &escape[..2]));
            }
            Some(_) if escape[..2].bytes().any(|digit| digit.is_ascii_lowercase()) => {
                let upper = escape[..2].to_ascii_uppercase();
                return Err(format!("must write \"%{}\" as \"%{upper}\"", &escape[..2]));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn reason(error: &matchit::InsertError) -> &'static str {
    match error {
        matchit::InsertError::InvalidParamSegment => {
            "has two parameters in one segment; put a \"/\" between them"
        }
        matchit::InsertError::InvalidParam => {
            "has braces that are not a parameter; write \"{name}\" or \"{*name}\", and \"{{\" \
             for the character itself"
        }
        matchit::InsertError::InvalidCatchAll => "may have \"{*name}\" only as its last segment",
        // Conflicts are handled before; the enum may grow.
        _ => "cannot be used next to the other paths",
    }
}
