//! Writes each event as one line of bounded length, whatever others have put into its fields.

use std::io::{self, Write};

use crate::model::is_printable;

/// The longest line, in bytes. Whoever wants to say more has something to hide.
const LONGEST_LINE: usize = 16 * 1024;
/// Begins a colour.
const ESCAPE: char = '\u{1b}';

/// What the log writes to. An event arrives as one piece.
pub(super) struct OneLine<W>(pub(super) W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(one_line(event).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Colours stay: `tracing` itself escapes what looks like one in a field.
fn one_line(event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let whole = &text[..text.floor_char_boundary(LONGEST_LINE)];
    let cut = if whole.len() < text.len() { "…" } else { "" };
    let shown = |c| {
        if c == ESCAPE || is_printable(c) {
            c
        } else {
            ' '
        }
    };
    whole
        .chars()
        .map(shown)
        .chain(cut.chars())
        .chain(['\n'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_it_says() {
        let forged = "INFO refused address=x\r\n2026-01-01 WARN all is lost\n";
        assert_eq!(
            one_line(forged.as_bytes()),
            "INFO refused address=x  2026-01-01 WARN all is lost\n"
        );
        assert_eq!(
            one_line(b"\x1b[32mINFO\x1b[0m fine\n"),
            "\u{1b}[32mINFO\u{1b}[0m fine\n"
        );
    }

    #[test]
    fn a_long_event_is_cut() {
        let long = "ü".repeat(LONGEST_LINE) + "\n";
        let cut = one_line(long.as_bytes());
        assert!(cut.len() <= LONGEST_LINE + 4 && cut.ends_with("…\n"));
    }
}
