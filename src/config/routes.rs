//! `[[route]]`: what was written, made sure of; the tables of request mode are left to `request`.

use http::Method;
use toml::Spanned;

use super::diagnostics::nearest;
use super::file::{self, Table};
use super::paths::{PathError, Paths};
use super::units::Size;
use super::values::{LARGEST_BODY, Reader, elements, span_of};
use super::{Config, Mode, RouteConfig};

/// The methods that have a meaning of their own; another is taken unless it looks like a slip.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

#[derive(Clone, Copy)]
enum ModeName {
    Request,
    Items,
    Off,
}

impl Reader {
    /// The routes; `config` has everything else.
    pub(super) fn routes(&mut self, file: &file::File, config: &Config) -> Vec<RouteConfig> {
        let mut routes: Vec<RouteConfig> = Vec::with_capacity(file.route.len());
        let mut paths = Paths::default();
        for table in &file.route {
            let route = self.route(table, file, config, &routes);
            if let Some(path) = &table.get_ref().path {
                let added = paths.add(&route.path, &route.methods, routes.len());
                if let Err(error) = added {
                    self.path_error(path, &error, &routes);
                }
            }
            self.items_beside(table, &route, &routes);
            routes.push(route);
        }
        routes
    }

    fn path_error(&mut self, path: &Spanned<String>, error: &PathError, routes: &[RouteConfig]) {
        let text = path.get_ref();
        let what = match error {
            PathError::Syntax(what) => format!("`path` \"{text}\" {what}"),
            PathError::Ambiguous(other) => format!(
                "`path` \"{text}\" cannot be told from \"{other}\" of another route; give their \
                 parameters the same name"
            ),
            PathError::Taken(method, other) => format!(
                "{method} {text} belongs to route \"{}\" already",
                routes.get(*other).map_or("", |route| &*route.name)
            ),
        };
        self.say(path, what);
    }

    fn route(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        file: &file::File,
        config: &Config,
        others: &[RouteConfig],
    ) -> RouteConfig {
        let written = table.get_ref();
        self.unsupported("route.probe", &written.probe);
        self.unsupported("route.already_done", &written.already_done);
        let taken = |name: &str| others.iter().any(|other| *other.name == *name);
        let name = match &written.name {
            Some(name) => self.name("[[route]]", name, taken),
            None => {
                self.missing(
                    table,
                    "name",
                    "this [[route]] has no `name`; logs and records need it",
                );
                String::new()
            }
        };
        if written.path.is_none() {
            let what = "this [[route]] has no `path`, such as \"/v1/orders/{id}\" or \"/{*rest}\"";
            self.missing(table, "path", what);
        }
        let upstream = self.upstream_of(table, file);
        let mode = self.choice(
            "mode",
            &written.mode,
            ModeName::Request,
            &[
                ("request", Some(ModeName::Request)),
                ("items", Some(ModeName::Items)),
                ("off", Some(ModeName::Off)),
                ("observe", None),
            ],
        );
        let mode = match mode {
            ModeName::Request => {
                let upstream = upstream.and_then(|at| config.upstreams.get(at));
                Mode::Request(Box::new(self.request_mode(written, config, upstream)))
            }
            ModeName::Items => {
                let upstream = upstream.and_then(|at| config.upstreams.get(at));
                Mode::Items(Box::new(self.items_mode(table, config, upstream)))
            }
            ModeName::Off => {
                self.nothing_keyed(written);
                Mode::Off
            }
        };
        let max_body = written.max_body.as_ref().map(|_| {
            let most = match mode {
                Mode::Request(_) | Mode::Items(_) => {
                    LARGEST_BODY.min(Size(config.server.limits.buffered))
                }
                Mode::Off => Size(u64::MAX),
            };
            self.bounded("max_body", &written.max_body, Size(0), Size(0)..=most).0
        });
        RouteConfig {
            name: name.into(),
            methods: self.methods(table),
            path: written.path.as_ref().map(|path| path.get_ref().clone()).unwrap_or_default(),
            upstream: upstream.unwrap_or_default(),
            max_body,
            mode,
        }
    }

    fn methods(&mut self, table: &Spanned<Table<file::Route>>) -> Vec<Method> {
        let written = &table.get_ref().methods;
        match written {
            None => {
                let what = "this [[route]] has no `methods`, such as [\"POST\"]";
                self.missing(table, "methods", what);
            }
            Some(list) if list.get_ref().is_empty() && !self.was_removed("methods") => {
                self.say(list, "`methods` is empty; name at least one");
            }
            Some(_) => {}
        }
        let mut methods = Vec::new();
        for written in elements(written) {
            match method(written.get_ref()) {
                Ok(method) if methods.contains(&method) => {
                    self.say(written, format!("`methods` names {method} twice"));
                }
                Ok(method) => methods.push(method),
                Err(what) => self.say(written, format!("`methods`: {what}")),
            }
        }
        methods
    }

    fn upstream_of(
        &mut self,
        table: &Spanned<Table<file::Route>>,
        file: &file::File,
    ) -> Option<usize> {
        let Some(written) = &table.get_ref().upstream else {
            self.missing(
                table,
                "upstream",
                "this [[route]] has no `upstream`; name an [[upstream]]",
            );
            return None;
        };
        let wanted = written.get_ref();
        let names: Vec<Option<&str>> = file
            .upstream
            .iter()
            .map(|upstream| upstream.get_ref().name.as_ref().map(|name| name.get_ref().as_str()))
            .collect();
        let at = names.iter().position(|name| *name == Some(wanted.as_str()));
        // While some upstream has no name that could be read, it may be the one that is meant.
        if at.is_none() && names.iter().all(Option::is_some) && !names.is_empty() {
            let known = names.iter().copied().flatten();
            let advice = match nearest(wanted, known.clone()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("there is {}", known.collect::<Vec<_>>().join(", ")),
            };
            self.say(written, format!("there is no upstream \"{wanted}\"; {advice}"));
        }
        at
    }

    fn nothing_keyed(&mut self, route: &file::Route) {
        let tables = [
            ("profile", span_of(&route.profile)),
            ("key", span_of(&route.key)),
            ("fingerprint", span_of(&route.fingerprint)),
            ("duplicates", span_of(&route.duplicates)),
            ("outcome", span_of(&route.outcome)),
            ("record", span_of(&route.record)),
            ("items", span_of(&route.items)),
        ];
        for (name, span) in tables {
            if span.is_some() {
                self.say_at(
                    span,
                    format!(
                        "`{name}` has no use on a route with mode = \"off\"; remove one of them"
                    ),
                );
            }
        }
    }
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    let method =
        Method::from_bytes(upper.as_bytes()).map_err(|_| format!("\"{text}\" is not a method"))?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(format!("{method} is never forwarded"));
    }
    if upper != text {
        return Err(format!("methods are upper-case; write \"{upper}\""));
    }
    let slip = METHODS
        .iter()
        .find(|known| **known != method && strsim::damerau_levenshtein(known.as_str(), text) == 1);
    match slip {
        Some(meant) if !METHODS.contains(&method) => {
            Err(format!("\"{text}\" is not a method; did you mean \"{meant}\"?"))
        }
        Some(_) | None => Ok(method),
    }
}
