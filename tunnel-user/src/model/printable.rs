//! What somebody else said, as it may be shown to people: in a log, an error, a status, an Event.

/// The longest text of somebody else that is shown, in characters.
pub const LONGEST_PRINTED: usize = 512;

/// One line, not too long, without anything that moves a terminal's cursor or turns text round.
pub fn printable(text: &str) -> String {
    printable_up_to(text, LONGEST_PRINTED)
}

/// The same with another length.
pub fn printable_up_to(text: &str, longest: usize) -> String {
    let is_cut = text.chars().nth(longest).is_some();
    let kept = if is_cut {
        longest.saturating_sub(1)
    } else {
        longest
    };
    let shown = text.chars().take(kept);
    let shown = shown.map(|c| if is_printable(c) { c } else { ' ' });
    shown.chain(is_cut.then_some('…')).collect()
}

/// Whether a character stays where it is written, and on its line.
pub fn is_printable(c: char) -> bool {
    let turns_text = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    !c.is_control() && !turns_text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_says_stays_one_short_line() {
        assert_eq!(printable("connection refused"), "connection refused");
        assert_eq!(printable("größer"), "größer");
        assert_eq!(
            printable("a\r\n2026-01-01 WARN\u{1b}[2Jb\u{202e}c\u{2028}d"),
            "a  2026-01-01 WARN [2Jb c d"
        );
        let long = printable(&"ü".repeat(LONGEST_PRINTED + 1));
        assert_eq!(long.chars().count(), LONGEST_PRINTED);
        assert!(long.ends_with("ü…"));
        let whole = "ü".repeat(LONGEST_PRINTED);
        assert_eq!(printable(&whole), whole);
    }
}
