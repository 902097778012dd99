//! The fields of a TLS message, in order.

/// What is left of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

/// A field is longer than what is left.
#[derive(Debug)]
pub(super) struct TooShort;

impl<'a> Fields<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], TooShort> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(TooShort)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, TooShort> {
        self.take(1).map(|byte| byte[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, TooShort> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A field whose length stands before it in one byte.
    pub(super) fn vec8(&mut self) -> Result<Self, TooShort> {
        let length = self.u8()?;
        self.take(usize::from(length)).map(Self)
    }

    /// The same with two bytes.
    pub(super) fn vec16(&mut self) -> Result<Self, TooShort> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(Self)
    }
}
