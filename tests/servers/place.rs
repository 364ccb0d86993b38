//! Where servers live: directories, ports, the user they run as, and the guard that ends them.

use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::Tag;

/// Directories handed out by this process.
static PLACES: AtomicU32 = AtomicU32::new(1);

/// Ports tried by this process; starts anywhere, so that processes seldom meet.
static PORTS: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(RandomState::new().hash_one("port") as u32));

/// Ports below those the kernel gives to outgoing connections: nobody takes the port of a server
/// that is down by connecting somewhere, and no client connects to itself.
const FIRST_PORT: u32 = 10_000;
const LAST_PORT: u32 = 32_000;

static ROOT: LazyLock<Root> = LazyLock::new(Root::new);

/// The directory of all servers of this process, under a guard.
struct Root {
    path: PathBuf,
    /// Its stdin is closed by the kernel when this process ends; that wakes it.
    _guard: Child,
}

/// Waits for the end of the test process, then kills what names the directory (`$1`) and removes it.
/// A killed PostgreSQL leaves a shared memory segment: the seventh line of its lock file names it.
const GUARD: &str = r#"
cat >/dev/null
left=50
while [ "$left" -gt 0 ]; do
  found=$(printf '%s' "$NAME" | grep -alsF -f - /proc/[0-9]*/cmdline | cut -d/ -f3)
  [ -n "$found" ] || break
  kill -KILL $found 2>/dev/null
  left=$((left - 1))
  sleep 0.02
done
for lock in "$ROOT"/*/data/postmaster.pid; do
  [ -f "$lock" ] && ipcrm -m "$(sed -n 7p "$lock" | awk '{ print $2 }')" 2>/dev/null
done
rm -rf -- "$ROOT"
"#;

impl Root {
    fn new() -> Self {
        let path = tempfile::Builder::new()
            .prefix("oncegate-")
            // The servers' own user must be able to pass.
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(base())
            .expect("a temporary directory for servers")
            .keep();
        let guard = Command::new("/bin/sh")
            .args(["-c", GUARD])
            // Not as arguments: the guard must not find itself.
            .env("ROOT", &path)
            .env("NAME", path.file_name().expect("a name"))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal ends the tests; the guard cleans up after them.
            .process_group(0)
            .spawn()
            .expect("/bin/sh");
        Self { path, _guard: guard }
    }
}

/// Memory, unless `TMPDIR` says otherwise or there is little: crash recovery syncs a thousand files,
/// seconds on a busy disk. What a process has written survives its kill there too.
fn base() -> PathBuf {
    const MEMORY: &str = "/dev/shm";
    const ENOUGH: u64 = 2 << 30;
    let room = rustix::fs::statvfs(MEMORY).map_or(0, |found| found.f_bavail * found.f_frsize);
    if std::env::var_os("TMPDIR").is_none() && room >= ENOUGH {
        return PathBuf::from(MEMORY);
    }
    std::env::temp_dir()
}

/// A server's own directory. Removed with it.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    sockets: PathBuf,
    tag: Tag,
}

impl Place {
    /// A fresh directory that belongs to `owner`.
    pub(super) fn new(kind: &str, owner: Option<Owner>) -> Self {
        let name = format!("{kind}-{}", PLACES.fetch_add(1, Ordering::Relaxed));
        let root = &ROOT.path;
        let path = root.join(&name);
        // Apart from the data: what connects names the sockets, and is not the server.
        let sockets = root.join(format!("run-{name}"));
        for folder in [&path, &sockets] {
            DirBuilder::new().mode(0o700).create(folder).expect("a directory for a server");
            own(folder, owner);
        }
        let root_name = root.file_name().and_then(OsStr::to_str).expect("a plain name");
        Self { tag: Tag::new(format!("{root_name}/{name}/")), path, sockets }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the server's Unix sockets.
    pub(super) fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// What the command lines of the server's processes have in them, and no other's.
    pub(super) fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Writes a file that only `owner` reads.
    pub(super) fn write(&self, name: &str, text: &str, owner: Option<Owner>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, text).expect("a file of a server");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("permissions");
        own(&path, owner);
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now, the guard removes at the end.
        _ = std::fs::remove_dir_all(&self.path);
        _ = std::fs::remove_dir_all(&self.sockets);
    }
}

/// The user a server runs as when the tests run as root: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// `postgres`, else `nobody`; `None` when the tests do not run as root.
    pub(super) fn unprivileged() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let owner = ["postgres", "nobody"].iter().find_map(|name| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map_while(|id| id.parse().ok());
            Some(Self { uid: ids.next()?, gid: ids.next()? })
        });
        Some(
            owner.expect(
                "a user postgres or nobody in /etc/passwd: PostgreSQL does not run as root",
            ),
        )
    }

    /// Makes `command` run as this user.
    pub(super) fn runs(owner: Option<Self>, command: &mut Command) {
        if let Some(Self { uid, gid }) = owner {
            command.uid(uid).gid(gid);
        }
    }
}

fn own(path: &Path, owner: Option<Owner>) {
    if let Some(Owner { uid, gid }) = owner {
        chown(path, Some(uid), Some(gid)).expect("root may give a file away");
    }
}

/// A port on 127.0.0.1 that nobody listens on, and that this process does not hand out again soon.
pub(crate) fn free_port() -> u16 {
    for _ in FIRST_PORT..LAST_PORT {
        let step = PORTS.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST_PORT + step % (LAST_PORT - FIRST_PORT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST_PORT} to {LAST_PORT} is free on 127.0.0.1");
}

/// A program of the directory that an environment variable names, where it has one of that name:
/// so the tests run on versions that are not Debian's.
pub(super) fn other_version(variable: &str, name: &str) -> Option<PathBuf> {
    let program = PathBuf::from(std::env::var_os(variable)?).join(name);
    program.is_file().then_some(program)
}
