//! A limit of CPU time for a process, as a container has one: a control group of Linux.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Of each period, in microseconds, a process may work this long: a quarter of a core. The period is
/// shorter than the usual 100 ms, so that a process is not held up for long at a time.
const QUOTA: u32 = 2_500;
const PERIOD: u32 = 10_000;

/// What [`Limit`] is, for the report.
pub(super) const SHARE: &str = "a quarter of a core";

/// Where the hierarchy of version 1 that limits CPU time is, and that of version 2.
const V1: &str = "/sys/fs/cgroup/cpu";
const V2: &str = "/sys/fs/cgroup";

/// The control group of one process; removed when dropped, which must be after the process has ended.
pub(super) struct Limit {
    dir: PathBuf,
}

impl Limit {
    /// Limits a process with all of its threads. Fails where this one may not make control groups.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let name = format!("oncegate-bench-{pid}");
        let v1 = Path::new(V1);
        if v1.join("cgroup.procs").exists() {
            let limit = Self::make(v1.join(name))?;
            limit.write("cpu.cfs_period_us", &PERIOD.to_string())?;
            limit.write("cpu.cfs_quota_us", &QUOTA.to_string())?;
            limit.write("cgroup.procs", &pid.to_string())?;
            return Ok(limit);
        }
        let limit = Self::make(Path::new(V2).join(name))?;
        limit.write("cpu.max", &format!("{QUOTA} {PERIOD}"))?;
        limit.write("cgroup.procs", &pid.to_string())?;
        Ok(limit)
    }

    fn make(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir(&dir)?;
        Ok(Self { dir })
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // Never made anew: what is not there is not a setting.
        let mut options = fs::OpenOptions::new();
        io::Write::write_all(&mut options.write(true).open(self.dir.join(file))?, text.as_bytes())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // One that is left limits nobody.
        let _ = fs::remove_dir(&self.dir);
    }
}
