//! An issuer's public keys (JWK set, RFC 7517), and the one question they answer: did one of them
//! sign this token?
//!
//! A `kid` is only ever compared with the published ones. A key is used with the algorithms of
//! its own kind and curve alone, and with exactly one when it names one. Keys of other kinds,
//! symmetric ones among them, are left out of the set.
//!
//! HTTP brings its token with every request. What a key signed stays signed, so a set remembers which
//! tokens it proved, and of whom; that goes with its keys.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use quick_cache::sync::Cache;
use serde::Deserialize;

use super::token::Unverified;
use super::{Identity, Refused};

/// The most signature keys that a set may hold: the largest tenants publish about a dozen.
const MAX_KEYS: usize = 100;

/// The most keys that one token is tried against, when its `kid` does not name a single one.
const MAX_TRIED: usize = 8;

/// How many proved tokens a set remembers, with some kilobytes of claims each.
const MAX_PROVED: usize = 1_024;

/// The signature keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Hashes of tokens that one of them signed, and whom those that were accepted prove.
    proved: Cache<[u8; 32], Option<Arc<Identity>>>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    /// The algorithms it may be used with.
    algorithms: &'static [Algorithm],
    public: DecodingKey,
}

/// A token that a key of its issuer signed. Only [`KeySet::check`] makes one.
#[derive(Debug)]
pub(super) struct Signed<'a>(Unverified<'a>);

impl<'a> Signed<'a> {
    pub(super) fn token(self) -> Unverified<'a> {
        self.0
    }

    #[cfg(test)]
    pub(super) fn trusted(token: Unverified<'a>) -> Self {
        Self(token)
    }
}

/// What a set of keys says of a token.
#[derive(Debug)]
pub(super) enum Checked<'a> {
    Signed(Signed<'a>),
    /// The named key did not sign it.
    Forged(Refused),
    /// The key that signed it is not in the set; a newer set may have it.
    NoKey(Unverified<'a>),
}

impl KeySet {
    /// Reads a JWK set. Entries that are no signature keys of a kind we use are left out, as RFC
    /// 7517 section 5 asks; what is not a JWK set, or holds too many keys, is an error.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|error| format!("not a JWK set: {error}"))?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(usable).collect();
        if keys.len() > MAX_KEYS {
            return Err(format!("{} signature keys; at most {MAX_KEYS} are read", keys.len()));
        }
        Ok(Self { keys, proved: Cache::new(MAX_PROVED) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Looks for the key that signed a token: those with its `kid` (two may share one), or, when
    /// none has it or the token has none, those without, in any case of the token's algorithm
    /// and a bounded number of them.
    pub(super) fn check<'a>(&self, token: Unverified<'a>) -> Checked<'a> {
        if self.proved.contains_key(&token.hash) {
            return Checked::Signed(Signed(token));
        }
        let named = token.kid.is_some() && self.keys.iter().any(|key| key.kid == token.kid);
        let signed = self
            .keys
            .iter()
            .filter(|key| match &token.kid {
                Some(_) if named => key.kid == token.kid,
                Some(_) => key.kid.is_none(),
                None => true,
            })
            .filter(|key| key.algorithms.contains(&token.algorithm))
            .take(MAX_TRIED)
            .any(|key| key.signed(&token));
        if signed {
            self.proved.insert(token.hash, None);
            Checked::Signed(Signed(token))
        } else if named {
            Checked::Forged(Refused("the key that it names did not sign it".to_owned()))
        } else {
            Checked::NoKey(token)
        }
    }

    /// Whom the token of this hash proved when it came before; its time may be over.
    pub(super) fn known(&self, hash: &[u8; 32]) -> Option<Arc<Identity>> {
        self.proved.get(hash)?
    }

    /// Notes whom a token proves, if it was one of these keys that signed it.
    pub(super) fn note(&self, hash: &[u8; 32], identity: &Arc<Identity>) {
        let _is_there = self.proved.replace(*hash, Some(Arc::clone(identity)), true);
    }
}

impl Key {
    fn signed(&self, token: &Unverified<'_>) -> bool {
        let message = token.signed.as_bytes();
        jsonwebtoken::crypto::verify(token.signature, message, &self.public, token.algorithm)
            .unwrap_or(false)
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

fn usable(entry: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(entry).ok()?;
    let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
        && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !for_signatures {
        return None;
    }
    let (family, public) = public_key(&jwk)?;
    let algorithms = match &jwk.alg {
        None => family,
        Some(name) => {
            let named: Algorithm = name.parse().ok()?;
            let at = family.iter().position(|algorithm| *algorithm == named)?;
            family.get(at..=at)?
        }
    };
    Some(Key { kid: jwk.kid, algorithms, public })
}

fn public_key(jwk: &Jwk) -> Option<(&'static [Algorithm], DecodingKey)> {
    const RSA: &[Algorithm] = &[
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        // Moduli outside 2048 to 8192 bits never verify anything: aws-lc-rs refuses them.
        ("RSA", _) => DecodingKey::from_rsa_components(jwk.n.as_deref()?, jwk.e.as_deref()?)
            .ok()
            .map(|key| (RSA, key)),
        ("EC", Some("P-256")) => ec_key(jwk, 32).map(|key| (&[Algorithm::ES256][..], key)),
        ("EC", Some("P-384")) => ec_key(jwk, 48).map(|key| (&[Algorithm::ES384][..], key)),
        ("OKP", Some("Ed25519")) => {
            let x = coordinate(jwk.x.as_deref(), 32)?;
            DecodingKey::from_ed_components(x).ok().map(|key| (&[Algorithm::EdDSA][..], key))
        }
        _ => None,
    }
}

fn ec_key(jwk: &Jwk, size: usize) -> Option<DecodingKey> {
    let (x, y) = (coordinate(jwk.x.as_deref(), size)?, coordinate(jwk.y.as_deref(), size)?);
    DecodingKey::from_ec_components(x, y).ok()
}

/// A coordinate, when it has the size that its curve asks for.
fn coordinate(text: Option<&str>, size: usize) -> Option<&str> {
    text.filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == size))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_key::TestKey;
    use super::super::token::parse;
    use super::*;

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn outcome(set: &KeySet, token: &str) -> &'static str {
        match set.check(parse(token).unwrap()) {
            Checked::Signed(_) => "signed",
            Checked::Forged(_) => "forged",
            Checked::NoKey(_) => "no key",
        }
    }

    fn without(mut jwk: Value, names: &[&str]) -> Value {
        for name in names {
            jwk.as_object_mut().unwrap().remove(*name);
        }
        jwk
    }

    fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
        jwk[name] = value.into();
        jwk
    }

    #[test]
    fn a_kid_chooses_the_key_and_is_only_compared() {
        let (a, b) = (TestKey::new("a"), TestKey::new("b"));
        let both = set(&[a.jwk(), b.jwk()]);
        assert_eq!(outcome(&both, &a.sign(&json!({}))), "signed");
        assert_eq!(outcome(&both, &b.sign_as(Some("a"), &json!({}))), "forged");
        for kid in ["../../dev/null", "file:///etc/passwd", "' OR 1=1--", "", "A", "a\u{0}"] {
            assert_eq!(outcome(&both, &a.sign_as(Some(kid), &json!({}))), "no key", "{kid:?}");
        }
    }

    #[test]
    fn a_proved_token_proves_no_other_and_stays_so_as_long_as_its_key() {
        let (key, other) = (TestKey::new("k"), TestKey::new("k"));
        let (ours, theirs) = (set(&[key.jwk()]), set(&[other.jwk()]));
        let token = key.sign(&json!({ "sub": "a" }));
        let another = key.sign(&json!({ "sub": "b" }));
        let (signed, _) = token.rsplit_once('.').unwrap();
        let (another_signed, signature) = another.rsplit_once('.').unwrap();
        for _ in 0..2 {
            assert_eq!(outcome(&ours, &token), "signed");
            assert_eq!(outcome(&ours, &format!("{signed}.{signature}")), "forged");
            assert_eq!(outcome(&ours, &format!("{another_signed}.{signature}")), "signed");
            assert_eq!(outcome(&theirs, &token), "forged");
        }
    }

    #[test]
    fn a_token_without_a_kid_is_tried_against_a_few_keys() {
        let key = TestKey::new("k");
        let token = key.sign_as(None, &json!({}));
        assert_eq!(outcome(&set(&[TestKey::new("a").jwk(), key.jwk()]), &token), "signed");
        let mut many: Vec<Value> = (0..MAX_TRIED).map(|_| TestKey::new("x").jwk()).collect();
        many.push(key.jwk());
        assert_eq!(outcome(&set(&many), &token), "no key");
    }

    #[test]
    fn keys_that_share_a_kid_or_have_none_are_tried_in_turn() {
        let (a, b) = (TestKey::new("same"), TestKey::new("same"));
        let both = set(&[a.jwk(), b.jwk()]);
        assert_eq!(outcome(&both, &a.sign(&json!({}))), "signed");
        assert_eq!(outcome(&both, &b.sign(&json!({}))), "signed");
        let nameless = set(&[without(a.jwk(), &["kid"])]);
        assert_eq!(outcome(&nameless, &a.sign(&json!({}))), "signed");
        assert_eq!(outcome(&nameless, &TestKey::new("same").sign(&json!({}))), "no key");
    }

    #[test]
    fn only_keys_for_signatures_of_known_kinds_are_kept() {
        let key = TestKey::new("k").jwk();
        for good in [
            key.clone(),
            without(key.clone(), &["use", "alg"]),
            with(without(key.clone(), &["use"]), "key_ops", json!(["verify"])),
        ] {
            assert_eq!(set(&[good]).keys.len(), 1);
        }
        for bad in [
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}),
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "use": "sig"}),
            with(key.clone(), "use", "enc"),
            with(key.clone(), "key_ops", json!(["encrypt"])),
            with(key.clone(), "alg", "ES384"),
            with(key.clone(), "alg", "HS256"),
            with(key.clone(), "alg", "none"),
            with(key.clone(), "crv", "P-384"),
            with(key.clone(), "crv", "secp256k1"),
            with(key.clone(), "kid", 7),
            with(key.clone(), "x", "AA"),
            with(key, "kty", "RSA"),
            json!(null),
            json!("key"),
        ] {
            assert!(set(std::slice::from_ref(&bad)).is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_set_is_a_set_and_bounded() {
        for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":7}"#, "\u{feff}{\"keys\":[]}"] {
            assert!(KeySet::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let many = vec![TestKey::new("k").jwk(); MAX_KEYS + 1];
        assert!(KeySet::parse(json!({ "keys": many }).to_string().as_bytes()).is_err());
    }
}
