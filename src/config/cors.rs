//! `[server.cors]`: the web pages whose scripts may call.

use http::{HeaderValue, Uri};
use serde::Serialize;

use super::shown;
use super::table::{Located, TableReader};

/// `[server.cors]`
#[derive(Debug, Clone, Serialize)]
pub struct CorsConfig {
    /// Origins as browsers write them: `https://till.example`.
    #[serde(serialize_with = "shown::header_values")]
    pub origins: Vec<HeaderValue>,
}

/// The table; `None`: it is not in the file, and browsers keep answers from scripts.
pub(super) fn cors(server: &TableReader<'_>) -> Option<CorsConfig> {
    server.optional_table("cors", |table| {
        if !table.has("origins") {
            let what = "[server.cors] has no `origins`, such as [\"https://till.example\"]";
            table.missing(&["origins"], what);
        }
        let mut origins: Vec<HeaderValue> = Vec::new();
        let advice = "name at least one, or leave the table out";
        for written in table.filled_list::<String>("origins", advice).into_iter().flatten() {
            match origin(&written) {
                Ok(origin) if origins.contains(&origin) => {
                    table.wrong(&written, format!("`origins` names {} twice", written.value));
                }
                Ok(origin) => origins.push(origin),
                Err(what) => table.wrong(&written, what),
            }
        }
        CorsConfig { origins }
    })
}

/// An origin as browsers write it (RFC 6454 section 6.2): scheme, host, and a port other than the
/// scheme's.
fn origin(written: &Located<String>) -> Result<HeaderValue, String> {
    let text = &written.value;
    let wrong = |why: &str| format!("`origins`: \"{text}\" {why}");
    if text == "*" {
        return Err(wrong("is no origin; name the pages that may call, one by one"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong("is not an origin"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong("is not an origin; write \"https://till.example\""));
    };
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let port = uri.port_u16().filter(|port| Some(*port) != default);
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    let browsers = format!("{scheme}://{}{port}", authority.host().to_ascii_lowercase());
    if *text != browsers {
        return Err(wrong(&format!("is not as browsers write it; write \"{browsers}\"")));
    }
    HeaderValue::try_from(browsers).map_err(|_| wrong("is not an origin"))
}
