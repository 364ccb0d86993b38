//! `oncegate tenant`: the name of a caller, from the header lines of a request.

use std::io::Read as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{block_on, failed, printed};
use crate::cli::{Exit, TenantArgs};
use crate::config;
use crate::gateway::name_caller;

/// Bytes of the longest input.
const MAX_INPUT: u64 = 64 << 10;

/// `oncegate tenant`: prints the name that records show for the caller.
pub fn tenant(args: &TenantArgs) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Usage;
        }
    };
    let mut tenant = &config.tenant;
    if let Some(name) = &args.route {
        match config.routes.iter().find(|route| *route.name == **name) {
            Some(route) => tenant = route.tenant.as_ref().unwrap_or(tenant),
            None => {
                eprintln!("oncegate: there is no route \"{name}\" in the configuration");
                return Exit::Usage;
            }
        }
    }
    let mut text = Vec::new();
    if let Err(error) = std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut text) {
        return failed(&format!("cannot read standard input: {error}"));
    }
    let headers = match header_lines(&text) {
        Ok(headers) => headers,
        Err(what) => {
            eprintln!("oncegate: {what}");
            return Exit::Usage;
        }
    };
    let (tenant, upstreams) = (tenant.clone(), config.upstreams.clone());
    block_on(async move {
        match name_caller(&tenant, &upstreams, headers).await {
            Ok(caller) => printed(&caller.to_string()),
            Err(reason) => failed(&reason),
        }
    })
}

/// Header lines, `Name: value`, up to an empty line or the end.
fn header_lines(text: &[u8]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        if line.is_empty() {
            break;
        }
        let shown = || String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
        let wrong = || format!("\"{}\" is not a header line, such as \"X-Api-Key: …\"", shown());
        let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| wrong())?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).map_err(|_| wrong())?;
        headers.append(name, value);
    }
    Ok(headers)
}
