//! Prints what was measured, and whether that is good enough.

use culvert_tests::Samples;

use crate::{
    Args,
    memory::Memory,
    results::{Measured, Results, Transfers},
};

/// How much slower the pings may be beside a stopped reader.
const STOPPED_LIMIT: f64 = 1.2;

pub(crate) fn print(results: &Results, args: &Args) {
    println!("\nmedian of {} runs [lowest..highest]\n", args.runs);
    let ways = (&results.direct, &results.culvert);
    print_rows(["direct", "culvert"], ROWS, ways);
    println!("\n| | server | agent |");
    println!("|---|---|---|");
    print_cpu("download", &results.culvert.download);
    print_cpu("upload", &results.culvert.upload);
    print_memory(results, args.idle);
}

/// One figure of what was measured on two ways.
pub(crate) struct Row<M> {
    name: &'static str,
    digits: usize,
    of: fn(&M) -> &[f64],
}

/// Two ways side by side.
pub(crate) fn print_rows<M>(names: [&str; 2], rows: &[Row<M>], ways: (&M, &M)) {
    println!("| | {} | {} | ratio |", names[0], names[1]);
    println!("|---|---|---|--:|");
    for row in rows {
        let (first, second) = ((row.of)(ways.0), (row.of)(ways.1));
        println!(
            "| {} | {} | {} | {:.2} |",
            row.name,
            show(first, row.digits),
            show(second, row.digits),
            median(second) / median(first),
        );
    }
}

const ROWS: &[Row<Measured>] = &[
    row("connect + 1 byte echo, p50, us", 0, |m| &m.connect_p50_us),
    row("connect + 1 byte echo, p99, us", 0, |m| &m.connect_p99_us),
    row("download, MB/s", 0, |m| &m.download.speed),
    row("upload, MB/s", 0, |m| &m.upload.speed),
    row("1 KiB ping, p50, us", 0, |m| &m.pings.p50_us),
    row("1 KiB ping, p99, us", 0, |m| &m.pings.p99_us),
    row("the same beside a stopped reader, p50, us", 0, |m| {
        &m.pings_beside_stopped.p50_us
    }),
    row("the same beside a stopped reader, p99, us", 0, |m| {
        &m.pings_beside_stopped.p99_us
    }),
];

pub(crate) const fn row<M>(name: &'static str, digits: usize, of: fn(&M) -> &[f64]) -> Row<M> {
    Row { name, digits, of }
}

fn print_cpu(direction: &str, transfers: &Transfers) {
    println!(
        "| {direction}, CPU-s/GiB | {} | {} |",
        show(&transfers.server_cpu, 2),
        show(&transfers.agent_cpu, 2),
    );
}

fn print_memory(results: &Results, connections: u32) {
    let values = |of: fn(&Memory) -> f64| -> Vec<f64> { results.memory.iter().map(of).collect() };
    println!(
        "| resident, idle, MiB | {} | {} |",
        show(&values(|memory| memory.idle.server / 1024.0), 1),
        show(&values(|memory| memory.idle.agent / 1024.0), 1),
    );
    println!(
        "| for each of {connections} idle connections, KiB | {} | {} |",
        show(&values(|memory| memory.each.server), 1),
        show(&values(|memory| memory.each.agent), 1),
    );
}

/// The targets; true if both are met.
pub(crate) fn print_targets(results: &Results) -> bool {
    let nothing_lost = results.lost.is_empty();
    println!("\n{}: no byte lost", verdict(nothing_lost));
    for loss in &results.lost {
        println!("  {loss}");
    }
    let ratios = Samples::ratios(
        &results.culvert.pings_beside_stopped.p50_us,
        &results.culvert.pings.p50_us,
    );
    let undisturbed = ratios.median() <= STOPPED_LIMIT;
    println!(
        "{}: pings beside a stopped reader within {STOPPED_LIMIT} of those without: {:.2} [{:.2}..{:.2}]",
        verdict(undisturbed),
        ratios.median(),
        ratios.percentile(0),
        ratios.percentile(100),
    );
    nothing_lost && undisturbed
}

pub(crate) fn verdict(met: bool) -> &'static str {
    if met { "PASS" } else { "FAIL" }
}

fn show(values: &[f64], digits: usize) -> String {
    let values = values.iter().copied().collect::<Samples>();
    format!(
        "{:.digits$} [{:.digits$}..{:.digits$}]",
        values.median(),
        values.percentile(0),
        values.percentile(100),
    )
}

pub(crate) fn median(values: &[f64]) -> f64 {
    values.iter().copied().collect::<Samples>().median()
}
