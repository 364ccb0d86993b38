//! Forms as browsers send them: `application/x-www-form-urlencoded`, in a query or a body.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;

use super::refusal::PageError;
use crate::admin::records;
use crate::percent;

/// Fields of a form, at most.
const MOST_FIELDS: usize = 64;

/// The fields of a form.
#[derive(Debug)]
pub(super) struct PageForm(Vec<(String, String)>);

impl PageForm {
    /// Reads the fields; in a form `+` is a space.
    ///
    /// # Errors
    /// A name or a value is not UTF-8, or a name stands twice.
    pub(super) fn parse(text: &str) -> Result<Self, PageError> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let read = |text: &str| percent::decode(&text.replace('+', "%20")).map(normalized);
            let (Some(name), Some(value)) = (read(name), read(value)) else {
                return Err(wrong("This form is not written in UTF-8."));
            };
            if fields.len() >= MOST_FIELDS || fields.iter().any(|(other, _)| *other == name) {
                return Err(wrong("This form has a field twice, or too many of them."));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// A field that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(other, _)| other == name)?;
        Some(field.1.as_str()).filter(|value| !value.is_empty())
    }

    /// All fields that are not empty.
    pub(super) fn filled(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        fields.filter(|(_, value)| !value.is_empty())
    }
}

/// Browsers end the lines of a form with CR LF, whatever was typed.
fn normalized(text: String) -> String {
    if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text }
}

/// Reads the form of a request's body, of at most `size` bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    size: u64,
) -> Result<PageForm, PageError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let what = "This is not a form of the page.";
        return Err(PageError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what));
    }
    let body = records::read(body, size).await?;
    let text = std::str::from_utf8(&body).map_err(|_| wrong("This form is not UTF-8."))?;
    PageForm::parse(text)
}

fn wrong(what: &str) -> PageError {
    PageError::new(StatusCode::BAD_REQUEST, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let form = PageForm::parse("a=%2B65+9&b=&c=x%0D%0Ay&d").ok().unwrap();
        assert_eq!(form.get("a"), Some("+65 9"));
        assert_eq!((form.get("b"), form.get("d"), form.get("e")), (None, None, None));
        assert_eq!(form.get("c"), Some("x\ny"));
        assert_eq!(form.filled().count(), 2);
        for wrong in ["a=%zz", "a=%ff", "a=1&a=2", "%ff=1"] {
            assert!(PageForm::parse(wrong).is_err(), "{wrong}");
        }
    }
}
