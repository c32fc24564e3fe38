//! An issuer's key for unit tests.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub(super) struct TestKey {
    kid: String,
    private: EncodingKey,
}

impl TestKey {
    pub(super) fn new(kid: &str) -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let private = EncodingKey::from_ec_der(pkcs8.unwrap().as_ref());
        Self { kid: kid.to_owned(), private }
    }

    pub(super) fn jwk(&self) -> Value {
        let public = Jwk::from_encoding_key(&self.private, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(public).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(Some(&self.kid), claims)
    }

    pub(super) fn sign_as(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.private).unwrap()
    }
}
