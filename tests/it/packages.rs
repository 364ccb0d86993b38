//! What a release hands out: made from the binary under test, and tried as its users would.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::gateway::BINARY;

/// Runs a command that must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}

fn package(out: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join(".ci/package"));
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    run(command.args(["--quick", "--binary", BINARY, "--out"]).arg(out));
}

/// The file in a directory whose name ends so.
#[track_caller]
fn file(directory: &Path, end: &str) -> std::path::PathBuf {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.to_str().unwrap().ends_with(end));
    found.next().unwrap_or_else(|| panic!("nothing ends with {end}"))
}

#[test]
fn a_release_can_be_unpacked_installed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    package(&out);
    run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&out));
    let version = env!("CARGO_PKG_VERSION");
    // The same program gives the same files.
    let again = dir.path().join("again");
    package(&again);
    let sums = |out: &Path| std::fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(&out), sums(&again));

    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar").arg("-xzf").arg(file(&out, ".tar.gz")).arg("-C").arg(&unpacked));
    let tree = std::fs::read_dir(&unpacked).unwrap().next().unwrap().unwrap().path();
    let reply = run(Command::new(tree.join("oncegate")).arg("--version"));
    assert!(reply.starts_with(&format!("oncegate {version} (")), "{reply}");
    for name in [
        "LICENSE",
        "THIRD-PARTY.txt",
        "CHANGELOG.md",
        "man/oncegate.1",
        "man/oncegate-run.1",
        "completions/oncegate.bash",
        "completions/oncegate.zsh",
        "config/full.toml",
        "systemd/oncegate.service",
    ] {
        assert!(tree.join(name).metadata().is_ok_and(|file| file.len() > 0), "{name}");
    }
    let notices = std::fs::read_to_string(tree.join("THIRD-PARTY.txt")).unwrap();
    for words in ["hyper 1.", "rustls 0.", "Apache License", "Permission is hereby granted"] {
        assert!(notices.contains(words), "{words}");
    }
    assert!(!notices.contains("\n  postcard "), "a crate of the tests");

    let sbom = std::fs::read_to_string(file(&out, ".cdx.json")).unwrap();
    let sbom: Value = serde_json::from_str(&sbom).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(sbom["metadata"]["component"]["version"], version);
    let components = sbom["components"].as_array().unwrap();
    let hyper = components.iter().find(|component| component["name"] == "hyper").unwrap();
    assert_eq!(hyper["hashes"][0]["content"].as_str().unwrap().len(), 64);

    install(&file(&out, ".deb"), dir.path());
    rpm_has_the_same_files(&file(&out, ".rpm"), &file(&out, ".deb"));
}

/// Compares the files of both packages: rpm's systems have three of them in other places.
fn rpm_has_the_same_files(rpm: &Path, deb: &Path) {
    let ask = |question: &str| run(Command::new("rpm").args(["-qp", question]).arg(rpm));
    let mut expected: Vec<String> = run(Command::new("dpkg-deb").arg("--contents").arg(deb))
        .lines()
        .filter(|line| line.starts_with('-'))
        .map(|line| line.rsplit(" .").next().unwrap().to_owned())
        .filter(|path| !path.ends_with("/copyright"))
        .map(|path| path.replace("/vendor-completions/", "/site-functions/"))
        .map(|path| path.replace("/lib/systemd/", "/usr/lib/systemd/"))
        .collect();
    expected.push("/usr/share/licenses/oncegate/LICENSE".to_owned());
    expected.sort();
    let mut listed: Vec<String> = ask("-l").lines().map(str::to_owned).collect();
    listed.sort();
    assert_eq!(listed, expected);
    assert_eq!(ask("--configfiles").trim(), "/etc/oncegate/oncegate.toml");
    for requirement in ask("--requires").lines() {
        assert!(requirement.starts_with("rpmlib("), "{requirement}");
    }
    assert!(!ask("--scripts").contains("scriptlet"), "a package that does something by itself");
}

/// Installs the package into an empty root, upgrades it, removes and purges it.
fn install(deb: &Path, dir: &Path) {
    let root = dir.join("root");
    for folder in ["info", "updates"] {
        std::fs::create_dir_all(root.join("var/lib/dpkg").join(folder)).unwrap();
    }
    for file in ["status", "available"] {
        std::fs::write(root.join("var/lib/dpkg").join(file), "").unwrap();
    }
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.display()));
        command.args(["--force-depends", "--force-not-root", "--force-script-chrootless"]);
        command.arg("--log=/dev/null");
        run(command.args(arguments))
    };
    dpkg(&["--install", deb.to_str().unwrap()]);
    let reply = run(Command::new(root.join("usr/bin/oncegate")).arg("--version"));
    assert!(reply.starts_with("oncegate "), "{reply}");
    let config = root.join("etc/oncegate/oncegate.toml");
    run(Command::new(root.join("usr/bin/oncegate")).args(["check", "--config"]).arg(&config));
    let unit = std::fs::read_to_string(root.join("lib/systemd/system/oncegate.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/oncegate run "), "{unit}");
    assert!(root.join("usr/share/man/man1/oncegate.1.gz").exists());
    // The store, and a configuration that was changed, stay when the package goes.
    let store = root.join("var/lib/oncegate");
    let info = || {
        let mut command = Command::new(root.join("usr/bin/oncegate"));
        run(command.args(["store", "info", "--path"]).arg(&store))
    };
    run(Command::new(root.join("usr/bin/oncegate")).args(["store", "init", "--path"]).arg(&store));
    let before = info();
    std::fs::write(&config, "# mine\n").unwrap();
    dpkg(&["--install", later(deb, dir).to_str().unwrap()]);
    let status = std::fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
    assert!(status.contains("\nVersion: 99.0.0\n"), "{status}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "# mine\n");
    assert_eq!(info(), before);
    dpkg(&["--remove", "oncegate"]);
    assert!(!root.join("usr/bin/oncegate").exists());
    assert!(config.exists() && store.join("data").exists());
    dpkg(&["--purge", "oncegate"]);
    assert!(!config.exists() && store.join("data").exists());
}

/// The same package as a later version.
fn later(deb: &Path, dir: &Path) -> std::path::PathBuf {
    let (files, later) = (dir.join("later"), dir.join("later.deb"));
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(&files));
    let control = files.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).unwrap();
    let version = format!("\nVersion: {}\n", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "{text}");
    std::fs::write(&control, text.replace(&version, "\nVersion: 99.0.0\n")).unwrap();
    let mut build = Command::new("dpkg-deb");
    run(build.args(["--root-owner-group", "--build"]).arg(&files).arg(&later));
    later
}

/// The image is built elsewhere; here every file that its build needs is there and is sent to it.
#[test]
fn the_image_is_made_of_files_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    let ignored = std::fs::read_to_string(root.join(".dockerignore")).unwrap();
    let mut needed = vec!["Cargo.toml", "Cargo.lock", "src"];
    if root.join("build.rs").exists() {
        needed.push("build.rs");
    }
    let mut copied = Vec::new();
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ")) {
        if line.contains("--from=") {
            continue;
        }
        let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
        words.pop();
        for source in words {
            assert!(root.join(source).exists(), "{source}");
            assert!(ignored.lines().any(|line| line == format!("!{source}")), "{source}");
            copied.push(source);
        }
    }
    for name in needed {
        assert!(copied.contains(&name), "{name} is not in the image's build");
    }
    // The program is started without a shell, as a user without rights.
    for line in ["USER 10001:10001", "ENTRYPOINT [\"/usr/local/bin/oncegate\"]"] {
        assert!(dockerfile.lines().any(|other| other == line), "{line}");
    }
}
