//! Templates as operators see them. A text in a query or in a body may be a secret that came from
//! the environment; names of parameters and fields are none.

use super::{Template, TemplatePart};

/// The sign in the place of a text that is not shown.
const MASK: char = '…';

/// A target without the values of its query. Of a parameter without `=` the name is hidden as well.
pub fn masked_target(target: &str) -> String {
    mask_target([TargetPart::Text(target)])
}

impl Template {
    /// The target without the texts in the values of its query.
    pub fn masked_target(&self) -> String {
        mask_target(self.parts.iter().map(|part| match part {
            TemplatePart::Text(text) => TargetPart::Text(text),
            TemplatePart::Field(field, _) => TargetPart::Field(format!("{{{field}}}")),
        }))
    }

    /// The fields alone, with a mask for each text around them.
    pub fn masked_text(&self) -> String {
        let shown = self.parts.iter().map(|part| match part {
            TemplatePart::Text(_) => MASK.to_string(),
            TemplatePart::Field(field, _) => format!("{{{field}}}"),
        });
        shown.collect()
    }
}

/// A part of a target.
enum TargetPart<'t> {
    Text(&'t str),
    Field(String),
}

fn mask_target<'t>(parts: impl IntoIterator<Item = TargetPart<'t>>) -> String {
    let mut target = MaskedTarget::default();
    for part in parts {
        match part {
            TargetPart::Text(text) => text.chars().for_each(|char| target.push(char)),
            TargetPart::Field(field) => target.push_field(&field),
        }
    }
    target.end_parameter();
    target.shown
}

/// A target that is masked from its start to its end.
#[derive(Default)]
struct MaskedTarget {
    shown: String,
    in_query: bool,
    /// The parameter up to here, as it is shown if it turns out to be a name.
    name: String,
    /// The same, as it is shown if it is a value.
    value: String,
}

impl MaskedTarget {
    fn push(&mut self, char: char) {
        match char {
            '?' if !self.in_query => {
                self.in_query = true;
                self.shown.push('?');
            }
            '&' if self.in_query => {
                self.end_parameter();
                self.shown.push('&');
            }
            '=' if self.in_query && !self.name.ends_with('=') => {
                self.name.push('=');
                self.shown.push_str(&self.name);
                self.value.clear();
            }
            _ if self.in_query => {
                if !self.name.ends_with('=') {
                    self.name.push(char);
                }
                if !self.value.ends_with(MASK) {
                    self.value.push(MASK);
                }
            }
            _ => self.shown.push(char),
        }
    }

    fn push_field(&mut self, field: &str) {
        if !self.in_query {
            self.shown.push_str(field);
            return;
        }
        if !self.name.ends_with('=') {
            self.name.push_str(field);
        }
        self.value.push_str(field);
    }

    fn end_parameter(&mut self) {
        self.shown.push_str(&self.value);
        self.value.clear();
        self.name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{FieldScope, TemplateSyntax};

    #[test]
    fn a_target_is_shown_without_the_values_of_its_query() {
        for (target, shown) in [
            ("/check", "/check"),
            ("/check?", "/check?"),
            ("/check?token=s3cret&x=a=b&y=&z", "/check?token=…&x=…&y=&…"),
            ("/a=b/c&d?s3cret", "/a=b/c&d?…"),
            ("/a?b=c?d=e", "/a?b=…"),
        ] {
            assert_eq!(masked_target(target), shown);
        }
    }

    #[test]
    fn fields_are_shown_and_the_texts_around_them_are_not() {
        let scope = FieldScope { record: true, body: false, row: false, answer: false, names: &[] };
        let template = |text, syntax| Template::parse(text, syntax, &scope).unwrap();
        let target = template(
            "/q/{key}?{/name}=s3cret&since={dispatched_at-2m|unix}&r=a{/r}b&{/flag}",
            TemplateSyntax::Path,
        );
        assert_eq!(
            target.masked_target(),
            "/q/{key}?{/name}=…&since={dispatched_at-120000ms|unix}&r=…{/r}…&{/flag}"
        );
        let body = template(r#"{"password":"s3cret","key":"{key}"}"#, TemplateSyntax::Json);
        assert_eq!(body.masked_text(), "…{key}…");
    }
}
