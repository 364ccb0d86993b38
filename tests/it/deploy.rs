//! What `deploy/` ships: manifests that Kubernetes accepts, a unit that systemd accepts and that is
//! confined, and configurations that the gateway accepts.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Backend, Setup};

/// The worst exposure of the unit that is accepted, as `systemd-analyze security` counts it.
const EXPOSURE: f64 = 1.5;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn python() -> PathBuf {
    let python = root().join("target/deploy/python/bin/python");
    assert!(python.exists(), "{} is missing; .ci/test installs it", python.display());
    python
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.current_dir(root()).output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; .ci/test installs what the tests need")
    });
    let (out, err) = (&output.stdout, &output.stderr);
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    );
    output
}

/// The files below a directory with this extension.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn kubernetes_accepts_the_manifests() {
    let manifests: Vec<_> = files("deploy/kubernetes", "yaml")
        .into_iter()
        // Kinds of kustomize and of the Prometheus operator are in no schema of Kubernetes.
        .filter(|file| !file.ends_with("kustomization.yaml"))
        .filter(|file| !file.ends_with("servicemonitor.yaml"))
        .collect();
    assert!(manifests.len() >= 5, "{manifests:?}");
    for version in ["1.29", "1.34"] {
        let mut command = Command::new(python());
        command.args(["-m", "kubernetes_validate", "--strict", "-k", version]).args(&manifests);
        run(&mut command);
    }
}

#[test]
fn a_misspelt_field_of_a_manifest_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/sidecar/statefulset.yaml"));
    let text = text.unwrap().replace("restartPolicy: Always", "restartPolcy: Always");
    let file = directory.path().join("statefulset.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(python());
    command.args(["-m", "kubernetes_validate", "--strict", "-k", "1.34"]).arg(file);
    assert!(!command.output().unwrap().status.success());
}

#[test]
fn every_file_that_a_kustomization_names_is_there() {
    let mut seen = 0;
    for file in files("deploy/kubernetes", "yaml") {
        if !file.ends_with("kustomization.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let words = text.split(|character: char| " \n[]\",".contains(character));
        for name in words.filter(|word| word.ends_with(".yaml") || word.ends_with(".toml")) {
            assert!(file.with_file_name(name).exists(), "{}: {name}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 7, "only {seen} files seen");
}

#[test]
fn the_gateway_accepts_the_configurations() {
    let configurations = files("deploy", "toml");
    assert!(configurations.len() >= 3, "{configurations:?}");
    for file in configurations {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oncegate"));
        command.args(["check", "--no-files", "--config"]).arg(file);
        command.env("ONCEGATE_DATABASE", "postgres://oncegate@postgres/oncegate");
        run(command.env("ONCEGATE_ADMIN_TOKEN", "an-admin-token"));
    }
}

#[test]
fn the_compose_file_names_services_and_files_that_are_there() {
    let mut command = Command::new(python());
    let output = run(command.args(["tests/deploy/compose.py", "deploy/compose.yaml"]));
    let compose: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = |member: &str| -> Vec<String> {
        let each = compose[member].as_array().unwrap();
        each.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let services = list("services");
    for name in ["backend", "grafana", "oncegate", "postgres", "prometheus"] {
        assert!(services.contains(&name.to_owned()), "{services:?}");
    }
    for name in list("depends") {
        assert!(services.contains(&name), "{name} of {services:?}");
    }
    let files = list("files");
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        assert!(root().join("deploy").join(&file).exists(), "{file}");
    }
    assert_eq!(list("volumes"), list("declared"));
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_confined() {
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join("deploy/systemd/oncegate.service")).unwrap();
    let unit = directory.path().join("oncegate.service");
    let installed = "ExecStart=/usr/local/bin/oncegate";
    assert!(text.contains(installed), "{text}");
    let here = format!("ExecStart={}", env!("CARGO_BIN_EXE_oncegate"));
    // The manual page is installed by the packages only.
    let text = text.replace(installed, &here).replace("Documentation=man:oncegate(1)\n", "");
    std::fs::write(&unit, text).unwrap();
    run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));

    let mut command = Command::new("systemd-analyze");
    let output = run(command.args(["security", "--offline=true", "--no-pager"]).arg(&unit));
    let report = String::from_utf8(output.stdout).unwrap();
    let exposure = report.rsplit("exposure level for oncegate.service:").next().unwrap();
    let exposure: f64 = exposure.split_whitespace().next().unwrap().parse().unwrap();
    assert!(exposure <= EXPOSURE, "{report}");
}

/// The next message on a supervisor's socket.
fn next_message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).expect("a message of the gateway in time");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn the_supervisor_is_notified_of_the_start_and_of_the_end() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let path = setup.dir().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let setup = setup.env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut gateway = setup.start();
    assert_eq!(next_message(&socket).trim(), "READY=1");
    gateway.sigterm();
    assert_eq!(next_message(&socket).trim(), "STOPPING=1");
    assert!(gateway.wait().success());
}
