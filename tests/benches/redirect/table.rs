//! Prints what was measured.

use culvert_tests::Samples;

use crate::site::Site;

/// All tables. The first site is the one that the others are compared with.
pub(crate) fn print(sites: &[Site]) {
    let Some((baseline, _)) = sites.split_first() else {
        return;
    };
    print_connects(baseline, sites);
    print_misses(baseline, sites);
    print_streams(baseline, sites);
}

fn print_connects(direct: &Site, sites: &[Site]) {
    println!("\nconnect(): median, ratio to direct in the same round [quartiles]\n");
    println!("| case | ns | ratio | prototype | accept + original destination, ns |");
    println!("|---|--:|---|--:|--:|");
    for site in sites {
        println!(
            "| {} | {:.0} | {} | {} | {:.0} |",
            site.case.name,
            median(&site.connects),
            ratio(&site.connects, &direct.connects),
            site.case.prototype,
            median(&site.accepts),
        );
    }
}

/// What the programs cost those connects that they let pass.
fn print_misses(direct: &Site, sites: &[Site]) {
    println!(
        "\nconnects that are not ours: what the programs add [quartiles] (prototype: 600 ns)\n"
    );
    println!("| case | ns |");
    println!("|---|---|");
    for site in sites.iter().filter(|site| site.case.is_miss()) {
        let added = Samples::differences(&site.connects, &direct.connects);
        println!(
            "| {} | {:.0} [{:.0}..{:.0}] |",
            site.case.name,
            added.median(),
            added.percentile(25),
            added.percentile(75),
        );
    }
}

fn print_streams(direct: &Site, sites: &[Site]) {
    println!("\nafter connect, on loopback: ratio to direct in the same round [quartiles]\n");
    println!("| case | throughput, MB/s | ratio | 1 byte round trip, ns | ratio |");
    println!("|---|--:|---|--:|---|");
    for site in sites.iter().filter(|site| site.case.stream) {
        println!(
            "| {} | {:.0} | {} | {:.0} | {} |",
            site.case.name,
            Site::megabytes_per_second(median(&site.bulks)),
            // Of speeds, not of durations.
            ratio(&direct.bulks, &site.bulks),
            median(&site.ping_pongs),
            ratio(&site.ping_pongs, &direct.ping_pongs),
        );
    }
}

fn median(values: &[f64]) -> f64 {
    values.iter().copied().collect::<Samples>().median()
}

fn ratio(these: &[f64], others: &[f64]) -> String {
    let ratios = Samples::ratios(these, others);
    format!(
        "{:.2} [{:.2}..{:.2}]",
        ratios.median(),
        ratios.percentile(25),
        ratios.percentile(75)
    )
}
