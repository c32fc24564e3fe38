//! The documents of a `.rec`, its frames, and the chain of its headers.

use std::io;

use serde::{Deserialize, Serialize};

use crate::recording::format::event::Sequence;
use crate::recording::format::header::{BlockKind, HEADER_LEN, Header};
use crate::recording::format::signing::PublicKey;

/// Bytes before what is in a skippable frame.
pub(in crate::recording) const FRAME_HEAD: usize = 8;
/// The document of the first block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The version of the format: 1.
    pub format: u32,
    /// The recording's id.
    pub session: crate::names::SessionId,
    /// The gateway's id, as its ledger has it.
    pub gateway: String,
    /// When, by the wall clock, RFC 3339.
    pub started: String,
    /// The cipher of the events; none when they are not encrypted.
    pub cipher: Option<String>,
    /// Who could decrypt when it was begun: keys of age.
    pub recipients: Vec<String>,
    /// The compression dictionary; none yet.
    pub dictionary: Option<String>,
    /// The key, wrapped to the recipients: a file of age's format in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The document of the last block.
/// Its signature stands behind these members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The hash of the last header before the seal, in hexadecimal: everything hangs on it.
    pub head: String,
    /// Blocks before the seal.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Their bytes before compression.
    pub raw: u64,
    /// How the session ended, as its last event says.
    pub how: String,
    /// Whether a crash ended it.
    pub interrupted: bool,
    /// When, by the wall clock, RFC 3339.
    pub sealed_at: String,
    /// The key of the signature; none in recordings of versions that did not sign.
    pub key: Option<PublicKey>,
}

/// How far the chain is.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::recording) struct Place {
    /// The next block's index.
    pub(in crate::recording) index: u64,
    /// The hash of the last header.
    pub(in crate::recording) chain: [u8; 32],
    /// Events so far.
    pub(in crate::recording) events: u64,
    /// Their bytes before compression.
    pub(in crate::recording) raw: u64,
    /// The sequence of the next event.
    pub(in crate::recording) next_sequence: Sequence,
}

impl Place {
    /// Goes past a block.
    pub(in crate::recording) fn advance(&mut self, header: &Header, bytes: &[u8; HEADER_LEN]) {
        self.index = header.index.saturating_add(1);
        self.chain = *blake3::hash(bytes).as_bytes();
        self.next_sequence = header.next_sequence;
        if matches!(header.kind, BlockKind::Events | BlockKind::Found) {
            self.events = self.events.saturating_add(header.events);
            self.raw = self.raw.saturating_add(header.raw_len);
        }
    }
}

/// What a skippable frame begins with.
pub(in crate::recording) fn frame_head(magic: u32, length: usize) -> io::Result<[u8; FRAME_HEAD]> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    let mut head = [0; FRAME_HEAD];
    let (first, second) = head.split_at_mut(4);
    first.copy_from_slice(&magic.to_le_bytes());
    second.copy_from_slice(&length.to_le_bytes());
    Ok(head)
}

/// What the ledger says of a sealed recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The hash of the seal block's header, in hexadecimal: it covers every byte of the file.
    pub seal: String,
    /// Blocks before the seal.
    pub blocks: u64,
    /// Events in them.
    pub events: u64,
    /// Bytes of the file.
    pub size: u64,
    /// How the session ended.
    pub how: String,
    /// Whether a crash ended it.
    pub interrupted: bool,
}
