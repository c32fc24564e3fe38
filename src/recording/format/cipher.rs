//! The cipher of a recording's events: AES-256-GCM with a key that only this recording has.
//!
//! A key seals under numbers that count up from 1 and lives in the memory of the process that
//! made it: who opens it later only reads. So no number serves twice, whatever failed, was rolled
//! back or was repaired in between.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::age::{self, Recipient};

/// The cipher's name in a recording's first block.
pub(in crate::recording) const NAME: &str = "aes-256-gcm";
/// Bytes that sealing adds.
pub(in crate::recording) const TAG: usize = 16;
const KEY: usize = 32;

/// What opens one recording. Clones share it.
#[derive(Clone)]
pub(in crate::recording) struct RecordingKey(Arc<LessSafeKey>);

impl fmt::Debug for RecordingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordingKey")
    }
}

impl RecordingKey {
    /// The key of these bytes, if they can be one.
    pub(in crate::recording) fn of(secret: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, secret).ok()?;
        Some(Self(Arc::new(LessSafeKey::new(key))))
    }

    /// Opens what was sealed under a number, in place; none when anything of it was changed.
    pub(in crate::recording) fn open<'s>(
        &self,
        number: u64,
        about: &[u8],
        sealed: &'s mut [u8],
    ) -> Option<&'s [u8]> {
        let opened = self.0.open_in_place(nonce(number), Aad::from(about), sealed);
        opened.ok().map(|opened| &*opened)
    }
}

/// A number to seal under; sealing uses it up.
#[derive(Debug)]
pub(in crate::recording) struct Once(u64);

impl Once {
    /// The number, which stands beside what is sealed.
    pub(in crate::recording) fn number(&self) -> u64 {
        self.0
    }
}

/// What seals one recording.
#[derive(Debug)]
pub(in crate::recording) struct Sealing {
    key: RecordingKey,
    last: u64,
}

impl Sealing {
    /// A new key, and the same wrapped for those who may read, as the first block has it.
    pub(in crate::recording) fn make(recipients: &[Recipient]) -> io::Result<(Self, String)> {
        let mut secret = Zeroizing::new([0; KEY]);
        let failed = |_| io::Error::other("no key could be made");
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(failed)?;
        let wrapped = age::wrap(recipients, secret.as_slice()).map_err(io::Error::other)?;
        let key = RecordingKey::of(secret.as_slice())
            .ok_or_else(|| io::Error::other("no key could be made"))?;
        Ok((Self { key, last: 0 }, STANDARD.encode(wrapped)))
    }

    /// What opens what this seals.
    pub(in crate::recording) fn key(&self) -> RecordingKey {
        self.key.clone()
    }

    /// The next number.
    pub(in crate::recording) fn once(&mut self) -> io::Result<Once> {
        let used_up = || io::Error::other("the recording's key is used up");
        self.last = self.last.checked_add(1).ok_or_else(used_up)?;
        Ok(Once(self.last))
    }

    /// Seals what stands in `bytes` from `from` on, in place, and adds the tag. `about` is bound to
    /// it: who opens it has to give the same.
    #[expect(clippy::needless_pass_by_value, reason = "sealing uses the number up")]
    pub(in crate::recording) fn seal(
        &self,
        once: Once,
        about: &[u8],
        bytes: &mut Vec<u8>,
        from: usize,
    ) -> io::Result<()> {
        let failed = |_| io::Error::other("it could not be sealed");
        let Once(number) = once;
        let plain = bytes.get_mut(from..).unwrap_or_default();
        let tag = self
            .key
            .0
            .seal_in_place_separate_tag(nonce(number), Aad::from(about), plain)
            .map_err(failed)?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(place) = nonce.last_chunk_mut() {
        *place = number.to_le_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPIENT: &str = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";

    #[test]
    fn no_number_serves_twice_and_another_one_opens_nothing() {
        let (mut sealing, _) = Sealing::make(&[RECIPIENT.parse().unwrap()]).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000_000 {
            assert!(seen.insert(sealing.once().unwrap().number()));
        }
        let mut bytes = b"headsecret".to_vec();
        let once = sealing.once().unwrap();
        let number = once.number();
        sealing.seal(once, b"about", &mut bytes, 4).unwrap();
        assert!(bytes.starts_with(b"head") && bytes.len() == 10 + TAG);
        let open = |number, about: &[u8]| {
            sealing.key().open(number, about, &mut bytes.clone()[4..]).map(<[u8]>::to_vec)
        };
        assert_eq!(open(number, b"about").unwrap(), b"secret");
        assert!(open(number - 1, b"about").is_none() && open(number, b"other").is_none());
        let (other, _) = Sealing::make(&[RECIPIENT.parse().unwrap()]).unwrap();
        assert!(other.key().open(number, b"about", &mut bytes[4..]).is_none());
        sealing.last = u64::MAX;
        assert!(sealing.once().is_err());
    }
}
