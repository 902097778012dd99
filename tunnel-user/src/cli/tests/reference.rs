//! The reference for people against the program.

use super::*;

/// The reference for people, which must not fall behind the program.
const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md"));

#[test]
fn the_reference_names_every_flag_with_its_default() {
    check_flags_of(&program());
}

fn check_flags_of(command: &clap::Command) {
    for arg in command.get_arguments() {
        let Some(flag) = arg.get_long() else { continue };
        // A row may be about several flags.
        let is_named = |row: &&str| {
            let first = row
                .strip_prefix("| `--")
                .and_then(|row| row.split(" | ").next());
            let mut named = first.into_iter().flat_map(|flags| flags.split("`, `--"));
            named.any(|named| named.split([' ', '`', ':']).next() == Some(flag))
        };
        let rows: Vec<_> = REFERENCE.lines().filter(is_named).collect();
        let name = command.get_name();
        assert!(!rows.is_empty(), "culvert {name} --{flag} has no row");
        let hidden = arg.is_hide_default_value_set() || !arg.get_action().takes_values();
        for default in arg.get_default_values().iter().filter(|_| !hidden) {
            let default = format!("`{}`", default.to_str().unwrap());
            let told = rows.iter().any(|row| row.contains(&default));
            assert!(told, "--{flag} of {name}: {default} is not in {rows:?}");
        }
    }
    command.get_subcommands().for_each(check_flags_of);
}

#[test]
fn the_reference_names_every_label_value() {
    use crate::observability::metrics::{DialFailure, HttpReason, HttpsRefusal, Outcome};
    let outcomes = Outcome::ALL.iter().map(|value| value.as_str());
    let causes = DialFailure::ALL.iter().map(|value| value.as_str());
    let reasons = HttpReason::ALL.iter().map(|value| value.as_str());
    let reasons = reasons.chain(HttpsRefusal::ALL.iter().map(|value| value.as_str()));
    for value in outcomes.chain(causes).chain(reasons) {
        assert!(REFERENCE.contains(&format!("`{value}`")), "{value}");
    }
}
