//! A token's text taken apart, strictly, before anything in it is believed.
//!
//! Synchronous and free of keys, so that it can be fuzzed by itself. One token has one text:
//! padding, the other alphabet, stray bits and white space are refused.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::{Refused, strict_json};

/// The longest token that is looked at. The largest that issuers make in practice (hundreds of
/// groups) stay under half of it.
pub const MAX_TOKEN: usize = 32 * 1024;

/// The signature algorithms that are taken: asymmetric ones alone, so that a public key can never
/// be used as a shared secret.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// How much of a foreign text a refusal quotes, in characters.
const MAX_SHOWN: usize = 64;

/// A well-formed token of which nothing is proved.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// Of its whole text, which it tells from every other.
    pub(super) hash: [u8; 32],
    /// What the signature is over: header and payload as they came.
    pub(super) signed: &'a str,
    /// The signature, still in base64url.
    pub(super) signature: &'a str,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) typ: Typ,
    pub(super) claims: Map<String, Value>,
    /// The payload's bytes: the same for every signature over them.
    pub(super) payload: Vec<u8>,
}

impl Unverified<'_> {
    /// Whether an ID token may have come with this access token: its `at_hash`, where it has one,
    /// must be of that (OpenID Connect Core section 3.1.3.8).
    pub(super) fn may_come_with(&self, access_token: &str) -> bool {
        let Some(named) = self.claims.get("at_hash") else { return true };
        named.as_str() == Some(&at_hash(self.algorithm, access_token))
    }
}

/// What an ID token that is signed so says of its access token (OpenID Connect Core section
/// 3.1.3.6): the left half of its hash, in base64url.
pub(super) fn at_hash(algorithm: Algorithm, access_token: &str) -> String {
    use Algorithm::{ES256, ES384, PS256, PS384, RS256, RS384};
    let hash = match algorithm {
        RS256 | PS256 | ES256 => &digest::SHA256,
        RS384 | PS384 | ES384 => &digest::SHA384,
        _ => &digest::SHA512,
    };
    let hash = digest::digest(hash, access_token.as_bytes());
    let (left, _) = hash.as_ref().split_at(hash.as_ref().len() / 2);
    URL_SAFE_NO_PAD.encode(left)
}

/// What the header's `typ` says (RFC 8725 section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Typ {
    /// Nothing, or `JWT`: the claims must tell.
    Plain,
    /// `at+jwt` (RFC 9068).
    Access,
    /// `ID`.
    Id,
}

/// What a token is remembered by; none of a text that is too long for one.
pub(super) fn hash(token: &str) -> Option<[u8; 32]> {
    (token.len() <= MAX_TOKEN).then(|| blake3::hash(token.as_bytes()).into())
}

/// Takes a token apart (RFC 7515 section 3.1, RFC 7519 section 7.2). Proves nothing.
pub fn parse(token: &str) -> Result<Unverified<'_>, Refused> {
    let Some(hash) = hash(token) else {
        return refuse(format!("a token of {} bytes; at most {MAX_TOKEN} are read", token.len()));
    };
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return refuse("not a signed JWT: it does not have three parts");
    };
    let signed = token.get(..header.len() + 1 + payload.len()).unwrap_or_default();
    let header = object(&decode(header, "header")?, "header")?;
    let payload = decode(payload, "payload")?;
    let claims = object(&payload, "payload")?;
    if decode(signature, "signature")?.is_empty() {
        return refuse("the token is not signed");
    }
    for extension in ["crit", "b64", "enc", "zip"] {
        if header.contains_key(extension) {
            return refuse(format!("the header asks for an extension ({extension})"));
        }
    }
    Ok(Unverified {
        hash,
        signed,
        signature,
        algorithm: algorithm(&header)?,
        kid: kid(&header)?,
        typ: typ(&header)?,
        claims,
        payload,
    })
}

/// A foreign text as a log may show it: bounded, quoted, control and non-ASCII characters escaped.
pub(super) fn shown(text: &str) -> String {
    let head: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_default).collect();
    let more = if text.chars().nth(MAX_SHOWN).is_some() { "…" } else { "" };
    format!("\"{head}{more}\"")
}

pub(super) fn refuse<T>(reason: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(reason.into()))
}

fn decode(part: &str, name: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refused(format!("the {name} is not canonical base64url without padding")))
}

/// Parses strict JSON: valid UTF-8, no byte order mark, at most 128 levels deep, no name repeated
/// in any object (RFC 7519 section 4).
fn object(json: &[u8], name: &str) -> Result<Map<String, Value>, Refused> {
    strict_json::object(json)
        .ok_or_else(|| Refused(format!("the {name} is not a JSON object, or it repeats a name")))
}

fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, Refused> {
    let Some(name) = header.get("alg").and_then(Value::as_str) else {
        return refuse("the header names no algorithm");
    };
    match name.parse() {
        Ok(algorithm) if ALGORITHMS.contains(&algorithm) => Ok(algorithm),
        _ => refuse(format!("algorithm {} is not taken", shown(name))),
    }
}

fn kid(header: &Map<String, Value>) -> Result<Option<String>, Refused> {
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) => Ok(Some(kid.clone())),
        Some(_) => refuse("the header's kid is not a string"),
    }
}

fn typ(header: &Map<String, Value>) -> Result<Typ, Refused> {
    let name = match header.get("typ") {
        None => return Ok(Typ::Plain),
        Some(Value::String(name)) => name,
        Some(_) => return refuse("the header's typ is not a string"),
    };
    // A media type, so its case does not count (RFC 7515 section 4.1.9).
    match name.to_ascii_lowercase().as_str() {
        "jwt" => Ok(Typ::Plain),
        "at+jwt" | "application/at+jwt" => Ok(Typ::Access),
        "id" => Ok(Typ::Id),
        _ => refuse(format!("a token of type {} is not taken", shown(name))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(header: &str, payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(header), part(payload))
    }

    #[test]
    fn a_header_says_only_what_is_understood() {
        for good in [
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"EdDSA","kid":"../../dev/null","typ":"JWT"}"#,
            r#"{"alg":"ES256","typ":"application/AT+JWT","jwk":{},"x5u":"https://evil"}"#,
        ] {
            assert!(parse(&encoded(good, "{}")).is_ok(), "{good}");
        }
        for bad in [
            r"{}",
            r#"{"alg":null}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"nOnE"}"#,
            r#"{"alg":""}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"ES256K"}"#,
            r#"{"alg":"rs256"}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":"RS256","crit":["exp"]}"#,
            r#"{"alg":"RS256","crit":null}"#,
            r#"{"alg":"RS256","b64":false}"#,
            r#"{"alg":"RS256","kid":7}"#,
            r#"{"alg":"RS256","kid":null}"#,
            r#"{"alg":"RS256","typ":7}"#,
            r#"{"alg":"RS256","typ":""}"#,
            r#"{"alg":"RS256","typ":"logout+jwt"}"#,
            r#"{"alg":"RS256","typ":"dpop+jwt"}"#,
            r#"{"alg":"RS256","typ":"secevent+jwt"}"#,
            r#"["RS256"]"#,
            r#"{"alg":"RS256","alg":"RS256"}"#,
            r#"{"alg":"RS256","kid":"a","kid":"b"}"#,
            r#"{"alg":"RS256","jwk":{"kty":"RSA","kty":"EC"}}"#,
        ] {
            assert!(parse(&encoded(bad, "{}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_token_comes_with_the_access_token_that_its_at_hash_is_of() {
        // The example of OpenID Connect Core, appendix A.3.
        let access = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        let comes = |header: &str, claims: &str, access: &str| {
            parse(&encoded(header, claims)).unwrap().may_come_with(access)
        };
        let rs256 = r#"{"alg":"RS256"}"#;
        let named = r#"{"at_hash":"77QmUPtjPfzWtF2AnpK9RQ"}"#;
        assert!(comes(rs256, named, access));
        assert!(comes(rs256, "{}", access), "it may be left out");
        assert!(!comes(rs256, named, "another"));
        assert!(!comes(r#"{"alg":"ES384"}"#, named, access), "another hash");
        for wrong in ["null", "7", "\"\"", "\"77QmUPtjPfzWtF2AnpK9RQ==\""] {
            assert!(!comes(rs256, &format!("{{\"at_hash\":{wrong}}}"), access), "{wrong}");
        }
    }

    #[test]
    fn a_token_longer_than_the_bound_is_not_decoded() {
        let token = encoded(r#"{"alg":"RS256"}"#, &format!(r#"{{"a":"{}"}}"#, "x".repeat(24_000)));
        assert!(token.len() <= MAX_TOKEN && parse(&token).is_ok());
        assert!(parse(&"x".repeat(MAX_TOKEN + 1)).unwrap_err().0.contains("at most"));
    }

    #[test]
    fn a_foreign_text_is_shown_short_and_escaped() {
        assert_eq!(shown("k\"1\n\u{0}\u{202e}"), r#""k\"1\n\u{0}\u{202e}""#);
        assert!(shown(&"\u{1F600}".repeat(100_000)).len() < 1000);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _parsed = parse(&text);
        }

        #[test]
        fn no_parts_make_the_parser_panic(
            header in proptest::collection::vec(any::<u8>(), 0..100),
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            signature in "[A-Za-z0-9_=+/.-]{0,40}",
        ) {
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let _parsed = parse(&format!("{}.{}.{signature}", part(&header), part(&payload)));
        }

        #[test]
        fn a_changed_byte_never_makes_the_parser_panic(at in 0usize..80, to in any::<char>()) {
            let mut token: Vec<char> =
                encoded(r#"{"alg":"RS256","kid":"k"}"#, r#"{"sub":"crew","exp":1}"#).chars().collect();
            let at = at % token.len();
            token[at] = to;
            let _parsed = parse(&token.into_iter().collect::<String>());
        }
    }
}
