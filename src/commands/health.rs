//! `oncegate health`: the readiness of a running gateway as an exit code.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::StatusCode;
use tokio::time::timeout;

use super::admin_client::{AdminClient, CommandFailure};
use super::{block_on, say};
use crate::admin::READY_WORD;
use crate::cli::{Exit, HealthArgs};
use crate::config;

/// Time that `oncegate health` waits for the gateway.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// `oncegate health`: 0 when the gateway answers that it is ready.
pub fn health(args: &HealthArgs) -> Exit {
    block_on(async move {
        match ask(args).await {
            Ok(answer) => {
                say(&answer);
                Exit::Ok
            }
            Err(CommandFailure(exit, what)) => {
                eprintln!("oncegate: {what}");
                exit
            }
        }
    })
}

/// The gateway's own words that it is ready.
async fn ask(args: &HealthArgs) -> Result<String, CommandFailure> {
    let url = match (&args.admin, &args.config) {
        (Some(url), _) => url.clone(),
        (None, Some(file)) => {
            let config = config::load(file);
            let config = config.map_err(|mistakes| CommandFailure::usage(mistakes.to_string()))?;
            url_of(config.admin.listen)?
        }
        (None, None) => "http://127.0.0.1:9090".to_owned(),
    };
    let admin = AdminClient::at(&url)?;
    let answer = timeout(HEALTH_TIMEOUT, admin.text("/readyz")).await;
    let answer = answer.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
    let (status, text) = answer
        .map_err(|what| CommandFailure::failed(format!("the gateway cannot be asked: {what}")))?;
    let text = text.trim_end();
    if !text.starts_with(READY_WORD) {
        return Err(CommandFailure::failed(format!(
            "the answer of {url} to /readyz is not oncegate's ({status}); is this its [admin] \
             listen?"
        )));
    }
    match status {
        StatusCode::OK => Ok(text.to_owned()),
        _ => Err(CommandFailure::failed(text)),
    }
}

/// The URL of an admin listener on this machine.
fn url_of(listen: SocketAddr) -> Result<String, CommandFailure> {
    if listen.port() == 0 {
        let what = "[admin] `listen` has port 0, a free port: name the one that was taken with \
                    --admin URL";
        return Err(CommandFailure::usage(what));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(format!("http://{}", SocketAddr::new(ip, listen.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_listener_of_a_configuration_is_asked_on_this_machine() {
        for (listen, url) in [
            ("127.0.0.1:9090", Some("http://127.0.0.1:9090")),
            ("0.0.0.0:1", Some("http://127.0.0.1:1")),
            ("[::]:2", Some("http://[::1]:2")),
            ("10.0.0.1:3", Some("http://10.0.0.1:3")),
            ("127.0.0.1:0", None),
        ] {
            assert_eq!(url_of(listen.parse().unwrap()).ok().as_deref(), url, "{listen}");
        }
    }
}
