//! Keys, and tokens of every kind that they sign: good, odd and hostile.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A key of an issuer.
pub struct Key {
    pub alg: &'static str,
    pub kid: String,
    private: Private,
}

enum Private {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    pub fn es256(kid: &str) -> Self {
        Self::ec("ES256", kid, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub fn es384(kid: &str) -> Self {
        Self::ec("ES384", kid, &ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    /// A secp256k1 key: as long as a P-256 one.
    pub fn es256k(kid: &str) -> Self {
        Self::ec("ES256K", kid, &ECDSA_P256K1_SHA256_FIXED_SIGNING)
    }

    pub fn ed25519(kid: &str) -> Self {
        let private = Private::Ed(Ed25519KeyPair::generate().unwrap());
        Self { alg: "EdDSA", kid: kid.to_owned(), private }
    }

    pub fn rs256(kid: &str) -> Self {
        let private = Private::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        Self { alg: "RS256", kid: kid.to_owned(), private }
    }

    fn ec(alg: &'static str, kid: &str, curve: &'static EcdsaSigningAlgorithm) -> Self {
        let private = Private::Ec(EcdsaKeyPair::generate(curve).unwrap());
        Self { alg, kid: kid.to_owned(), private }
    }

    /// The public key as it is published.
    pub fn jwk(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.private {
            Private::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(curve_size(self.alg));
                let crv = match self.alg {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "secp256k1",
                };
                json!({ "kty": "EC", "crv": crv, "x": b64(x), "y": b64(y) })
            }
            Private::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref()) })
            }
            Private::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": b64(&public.n), "e": b64(&public.e) })
            }
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token with the ordinary header.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.alg, "typ": "at+jwt", "kid": self.kid }), claims)
    }

    /// A token with this header, whatever it says.
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.token_of(header.to_string().as_bytes(), claims.to_string().as_bytes())
    }

    /// A token with these bytes for header and payload.
    pub fn token_of(&self, header: &[u8], payload: &[u8]) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.sign(signed.as_bytes(), header);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, message: &[u8], header: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.private {
            Private::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            Private::Rsa(pair) => {
                let pss = header.windows(7).any(|part| part == b"\"PS256\"");
                let padding = if pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }
}

/// The claims of a good token, with some changed; `Value::Null` takes one out.
pub fn claims(issuer: &str, changes: &Value) -> Value {
    let now = unix_now();
    let mut claims = json!({
        "iss": issuer, "sub": "crew-7", "aud": "portcullis", "iat": now, "exp": now + 600,
        "groups": ["dev"],
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The other valid ES256 signature over the same message: s becomes n - s.
pub fn high_s_twin(token: &str) -> String {
    /// The order of P-256 (FIPS 186-4, D.1.2.3).
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = false;
    for (digit, order) in signature[32..].iter_mut().zip(ORDER).rev() {
        let (difference, first) = order.overflowing_sub(*digit);
        let (difference, second) = difference.overflowing_sub(u8::from(borrow));
        (*digit, borrow) = (difference, first || second);
    }
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn curve_size(alg: &str) -> usize {
    if alg == "ES384" { 48 } else { 32 }
}
