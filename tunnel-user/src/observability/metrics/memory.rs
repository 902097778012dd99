//! The memory of connections, read when somebody scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

/// What connections hold and may hold.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionMemory {
    /// Bytes held of what is carried.
    pub held: u64,
    /// Bytes that connections may hold in all.
    pub limit: u64,
    /// The window that each of them has now, at least.
    pub window: u32,
    /// What windows are larger than that, all together.
    pub grown: u64,
}

/// Reads the figures.
pub type ReadMemory = Box<dyn Fn() -> ConnectionMemory + Send + Sync>;

/// Publishes them.
pub(super) struct Memory(pub(super) ReadMemory);

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ConnectionMemory {
            held,
            limit,
            window,
            grown,
        } = (self.0)();
        for (name, help, bytes) in [
            (
                "connection_memory_held",
                "Bytes that connections hold: received and not yet taken, read and not yet sent.",
                held,
            ),
            (
                "connection_memory_limit",
                "Bytes that connections may hold in all.",
                limit,
            ),
            (
                "connection_window",
                "Receive window that each connection has at least; it shrinks while many are open.",
                u64::from(window),
            ),
            (
                "connection_windows_grown",
                "Bytes that receive windows have grown beyond that, all together.",
                grown,
            ),
        ] {
            let unit = Some(&Unit::Bytes);
            let encoder = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(encoder)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}
