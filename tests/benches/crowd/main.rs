//! A server with thousands of agents: what their sessions take while nothing happens, and how soon all are back
//! after the server or the network was gone, with strangers at the door and without.
//!
//! Server, agents and strangers share the processors of one machine; the agents of one process share its memory
//! and a private key, and are otherwise what `culvert agent` is.

mod measured;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use measured::{BACK_WITHIN, Measured, SESSION_KIB};

#[derive(Parser)]
struct Args {
    /// Agents; half of them are measured first
    #[arg(long, default_value_t = 10_000)]
    agents: u32,
    /// Strangers in a second
    #[arg(long, default_value_t = 3_600)]
    strangers: u32,
    /// Seconds for which the idle server's processor time is measured
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Given by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench crowd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table; true if the targets were met.
fn measure(args: &Args) -> Result<bool> {
    let sizes = [args.agents / 2, args.agents];
    let mut all = Vec::new();
    for agents in sizes {
        eprintln!("{agents} agents");
        all.push(Measured::of(agents, args)?);
    }
    print(&all);
    let whole = all.last().expect("two sizes were measured");
    Ok(verdict(
        whole.session_kib() <= SESSION_KIB,
        &format!("a session takes at most {SESSION_KIB} KiB"),
    ) & verdict(
        whole.slowest() <= BACK_WITHIN,
        &format!("all are back within {} s", BACK_WITHIN.as_secs()),
    ))
}

fn print(all: &[Measured]) {
    let row = |name: &str, value: &dyn Fn(&Measured) -> String| {
        let values: Vec<_> = all.iter().map(value).collect();
        println!("| {name} | {} |", values.join(" | "));
    };
    row("agents", &|m| m.agents.to_string());
    println!("|---|{}", "--:|".repeat(all.len()));
    row("resident without sessions, MiB", &|m| mib(m.empty_kib));
    row("with all, idle, MiB", &|m| mib(m.idle_kib));
    row("for each session, KiB", &|m| {
        format!("{:.1}", m.session_kib())
    });
    row("for each after the last return, KiB", &|m| {
        format!("{:.1}", m.session_kib_in_the_end())
    });
    row("processor time of the idle server, s/min", &|m| {
        format!("{:.1}", m.idle_cpu_per_minute)
    });
    row("all there after the start, s", &|m| seconds(m.first));
    row("all back after the server's kill, s", &|m| {
        seconds(m.quiet.kill)
    });
    row("all back after 15 s without network, s", &|m| {
        seconds(m.quiet.cut)
    });
    row("the same beside strangers: kill, s", &|m| {
        seconds(m.noisy.kill)
    });
    row("the same beside strangers: network, s", &|m| {
        seconds(m.noisy.cut)
    });
    row("strangers in a second", &|m| {
        format!("{:.0}", m.strangers_per_second)
    });
    row("strangers who could not connect", &|m| {
        m.strangers_shut_out.to_string()
    });
}

fn verdict(met: bool, what: &str) -> bool {
    println!("{}: {what}", if met { "PASS" } else { "FAIL" });
    met
}

fn mib(kib: f64) -> String {
    format!("{:.1}", kib / 1024.0)
}

fn seconds(time: std::time::Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
