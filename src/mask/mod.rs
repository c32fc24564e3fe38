//! Masking of responses before anyone or anything sees them.
//!
//! [`Pattern`]s tell secrets in text, a [`Masker`] puts something else in their place, in whole
//! values or, with a [`Scanner`], in streams. Masks are not read from the configuration yet, so
//! every [`MaskPlan`] is empty; the type is what the way downstream demands.

mod numbers;
mod pattern;
mod scanner;

use bytes::Bytes;

pub use pattern::{Pattern, PatternMistake};
pub use scanner::{Action, HashKey, Masker, Scanner};

/// How the responses of one session are masked.
#[derive(Debug, Default)]
pub struct MaskPlan {}

impl MaskPlan {
    /// Masks one run of response bytes.
    pub fn apply(&self, response: Bytes) -> Masked {
        Masked { bytes: response }
    }
}

/// Response bytes from which everything that must not be seen has been taken.
#[derive(Debug)]
pub struct Masked {
    bytes: Bytes,
}

impl Masked {
    /// The bytes, for recording.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, for the client.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}
