//! What the demo looks like: numbered steps, the command as typed, its own words indented.

use std::sync::atomic::{AtomicU32, Ordering};

/// Begins a step.
pub(crate) fn step(title: &str) {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    println!("\n{}. {title}", NUMBER.fetch_add(1, Ordering::Relaxed));
}

/// What a person should know before they read on.
pub(crate) fn say(text: &str) {
    for line in text.lines() {
        println!("{}", format!("   {line}").trim_end());
    }
}

/// A command, and where it runs.
pub(crate) fn command(place: &str, line: &str) {
    println!("   {place}$ {line}");
}

/// What a program said.
pub(crate) fn output(text: &str) {
    for line in text.trim_end().lines() {
        println!("     | {}", line.trim_end());
    }
}
