//! A cursor over one message's body: every read is checked, nothing is copied.

use super::Malformed;

/// What is left to read of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) =
            self.0.split_first_chunk::<N>().ok_or(Malformed("a message ends too early"))?;
        self.0 = tail;
        Ok(*head)
    }

    /// Text up to the next NUL, which is taken too.
    pub(super) fn string(&mut self) -> Result<&'a str, Malformed> {
        let end = memchr(self.0).ok_or(Malformed("a text in a message has no end"))?;
        let (text, tail) = self.0.split_at(end);
        self.0 = tail.get(1..).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| super::NOT_UTF8)
    }

    /// As [`Body::string`], for texts of the server that need not be UTF-8.
    pub(super) fn bytes_to_nul(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr(self.0).ok_or(Malformed("a text in a message has no end"))?;
        let (text, tail) = self.0.split_at(end);
        self.0 = tail.get(1..).unwrap_or_default();
        Ok(text)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) =
            self.0.split_at_checked(length).ok_or(Malformed("a message ends too early"))?;
        self.0 = tail;
        Ok(head)
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The end of the body: anything left over is an attempt to say two things in one message.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a message has bytes left over")) }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == 0)
}
