//! The share of the machine that this process may use: file descriptors and memory.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The mount point of control groups.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// Limits from here on mean "none"; the first version of control groups has no word for that.
const NO_LIMIT: u64 = 1 << 60;
/// A memory limit from which on huge pages are worth their memory.
const AMPLE: u64 = 512 << 20;
/// A memory limit below which memory counts more than the time to return it to the system.
const SCARCE: u64 = 256 << 20;
/// The variable of the allocator with the milliseconds until freed memory is returned.
const PURGE_DELAY: &str = "MIMALLOC_PURGE_DELAY";
/// Descriptors that are assumed where the system tells no limit.
const MANY: u64 = 1 << 20;

/// Raises the limit of open files to the most that the system allows this process; returns the
/// limit in force.
pub(crate) fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        true => raised.current.unwrap_or(MANY),
        false => limit.current.unwrap_or(MANY),
    }
}

/// Keeps memory small where it is limited: huge pages would be in memory as a whole, and double the
/// memory of a process with many small objects. Called before any thread starts.
///
/// Below a smaller limit freed memory goes back to the system at once. By default the allocator of
/// each thread keeps it for a while, and a body passes through several threads: with bodies of 1 MB
/// in a container of 64 MiB the kept memory alone was up to about 12 MB. The allocator reads the
/// option when the process starts, so the process is replaced by itself, once, with the option in
/// its environment.
pub(crate) fn save_memory() {
    if memory_limit().unwrap_or(AMPLE) < AMPLE {
        // Without effect, the process only needs more memory.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
    if is_scarce() && env::var_os(PURGE_DELAY).is_none() {
        restart_with(PURGE_DELAY, "0");
    }
}

/// Replaces this process by the same program with the same arguments and one more variable; returns
/// only if that fails, and the process then needs more memory.
fn restart_with(variable: &str, value: &str) {
    let mut arguments = env::args_os();
    let (Ok(program), Some(name)) = (env::current_exe(), arguments.next()) else { return };
    let _ = Command::new(program).arg0(name).args(arguments).env(variable, value).exec();
}

/// The number of files that this process may have open.
pub(crate) fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(MANY)
}

/// The memory limit of this process's control group, in bytes; `None`: no limit.
pub(crate) fn memory_limit() -> Option<u64> {
    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        limit_below(Path::new(CONTROL_GROUPS), &groups)
    })
}

/// The memory of this process, in bytes: the limit of its control group, or else all there is.
pub(crate) fn memory() -> Option<u64> {
    memory_limit().or_else(|| total(&fs::read_to_string("/proc/meminfo").ok()?))
}

/// True where the memory is so small that each piece of it is counted.
pub(crate) fn is_scarce() -> bool {
    memory_limit().is_some_and(|limit| limit < SCARCE)
}

/// `most` bytes, or a `part`-th of the memory limit where that is less.
pub(crate) fn part_of_memory(part: u64, most: u64) -> u64 {
    memory_limit().map_or(most, |limit| most.min(limit / part))
}

/// `MemTotal` of `/proc/meminfo`.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least limit of the groups that `/proc/self/cgroup` lists, and of all groups above them.
fn limit_below(mount: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        match controllers {
            "" => least(mount, group, "memory.max"),
            first if first.split(',').any(|name| name == "memory") => {
                least(&mount.join("memory"), group, "memory.limit_in_bytes")
            }
            _ => None,
        }
    });
    limits.min()
}

/// The least limit in the files `name` of a group and of all groups above it.
fn least(root: &Path, group: &str, name: &str) -> Option<u64> {
    // In a container the path may belong to the host, and lead out of what is mounted here.
    let group = if group.contains("..") { "" } else { group.trim_start_matches('/') };
    let folder = root.join(group);
    let limits = folder.ancestors().take_while(|at| at.starts_with(root)).filter_map(|at| {
        let limit: u64 = fs::read_to_string(at.join(name)).ok()?.trim().parse().ok()?;
        (limit < NO_LIMIT).then_some(limit)
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_a_group_and_those_above_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |groups: &str| limit_below(root.path(), groups);
        assert_eq!(limit("0::/pod/app\n"), None);
        write("pod/app/memory.max", "max\n");
        assert_eq!(limit("0::/pod/app\n"), None);
        write("pod/memory.max", "1048576\n");
        assert_eq!(limit("0::/pod/app\n"), Some(1 << 20));
        write("pod/app/memory.max", "65536\n");
        assert_eq!(limit("0::/pod/app\n"), Some(65_536));
        assert_eq!(limit("0::/pod\n"), Some(1 << 20));
        // The first version, and a container whose path is the host's.
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let first = "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n";
        assert_eq!(limit(first), None);
        write("memory/memory.limit_in_bytes", "67108864\n");
        assert_eq!(limit(first), Some(64 << 20));
        assert_eq!(limit("4:memory:/../../other\n"), Some(64 << 20));
        write("memory.max", "1000\n");
        assert_eq!(limit("0::/../..\n"), Some(1000));
        assert_eq!(limit("nonsense\n"), None);
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       24684084 kB\nMemFree: 1 kB\n"), Some(24_684_084 << 10));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(memory().unwrap() > 1 << 20);
        assert!(descriptors() > 16);
    }
}
