//! The development issuer's ES256 keys: made, kept, rotated, published.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

/// How many former keys stay published after rotations.
const MAX_FORMER: usize = 3;
/// What the keys are for.
pub(super) const ALGORITHM: Algorithm = Algorithm::ES256;

/// The key that signs now, and those that still verify.
#[derive(Debug)]
pub(super) struct SigningKeys {
    file: Option<PathBuf>,
    /// The first signs.
    keys: Vec<SigningKey>,
}

#[derive(Debug)]
struct SigningKey {
    private: EncodingKey,
    public: Jwk,
}

impl SigningKeys {
    /// Reads the key from its file, or makes one (and the file, when one is named).
    pub(super) fn open(file: Option<PathBuf>) -> io::Result<Self> {
        let key = match &file {
            None => SigningKey::new(&generate()?)?,
            Some(path) => match fs::read(path) {
                Ok(pkcs8) => SigningKey::new(&Zeroizing::new(pkcs8))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let pkcs8 = generate()?;
                    write_private(path, &pkcs8)?;
                    SigningKey::new(&pkcs8)?
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Self { file, keys: vec![key] })
    }

    /// Signs with a new key from now on. Former ones stay published for what they signed, unless
    /// they are to be forgotten, as after a compromise.
    pub(super) fn rotate(&mut self, forget: bool) -> io::Result<()> {
        let pkcs8 = generate()?;
        let key = SigningKey::new(&pkcs8)?;
        if let Some(path) = &self.file {
            let next = path.with_extension("next");
            // What a crash in an earlier rotation may have left.
            fs::remove_file(&next).ok();
            write_private(&next, &pkcs8)?;
            fs::rename(&next, path)?;
        }
        self.keys.truncate(if forget { 0 } else { MAX_FORMER });
        self.keys.insert(0, key);
        Ok(())
    }

    /// The JWK set.
    pub(super) fn published(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|key| &key.public).collect::<Vec<_>>() })
    }

    /// Signs claims as a token of this `typ`.
    pub(super) fn sign(
        &self,
        typ: &str,
        claims: &Map<String, Value>,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let key = self.keys.first().ok_or(jsonwebtoken::errors::ErrorKind::InvalidEcdsaKey)?;
        let mut header = Header::new(ALGORITHM);
        header.typ = Some(typ.to_owned());
        header.kid.clone_from(&key.public.common.key_id);
        jsonwebtoken::encode(&header, claims, &key.private)
    }
}

impl SigningKey {
    fn new(pkcs8: &[u8]) -> io::Result<Self> {
        let private = EncodingKey::from_ec_der(pkcs8);
        let mut public = Jwk::from_encoding_key(&private, ALGORITHM).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("not a P-256 key: {error}"))
        })?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(io::Error::other)?;
        public.common.key_id = Some(kid);
        public.common.key_algorithm = Some(KeyAlgorithm::ES256);
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { private, public })
    }
}

fn generate() -> io::Result<Zeroizing<Vec<u8>>> {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let document = made.map_err(|_| io::Error::other("no key could be made"))?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_kept_key_survives_a_restart_and_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.der");
        let open = || SigningKeys::open(Some(path.clone())).unwrap();
        let first = open().published();
        assert_eq!(open().published(), first);
        let mut keys = open();
        keys.rotate(false).unwrap();
        let rotated = keys.published();
        assert_eq!(rotated["keys"][1], first["keys"][0]);
        assert_eq!(open().published()["keys"][0], rotated["keys"][0]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn former_keys_are_few_and_can_be_forgotten() {
        let mut keys = SigningKeys::open(None).unwrap();
        for _ in 0..10 {
            keys.rotate(false).unwrap();
        }
        assert_eq!(keys.keys.len(), 1 + MAX_FORMER);
        keys.rotate(true).unwrap();
        assert_eq!(keys.keys.len(), 1);
        assert!(!keys.published().to_string().contains("\"d\""));
    }
}
