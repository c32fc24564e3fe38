//! Secrets that cannot be guessed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Random bytes in one: it cannot be guessed, and its hash needs no salt.
const RANDOM: usize = 32;

/// 256 random bits as 43 characters of base64url; none when the system gives none.
pub(super) fn random_secret() -> Option<Secret> {
    let mut random = Zeroizing::new([0; RANDOM]);
    aws_lc_rs::rand::fill(&mut *random).ok()?;
    Some(Secret::new(URL_SAFE_NO_PAD.encode(*random)))
}
