//! A line for every decision, in the object that is built with logging; nothing in the plain one.

/// `trace!(level, address, target, verdict, reason)`: says what happened to a connect, and why.
/// `info` is for what became of it because of us, `debug` for what was let alone.
#[cfg(feature = "log")]
macro_rules! trace {
    ($level:ident, $address:ident, $target:ident, $verdict:literal, $reason:literal) => {
        aya_log_ebpf::$level!(
            $address.context(),
            "verdict={} reason={} target={:i} port={}",
            $verdict,
            $reason,
            $target.address.octets,
            $target.port()
        )
    };
}

#[cfg(not(feature = "log"))]
macro_rules! trace {
    ($level:ident, $address:ident, $target:ident, $verdict:literal, $reason:literal) => {{
        let _ = ($address, $target);
    }};
}

pub(crate) use trace;
