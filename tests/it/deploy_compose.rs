//! The parts of `deploy/compose.yaml` at work together, without Docker: gateway, backend, database
//! and Prometheus under the names, files, commands and health checks that the file gives them.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// A network, files and processes of their own, as root.
const APART: [&str; 5] = ["--net", "--mount", "--pid", "--fork", "--kill-child"];

#[test]
fn the_parts_of_the_compose_file_work_together() {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(APART);
        command
    };
    let possible = unshare().arg("true").output().is_ok_and(|output| output.status.success());
    if !possible || !rustix::process::geteuid().is_root() {
        let notice = "it::deploy_compose: not run: that takes root and namespaces of the kernel";
        let _ = writeln!(std::io::stderr(), "{notice}");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/deploy/python/bin/python");
    assert!(python.exists(), "{} is missing; .ci/test installs it", python.display());
    // It waits for nothing longer than a minute.
    let output = unshare()
        .arg(python)
        .args(["-B", "tests/deploy/parts.py", env!("CARGO_BIN_EXE_oncegate")])
        .current_dir(root)
        .output()
        .unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let said = [out.as_slice(), err].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{said}");
}
