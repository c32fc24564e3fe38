//! The header of a block: what is stored behind it, and where it stands in the chain. Layout and
//! rules: `docs/recording-format.md`.

use crate::recording::format::encode::MAX_PAYLOAD;
use crate::recording::format::event::Sequence;

/// A block ends with the event that takes it to this size.
pub(in crate::recording) const BLOCK_TARGET: usize = 256 << 10;
/// Bytes of a header with the skippable frame around it.
pub(in crate::recording) const HEADER_LEN: usize = 160;
/// What a block's events may come to: they end with the one that fills the block, and an event
/// is at most its payload and a line.
pub(in crate::recording) const MAX_RAW: u64 = (BLOCK_TARGET + MAX_PAYLOAD + 1024) as u64;
/// What the stored bytes may come to: zstd adds less than one byte in 128 to what does not compress.
pub(in crate::recording) const MAX_STORED: u64 = MAX_RAW + MAX_RAW / 128 + 1024;
/// A start or seal document's bound; the wrapped key stands in the first.
pub(in crate::recording) const MAX_DOCUMENT: u64 = 64 << 10;

/// RFC 8878 section 3.1.2: decoders skip frames of these magic numbers.
const SKIPPABLE_HEADER: u32 = 0x184D_2A50;
pub(in crate::recording) const SKIPPABLE_DOCUMENT: u32 = 0x184D_2A51;
pub(in crate::recording) const SKIPPABLE_SEALED: u32 = 0x184D_2A52;
pub(in crate::recording) const SKIPPABLE_FOUND: u32 = 0x184D_2A53;
/// RFC 8878 section 3.1.1.
pub(in crate::recording) const ZSTD_MAGIC: u32 = 0xFD2F_B528;
const MAGIC: [u8; 4] = *b"PCR1";

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum BlockKind {
    /// The document that a file starts with, [`Start`].
    Start,
    /// Events.
    Events,
    /// The document that a file ends with, [`Seal`].
    Seal,
    /// Records of an encrypted journal, as a repair found them.
    Found,
}

/// One block's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) struct Header {
    pub(in crate::recording) kind: BlockKind,
    /// Whether what is stored can be read with the recording's key only.
    pub(in crate::recording) encrypted: bool,
    /// Whether the last event is `closed`; told of encrypted blocks only.
    pub(in crate::recording) ends: bool,
    /// What the block was sealed under; 0 when it was not.
    pub(in crate::recording) number: u64,
    pub(in crate::recording) index: u64,
    pub(in crate::recording) first_sequence: Sequence,
    pub(in crate::recording) next_sequence: Sequence,
    pub(in crate::recording) first_wall_us: i64,
    pub(in crate::recording) last_wall_us: i64,
    pub(in crate::recording) raw_len: u64,
    pub(in crate::recording) stored_len: u64,
    pub(in crate::recording) events: u64,
    pub(in crate::recording) stored_hash: [u8; 32],
    pub(in crate::recording) chain: [u8; 32],
}

/// The events of one block to be: all of them, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) struct Span {
    pub(in crate::recording) bytes: usize,
    pub(in crate::recording) events: u64,
    pub(in crate::recording) first_sequence: Sequence,
    pub(in crate::recording) next_sequence: Sequence,
    pub(in crate::recording) first_wall_us: i64,
    pub(in crate::recording) last_wall_us: i64,
}

impl Header {
    /// The header as it is stored.
    pub(in crate::recording) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let kind: u8 = match self.kind {
            BlockKind::Start => 0,
            BlockKind::Events => 1,
            BlockKind::Seal => 2,
            BlockKind::Found => 3,
        };
        let length = u32::try_from(HEADER_LEN - 8).unwrap_or_default();
        let fields: [&[u8]; 16] = [
            &SKIPPABLE_HEADER.to_le_bytes(),
            &length.to_le_bytes(),
            &MAGIC,
            &[kind, u8::from(self.encrypted), u8::from(self.ends), 0],
            &self.index.to_le_bytes(),
            &self.first_sequence.to_le_bytes(),
            &self.next_sequence.to_le_bytes(),
            &self.first_wall_us.to_le_bytes(),
            &self.last_wall_us.to_le_bytes(),
            &self.raw_len.to_le_bytes(),
            &self.stored_len.to_le_bytes(),
            &self.events.to_le_bytes(),
            &self.number.to_le_bytes(),
            &[0; 8],
            &self.stored_hash,
            &self.chain,
        ];
        let mut rest = out.as_mut_slice();
        for field in fields {
            let Some((place, after)) = rest.split_at_mut_checked(field.len()) else { break };
            place.copy_from_slice(field);
            rest = after;
        }
        out
    }

    /// Reads a header and refuses every byte that the writer would not have written.
    pub(in crate::recording) fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, &'static str> {
        let mut rest = bytes.get(8..).unwrap_or_default();
        let magic = take::<4>(&mut rest);
        let [kind, cipher, ends, _] = take(&mut rest);
        let kind = match kind {
            0 => BlockKind::Start,
            1 => BlockKind::Events,
            2 => BlockKind::Seal,
            3 => BlockKind::Found,
            _ => return Err("the block is of an unknown kind"),
        };
        let mut u64 = || u64::from_le_bytes(take(&mut rest));
        let header = Self {
            kind,
            encrypted: cipher == 1,
            ends: ends == 1,
            index: u64(),
            first_sequence: u64(),
            next_sequence: u64(),
            first_wall_us: i64::from_le_bytes(u64().to_le_bytes()),
            last_wall_us: i64::from_le_bytes(u64().to_le_bytes()),
            raw_len: u64(),
            stored_len: u64(),
            events: u64(),
            number: u64(),
            stored_hash: {
                take::<8>(&mut rest);
                take(&mut rest)
            },
            chain: take(&mut rest),
        };
        if magic != MAGIC || header.encode() != *bytes {
            return Err("this is not a block's header");
        }
        let sealed = header.encrypted && kind == BlockKind::Events;
        if (header.number != 0) != sealed || header.ends && !sealed {
            return Err("the block's header tells of another cipher");
        }
        if header.encrypted != (kind == BlockKind::Found) && !sealed {
            return Err("the block's kind goes with another cipher");
        }
        let (raw, stored) = match kind {
            BlockKind::Events | BlockKind::Found => (MAX_RAW, MAX_STORED),
            BlockKind::Start | BlockKind::Seal => (MAX_DOCUMENT, MAX_DOCUMENT + 8),
        };
        if header.raw_len > raw || header.stored_len > stored {
            return Err("the block is longer than a block may be");
        }
        if header.next_sequence < header.first_sequence {
            return Err("the block's sequence goes back");
        }
        Ok(header)
    }

    /// What sealing binds to the stored bytes: all of the header but their hash, which is not
    /// there yet.
    pub(in crate::recording) fn bound(&self) -> [u8; HEADER_LEN] {
        Self { stored_hash: [0; 32], ..*self }.encode()
    }

    /// Whether a file's last bytes, too few for a header, could be the start of one.
    pub(in crate::recording) fn may_start_with(bytes: &[u8]) -> bool {
        let length = u32::try_from(HEADER_LEN - 8).unwrap_or_default();
        let fixed = [SKIPPABLE_HEADER.to_le_bytes(), length.to_le_bytes(), MAGIC];
        bytes.iter().zip(fixed.as_flattened()).all(|(a, b)| a == b)
    }
}

pub(in crate::recording) fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((field, after)) => {
            *rest = after;
            *field
        }
        None => [0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_any_bit_changed_is_another_header_or_none() {
        let header = Header {
            kind: BlockKind::Events,
            encrypted: true,
            ends: true,
            number: 4,
            index: 3,
            first_sequence: 10,
            next_sequence: 20,
            first_wall_us: -1,
            last_wall_us: 2,
            raw_len: 500,
            stored_len: 300,
            events: 10,
            stored_hash: [7; 32],
            chain: [9; 32],
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Header::decode(&changed), Ok(header), "bit {bit}");
        }
    }
}
