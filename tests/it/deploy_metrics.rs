//! The files of `deploy/` for Prometheus and Grafana: each alert has a test, and every expression of
//! the dashboard gives data when a real Prometheus scrapes a gateway at work.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::metrics::scrape;
use crate::support::{Act, AdminClient, Backend, Gateway, Request, Setup, answer, eventually};

const PROMTOOL: &str = "/usr/bin/promtool";
const PROMETHEUS: &str = "/usr/bin/prometheus";

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

fn promtool(arguments: &[&str], file: &Path) -> Output {
    let reply = Command::new(PROMTOOL).args(arguments).arg(file).output();
    reply.expect("promtool of Debian's prometheus; .ci/test installs it")
}

#[test]
fn every_alert_is_sound_and_fires_when_it_should_and_only_then() {
    let rules = deploy("prometheus/alerts.yaml");
    for (arguments, file) in [
        (&["check", "rules"][..], rules.clone()),
        (&["test", "rules"], deploy("prometheus/alerts_test.yaml")),
    ] {
        let reply = promtool(arguments, &file);
        assert!(reply.status.success(), "{}", String::from_utf8_lossy(&reply.stdout));
    }
    let tests = std::fs::read_to_string(deploy("prometheus/alerts_test.yaml")).unwrap();
    let rules = std::fs::read_to_string(rules).unwrap();
    let alerts: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        let tested = tests
            .split("- alertname: ")
            .filter(|test| test.starts_with(alert) && test.contains("exp_labels:"));
        assert!(tested.count() >= 1, "no test shows that {alert} fires");
    }
}

/// A Prometheus that scrapes a gateway every second. Dropped, it is killed.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn scraping(gateway: &Gateway) -> Self {
        let dir = gateway.setup().dir().join("prometheus");
        std::fs::create_dir_all(&dir).unwrap();
        let config = dir.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: oncegate\n  \
             static_configs: [{{ targets: [\"{}\"] }}]\n",
            gateway.admin
        );
        std::fs::write(&config, text).unwrap();
        // It takes no port 0; the port was free a moment ago.
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(PROMETHEUS)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's prometheus; .ci/test installs it");
        let prometheus = Self { child, addr };
        eventually("Prometheus is ready", || {
            let reply = Request::get("/-/ready").try_send(addr).ok()?;
            (reply.status == 200).then_some(())
        });
        prometheus
    }

    /// The series of an expression's result.
    fn query(&self, expression: &str) -> Vec<Value> {
        let escaped: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = Request::get(&format!("/api/v1/query?query={escaped}")).send(self.addr);
        let reply = reply.json();
        assert_eq!(reply["status"], "success", "{expression}: {reply}");
        reply["data"]["result"].as_array().expect("a vector").clone()
    }
}

/// The expressions of the dashboard, with values for its variables.
fn expressions() -> Vec<String> {
    let text = std::fs::read_to_string(deploy("grafana/oncegate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expression = |target: &Value| {
        let expression = target["expr"].as_str().unwrap();
        expression
            .replace("$__rate_interval", "20s")
            .replace("$__range", "1m")
            .replace("$job", ".*")
            .replace("$instance", ".*")
            .replace("$route", ".*")
    };
    targets.map(expression).collect()
}

/// Metrics of features that this test does not use; their panels show zero.
const UNUSED: [&str; 1] = ["oncegate_certificate_expiry_timestamp_seconds"];

#[test]
fn every_expression_of_the_dashboard_gives_data_of_a_gateway_at_work() {
    let backend = Backend::start();
    let gateway = AdminClient::guard(Setup::before(&backend)).start();
    let prometheus = Prometheus::scraping(&gateway);
    let expressions = expressions();
    assert!(expressions.len() > 20, "{expressions:?}");
    let mut number = 0;
    let mut work = || {
        number += 1;
        let key = format!("k-{number}");
        backend.always(answer(200, "{}"));
        for _ in 0..2 {
            Request::redeem(&key, "{}").send(gateway.addr);
        }
        if number % 10 == 1 {
            let lost = format!("lost-{number}");
            backend.always(Act::reset());
            Request::redeem(&lost, "{}").send(gateway.addr);
            AdminClient::of(&gateway).settle(&lost, "executed");
        }
    };
    for expression in &expressions {
        eventually(expression, || {
            work();
            let series = prometheus.query(expression);
            // A quotient of two sums may still be none at all.
            let is_number = |series: &Value| series["value"][1] != "NaN";
            (!series.is_empty() && series.iter().any(is_number)).then_some(())
        });
    }
    // No panel asks for a metric that the gateway does not have.
    let scraped = scrape(&gateway);
    let exposed: BTreeSet<&str> =
        scraped.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    for expression in &expressions {
        let words = expression.split(|at: char| !at.is_ascii_alphanumeric() && at != '_');
        for name in words.filter(|it| it.starts_with("oncegate_") || it.starts_with("process_")) {
            assert!(exposed.contains(name) || UNUSED.contains(&name), "{name} in {expression}");
        }
    }
}
