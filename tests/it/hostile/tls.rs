//! Listeners of TLS before sslscan, Debian's package of that name.

use std::process::Command;

use crate::support::certificates::Authority;
use crate::support::{Backend, Gateway, Setup};

/// Lines of a report that say something weak.
const WEAK: [&str; 10] = [
    "SSLv2     enabled",
    "SSLv3     enabled",
    "TLSv1.0   enabled",
    "TLSv1.1   enabled",
    "Compression enabled",
    "Insecure session renegotiation",
    "Insecure client-initiated renegotiation",
    "Secure client-initiated renegotiation",
    "1.2 vulnerable to heartbleed",
    "1.3 vulnerable to heartbleed",
];

/// Key exchanges that a listener offers.
const GROUPS: [&str; 3] = ["secp256r1 (NIST P-256)", "secp384r1 (NIST P-384)", "x25519"];

/// Runs sslscan and gives its report.
#[track_caller]
fn scan(gateway: &Gateway, options: &[&str]) -> String {
    let output = Command::new("sslscan")
        .arg("--no-colour")
        .args(options)
        .arg(format!("127.0.0.1:{}", gateway.addr.port()))
        .output()
        .unwrap_or_else(|error| panic!("sslscan does not start: {error}; .ci/test installs it"));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && report.contains("Connected to"), "{report}");
    report
}

/// The lines of `report` behind the title `title`.
fn part<'a>(report: &'a str, title: &str) -> Vec<&'a str> {
    let lines = report.lines().skip_while(|line| line.trim() != title).skip(1);
    lines.take_while(|line| !line.is_empty()).collect()
}

#[track_caller]
fn is_strong(gateway: &Gateway, versions: &[&str]) {
    // No time limit is met: each waits for an answer that comes.
    let report = scan(gateway, &["--timeout=60", "--no-groups"]);
    for version in ["TLSv1.2   enabled", "TLSv1.3   enabled"] {
        assert!(report.contains(version), "no {version}:\n{report}");
    }
    // The report names no TLS_FALLBACK_SCSV (RFC 7507): TLS 1.3 shows a downgrade to 1.2 by itself
    // (RFC 8446 section 4.1.3), and no older version is offered.
    for weak in WEAK {
        assert!(!report.contains(weak), "{weak}:\n{report}");
    }
    let ciphers = part(&report, "Supported Server Cipher(s):");
    for version in versions {
        let count = ciphers.iter().filter(|line| line.contains(version)).count();
        assert_eq!(count, 3, "ciphers of {version}:\n{report}");
    }
    for line in ciphers {
        let is_sealed = ["_GCM_", "-GCM-", "CHACHA20"].iter().any(|mode| line.contains(mode));
        let has_secrecy = line.contains(" ECDHE-") || line.contains("TLSv1.3");
        assert!(is_sealed && has_secrecy, "{line}\n{report}");
    }
}

#[track_caller]
fn has_strong_groups(gateway: &Gateway) {
    // sslscan waits out its time limit for each group that is accepted.
    let report = scan(
        gateway,
        &["--timeout=1", "--no-ciphersuites", "--no-heartbleed", "--no-renegotiation"],
    );
    for line in part(&report, "Server Key Exchange Group(s):") {
        assert!(GROUPS.iter().any(|group| line.ends_with(group)), "{line}\n{report}");
    }
}

#[test]
fn sslscan_finds_nothing_weak() {
    let (backend, authority) = (Backend::start(), Authority::new("servers"));
    for (more, versions) in [
        ("", &["TLSv1.2", "TLSv1.3"][..]),
        (", client_ca = \"clients.pem\", client_auth = \"optional\"", &["TLSv1.2", "TLSv1.3"]),
        (", client_ca = \"clients.pem\"", &["TLSv1.3"]),
    ] {
        let setup = Setup::before(&backend);
        authority.server().write(setup.dir(), "server");
        Authority::new("clients").write(setup.dir(), "clients.pem");
        let tls = format!("tls = {{ cert = \"server.crt\", key = \"server.key\"{more} }}");
        let gateway = setup.server(&tls).start();
        is_strong(&gateway, versions);
        if more.is_empty() {
            has_strong_groups(&gateway);
        }
    }
}
