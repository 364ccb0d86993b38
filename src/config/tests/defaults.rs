//! What a configuration means where it says nothing, and what profiles change.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use super::{Mode, RequestMode, read, request_mode, route_with};
use crate::config::{CloseDelimited, EngineConfig, HostPolicy, without_file};
use crate::idempotency::fingerprint::{BodyCompare, Select};
use crate::idempotency::key::{KeyPlaces, Scope, Syntax};
use crate::idempotency::outcome::Verdict;
use crate::idempotency::retention::Keep;
use crate::place::Place;
use crate::problem::Dialect;

fn days(number: u64) -> Keep {
    Keep::For(Duration::from_secs(number * 86_400))
}

fn verdicts(mode: &RequestMode, statuses: &[u16], verdict: Verdict) {
    for &status in statuses {
        assert_eq!(mode.outcome.verdict(status), verdict, "{status}");
    }
}

#[test]
fn what_is_left_out_has_the_published_default() {
    let config = route_with("");
    assert_eq!(config.server.listen, ["0.0.0.0:8080".parse().unwrap()]);
    assert_eq!(config.server.drain, Duration::from_secs(30));
    assert_eq!(config.server.drain_delay, Duration::ZERO);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(config.server.workers, cores.div_ceil(2));
    let limits = &config.server.limits;
    assert_eq!(limits.connections, 10_000);
    assert_eq!(limits.idle_timeout, Duration::from_secs(75));
    assert_eq!(limits.header_timeout, Duration::from_secs(10));
    assert_eq!(limits.body_timeout, Duration::from_secs(30));
    assert_eq!(limits.max_head, 32 * 1024);
    assert_eq!(limits.max_body, 1024 * 1024);
    // A quarter of the memory limit, where there is a smaller one.
    assert_eq!(limits.buffered, crate::config::defaults::buffered());
    assert!(limits.buffered <= 256 * 1024 * 1024);
    assert_eq!(limits.in_flight, 10_000);
    assert_eq!(limits.in_flight_per_tenant, None);
    assert_eq!((limits.rate_per_tenant, limits.burst_per_tenant), (None, None));
    assert_eq!(limits.stored_keys_per_tenant, None);
    assert_eq!(config.log.level, "info");
    assert_eq!(config.log.format, crate::observe::log::LogFormat::Text);
    assert!(!config.log.access);
    assert_eq!((config.traces.otlp, config.traces.sample), (None, 0.0));
    assert_eq!(config.admin.listen, "127.0.0.1:9090".parse().unwrap());
    assert_eq!(config.admin.token, None);
    assert_eq!(config.store.retention.answer, days(7));
    assert_eq!(config.store.retention.tombstone, days(30));
    assert!(config.store.create);
    assert_eq!(config.store.expect_id, None);
    let EngineConfig::Embedded { path, .. } = &config.store.engine else {
        panic!("not a directory")
    };
    assert_eq!(path, &PathBuf::from("/var/lib/oncegate"));
    assert_eq!(config.tenant.headers[..], ["authorization", "x-api-key"]);
    assert_eq!(config.upstreams[0].connect_timeout, Duration::from_secs(2));
    assert_eq!(config.upstreams[0].timeout, Duration::from_secs(60));
    assert_eq!(config.upstreams[0].keep_alive, Duration::from_secs(4));
    assert_eq!(config.upstreams[0].host, HostPolicy::Upstream);
    assert_eq!(config.upstreams[0].close_delimited, CloseDelimited::Checked);
    assert_eq!(config.routes[0].max_body, None);
}

#[test]
fn a_route_follows_the_ietf_draft_by_default() {
    let config = route_with("");
    let mode = request_mode(&config);
    assert_eq!(mode.key.places, KeyPlaces::in_header("idempotency-key".parse().unwrap()));
    assert!(mode.key.required);
    assert_eq!((mode.key.scope, mode.key.syntax), (Scope::Tenant, Syntax::Any));
    assert_eq!((mode.key.min_length, mode.key.max_length), (1, 255));
    assert_eq!(mode.key.format, None);
    assert!(!mode.key.forward);
    assert_eq!(mode.fingerprint.body, BodyCompare::ByMediaType);
    assert_eq!(mode.fingerprint.select, Select::All);
    assert!(mode.fingerprint.headers.is_empty());
    assert_eq!(mode.duplicates.wait, Duration::from_secs(5));
    assert_eq!(mode.duplicates.max_waiters, 1000);
    assert_eq!(mode.duplicates.answer_within, None);
    assert_eq!(mode.duplicates.replayed_header, "idempotency-replayed");
    assert_eq!(mode.record.subject, []);
    assert_eq!(mode.record.max_stored_body, 1024 * 1024);
    assert_eq!(mode.record.retention, config.store.retention);
    assert_eq!(mode.dialect, Dialect::Problem);
    verdicts(mode, &[200, 207, 304, 400, 402, 404, 422], Verdict::Final);
    verdicts(mode, &[401, 407, 425, 429], Verdict::Released);
    verdicts(mode, &[500, 503, 408, 409, 101], Verdict::Unknown);
}

#[test]
fn the_voucher_profile_presets_its_contract() {
    let config = route_with("profile = \"redeemsg\"\n");
    let mode = request_mode(&config);
    assert_eq!(mode.record.retention.answer, days(1));
    assert_eq!(mode.record.retention.tombstone, days(0));
    assert_eq!(mode.duplicates.answer_within, Some(Duration::from_secs(6)));
    assert_eq!(mode.record.subject, [Place::parse("/qr").unwrap()]);
    assert_eq!(mode.dialect, Dialect::RedeemSg);
    verdicts(mode, &[200, 402, 404], Verdict::Final);
    verdicts(mode, &[401, 429], Verdict::Released);
    verdicts(mode, &[500, 503, 409], Verdict::Unknown);
}

#[test]
fn the_stripe_profile_presets_its_contract() {
    let config = route_with("profile = \"stripe\"\n");
    let mode = request_mode(&config);
    assert_eq!(mode.record.retention.answer, days(1));
    assert_eq!(mode.record.retention.tombstone, days(0));
    assert_eq!(mode.duplicates.answer_within, None);
    assert_eq!(mode.duplicates.replayed_header, "idempotent-replayed");
    assert_eq!(mode.dialect, Dialect::Stripe);
    verdicts(mode, &[200, 402, 500, 503], Verdict::Final);
}

#[test]
fn a_route_overrides_its_profile_and_the_profile_the_store() {
    let config = route_with(
        r#"profile = "redeemsg"
           [route.duplicates]
           answer_within = "4s"
           [route.record]
           subject = "/voucher/code"
           tombstone = "forever"
           [store]
           retention = "90d"
        "#,
    );
    let mode = request_mode(&config);
    assert_eq!(mode.duplicates.answer_within, Some(Duration::from_secs(4)));
    assert_eq!(mode.duplicates.wait, Duration::from_secs(5));
    assert_eq!(mode.record.subject, [Place::parse("/voucher/code").unwrap()]);
    assert_eq!(mode.record.retention.answer, days(1));
    assert_eq!(mode.record.retention.tombstone, Keep::Forever);
    assert_eq!(config.store.retention.answer, days(90));
}

#[test]
fn a_list_of_outcomes_that_is_written_takes_its_entries_from_the_others() {
    let config = route_with("[route.outcome]\nfinal = [\"2xx\", \"4xx\", 409, \"5xx\"]\n");
    let mode = request_mode(&config);
    verdicts(mode, &[200, 404, 409, 500], Verdict::Final);
    verdicts(mode, &[429], Verdict::Released);
    verdicts(mode, &[302, 408], Verdict::Unknown);
    let config = route_with("[route.outcome]\nretry = []\n");
    verdicts(request_mode(&config), &[401, 429], Verdict::Final);
}

#[test]
fn without_a_file_unsafe_methods_need_a_key() {
    let listen = "127.0.0.1:0".parse().unwrap();
    let config = without_file("http://127.0.0.1:9000", Some(listen), "here".into()).unwrap();
    assert_eq!(config.server.listen, [listen.into()]);
    let EngineConfig::Embedded { path, .. } = &config.store.engine else {
        panic!("not a directory")
    };
    assert_eq!(path, &PathBuf::from("here"));
    let mode_of = |method: Method| {
        let mut routes = config.routes.iter().filter(|route| route.methods.contains(&method));
        routes.next().map(|route| &route.mode)
    };
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        assert!(matches!(mode_of(method), Some(Mode::Request(mode)) if mode.key.required));
    }
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert!(matches!(mode_of(method), Some(Mode::Off)));
    }
    assert_eq!(
        without_file("ftp://a", None, "here".into()).unwrap_err().to_string(),
        "--upstream: the URL must start with http://, https:// or unix:, not ftp://"
    );
}

#[test]
fn an_empty_file_asks_for_what_is_needed() {
    assert_eq!(
        read("").unwrap_err().to_string(),
        "t.toml: there is no [[route]]; without one nothing is served\n\
         t.toml: there is no [[upstream]]; name at least one backend"
    );
}

#[test]
fn an_empty_list_names_its_line() {
    assert_eq!(
        read("route = []\nupstream = []\n").unwrap_err().to_string(),
        "t.toml:1:9: there is no [[route]]; without one nothing is served\n\
         t.toml:2:12: there is no [[upstream]]; name at least one backend"
    );
}
