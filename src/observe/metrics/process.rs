//! Metrics of the process, under the names that every Prometheus client uses.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Timestamp;

/// The process's own figures, read at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    pub(super) started: Timestamp,
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        #[expect(clippy::cast_precision_loss, reason = "exact for 285 years of processor time")]
        let cpu = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        put(
            &mut encoder,
            "process_cpu_seconds",
            "User and system processor time spent, in seconds",
            &ConstCounter::new(cpu),
        )?;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact")]
        let started = self.started.as_millis() as f64 / 1000.0;
        put(
            &mut encoder,
            "process_start_time_seconds",
            "Start of the process since the Unix epoch, in seconds",
            &ConstGauge::new(started),
        )?;
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let help = "Limit of open file descriptors";
            put(&mut encoder, "process_max_fds", help, &gauge(most))?;
        }
        for (name, help, value) in figures() {
            put(&mut encoder, name, help, &gauge(value))?;
        }
        Ok(())
    }
}

fn put(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Figures of `/proc`; none on systems without it.
fn figures() -> Vec<(&'static str, &'static str, u64)> {
    let mut figures = Vec::new();
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // The descriptor that reads the directory is one of them.
        let open = open.count().saturating_sub(1) as u64;
        figures.push(("process_open_fds", "Open file descriptors", open));
    }
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return figures };
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_ascii_whitespace().next()?.parse().ok()
    };
    let sizes = [
        ("VmSize", "process_virtual_memory_bytes", "Size of the virtual memory, in bytes"),
        ("VmRSS", "process_resident_memory_bytes", "Size of the resident memory, in bytes"),
    ];
    for (line, name, help) in sizes {
        if let Some(kibibytes) = field(line) {
            figures.push((name, help, kibibytes.saturating_mul(1024)));
        }
    }
    if let Some(threads) = field("Threads") {
        figures.push(("process_threads", "Threads of the process", threads));
    }
    figures
}
