//! `[[route]]`; the tables of its mode are left to `request` and `items`.

use http::Method;

use super::diagnostics::nearest;
use super::errors::errors;
use super::model::{Config, Mode, RequestMode, RouteConfig, UpstreamConfig};
use super::paths::{PathError, Paths};
use super::policy::UnknownPolicy;
use super::siblings::warn_of_siblings;
use super::table::{Located, TableReader};
use super::values::LARGEST_BODY;
use super::{items, items_consistency, request, tenant, when};

/// The methods of the standards. A different method is accepted unless it looks misspelled.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

#[derive(Clone, Copy, PartialEq)]
enum ModeName {
    Request,
    Items,
    Observe,
    Off,
}

/// The routes; `config` has everything else.
pub(super) fn routes(root: &TableReader<'_>, config: &Config) -> Vec<RouteConfig> {
    let mut routes: Vec<RouteConfig> = Vec::new();
    let mut paths = Paths::default();
    let mut places = Vec::new();
    let mut probes = Vec::new();
    root.each_table("route", |table| {
        let route = route(table, config, &routes);
        if let Some(path) = table.optional::<String>("path")
            && let Err(error) = paths.add(&route.path, alone(&route), routes.len())
        {
            table.wrong(&path, path_error(&path.value, &error, &routes));
        }
        items_consistency::check_beside(table, &route, &routes);
        probes.push(table.place("probe"));
        places.push(table.place("path"));
        when::check_beside(table, &route, &routes);
        routes.push(route);
    });
    for (route, at) in routes.iter().zip(probes) {
        if let Some(keyed) = probed_route(route, &paths, &routes) {
            let what = format!(
                "[route.probe] asks a path of route \"{keyed}\", whose requests have an effect; a \
                 probe asks a path without one"
            );
            root.wrong_elsewhere(at, what);
        }
    }
    warn_of_siblings(root, &routes, &places);
    routes
}

/// The keyed route to which a request of the route's probe would belong.
fn probed_route<'r>(
    route: &RouteConfig,
    paths: &Paths,
    routes: &'r [RouteConfig],
) -> Option<&'r str> {
    let policy = match &route.mode {
        Mode::Request(mode) => &mode.on_unknown,
        Mode::Items(mode) => &mode.on_unknown,
        Mode::Off => return None,
    };
    let UnknownPolicy::Probe(rules) = policy else { return None };
    let asked = [(&rules.request.method, &rules.request.path)];
    let control = rules.absent.as_ref().map(|absent| (&Method::GET, &absent.control));
    asked.into_iter().chain(control).find_map(|(method, template)| {
        // A value is a segment, or a part of one.
        let path = template.with_fields("x");
        let path = path.split('?').next().unwrap_or_default();
        let found = paths.find(path)?;
        let pattern = paths.pattern(path)?;
        let served = found.iter().find(|(other, _)| other == method);
        let chosen = served.and_then(|(_, index)| routes.get(*index));
        // A request that a `when` would take cannot be excluded: values of requests are unknown.
        let told_apart = routes.iter().filter(|other| {
            !other.when.is_empty() && other.path == pattern && other.methods.contains(method)
        });
        let is_keyed = |other: &&RouteConfig| !matches!(other.mode, Mode::Off);
        chosen.into_iter().chain(told_apart).find(is_keyed).map(|other| &*other.name)
    })
}

/// The methods of a route that no other route of its path may have. Routes with a `when` are told
/// apart by it.
fn alone(route: &RouteConfig) -> &[Method] {
    if route.when.is_empty() { &route.methods } else { &[] }
}

fn path_error(path: &str, error: &PathError, routes: &[RouteConfig]) -> String {
    match error {
        PathError::Syntax(what) => format!("`path` \"{path}\" {what}"),
        PathError::Ambiguous(other) => format!(
            "`path` \"{path}\" cannot be told from \"{other}\" of another route; give their \
             parameters the same name"
        ),
        PathError::Taken(method, other) => format!(
            "{method} {path} belongs to route \"{}\" already; to tell requests of one path apart, \
             give one of the routes a `when`",
            routes.get(*other).map_or("", |route| &*route.name)
        ),
    }
}

fn route(table: &TableReader<'_>, config: &Config, others: &[RouteConfig]) -> RouteConfig {
    let taken = |name: &str| others.iter().any(|other| *other.name == *name);
    let name = table.required("name", "this [[route]] has no `name`; logs and records need it");
    let name = name.map(|name| table.name(&name, "[[route]]", taken)).unwrap_or_default();
    let methods = methods(table);
    let what = "this [[route]] has no `path`, such as \"/v1/orders/{id}\" or \"/{*rest}\"";
    let path = table.required::<String>("path", what).map(|path| path.value).unwrap_or_default();
    let when = when::when(table);
    let at = upstream(table, &config.upstreams);
    let upstream = at.and_then(|at| config.upstreams.get(at));
    // Known before the tables of the mode, so that it is listed where people look for it.
    table.has("profile");
    let choices = [
        ("request", Some(ModeName::Request)),
        ("items", Some(ModeName::Items)),
        ("off", Some(ModeName::Off)),
        ("observe", Some(ModeName::Observe)),
    ];
    let mode_name = table.choice("mode", ModeName::Request, &choices);
    let most = match mode_name {
        ModeName::Request | ModeName::Items => LARGEST_BODY.min(config.server.limits.buffered),
        ModeName::Observe | ModeName::Off => u64::MAX,
    };
    table.note_kind("max_body", || "a size; with keys at most 1GiB and `buffered`".to_owned());
    let max_body = table.has("max_body").then(|| table.size("max_body", 0, 0..=most));
    let tenant = table.optional_table("tenant", tenant::tenant);
    if let Some(tenant) = &tenant {
        tenant::check_upstream(table, table.place("tenant"), tenant, &config.upstreams);
    }
    let callers = tenant.as_ref().unwrap_or(&config.tenant);
    let mode = match mode_name {
        ModeName::Request => {
            Mode::Request(Box::new(request::mode(table, config, callers, upstream)))
        }
        ModeName::Items => {
            Mode::Items(Box::new(items::mode(table, &name, (config, callers), upstream)))
        }
        ModeName::Observe => {
            let rules = request::mode(table, config, callers, upstream);
            Mode::Request(Box::new(RequestMode { observes: true, ..rules }))
        }
        ModeName::Off => {
            nothing_keyed(table);
            Mode::Off
        }
    };
    let replaced_errors = errors(table);
    RouteConfig {
        name: name.into(),
        methods,
        path,
        when,
        upstream: at.unwrap_or_default(),
        max_body,
        replaced_errors,
        tenant,
        mode,
    }
}

impl RouteConfig {
    /// True if clients have keys here: the mode is neither `off` nor `observe`.
    pub fn is_keyed(&self) -> bool {
        match &self.mode {
            Mode::Request(mode) => !mode.observes,
            Mode::Items(_) => true,
            Mode::Off => false,
        }
    }
}

fn methods(table: &TableReader<'_>) -> Vec<Method> {
    if !table.has("methods") {
        let what = "this [[route]] has no `methods`, such as [\"POST\"]";
        table.missing(&["methods"], what);
    }
    let mut methods = Vec::new();
    let list = table.filled_list::<String>("methods", "name at least one");
    for written in list.into_iter().flatten() {
        match method(&written.value) {
            Ok(method) if methods.contains(&method) => {
                table.wrong(&written, format!("`methods` names {method} twice"));
            }
            Ok(method) => methods.push(method),
            Err(what) => table.wrong(&written, format!("`methods`: {what}")),
        }
    }
    methods
}

/// The index of the route's upstream.
fn upstream(table: &TableReader<'_>, upstreams: &[UpstreamConfig]) -> Option<usize> {
    let what = "this [[route]] has no `upstream`; name an [[upstream]]";
    let written: Located<String> = table.required("upstream", what)?;
    let at = upstreams.iter().position(|upstream| upstream.name == written.value);
    // While some upstream has no name that could be read, it may be the one that is meant.
    let unnamed = upstreams.iter().any(|upstream| upstream.name.is_empty());
    if at.is_none() && !unnamed && !upstreams.is_empty() {
        let names = upstreams.iter().map(|upstream| upstream.name.as_str());
        let advice = match nearest(&written.value, names.clone()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("there is {}", names.collect::<Vec<_>>().join(", ")),
        };
        let what = format!("there is no upstream \"{}\"; {advice}", written.value);
        table.wrong(&written, what);
    }
    at
}

fn nothing_keyed(table: &TableReader<'_>) {
    let keys = [
        "profile",
        "tenant",
        "key",
        "fingerprint",
        "duplicates",
        "outcome",
        "record",
        "suspect",
        "items",
        "probe",
        "resend",
        "already_done",
        "reverse",
    ];
    for key in keys {
        if table.has(key) {
            let what =
                format!("`{key}` has no use on a route with mode = \"off\"; remove one of them");
            table.wrong_at(&[key], what);
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
