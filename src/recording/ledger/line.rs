//! The lines of a ledger: what they say, and how they are written.

use serde::{Deserialize, Serialize};

use crate::names::SessionId;
use crate::recording::format::documents::Sealed;
use crate::recording::format::signing::{PublicKey, Purpose, SealingKey};

/// Longer than any line that is written.
pub(in crate::recording) const MAX_LINE: u64 = 4096;
/// What the first line names as the hash of the line before.
pub(super) const NO_LINE_BEFORE: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// One line. Its signature stands behind these members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::recording) struct Line {
    /// Its number, from 0.
    pub(in crate::recording) n: u64,
    /// blake3 of the line before, without its newline, in hexadecimal; zeros in the first.
    pub(super) prev: String,
    /// When it was written, by the wall clock, RFC 3339.
    pub(in crate::recording) at: String,
    /// What it says.
    #[serde(flatten)]
    pub(in crate::recording) entry: Entry,
}

impl Line {
    /// The line with its signature, without a newline.
    pub(super) fn signed(&self, key: &SealingKey) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self)?;
        key.sign(Purpose::LedgerLine, &mut text);
        Ok(text)
    }
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(in crate::recording) enum Entry {
    /// The ledger begins; always the first line.
    Ledger {
        /// The version of the format: 1.
        format: u32,
        /// The gateway's id.
        gateway: String,
        /// The key that signs, from this line on. Ledgers begun before lines were signed have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<PublicKey>,
    },
    /// Another key signs the lines after this one, or the first one. The line itself is signed by
    /// the key before it, or, when there was none or it was lost, by the new one.
    Key {
        /// The new key.
        key: PublicKey,
    },
    /// The ledger was this long at this time.
    Checkpoint,
    /// A recording was opened.
    Opened {
        /// Which.
        session: SessionId,
    },
    /// A recording was sealed.
    Sealed {
        /// Which.
        session: SessionId,
        /// How it stands.
        #[serde(flatten)]
        sealed: Sealed,
    },
    /// A recording could not be repaired and was left as it was found.
    Damaged {
        /// Which.
        session: SessionId,
        /// What is wrong with it.
        what: String,
    },
    /// A recording was taken away, or is about to be.
    Tombstone {
        /// Which.
        session: SessionId,
        /// Why it might go.
        #[serde(flatten)]
        burial: Burial,
        /// Its file was gone already, and not by a line like this.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        missing: bool,
    },
}

/// Why a recording may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burial {
    /// When its session ended, RFC 3339.
    pub ended_at: String,
    /// How long `[[retention]]` keeps it, in seconds.
    pub keep_seconds: u64,
}
