//! Message boundaries: a tag byte, a big-endian length that counts itself, a body.
//!
//! Messages are kept whole up to a bound, but for the two kinds that carry data of any size
//! (`DataRow`, `CopyData`): these may be cut into fragments, so that a session's memory does not
//! grow with a value's size.

use super::Malformed;

/// The largest message that is kept whole, in bytes with its tag. Statements of this size exist
/// (generated INSERTs); larger ones are refused before any of it is kept.
pub const MAX_WHOLE: usize = 64 << 20;

/// A message that is larger than [`MAX_WHOLE`].
pub const TOO_LARGE: Malformed = Malformed("a message is larger than 64 MiB");

/// The largest `DataRow` or `CopyData`, in bytes: PostgreSQL's own bound (`MaxAllocSize`, 1 GiB).
pub const MAX_STREAMED: usize = 1 << 30;

/// `DataRow` and `CopyData` up to this size are kept whole, larger ones may come in fragments.
pub const WHOLE_DATA: usize = 64 << 10;

/// Tag and length.
pub const HEADER: usize = 5;

/// Which side sends: the same tag means different messages in the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client sends.
    Frontend,
    /// The server sends.
    Backend,
}

impl Side {
    fn may_be_cut(self, tag: u8) -> bool {
        match self {
            Self::Frontend => tag == b'd',
            Self::Backend => tag == b'd' || tag == b'D',
        }
    }
}

/// A message, or a piece of one, at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The message's tag.
    pub tag: u8,
    /// How many bytes of the buffer it takes.
    pub length: usize,
    /// Whether it holds the message's beginning (its tag and length).
    pub first: bool,
    /// Whether it holds the message's end.
    pub last: bool,
}

impl Piece {
    /// Whether the piece is a message from its tag to its end.
    pub fn is_whole(&self) -> bool {
        self.first && self.last
    }
}

/// Walks the messages of one direction; remembers only how much of a cut message is to come.
#[derive(Debug)]
pub struct Walker {
    side: Side,
    /// Larger messages that may be cut are.
    whole: usize,
    cut: Option<(u8, usize)>,
}

impl Walker {
    /// A walker at a message boundary.
    pub fn new(side: Side) -> Self {
        Self { side, whole: WHOLE_DATA, cut: None }
    }

    /// A walker that cuts nothing: data that is too large to be kept whole is refused.
    pub fn whole(side: Side) -> Self {
        Self { side, whole: usize::MAX, cut: None }
    }

    /// From the next message on, cuts none, or cuts as it did.
    pub fn keep_whole(&mut self, whole: bool) {
        self.whole = if whole { usize::MAX } else { WHOLE_DATA };
    }

    /// Whether the next byte is a message's first.
    pub fn at_boundary(&self) -> bool {
        self.cut.is_none()
    }

    /// The next piece at the front of `bytes`, or `None` while more bytes are needed.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece>, Malformed> {
        if let Some((tag, remaining)) = self.cut {
            if bytes.is_empty() {
                return Ok(None);
            }
            let length = remaining.min(bytes.len());
            self.cut = (length < remaining).then_some((tag, remaining - length));
            return Ok(Some(Piece { tag, length, first: false, last: self.cut.is_none() }));
        }
        let Some((&tag, total)) = header(bytes)? else { return Ok(None) };
        if self.side.may_be_cut(tag) && total > self.whole {
            if total > MAX_STREAMED {
                return Err(Malformed("a data message is larger than 1 GiB"));
            }
            let length = total.min(bytes.len());
            self.cut = (length < total).then_some((tag, total - length));
            return Ok(Some(Piece { tag, length, first: true, last: self.cut.is_none() }));
        }
        if total > MAX_WHOLE {
            return Err(TOO_LARGE);
        }
        Ok((bytes.len() >= total).then_some(Piece { tag, length: total, first: true, last: true }))
    }
}

/// The tag and the total length with the tag, once both are there.
fn header(bytes: &[u8]) -> Result<Option<(&u8, usize)>, Malformed> {
    let Some((tag, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    if length < 4 || length > i32::MAX as u32 {
        return Err(Malformed("a message's length is impossible"));
    }
    Ok(Some((tag, length as usize + 1)))
}

/// How long the message at the front says that it is, with its tag; 0 when that is not there yet, or
/// impossible.
pub fn announced(bytes: &[u8]) -> usize {
    header(bytes).ok().flatten().map_or(0, |(_, total)| total)
}

/// The body of a whole message: what follows tag and length.
pub fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER..).unwrap_or_default()
}

/// A whole message.
#[cfg(test)]
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` in chunks; gives the pieces joined to (tag, total length) per message.
    fn walk(side: Side, bytes: &[u8], chunks: &[usize]) -> Result<Vec<(u8, usize)>, Malformed> {
        let mut walker = Walker::new(side);
        let (mut seen, mut joined) = (Vec::new(), 0);
        let (mut buffer, mut at, mut turn) = (Vec::new(), 0, 0);
        while at < bytes.len() {
            let size = chunks[turn % chunks.len()].clamp(1, bytes.len() - at);
            buffer.extend(&bytes[at..at + size]);
            at += size;
            turn += 1;
            while let Some(piece) = walker.next(&buffer)? {
                assert!(piece.length > 0);
                joined += piece.length;
                buffer.drain(..piece.length);
                if piece.last {
                    seen.push((piece.tag, joined));
                    joined = 0;
                }
            }
        }
        Ok(seen)
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(
            sizes in prop::collection::vec((prop::sample::select(b"QdDZC".to_vec()), 0usize..3000), 1..20),
            big in 0usize..200_000,
            chunks in prop::collection::vec(1usize..70_000, 1..8),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (tag, size) in sizes.into_iter().chain([(b'd', big)]) {
                bytes.extend(message(tag, &vec![7; size]));
                expected.push((tag, size + HEADER));
            }
            for side in [Side::Frontend, Side::Backend] {
                prop_assert_eq!(walk(side, &bytes, &chunks), Ok(expected.clone()));
                prop_assert_eq!(walk(side, &bytes, &[1 << 20]), Ok(expected.clone()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), chunk in 1usize..20) {
            for side in [Side::Frontend, Side::Backend] {
                let _ = walk(side, &bytes, &[chunk]);
            }
        }
    }

    #[test]
    fn impossible_lengths_are_refused_from_the_header_alone() {
        for length in [0u32, 1, 2, 3, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert!(Walker::new(Side::Frontend).next(&bytes).is_err(), "{length}");
        }
        let mut large = vec![b'Q'];
        large.extend(u32::try_from(MAX_WHOLE).unwrap().to_be_bytes());
        assert!(Walker::new(Side::Frontend).next(&large).is_err());
        large[0] = b'd';
        assert!(Walker::new(Side::Frontend).next(&large).unwrap().is_some());
    }
}
