//! The operator's page in Chromium: a dispute from the log-in to the till's replay.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Act, AdminClient, Backend, Request, Setup, TOKEN, answer};

/// Set to a folder to keep the screenshots of the documents there.
const SCREENSHOTS: &str = "ONCEGATE_SCREENSHOTS";

#[test]
fn an_operator_settles_a_dispute_in_a_browser_with_and_without_scripts() {
    let backend = Backend::start();
    let gateway =
        AdminClient::guard(Setup::before(&backend)).redeem("record.subject = \"/qr\"").start();
    let send = |key: &str, voucher: &str| {
        let body = json!({ "qr": voucher }).to_string();
        Request::redeem(key, &body).send(gateway.addr)
    };
    let disputes: Vec<_> = [("rsg:4711", true), ("rsg:4712", false)]
        .into_iter()
        .map(|(voucher, scripts)| {
            let (lost, other) = (format!("sale-1-{voucher}"), format!("sale-2-{voucher}"));
            backend.always(Act::reset());
            send(&lost, voucher).is(502, "unknown", "outcome-unknown");
            backend.always(answer(200, r#"{"redeemed":true}"#));
            send(&other, voucher).is(200, "executed", "");
            send(&other, voucher).is(200, "replayed", "");
            json!({ "voucher": voucher, "scripts": scripts, "lost": lost, "other": other })
        })
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/clients/node/node_modules");
    assert!(modules.join("playwright-core").exists(), "start the tests with .ci/test");
    let screenshots = std::env::var(SCREENSHOTS)
        .map_or_else(|_| gateway.setup().dir().join("screenshots"), |folder| root.join(folder));
    let given = json!({
        "admin": format!("http://{}", gateway.admin),
        "public": format!("http://{}", gateway.addr),
        "token": TOKEN,
        "disputes": disputes,
        "modules": modules,
        "screenshots": screenshots,
        "chromium": "/usr/bin/chromium",
        "patience": 60_000,
    });
    let script = root.join("tests/clients/page.mjs");
    let reply = Command::new("node").arg(script).arg(given.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&reply.stdout).into_owned();
    assert!(reply.status.success() && said == "ok\n", "{said}{:?}", {
        String::from_utf8_lossy(&reply.stderr)
    });
    // Nothing of the disputes was sent to the backend a second time.
    assert_eq!(backend.calls(), 4);
    assert!(screenshots.join("record.png").exists());
}
