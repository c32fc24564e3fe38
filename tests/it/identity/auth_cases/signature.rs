//! Rows about signatures and headers.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::super::mint::{Key, claims, high_s_twin};
use super::super::scripted::{Bench, Issuer, Running, settings};

pub(super) async fn an_unsigned_token_is_refused() {
    let bench = Bench::new().await;
    let payload = URL_SAFE_NO_PAD.encode(bench.claims(&json!({})).to_string());
    for alg in ["none", "nOnE", "NONE", "", "HS256"] {
        for signature in ["", "c2ln"] {
            let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "kid": "k1" }).to_string());
            let token = format!("{header}.{payload}.{signature}");
            assert!(bench.running.verify(&token).await.is_err(), "{alg:?} {signature:?}");
        }
    }
    let good = bench.key.token(&bench.claims(&json!({})));
    let (signed, _) = good.rsplit_once('.').unwrap();
    for token in [format!("{signed}."), signed.to_owned(), format!("{good}.{payload}")] {
        assert!(bench.running.verify(&token).await.is_err(), "{token}");
    }
    assert!(bench.running.verify(&good).await.is_ok());
}

pub(super) async fn an_algorithm_or_curve_is_not_taken_for_another() {
    let keys = [Key::rs256("rsa"), Key::es256("p256"), Key::es384("p384"), Key::es256k("k256")];
    let [rsa, p256, p384, k256] = &keys;
    let issuer = Issuer::start(&[rsa, p256, p384]).await;
    let mut published: Vec<Value> = keys.iter().map(Key::jwk).collect();
    // A key of one curve that is published as one of another.
    let mut lie = k256.jwk();
    lie["kid"] = json!("lie");
    lie["crv"] = json!("P-256");
    published.push(lie);
    // An RSA key that says it is for one algorithm.
    published[0]["alg"] = json!("RS256");
    issuer.script.lock().keys = published;
    let running = Running::start(&[settings(&issuer.url)]).await.unwrap();
    let with = |key: &Key, alg: &str, kid: &str| {
        let header = json!({ "alg": alg, "kid": kid, "typ": "at+jwt" });
        key.token_with(&header, &claims(&issuer.url, &json!({})))
    };
    for (key, alg, kid) in [
        (rsa, "PS256", "rsa"),
        (rsa, "RS512", "rsa"),
        (rsa, "ES256", "rsa"),
        (rsa, "HS256", "rsa"),
        (p256, "ES384", "p256"),
        (p256, "ES256", "p384"),
        (p256, "RS256", "p256"),
        (p384, "ES256", "p384"),
        (p384, "EdDSA", "p384"),
        (k256, "ES256", "p256"),
        (k256, "ES256", "lie"),
        (k256, "ES256K", "k256"),
    ] {
        let outcome = running.verify(&with(key, alg, kid)).await;
        assert!(outcome.is_err(), "{} key as {alg} under {kid}", key.alg);
    }
    for key in [rsa, p256, p384] {
        assert!(running.verify(&with(key, key.alg, &key.kid)).await.is_ok(), "{}", key.alg);
    }
    // Without an algorithm of its own an RSA key serves its family.
    issuer.publishes(&[rsa]);
    let fresh = Running::start(&[settings(&issuer.url)]).await.unwrap();
    assert!(fresh.verify(&with(rsa, "PS256", "rsa")).await.is_ok());
}

pub(super) async fn a_twin_signature_gives_the_same_token_id() {
    let bench = Bench::new().await;
    for changes in [json!({}), json!({ "jti": "token-1" })] {
        let token = bench.key.token(&bench.claims(&changes));
        let twin = high_s_twin(&token);
        assert_ne!(token, twin);
        let (one, other) = (bench.running.verify(&token).await, bench.running.verify(&twin).await);
        assert_eq!(one.unwrap().token_id(), other.unwrap().token_id());
    }
}

pub(super) async fn a_token_has_one_text() {
    let bench = Bench::new().await;
    // A payload whose base64 uses both characters that the alphabets differ in, and that leaves
    // unused bits in its last character.
    let mut odd = bench.claims(&json!({ "note": "~~~???>>>" })).to_string();
    while odd.len() % 3 != 1 {
        odd.push(' ');
    }
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }).to_string();
    let good = bench.key.token_of(header.as_bytes(), odd.as_bytes());
    assert!(bench.running.verify(&good).await.is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!() };
    let last = payload.chars().last().unwrap();
    let stray = char::from(u8::try_from(last).unwrap() + 1);
    let standard = STANDARD.encode(URL_SAFE_NO_PAD.decode(payload).unwrap());
    for bad in [
        format!("{header}.{payload}==.{signature}"),
        format!("{header}.{payload}.{signature}=="),
        format!("{header}.{}.{signature}", standard.trim_end_matches('=')),
        format!("{header}.{}{stray}.{signature}", &payload[..payload.len() - 1]),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("\u{feff}{good}"),
        format!("{header}.{payload}. {signature}"),
        format!("{header}..{signature}"),
        format!("Bearer {good}"),
        good.to_uppercase(),
        String::new(),
    ] {
        assert!(bench.running.verify(&bad).await.is_err(), "{bad:?}");
    }
    assert!(standard.contains(['+', '/']), "the case would show nothing");
}

pub(super) async fn keys_with_one_kid_or_none_are_tried_by_kind() {
    let (ec, other, ed, rsa) =
        (Key::es256("same"), Key::es256("same"), Key::ed25519("same"), Key::rs256("none"));
    let issuer = Issuer::start(&[&ec, &other, &ed, &rsa]).await;
    issuer.script.lock().keys[3].as_object_mut().unwrap().remove("kid");
    let running = Running::start(&[settings(&issuer.url)]).await.unwrap();
    let token = |key: &Key| key.token(&claims(&issuer.url, &json!({})));
    for key in [&ec, &other, &ed, &rsa] {
        assert!(running.verify(&token(key)).await.is_ok(), "{} {}", key.alg, key.kid);
        // A token that names no key is tried against those of its kind.
        let header = json!({ "alg": key.alg, "typ": "at+jwt" });
        let nameless = key.token_with(&header, &claims(&issuer.url, &json!({})));
        assert!(running.verify(&nameless).await.is_ok(), "{} without kid", key.alg);
    }
    assert!(running.verify(&token(&Key::es256("same"))).await.is_err());
}

pub(super) async fn a_key_in_the_header_is_ignored() {
    let bench = Bench::new().await;
    let attacker = Key::es256("k1");
    for extra in [
        json!({ "jwk": attacker.jwk() }),
        json!({ "jku": "http://127.0.0.1:1/keys" }),
        json!({ "x5u": "http://127.0.0.1:1/cert", "x5c": ["AAAA"] }),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" });
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let token = attacker.token_with(&header, &bench.claims(&json!({})));
        assert!(bench.running.verify(&token).await.is_err(), "{extra}");
    }
}

pub(super) async fn a_kid_is_only_looked_up() {
    let bench = Bench::new().await;
    let mut kids: Vec<Value> = [
        "../../../../dev/null",
        "file:///etc/passwd",
        "https://evil.example/k",
        "' OR 1=1--",
        "k1\0",
        "K1",
        " k1",
        "\u{202e}1k\n[31m",
    ]
    .map(Value::from)
    .to_vec();
    kids.push("x".repeat(20_000).into());
    let checks = kids.iter().map(|kid| async move {
        let refused = bench_check(kid).await;
        assert!(refused.len() < 1000 && refused.chars().all(|c| !c.is_control()), "{refused:?}");
    });
    join_all(checks).await;

    // All at once they cause one refresh.
    let all = kids.iter().map(|kid| {
        let bench = &bench;
        async move { bench.check_header(&json!({ "kid": kid })).await }
    });
    assert!(join_all(all).await.iter().all(Result::is_err));
    assert_eq!(bench.issuer.script.lock().key_requests, 2);
    // Longer than any token, or no text at all: nobody is asked.
    for kid in [json!("x".repeat(1 << 20)), json!(7), json!(null), json!(["k1"]), json!({})] {
        assert!(bench.check_header(&json!({ "kid": kid })).await.is_err());
    }
    assert_eq!(bench.issuer.script.lock().key_requests, 2);
}

/// How a verifier of its own refuses a token with this kid.
async fn bench_check(kid: &Value) -> String {
    let bench = Bench::new().await;
    bench.check_header(&json!({ "kid": kid })).await.unwrap_err().0
}

pub(super) async fn only_tokens_of_known_types_are_taken() {
    let bench = Bench::new().await;
    for typ in ["at+jwt", "application/at+jwt", "AT+JWT", "JWT", "jwt"] {
        assert!(bench.check_header(&json!({ "typ": typ })).await.is_ok(), "{typ}");
    }
    for typ in [
        json!("ID"),
        json!("logout+jwt"),
        json!("dpop+jwt"),
        json!("secevent+jwt"),
        json!("application/logout+jwt"),
        json!("at+jwt "),
        json!(""),
        json!(7),
        json!(null),
        json!(["JWT"]),
    ] {
        assert!(bench.check_header(&json!({ "typ": typ })).await.is_err(), "{typ}");
    }
    for extension in [json!({ "crit": ["exp"] }), json!({ "crit": ["b64"], "b64": false })] {
        assert!(bench.check_header(&extension).await.is_err(), "{extension}");
    }
    // Whatever the header says: these claims make it a logout token or a security event.
    let events = json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } });
    assert!(bench.check(&events).await.is_err());
}
