//! What this process uses, under the names that every Prometheus client library gives it.
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use rustix::time::{ClockId, clock_gettime};

/// Publishes `process_*`, read at each scrape. Call it once.
pub(in crate::observability) fn register_process(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    /// What cannot be read is left out.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let cpu = ConstCounter::new(cpu_seconds());
        let help = "CPU time used.";
        let kind = cpu.metric_type();
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?)?;
        if let Some(resident) = resident_bytes() {
            let resident = ConstGauge::new(resident);
            let (name, help) = ("process_resident_memory", "Memory that is resident.");
            let kind = resident.metric_type();
            resident.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), kind)?)?;
        }
        if let Some(open) = open_descriptors() {
            let open = ConstGauge::new(open);
            let (name, help) = ("process_open_fds", "File descriptors that are open.");
            open.encode(encoder.encode_descriptor(name, help, None, open.metric_type())?)?;
        }
        Ok(())
    }
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    std::time::Duration::try_from(used)
        .unwrap_or_default()
        .as_secs_f64()
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_descriptors() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory itself.
    Some((count as u64).saturating_sub(1))
}
