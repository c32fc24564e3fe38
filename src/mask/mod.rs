//! Masking of responses before anyone or anything sees them.
//!
//! Masks are not read yet, so every plan is empty; the type is what the way downstream demands.

use bytes::Bytes;

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
