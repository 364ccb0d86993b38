//! Whole configurations: the examples, the defaults, and every mistake with its line.

mod batches;
mod defaults;
mod examples;
mod matchers;
mod mistakes;
mod places;
mod pointers;
mod reference;
mod settlement;
mod shapes;
mod stores;
mod tenants;
mod written;

use super::{Config, Mistakes, Mode, RequestMode, parse};

/// A backend and a route on lines 1 to 8, so that a test can add what it is about from line 9 on,
/// within the route.
const ROUTE: &str = r#"[[upstream]]
name = "api"
url = "http://127.0.0.1:9000"
[[route]]
name = "create"
methods = ["POST"]
path = "/v1/orders"
upstream = "api"
"#;

fn read(text: &str) -> Result<Config, Mistakes> {
    parse(text, "t.toml", &|name| match name {
        "EMPTY" => Some(String::new()),
        "PORT" => Some(String::from("9000")),
        "TOKEN" => Some(String::from("s3cret")),
        _ => None,
    })
}

/// The configuration of [`ROUTE`] and `more`.
fn route_with(more: &str) -> Config {
    read(&format!("{ROUTE}{more}")).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn request_mode(config: &Config) -> &RequestMode {
    match &config.routes[0].mode {
        Mode::Request(mode) => mode,
        Mode::Items(_) => panic!("the first route has mode items"),
        Mode::Off => panic!("the first route has mode off"),
    }
}
