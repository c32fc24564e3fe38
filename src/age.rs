//! Small secrets for people's keys: files of the [age](https://age-encryption.org/v1) format with
//! X25519 recipients, so that `age -d` and every other program of that format opens them too.
//!
//! Written here over the crypto backend that everything else uses. The `age` crate would bring 75
//! others: a second backend, and a framework for translations. The format's page is
//! <https://c2sp.org/age>.
//!
//! Limits: what is wrapped is at most 64 KiB; stanzas of other kinds of recipients are passed over.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use zeroize::Zeroizing;

/// What a wrapped secret may come to: one chunk of the format.
const MAX_SECRET: usize = 64 << 10;
/// What a file of one may come to.
pub const MAX_FILE: usize = 128 << 10;
/// Lines of a body are this long, and its last one is shorter.
const COLUMNS: usize = 64;
const KEY: usize = 32;
const FILE_KEY: usize = 16;
const NONCE: usize = 16;
const VERSION: &str = "age-encryption.org/v1";
const LABEL: &[u8] = b"age-encryption.org/v1/X25519";
const RECIPIENT: Hrp = Hrp::parse_unchecked("age");
const IDENTITY: Hrp = Hrp::parse_unchecked("age-secret-key-");

/// A public key, `age1…`: who can open what is wrapped to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recipient([u8; KEY]);

/// The private key of a recipient, `AGE-SECRET-KEY-1…`. Shows nothing of itself, wiped when
/// dropped.
#[derive(Clone)]
pub struct Identity {
    key: Zeroizing<[u8; KEY]>,
    recipient: Recipient,
}

/// A text is no recipient.
#[derive(Debug, thiserror::Error)]
#[error("it is not a recipient of age's X25519 kind, which begins with age1")]
pub struct NotARecipient;

/// A text holds no identities.
#[derive(Debug, thiserror::Error)]
pub enum NotAnIdentity {
    /// A line is something else. Its text is not told: it may be a damaged key.
    #[error("line {0} is not an identity of age's X25519 kind, which begins with AGE-SECRET-KEY-1")]
    Line(usize),
    /// There is none.
    #[error("there is no identity in it, AGE-SECRET-KEY-1…")]
    None,
}

/// Nothing could be wrapped, which the operating system or the backend must have refused.
#[derive(Debug, thiserror::Error)]
#[error("a key could not be wrapped")]
pub struct NotWrapped;

impl From<Unspecified> for NotWrapped {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

impl FromStr for Recipient {
    type Err = NotARecipient;

    fn from_str(text: &str) -> Result<Self, NotARecipient> {
        // There is one spelling of a recipient, in lower case.
        let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
        let key = decode(RECIPIENT, text).filter(|_| lower).ok_or(NotARecipient)?;
        Ok(Self(*key))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32, _>(f, RECIPIENT, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the identities of a file as `age-keygen` writes it: one a line, comments behind `#`.
    ///
    /// # Errors
    /// When a line is something else, or there is no identity.
    pub fn read_all(text: &str) -> Result<Vec<Self>, NotAnIdentity> {
        let mut identities = Vec::new();
        for (line, text) in text.lines().enumerate() {
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                let key = decode(IDENTITY, text).ok_or(NotAnIdentity::Line(line + 1))?;
                identities.push(Self::of(key).ok_or(NotAnIdentity::Line(line + 1))?);
            }
        }
        if identities.is_empty() { Err(NotAnIdentity::None) } else { Ok(identities) }
    }

    /// Whose private key it is.
    pub fn recipient(&self) -> Recipient {
        self.recipient
    }

    fn of(key: Zeroizing<[u8; KEY]>) -> Option<Self> {
        let public = PrivateKey::from_private_key(&X25519, key.as_slice()).ok()?;
        let public = public.compute_public_key().ok()?;
        Some(Self { recipient: Recipient(public.as_ref().try_into().ok()?), key })
    }

    /// The file key, if a stanza is for this identity.
    fn open(&self, stanza: &Stanza) -> Option<Zeroizing<[u8; FILE_KEY]>> {
        let own = PrivateKey::from_private_key(&X25519, self.key.as_slice()).ok()?;
        let wrapping = wrapping_key(&own, &stanza.share, &stanza.share, &self.recipient).ok()?;
        let mut body = Zeroizing::new(stanza.body);
        let opened = wrapping.open_in_place(no_nonce(), Aad::empty(), body.as_mut_slice()).ok()?;
        Some(Zeroizing::new((&*opened).try_into().ok()?))
    }
}

/// Wraps a secret so that each of the recipients can open it: a whole file of the format.
///
/// # Errors
/// When the secret is too long, or randomness or a recipient's key is of no use.
pub fn wrap(recipients: &[Recipient], secret: &[u8]) -> Result<Vec<u8>, NotWrapped> {
    if secret.len() > MAX_SECRET || recipients.is_empty() {
        return Err(NotWrapped);
    }
    let mut file_key = Zeroizing::new([0; FILE_KEY]);
    rand::fill(file_key.as_mut_slice())?;
    let mut header = format!("{VERSION}\n");
    for recipient in recipients {
        let own = PrivateKey::generate(&X25519)?;
        let share = own.compute_public_key()?;
        let wrapping = wrapping_key(&own, &recipient.0, share.as_ref(), recipient)?;
        let mut body = file_key.to_vec();
        wrapping.seal_in_place_append_tag(no_nonce(), Aad::empty(), &mut body)?;
        let (share, body) = (STANDARD_NO_PAD.encode(share), STANDARD_NO_PAD.encode(body));
        header.push_str(&format!("-> X25519 {share}\n{body}\n"));
    }
    header.push_str("---");
    let mac = hmac::sign(&mac_key(&file_key)?, header.as_bytes());
    let mut nonce = [0; NONCE];
    rand::fill(&mut nonce)?;
    let mut sealed = secret.to_vec();
    payload_key(&file_key, &nonce)?.seal_in_place_append_tag(
        last_chunk(),
        Aad::empty(),
        &mut sealed,
    )?;
    let mut file = format!("{header} {}\n", STANDARD_NO_PAD.encode(mac)).into_bytes();
    file.extend_from_slice(&nonce);
    file.extend_from_slice(&sealed);
    Ok(file)
}

/// The secret in a file, if one of the identities opens it.
pub fn unwrap(identities: &[Identity], file: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let header = Header::parse(file)?;
    let stanzas = || header.stanzas.iter();
    let file_key =
        identities.iter().find_map(|identity| stanzas().find_map(|each| identity.open(each)))?;
    hmac::verify(&mac_key(&file_key).ok()?, header.covered, &header.mac).ok()?;
    let (nonce, sealed) = header.payload.split_first_chunk::<NONCE>()?;
    if sealed.len() > MAX_SECRET + CHACHA20_POLY1305.tag_len() {
        return None;
    }
    let mut secret = Zeroizing::new(sealed.to_vec());
    let key = payload_key(&file_key, nonce).ok()?;
    let length = key.open_in_place(last_chunk(), Aad::empty(), &mut secret).ok()?.len();
    secret.truncate(length);
    Some(secret)
}

/// What stands before the payload of a file.
struct Header<'f> {
    stanzas: Vec<Stanza>,
    /// What the authentication code is over.
    covered: &'f [u8],
    mac: Vec<u8>,
    payload: &'f [u8],
}

/// The file key, wrapped for one recipient of the X25519 kind.
struct Stanza {
    share: [u8; KEY],
    body: [u8; FILE_KEY + 16],
}

impl<'f> Header<'f> {
    fn parse(file: &'f [u8]) -> Option<Self> {
        let mut rest = file.get(..file.len().min(MAX_FILE))?;
        if line(&mut rest)? != VERSION {
            return None;
        }
        let mut stanzas = Vec::new();
        loop {
            let before = file.len() - rest.len();
            let begin = line(&mut rest)?;
            if let Some(mac) = begin.strip_prefix("--- ") {
                let mac = STANDARD_NO_PAD.decode(mac).ok()?;
                let covered = file.get(..before + "---".len())?;
                return Some(Self { stanzas, covered, mac, payload: rest });
            }
            let arguments = begin.strip_prefix("-> ")?;
            let mut body = String::new();
            loop {
                let text = line(&mut rest)?;
                body.push_str(text);
                if text.len() < COLUMNS {
                    break;
                }
            }
            if let Some(share) = arguments.strip_prefix("X25519 ") {
                let share = STANDARD_NO_PAD.decode(share).ok()?.try_into().ok()?;
                let body = STANDARD_NO_PAD.decode(&body).ok()?.try_into().ok()?;
                stanzas.push(Stanza { share, body });
            }
        }
    }
}

fn line<'f>(rest: &mut &'f [u8]) -> Option<&'f str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (text, after) = rest.split_at_checked(end)?;
    *rest = after.get(1..)?;
    std::str::from_utf8(text).ok()
}

fn decode(kind: Hrp, text: &str) -> Option<Zeroizing<[u8; KEY]>> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok()?;
    let mut key = Zeroizing::new([0; KEY]);
    let mut bytes = checked.byte_iter();
    if checked.hrp() != kind || bytes.len() != KEY {
        return None;
    }
    key.iter_mut().zip(&mut bytes).for_each(|(place, byte)| *place = byte);
    Some(key)
}

/// The key that wraps a file key between an ephemeral key and a recipient.
fn wrapping_key(
    own: &PrivateKey,
    peer: &[u8; KEY],
    share: &[u8],
    recipient: &Recipient,
) -> Result<LessSafeKey, Unspecified> {
    let salt = [share, recipient.0.as_slice()].concat();
    // A peer whose key gives nothing but zeros is refused by the backend.
    agreement::agree(own, UnparsedPublicKey::new(&X25519, peer), Unspecified, |shared| {
        chacha(shared, &salt, LABEL)
    })
}

fn payload_key(file_key: &[u8; FILE_KEY], nonce: &[u8]) -> Result<LessSafeKey, Unspecified> {
    chacha(file_key, nonce, b"payload")
}

fn mac_key(file_key: &[u8; FILE_KEY]) -> Result<hmac::Key, Unspecified> {
    let key = derived(file_key, &[], b"header")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()))
}

fn chacha(secret: &[u8], salt: &[u8], label: &[u8]) -> Result<LessSafeKey, Unspecified> {
    let key = derived(secret, salt, label)?;
    Ok(LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_slice())?))
}

fn derived(secret: &[u8], salt: &[u8], label: &[u8]) -> Result<Zeroizing<[u8; KEY]>, Unspecified> {
    let mut key = Zeroizing::new([0; KEY]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[label], hkdf::HKDF_SHA256)?
        .fill(key.as_mut_slice())?;
    Ok(key)
}

/// Each wrapping key is used once.
fn no_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Chunk 0 of the payload, which is also its last.
fn last_chunk() -> Nonce {
    let mut nonce = [0; 12];
    if let Some(last) = nonce.last_mut() {
        *last = 1;
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by age 1.1.1's `age-keygen`.
    const FIRST: &str = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";
    const SECOND: &str = "# created: 2026-11-21T19:20:39Z
# public key: age1d4ctc6nxj97jtwuqt29x9rkzwayse0pwqlqnnfvn6kw5xpms2p7sk3gf2w
AGE-SECRET-KEY-1NQXVG9SE0TCCFD4P79UMP339EVJC464M5RYV37MMDZ4P8GCRAF8Q8GLQYM
";
    const STRANGER: &str =
        "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQS2PXY0";
    /// 32 times the letter k, encrypted by age 1.1.1 to both.
    const FILE: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBOUkxHaWZxQ0g1QmZ5S3N6dGFhL1BQRW00\
        MGVVM29kemVvS0t1TzNaYWxvCjlIbEhqdDhVU0pLTmdxeE1SZC9CUVFGWWFnQUZ2UmNiVFdncjV5LzVJdncKLT4gWDI1\
        NTE5IEZBSms3c2RKbWh3cTVtdXpUWTFxUEJoMWlIUkNpcWZCSWV0anRRb0poeW8KNUNCUEQ5WXk1UmFkakFBTGI5SGhM\
        SjhIUmZPZnk1c0gwUWhhMGlxVzg5cwotLS0gemltd2RoM2kzd2p1bUZrdGh4UGtoQWc1QXovRmNKT1JJSlpQeDNWcVZo\
        VQq1iK9RCWxIzrBrJ4EAOkUfm758iGxwiXg14E1jFbdSrugSDBwoJ+t9tss6GmbbkSE2xgFVi/3R4LtkFfj33cSc";

    fn identity() -> Identity {
        Identity::read_all(SECOND).unwrap().remove(0)
    }

    #[test]
    fn keys_and_files_are_those_of_age() {
        let recipient: Recipient = FIRST.parse().unwrap();
        assert_eq!(recipient.to_string(), FIRST);
        assert!(SECOND.contains(&identity().recipient().to_string()));
        assert!(!format!("{:?}", identity()).contains("SECRET"));
        let file = base64::engine::general_purpose::STANDARD.decode(FILE).unwrap();
        assert_eq!(unwrap(&[identity()], &file).unwrap().as_slice(), [b'k'; 32]);
    }

    #[test]
    fn whoever_is_not_a_recipient_opens_nothing() {
        let own = identity().recipient();
        let file = wrap(&[FIRST.parse().unwrap(), own], b"secret").unwrap();
        assert_eq!(unwrap(&[identity()], &file).unwrap().as_slice(), b"secret");
        let other = wrap(&[FIRST.parse().unwrap()], b"secret").unwrap();
        assert!(unwrap(&[identity()], &other).is_none());
        assert!(wrap(&[], b"secret").is_err() && wrap(&[own], &[0; MAX_SECRET + 1]).is_err());
    }

    #[test]
    fn any_changed_bit_or_cut_opens_nothing() {
        let file = wrap(&[identity().recipient()], b"secret").unwrap();
        for bit in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap(&[identity()], &changed).is_none(), "bit {bit}");
        }
        for cut in 0..file.len() {
            assert!(unwrap(&[identity()], &file[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        for text in [
            "",
            "age1",
            FIRST.get(..40).unwrap(),
            &FIRST.to_uppercase(),
            SECOND,
            "ssh-ed25519 AAAA",
        ] {
            assert!(text.parse::<Recipient>().is_err(), "{text}");
        }
        for text in ["", "# nothing", FIRST, STRANGER] {
            let refused = Identity::read_all(text).map(drop).unwrap_err().to_string();
            assert!(text.is_empty() || !refused.contains(text), "{refused}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange(
            head in 0..300usize,
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let file = wrap(&[identity().recipient()], b"secret").unwrap();
            let mixed = [&file[..head.min(file.len())], &bytes].concat();
            let _any = unwrap(&[identity()], &mixed);
        }
    }
}
