//! The socket mark by which the kernel programs know culvert's own sockets.

use std::{fmt, num::NonZeroU32, str::FromStr};

/// A socket mark (`SO_MARK`), never 0: every unmarked socket carries that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(NonZeroU32);

/// Why a text is not a [`Mark`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number from 1 to 0xffffffff, decimal or with 0x in front")]
pub struct InvalidMark;

impl Mark {
    /// The mark as a number.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl FromStr for Mark {
    type Err = InvalidMark;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let number = match hex {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number
            .ok()
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or(InvalidMark)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
