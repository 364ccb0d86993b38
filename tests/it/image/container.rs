//! A container that runs the image: by `runc`, or by a changed root where that is not possible.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{Images, MEMORY, OTHER, is_installed, notice};
use crate::support::Setup;

/// A container of the image: another user, a root that cannot be written, little memory.
pub(super) struct Container<'a> {
    images: &'a Images,
    id: String,
    /// The files of the image.
    files: PathBuf,
    /// `runc` runs containers here; otherwise a change of the root stands in for it.
    pub(super) contained: bool,
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.contained {
            let _ = self.runc(&["delete", "--force"]).arg(&self.id).output();
        }
    }
}

impl<'a> Container<'a> {
    pub(super) fn new(images: &'a Images, files: PathBuf) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("oncegate-test-{}-{number}", std::process::id());
        let mut container = Self { images, id, files, contained: is_installed("runc") };
        if container.contained {
            let bundle = container.bundle(&["--version"], &[], &[]);
            let tried =
                container.runc(&["run", "--bundle"]).arg(bundle).arg(&container.id).output();
            let tried = tried.unwrap();
            if !tried.status.success() {
                notice(&String::from_utf8_lossy(&tried.stderr));
                container.contained = false;
            }
        }
        if !container.contained {
            notice("a changed root takes the container's place: its memory is not limited");
        }
        container
    }

    fn runc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.images.path("runc")).args(arguments);
        command
    }

    /// Writes the description of the container; gives its directory.
    fn bundle(&self, arguments: &[&str], mounts: &[(&Path, &str, bool)], env: &[&str]) -> PathBuf {
        let bundle = self.images.path("bundle");
        std::fs::create_dir_all(&bundle).unwrap();
        let arguments = [&["/usr/local/bin/oncegate"], arguments].concat();
        let own = json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["ro", "nosuid", "noexec", "nodev"] },
        ]);
        let given = mounts.iter().map(|(from, to, writable)| {
            let access = if *writable { "rw" } else { "ro" };
            json!({ "destination": to, "type": "bind", "source": from,
                    "options": ["bind", access] })
        });
        let mounts: Vec<Value> = own.as_array().unwrap().iter().cloned().chain(given).collect();
        let description = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": OTHER, "gid": OTHER },
                "args": arguments, "env": env, "cwd": "/", "noNewPrivileges": true,
            },
            "root": { "path": self.files, "readonly": true },
            "mounts": mounts,
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                ],
                "resources": { "memory": { "limit": MEMORY, "swap": MEMORY } },
            },
        });
        let text = serde_json::to_vec_pretty(&description).unwrap();
        std::fs::write(bundle.join("config.json"), text).unwrap();
        bundle
    }

    /// The gateway in the container. The program's arguments are those of the image; a start
    /// through `setup` follows, whose configuration and store are mounted.
    pub(super) fn setup(&self, setup: &Setup, env: &[&str]) -> Setup {
        let config = setup.config_path();
        let volume = setup.store_path();
        let arguments = ["run", "--config", "/etc/oncegate/oncegate.toml"];
        let mounts: [(&Path, &str, bool); 2] =
            [(&config, "/etc/oncegate/oncegate.toml", false), (&volume, "/var/lib/oncegate", true)];
        if self.contained {
            let bundle = self.bundle(&arguments, &mounts, env);
            let (state, id) = (self.images.path("runc"), &self.id);
            return setup.clone().shell(format!(
                "exec runc --root {} run --bundle {} {id}",
                state.display(),
                bundle.display()
            ));
        }
        let files = self.files.display();
        std::fs::create_dir_all(self.files.join("etc/oncegate")).unwrap();
        std::fs::copy(&config, self.files.join("etc/oncegate/oncegate.toml")).unwrap();
        std::fs::create_dir_all(self.files.join("dev/shm")).unwrap();
        let mut script =
            format!("set -e; mount --bind {files} {files}; mount --make-private {files}");
        script.push_str(&format!("; mount -t tmpfs -o mode=1777 shm {files}/dev/shm"));
        script.push_str(&format!("; mount -o remount,bind,ro {files}"));
        for (from, to, _) in mounts {
            script.push_str(&format!("; mount --bind {} {files}{to}", from.display()));
        }
        script.push_str(&format!(
            "; exec env -i {} /usr/sbin/chroot --userspec={OTHER}:{OTHER} {files} /usr/local/bin/oncegate {}",
            env.join(" "),
            arguments.join(" ")
        ));
        setup.clone().shell(format!("exec unshare --mount sh -c '{script}'"))
    }

    /// The exit code of the health check, beside the gateway.
    pub(super) fn health(&self, check: &[&str]) -> Option<i32> {
        let mut command = match self.contained {
            true => self.runc(&["exec"]),
            false => Command::new("/usr/sbin/chroot"),
        };
        match self.contained {
            true => command.arg(&self.id),
            false => command.arg(&self.files),
        };
        command.args(check).output().unwrap().status.code()
    }
}

/// True where a process may mount something in a namespace of its own.
pub(super) fn can_mount() -> bool {
    let mount = "mount -t tmpfs none /mnt";
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", mount]).output();
    tried.is_ok_and(|tried| tried.status.success())
}
