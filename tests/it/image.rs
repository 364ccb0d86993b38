//! The image: what the Dockerfile makes, and a gateway that runs from it in a container.
//!
//! `buildah` builds without a registry. Stand-ins made of Debian's files take the places of the
//! images that a registry would give: one to build in, whose `cargo` hands out the binary under
//! test, and one with the libraries that this binary is linked with. `ONCEGATE_TEST_IMAGE` names
//! an archive of an image that `.ci/image` has made of a release; it runs then instead.
//!
//! Without `buildah` the same files are laid out by hand, and without `runc` a changed root takes
//! the container's place. Standard error then says so, also when the test passes.

mod container;

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use self::container::{Container, can_mount};
use crate::servers::free_port;
use crate::support::gateway::BINARY;
use crate::support::{Backend, Gateway, Request, Setup, at_once, eventually};

/// The user that the image names.
const USER: u32 = 10_001;
/// Another user, whose volume is its own.
const OTHER: u32 = 23_456;
/// The memory of a container.
const MEMORY: u64 = 64 << 20;
/// The most that an image may take.
const LARGEST: u64 = 20 << 20;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{text}{errors}");
    text + &errors
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// A line on standard error that a passing test does not hide.
fn notice(text: &str) {
    let _ = writeln!(std::io::stderr(), "it::image: {text}");
}

/// Images and containers in a directory of their own.
struct Images {
    directory: TempDir,
}

impl Images {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// `false`, with a notice: images cannot be built here.
    fn can_be_built() -> bool {
        if !rustix::process::geteuid().is_root() || !is_installed("buildah") {
            notice("no image is built: that takes root and the Debian package buildah");
            return false;
        }
        // Inside of some containers a build may not change its root or mount anything.
        let trial = Self::new();
        let files = trial.path("trial");
        std::fs::create_dir_all(files.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", files.join("bin/sh")).unwrap();
        std::fs::write(files.join("Dockerfile"), "FROM scratch\nCOPY . /\nRUN true\n").unwrap();
        let mut build = trial.command(&["bud", "--isolation", "chroot", "--pull-never"]);
        let tried = build.arg(&files).output().unwrap();
        if !tried.status.success() {
            let reason = String::from_utf8_lossy(&tried.stderr);
            notice(&format!("no image is built: buildah cannot build here: {reason}"));
        }
        tried.status.success()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.path("images")).arg("--runroot").arg(self.path("run"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        command
    }

    fn buildah(&self, arguments: &[&str]) -> String {
        run(&mut self.command(arguments))
    }

    fn build(&self, file: &Path, name: &str, more: &[&str], context: &Path) -> String {
        let (file, context) = (file.to_str().unwrap(), context.to_str().unwrap());
        let always = ["bud", "--isolation", "chroot", "--pull-never", "--format"];
        let own = ["docker", "--file", file, "--tag", name];
        self.buildah(&[&always[..], &own, more, &[context]].concat())
    }

    /// An image of the files in a directory.
    fn of_files(&self, name: &str, directory: &Path) {
        let file = self.path("Containerfile");
        std::fs::write(&file, "FROM scratch\nCOPY . /\nENV PATH=/usr/local/bin:/bin\n").unwrap();
        self.build(&file, name, &[], directory);
    }

    /// The Dockerfile's image on a base; the words of the build are returned.
    fn build_oncegate(&self, name: &str, base: &str, layers: &str, context: &Path) -> String {
        let base = format!("BASE={base}");
        let arguments = ["BUILDER=localhost/builder", &base, "ONCEGATE_COMMIT=0123456789ab"];
        let mut arguments: Vec<&str> =
            arguments.iter().flat_map(|argument| ["--build-arg", argument]).collect();
        arguments.push(layers);
        self.build(&context.join("Dockerfile"), name, &arguments, context)
    }

    /// The configuration of an image.
    fn config(&self, name: &str) -> Value {
        let text = self.buildah(&["inspect", "--type", "image", name]);
        let mut printed: Value = serde_json::from_str(&text).unwrap();
        printed["Docker"]["config"].take()
    }

    /// The directory of the files of an image, for a container.
    fn files(&self, name: &str) -> PathBuf {
        let container = self.buildah(&["from", "--pull-never", name]);
        PathBuf::from(self.buildah(&["mount", container.trim()]).trim())
    }

    /// The image to build in: busybox, and a `cargo` that hands out this program.
    fn make_builder(&self, program: &Path) {
        let files = self.path("builder");
        for directory in ["bin", "usr/local/bin", "etc/ssl/certs", "tmp"] {
            std::fs::create_dir_all(files.join(directory)).unwrap();
        }
        std::fs::copy("/bin/busybox", files.join("bin/busybox")).unwrap();
        for name in ["sh", "touch", "mkdir", "cat", "uname", "cp", "chown", "chmod"] {
            symlink("busybox", files.join("bin").join(name)).unwrap();
        }
        let certificates = "etc/ssl/certs/ca-certificates.crt";
        std::fs::copy(Path::new("/").join(certificates), files.join(certificates)).unwrap();
        std::fs::copy(program, files.join("oncegate-under-test")).unwrap();
        let cargo = "#!/bin/sh\nset -e\ntarget=$(cat /target)\n\
             [ \"$*\" = \"build --release --locked --bin oncegate --target $target\" ]\n\
             mkdir -p target/$target/release\n\
             cp /oncegate-under-test target/$target/release/oncegate\n";
        for (name, script) in
            [("cargo", cargo), ("rustup", "#!/bin/sh\n"), ("apt-get", "#!/bin/sh\n")]
        {
            let file = files.join("usr/local/bin").join(name);
            std::fs::write(&file, script).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        self.of_files("localhost/builder", &files);
    }

    /// The base with the libraries of the binary under test, and with the one that sets its clock.
    fn make_base(&self) {
        let files = self.path("base");
        Self::copy_libraries(&files);
        self.of_files("localhost/base", &files);
    }

    /// The files that the image would have on that base, without an image.
    fn files_by_hand(&self) -> PathBuf {
        let files = self.path("files");
        Self::copy_libraries(&files);
        for directory in ["usr/local/bin", "var/lib/oncegate"] {
            std::fs::create_dir_all(files.join(directory)).unwrap();
        }
        std::fs::copy(BINARY, files.join("usr/local/bin/oncegate")).unwrap();
        files
    }

    fn copy_libraries(files: &Path) {
        let printed = run(Command::new("ldd").arg(BINARY).arg(clock_library()));
        let libraries = printed.split_whitespace().filter(|word| word.starts_with('/'));
        for library in libraries.map(|word| word.trim_end_matches(':')) {
            if library == BINARY {
                continue;
            }
            let to = files.join(library.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(library, to).unwrap();
        }
    }
}

/// The library under which a program sees another time.
fn clock_library() -> String {
    let places = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|place| format!("/usr/lib/{place}/faketime/libfaketimeMT.so.1"));
    let found = places.into_iter().find(|path| Path::new(path).exists());
    found.expect("the Debian package faketime is needed; .ci/test installs it")
}

/// A copy of the files that the build is given.
fn context(images: &Images) -> PathBuf {
    let copy = images.path("context");
    std::fs::create_dir(&copy).unwrap();
    let mut command = Command::new("cp");
    command.current_dir(root()).arg("--recursive");
    let files = ["Dockerfile", ".dockerignore", "Cargo.toml", "Cargo.lock", "build.rs"];
    run(command.args(files).args(["config", "src"]).arg(&copy));
    copy
}

/// The files below a directory, as paths from there.
fn files_below(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(top).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_image_holds_the_program_and_the_authorities_only() {
    if !Images::can_be_built() {
        return;
    }
    let images = Images::new();
    // Not the binary under test: none of this runs it, and each step copies it.
    images.make_builder(Path::new("/bin/busybox"));
    let context = context(&images);
    images.build_oncegate("localhost/oncegate", "scratch", "--layers", &context);
    let files = images.files("localhost/oncegate");
    let program = "usr/local/bin/oncegate";
    assert_eq!(files_below(&files), ["etc/ssl/certs/ca-certificates.crt", program]);
    let others = std::fs::metadata(files.join("etc/ssl/certs/ca-certificates.crt")).unwrap().len();
    // The size with a released program is compared by .ci/image.
    assert!(others < LARGEST / 10, "{others} bytes besides the program");
    for (path, owner, mode) in
        [("var/lib/oncegate", USER, 0o700), ("var/lib", 0, 0o755), (program, 0, 0o755)]
    {
        let metadata = std::fs::metadata(files.join(path)).unwrap();
        let found = (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777);
        assert_eq!(found, (owner, owner, mode), "{path}");
    }

    let config = images.config("localhost/oncegate");
    assert_eq!(config["User"], "10001:10001");
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/oncegate"]));
    assert!(config["Volumes"].as_object().is_none_or(serde_json::Map::is_empty), "{config}");
    let check = ["CMD", "/usr/local/bin/oncegate", "health", "--config"];
    let check = [&check[..], &["/etc/oncegate/oncegate.toml"]].concat();
    assert_eq!(config["Healthcheck"]["Test"], json!(check));
    let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("revision"), "0123456789ab");
    assert_eq!(label("licenses"), "Apache-2.0");

    // A change of the program leaves the layer of the dependencies as it is.
    let main = context.join("src/main.rs");
    let text = std::fs::read_to_string(&main).unwrap();
    std::fs::write(&main, text + "// changed\n").unwrap();
    let printed = images.build_oncegate("localhost/oncegate", "scratch", "--layers", &context);
    let steps: Vec<&str> = printed.split("STEP ").collect();
    let step = |words: &str| -> &str {
        let found = steps.iter().find(|step| step.contains(words));
        found.unwrap_or_else(|| panic!("no step with {words:?}:\n{printed}"))
    };
    assert!(step("RUN mkdir src ").contains("Using cache"), "{printed}");
    assert!(!step("RUN touch src/main.rs ").contains("Using cache"), "{printed}");
}

/// Starts the gateway, and gives a volume that is there already to the user first.
fn start(container: &Container<'_>, setup: &Setup, env: &[&str]) -> Gateway {
    let config = setup.write_config();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).unwrap();
    container.setup(setup, env).start()
}

/// The image to run: the archive that is given, or one of the binary under test. `true`: given.
fn image_to_run(images: &Images) -> bool {
    if let Ok(archive) = std::env::var("ONCEGATE_TEST_IMAGE") {
        let printed = images.buildah(&["pull", "--quiet", &format!("docker-archive:{archive}")]);
        let id = printed.split_whitespace().last().unwrap();
        images.buildah(&["tag", id, "localhost/oncegate"]);
        return true;
    }
    let stripped = images.path("stripped");
    run(Command::new("strip").arg("-o").arg(&stripped).arg(BINARY));
    images.make_builder(&stripped);
    images.make_base();
    images.build_oncegate("localhost/oncegate", "localhost/base", "--layers=false", root());
    false
}

#[test]
fn a_container_serves_as_another_user_with_little_memory_and_a_wrong_clock() {
    if !rustix::process::geteuid().is_root() {
        notice("no container runs: a changed root and another user take root");
        return;
    }
    let images = Images::new();
    let is_built = Images::can_be_built();
    let is_given = is_built && image_to_run(&images);
    let files = if is_built { images.files("localhost/oncegate") } else { images.files_by_hand() };
    let container = Container::new(&images, files);
    if !container.contained && !can_mount() {
        notice("no container runs: nothing can be mounted here");
        return;
    }
    let backend = Backend::start();
    let admin = free_port();
    let setup = Setup::before(&backend).replacing(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        format!("[admin]\nlisten = \"127.0.0.1:{admin}\""),
    );
    let volume = setup.store_path();
    let setup = setup.replacing(format!("{volume:?}"), "\"/var/lib/oncegate\"");
    // The volume is there already, and holds a key.
    run(Command::new(BINARY).args(["store", "init", "--path"]).arg(&volume));
    run(Command::new("chown").arg("-R").arg(format!("{OTHER}:{OTHER}")).arg(&volume));
    let mut gateway = start(&container, &setup, &[]);
    Request::redeem("first", "{}").send(gateway.addr).is(200, "executed", "");
    if container.contained {
        gateway.logs(&["oncegate has started", &format!("memory={MEMORY}")]);
    }
    let check = ["/usr/local/bin/oncegate", "health", "--config", "/etc/oncegate/oncegate.toml"];
    if is_built {
        let check = [&["CMD"], &check[..]].concat();
        let config = images.config("localhost/oncegate");
        assert_eq!(config["Healthcheck"]["Test"], json!(check));
    }
    assert_eq!(container.health(&check), Some(0));
    gateway.stop();
    let owner = std::fs::metadata(volume.join("data")).unwrap().uid();
    assert_eq!(owner, OTHER);

    // Ten years back. A static program cannot be given another clock.
    let library = format!("LD_PRELOAD={}", clock_library());
    let wrong = [library.as_str(), "FAKETIME=-3650d", "DONT_FAKE_MONOTONIC=1"];
    let mut gateway = start(&container, &setup, if is_given { &[] } else { &wrong });
    if is_given {
        notice("the clock stays right: a released program is static");
    } else {
        let health = Request::get("/healthz").send(gateway.admin);
        let seen = httpdate::parse_http_date(&health.header("date").unwrap()).unwrap();
        let written = std::fs::metadata(setup.config_path()).unwrap().modified().unwrap();
        let behind = written.duration_since(seen).unwrap();
        assert!(behind > Duration::from_secs(9 * 365 * 86_400), "{behind:?}");
    }
    Request::redeem("first", "{}").send(gateway.addr).is(200, "replayed", "");
    let answers = at_once(60, |at| Request::redeem(&format!("k-{at}"), "{}").send(gateway.addr));
    for answer in answers {
        answer.is(200, "executed", "");
    }
    let answers = at_once(60, |at| Request::redeem(&format!("k-{at}"), "{}").send(gateway.addr));
    for answer in answers {
        answer.is(200, "replayed", "");
    }
    assert_eq!(backend.calls(), 61);
    eventually("readiness", || {
        let admin = gateway.admin;
        (Request::get("/readyz").try_send(admin).ok()?.status == 200).then_some(())
    });
    gateway.stop();
}
