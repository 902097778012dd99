//! Proof that bytes went through the tunnel and no other way: the server has counted them.

use crate::stage::carried_bytes;

/// What the server had carried at some moment.
pub(crate) struct Tunnelled {
    before: u64,
}

impl Tunnelled {
    pub(crate) fn now() -> Self {
        Self {
            before: carried_bytes(),
        }
    }

    /// So many bytes went through it since then, both ways together.
    #[track_caller]
    pub(crate) fn at_least(&self, bytes: u64) {
        let carried = carried_bytes() - self.before;
        assert!(
            carried >= bytes,
            "{carried} bytes went through the tunnel, not {bytes}"
        );
    }
}
