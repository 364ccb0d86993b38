//! Templates in the configuration: paths, headers and bodies with fields in braces.

use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

use super::document::{TomlNode, TomlValue};
use super::place::is_credential;
use super::table::{Located, TableReader};
use crate::idempotency::tenant::CredentialHeaders;
use crate::template::{Field, FieldScope, Template, TemplateSyntax};

/// Headers that the gateway sets itself on requests it makes.
const OWN_HEADERS: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The surroundings of a template, against which its fields are checked.
#[derive(Debug)]
pub(super) struct TemplateContext<'c> {
    /// The fields that have a value.
    pub(super) scope: FieldScope,
    /// The credential headers of callers: nothing of a credential is ever stored.
    pub(super) credentials: &'c CredentialHeaders,
    /// The path of the route, in matchit's syntax.
    pub(super) path: &'c str,
}

/// Headers with templates as values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderTemplates(pub Vec<(HeaderName, Template)>);

/// Shown by name only: a value may be a secret from the environment.
impl Serialize for HeaderTemplates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, _)| (name.as_str(), "…")))
    }
}

impl TableReader<'_> {
    /// The template of a key.
    pub(super) fn template(
        &self,
        key: &'static str,
        syntax: TemplateSyntax,
        context: &TemplateContext<'_>,
    ) -> Option<Located<Template>> {
        self.note_kind(key, || "a template".to_owned());
        let written = self.optional::<String>(key)?;
        let value = self.parsed_template(key, &written, syntax, context)?;
        Some(Located { key, at: written.at, value })
    }

    pub(super) fn parsed_template(
        &self,
        named: &str,
        written: &Located<String>,
        syntax: TemplateSyntax,
        context: &TemplateContext<'_>,
    ) -> Option<Template> {
        let template = match Template::parse(&written.value, syntax, &context.scope) {
            Ok(template) => template,
            Err(error) => {
                self.wrong(written, format!("`{named}`: {error}"));
                return None;
            }
        };
        for field in template.fields() {
            let Field::Place(text) = field else { continue };
            let place = Located { key: written.key, at: written.at, value: text.clone() };
            let place = self.parsed_place(&place)?;
            self.check_parameter(&place, context.path);
            if place.value.header().is_some_and(|name| is_credential(name, context.credentials)) {
                let what = format!(
                    "`{named}`: {{{field}}} is a credential, of which nothing is stored; write the \
                     gateway's own credential into `headers`, or name the header in `forward`"
                );
                self.wrong(written, what);
                return None;
            }
        }
        Some(template)
    }

    /// The table of headers under a key, with templates as values.
    pub(super) fn header_templates(
        &self,
        key: &'static str,
        context: &TemplateContext<'_>,
    ) -> HeaderTemplates {
        self.note_kind(key, || "a table of headers and templates".to_owned());
        let mut headers = HeaderTemplates::default();
        let Some(node) = self.node(key) else { return headers };
        let TomlValue::Table(members) = &node.value else {
            self.other_kind(key, node, "a table such as { accept = \"application/json\" }");
            return headers;
        };
        for member in members {
            let Some(name) = self.template_header(key, &member.key, member.key_at) else {
                continue;
            };
            let TomlNode { at, value: TomlValue::Text(text) } = &member.node else {
                self.other_kind(key, &member.node, "a table of texts");
                continue;
            };
            let written = Located { key, at: *at, value: text.clone() };
            let named = format!("{key}.{}", member.key);
            let syntax = TemplateSyntax::Header;
            let template = self.parsed_template(&named, &written, syntax, context);
            let plain =
                template.as_ref().is_some_and(|template| template.fields().next().is_none());
            if plain && HeaderValue::from_str(text).is_err() {
                self.wrong(&written, format!("`{named}` cannot stand in a header"));
            } else if let Some(template) = template {
                headers.0.push((name, template));
            }
        }
        headers
    }

    fn template_header(&self, key: &'static str, text: &str, at: usize) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            self.fail(key, at, format!("`{key}`: \"{text}\" is not the name of a header"));
            return None;
        };
        if OWN_HEADERS.contains(&name.as_str()) {
            let what = format!("`{key}` cannot set {name}, which the gateway sets itself");
            self.fail(key, at, what);
            return None;
        }
        Some(name)
    }
}
