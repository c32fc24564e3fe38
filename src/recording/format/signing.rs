//! The key that signs seals and the ledger's lines: Ed25519 (RFC 8032), made on the first start.
//!
//! What is signed is JSON that ends with the signature: `{…,"signature":"<128 digits>"}`. Signed
//! are the bytes before `,"signature":`, behind a line that says what they are, so that no
//! signature of one kind is one of another.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files;

/// RFC 8410: what stands before the 32 bytes of an Ed25519 key in its `SubjectPublicKeyInfo`.
const PUBLIC_KEY_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const SIGNATURE_LEN: usize = 64;
const MEMBER: &[u8] = b",\"signature\":\"";
const END: &[u8] = b"\"}";

/// What a signature is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) enum Purpose {
    /// A line of the ledger.
    LedgerLine,
    /// The document of a recording's last block.
    Seal,
}

impl Purpose {
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::LedgerLine => b"portcullis ledger line 1\n",
            Self::Seal => b"portcullis seal 1\n",
        }
    }
}

/// A key that signatures are held against. As text, 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; 32]);

/// A text or file is not an Ed25519 public key.
#[derive(Debug, thiserror::Error)]
#[error("it is not an Ed25519 public key")]
pub struct NotAKey;

impl PublicKey {
    /// Reads the keys of a PEM file: one or more of `-----BEGIN PUBLIC KEY-----`.
    ///
    /// # Errors
    /// When it cannot be read, holds no key, or one that is not Ed25519.
    pub fn read(path: &Path) -> io::Result<Vec<Self>> {
        let text = files::read(path, files::MAX_KEY_FILE)?;
        let keys = SubjectPublicKeyInfoDer::pem_slice_iter(&text)
            .map(|der| {
                let der = der.map_err(|_| NotAKey)?;
                let key = der.strip_prefix(&PUBLIC_KEY_PREFIX).and_then(|key| key.try_into().ok());
                key.map(Self).ok_or(NotAKey)
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        if keys.is_empty() { Err(io::Error::other(NotAKey)) } else { Ok(keys) }
    }

    /// Whether JSON carries this key's signature.
    pub(in crate::recording) fn signed(&self, purpose: Purpose, json: &[u8]) -> bool {
        let Some((signed, signature)) = split(json) else { return false };
        let message = [purpose.prefix(), signed].concat();
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&message, &signature).is_ok()
    }

    fn to_pem(self) -> String {
        let der = [&PUBLIC_KEY_PREFIX[..], &self.0].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        unhex(text.as_bytes()).map(Self).ok_or(NotAKey)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAKey;

    fn try_from(text: String) -> Result<Self, NotAKey> {
        text.parse()
    }
}

/// The key that signs. It shows nothing of itself when printed.
pub(in crate::recording) struct SealingKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SealingKey {
    /// Reads a PEM file of PKCS #8, as `openssl genpkey -algorithm ed25519` writes it.
    pub(in crate::recording) fn read(path: &Path) -> io::Result<Self> {
        let refused = || io::Error::other("it is not an Ed25519 private key in PEM (PKCS #8)");
        let text = files::read(path, files::MAX_KEY_FILE)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| refused())?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_| refused())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| refused())?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    /// The key in the file, made there when there is no such file.
    pub(in crate::recording) fn read_or_make(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let next = next_to(path);
                let key = Self::make(&next)?;
                fs::rename(next, path)?;
                Ok(key)
            }
            read => read,
        }
    }

    /// Writes a new key to a file that only its owner may read, over what stands there.
    pub(in crate::recording) fn make(path: &Path) -> io::Result<Self> {
        let failed = |_| io::Error::other("no key could be made");
        let der = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(failed)?;
        let base64 = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let text = Zeroizing::new(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            *base64
        ));
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Self::read(path)
    }

    /// Writes the public key beside the private one, unless it is there.
    pub(in crate::recording) fn publish(&self, path: &Path) -> io::Result<()> {
        let (file, text) = (beside(path, ".pub"), self.public.to_pem());
        match fs::read_to_string(&file) {
            Ok(there) if there == text => Ok(()),
            _ => fs::write(file, text),
        }
    }

    pub(in crate::recording) fn public(&self) -> PublicKey {
        self.public
    }

    /// Adds the signature to an object of JSON that has members.
    pub(in crate::recording) fn sign(&self, purpose: Purpose, json: &mut Vec<u8>) {
        json.truncate(json.len().saturating_sub(1));
        let signature = self.pair.sign(&[purpose.prefix(), json.as_slice()].concat());
        json.extend_from_slice(MEMBER);
        for half in signature.as_ref().chunks(SIGNATURE_LEN / 2) {
            let half = half.try_into().unwrap_or_default();
            json.extend_from_slice(blake3::Hash::from_bytes(half).to_hex().as_bytes());
        }
        json.extend_from_slice(END);
    }
}

/// Where the next key stands until the ledger names it.
pub(in crate::recording) fn next_to(path: &Path) -> PathBuf {
    beside(path, ".next")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The signed bytes and the signature.
fn split(json: &[u8]) -> Option<(&[u8], [u8; SIGNATURE_LEN])> {
    let (rest, digits) = json.strip_suffix(END)?.split_last_chunk::<{ SIGNATURE_LEN * 2 }>()?;
    let (first, second) = digits.split_at(SIGNATURE_LEN);
    let mut signature = [0; SIGNATURE_LEN];
    let (head, tail) = signature.split_at_mut(SIGNATURE_LEN / 2);
    head.copy_from_slice(&unhex(first)?);
    tail.copy_from_slice(&unhex(second)?);
    Some((rest.strip_suffix(MEMBER)?, signature))
}

/// 32 bytes from 64 digits; one spelling only.
fn unhex(digits: &[u8]) -> Option<[u8; 32]> {
    let lower = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| blake3::Hash::from_hex(digits).ok()).flatten().map(Into::into)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/seal_ed25519");
        let key = SealingKey::read_or_make(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SealingKey::read_or_make(&path).unwrap().public(), key.public());
        key.publish(&path).unwrap();
        assert_eq!(PublicKey::read(&beside(&path, ".pub")).unwrap(), [key.public()]);
        assert!(!format!("{key:?}").contains("pair"));
        fs::write(&path, "nonsense").unwrap();
        assert!(SealingKey::read_or_make(&path).is_err());
    }

    #[test]
    fn keys_are_those_of_openssl() {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("key"), folder.path().join("pub"));
        let openssl = |arguments: &[&str], out: &Path| {
            let mut command = std::process::Command::new("openssl");
            assert!(command.args(arguments).arg("-out").arg(out).status().unwrap().success());
        };
        openssl(&["genpkey", "-algorithm", "ed25519"], &private);
        openssl(&["pkey", "-pubout", "-in", private.to_str().unwrap()], &public);
        let key = SealingKey::read(&private).unwrap();
        assert_eq!(PublicKey::read(&public).unwrap(), [key.public()]);
    }

    #[test]
    fn any_other_byte_is_another_signature_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let key = SealingKey::make(&folder.path().join("key")).unwrap();
        let mut json = b"{\"a\":1}".to_vec();
        key.sign(Purpose::Seal, &mut json);
        assert!(key.public().signed(Purpose::Seal, &json));
        assert!(!key.public().signed(Purpose::LedgerLine, &json));
        for bit in 0..json.len() * 8 {
            let mut changed = json.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.public().signed(Purpose::Seal, &changed), "bit {bit}");
        }
        for cut in 0..json.len() {
            assert!(!key.public().signed(Purpose::Seal, &json[..cut]));
        }
    }
}
