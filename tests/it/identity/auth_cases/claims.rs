//! Rows about claims, groups and kinds of token.

use portcullis::config::{ClaimPath, TokenKind};
use serde_json::{Value, json};

use super::super::mint::{claims, unix_now};
use super::super::scripted::{Bench, Issuer, Running, settings};

/// Checks tokens with one claim changed, all of which must be refused.
async fn all_refused(bench: &Bench, name: &str, values: &[Value]) {
    for value in values {
        let mut claims = bench.claims(&json!({}));
        claims[name] = value.clone();
        let outcome = bench.running.verify(&bench.key.token(&claims)).await;
        assert!(outcome.is_err(), "{name}: {value}");
    }
}

pub(super) async fn a_token_without_audience_is_refused() {
    let bench = Bench::new().await;
    assert!(bench.check(&json!({ "aud": null })).await.unwrap_err().0.contains("aud"));
    let values = [json!(null), json!(""), json!([]), json!([""]), json!({}), json!(7)];
    all_refused(&bench, "aud", &values).await;
}

pub(super) async fn an_audience_is_ours_to_the_byte() {
    let bench = Bench::with(|settings| settings.client_id = Some("web".to_owned())).await;
    let wrong = [
        json!("portcullis/"),
        json!("Portcullis"),
        json!(" portcullis"),
        json!("portcullis,other"),
        json!("other portcullis"),
        json!("port*"),
        json!(["other"]),
        json!(["portcullis", 7]),
        json!([["portcullis"]]),
        json!({ "portcullis": true }),
    ];
    all_refused(&bench, "aud", &wrong).await;
    assert!(bench.check(&json!({ "aud": ["portcullis"] })).await.is_ok());
    // One audience: any client of the issuer may have asked for the token.
    assert!(bench.check(&json!({ "azp": "crew-prod" })).await.is_ok());
    // Several: the client must be one of ours.
    let both = json!(["portcullis", "account"]);
    assert!(bench.check(&json!({ "aud": both, "azp": "web" })).await.is_ok());
    for azp in [json!(null), json!("crew-prod"), json!("WEB"), json!(["web"]), json!(7)] {
        let outcome = bench.check(&json!({ "aud": both, "azp": azp })).await;
        assert!(outcome.is_err(), "several audiences and azp {azp}");
    }
    let parties = ["crew-prod".to_owned()];
    let bench = Bench::with(|settings| settings.authorized_parties = parties.to_vec()).await;
    assert!(bench.check(&json!({ "aud": both, "azp": "crew-prod" })).await.is_ok());
    assert!(bench.check(&json!({ "azp": "other" })).await.is_err());
}

pub(super) async fn an_expiry_is_whole_seconds_and_near() {
    let bench = Bench::new().await;
    let now = unix_now();
    assert!(bench.check(&json!({ "exp": null })).await.is_err());
    let wrong = [
        json!(null),
        json!((now + 600).to_string()),
        json!("abc"),
        json!((now - 600).to_string()),
        json!(true),
        json!(-1),
        json!(0),
        json!(now),
        json!(1e300),
        json!(u64::MAX),
        json!([now + 600]),
        json!((now + 600) * 1000),
        json!(now + 7 * 24 * 3600),
    ];
    all_refused(&bench, "exp", &wrong).await;
    let milliseconds = json!({ "iat": now * 1000, "exp": (now + 600) * 1000 });
    assert!(bench.check(&milliseconds).await.is_err());
    // The cap counts from iat, or from now where there is none.
    assert!(bench.check(&json!({ "iat": now - 3500, "exp": now + 600 })).await.is_err());
    assert!(bench.check(&json!({ "iat": null, "exp": now + 4000 })).await.is_err());
    assert!(bench.check(&json!({ "iat": null })).await.is_ok());
}

pub(super) async fn not_before_is_honoured() {
    let bench = Bench::new().await;
    let now = unix_now();
    let wrong =
        [json!(now + 300), json!((now + 300).to_string()), json!("0"), json!(null), json!(-1)];
    all_refused(&bench, "nbf", &wrong).await;
    assert!(bench.check(&json!({ "nbf": now - 5 })).await.is_ok());
}

pub(super) async fn an_identity_is_issuer_and_subject() {
    let bench = Bench::new().await;
    assert!(bench.check(&json!({ "sub": null })).await.is_err());
    let wrong =
        [json!(null), json!(""), json!(7), json!(["a"]), json!("a\0b"), json!("x".repeat(256))];
    all_refused(&bench, "sub", &wrong).await;

    // The address changes, the key does not.
    let mail = |address: &str| json!({ "sub": "u-1", "email": address, "email_verified": true });
    let (one, other) = (bench.check(&mail("a@x")).await, bench.check(&mail("b@x")).await);
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.issuer(), one.subject()), (other.issuer(), other.subject()));
    assert_ne!(one.username(), other.username());

    // The same subject of two issuers is two identities.
    let second = Issuer::start(&[&bench.key]).await;
    let running = Running::start(&[settings(&second.url)]).await.unwrap();
    let token = bench.key.token(&claims(&second.url, &json!({ "sub": "u-1" })));
    let foreign = running.verify(&token).await.unwrap();
    assert_eq!(foreign.subject(), one.subject());
    assert_ne!(foreign.issuer(), one.issuer());
    for iss in [json!(null), json!(""), json!(7), json!(format!("{}/", second.url))] {
        let mut claims = claims(&second.url, &json!({}));
        claims["iss"] = iss.clone();
        assert!(running.verify(&bench.key.token(&claims)).await.is_err(), "{iss}");
    }
}

pub(super) async fn a_payload_is_a_json_object() {
    let bench = Bench::new().await;
    let good = bench.claims(&json!({})).to_string();
    let header = json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }).to_string();
    let header = header.as_bytes();
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let inside = good.replacen('{', &format!("{{\"deep\":{},", deep("[", "]")), 1);
    for payload in [
        format!("[{good}]").into_bytes(),
        b"\"text\"".to_vec(),
        b"7".to_vec(),
        b"null".to_vec(),
        b"".to_vec(),
        [b"\xef\xbb\xbf", good.as_bytes()].concat(),
        good.replace("crew-7", "crew-\u{1}7").replace("\\u0001", "\u{1}").into_bytes(),
        [good.trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\xfe\"}"].concat(),
        format!("{good}{good}").into_bytes(),
        good.trim_end_matches('}').to_owned().into_bytes(),
        deep("[", "]").into_bytes(),
        deep("{\"a\":", "}").into_bytes(),
        inside.into_bytes(),
        // A hundred thousand levels make a token beyond the bound.
        "[".repeat(100_000).into_bytes(),
    ] {
        let token = bench.key.token_of(header, &payload);
        let head = String::from_utf8_lossy(&payload[..payload.len().min(60)]).into_owned();
        assert!(bench.running.verify(&token).await.is_err(), "{head}");
    }
    let token = bench.key.token_of(header, good.as_bytes());
    assert!(bench.running.verify(&token).await.is_ok());
}

pub(super) async fn groups_are_a_list_of_texts_or_an_error() {
    let bench = Bench::new().await;
    let wrong = [
        json!("admin"),
        json!("admin,dev"),
        json!({ "admin": true }),
        json!([["admin"]]),
        json!([1]),
        json!(["dev", 1]),
        json!(["dev", null]),
        json!([""]),
        json!(["admin\0x"]),
        json!(null),
        json!(true),
    ];
    all_refused(&bench, "groups", &wrong).await;
    // Texts stay what they are: nothing is split, trimmed, folded or normalized.
    let look_alikes = json!(["dev,admin", " admin", "Admin", "аdmin", "admin*"]);
    let proved = bench.check(&json!({ "groups": look_alikes })).await.unwrap();
    assert_eq!(json!(proved.groups()), look_alikes);
    assert!(!proved.groups().contains(&"admin".to_owned()));
    assert!(bench.check(&json!({ "groups": null })).await.unwrap().groups().is_empty());
    assert!(bench.check(&json!({ "groups": [] })).await.unwrap().groups().is_empty());
}

pub(super) async fn groups_are_found_by_pointer() {
    let nested = json!({
        "groups": null,
        "realm_access": { "roles": ["realm"] },
        "realm_access.roles": ["dotted"],
        "resource_access": { "a.b": { "roles": ["resource"] } },
        "https://x/claims/groups": ["url"],
    });
    for (path, group) in [
        (ClaimPath::Pointer("/realm_access/roles".to_owned()), Some("realm")),
        (ClaimPath::Pointer("/resource_access/a.b/roles".to_owned()), Some("resource")),
        (ClaimPath::Pointer("/https:~1~1x~1claims~1groups".to_owned()), Some("url")),
        (ClaimPath::Name("https://x/claims/groups".to_owned()), Some("url")),
        (ClaimPath::Name("realm_access.roles".to_owned()), Some("dotted")),
        (ClaimPath::Pointer("/realm_access.roles/0/x".to_owned()), None),
        (ClaimPath::Pointer("/resource_access/a/b/roles".to_owned()), None),
    ] {
        let bench = Bench::with(|settings| settings.groups_claim = Some(path.clone())).await;
        let proved = bench.check(&nested).await.unwrap();
        assert_eq!(proved.groups().first().map(String::as_str), group, "{path:?}");
    }
}

pub(super) async fn an_unverified_address_counts_for_nothing() {
    let bench = Bench::new().await;
    let address = "alice@example.com";
    for verified in [json!(false), json!(null), json!("true"), json!(1), json!([true])] {
        let changes = json!({ "email": address, "email_verified": verified });
        let proved = bench.check(&changes).await.unwrap();
        assert_eq!(proved.username(), "crew-7", "{verified}");
        assert!(!proved.claims().contains_key("email"), "{verified}: rules could match it");
    }
    let proved = bench.check(&json!({ "email": address, "email_verified": true })).await.unwrap();
    assert_eq!(proved.username(), address);
    assert_eq!(proved.claims()["email"], address);
}

pub(super) async fn an_id_token_is_no_access_token() {
    let id_tokens =
        [json!({ "nonce": "n-1" }), json!({ "at_hash": "x" }), json!({ "c_hash": "x" }), json!({})];
    let with = |accept: &[TokenKind]| {
        let accept = accept.to_vec();
        Bench::with(move |settings| {
            settings.client_id = Some("portcullis".to_owned());
            settings.accept = accept;
        })
    };
    let verify = async |bench: &Bench, changes: &Value| {
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" });
        let token = bench.key.token_with(&header, &bench.claims(changes));
        bench.running.verify(&token).await
    };
    let (access, id, both) = (
        with(&[TokenKind::Access]).await,
        with(&[TokenKind::Id]).await,
        with(&[TokenKind::Access, TokenKind::Id]).await,
    );
    for claims in &id_tokens {
        assert!(verify(&access, claims).await.is_err(), "{claims}");
        assert!(verify(&id, claims).await.is_ok(), "{claims}");
        assert!(verify(&both, claims).await.is_ok(), "{claims}");
    }
    // Said to be an access token by its header, it is none of the above.
    assert!(access.check(&json!({})).await.is_ok());
    assert!(id.check(&json!({})).await.is_err());
    // For an audience that is no client of ours, only the marks of an ID token count.
    let plain = Bench::new().await;
    assert!(verify(&plain, &json!({})).await.is_ok());
    assert!(verify(&plain, &json!({ "nonce": "n-1" })).await.is_err());
}

pub(super) async fn a_client_and_a_user_of_one_name_can_be_told_apart() {
    // The key is issuer and subject, so the issuer must keep clients and users apart. For one
    // that does not, azp (or gty, idtyp) stays in the claims, which access rules can name.
    let bench = Bench::new().await;
    let user = bench.check(&json!({ "sub": "alice", "azp": "web" })).await.unwrap();
    let machine = json!({ "sub": "alice", "azp": "alice", "gty": "client-credentials" });
    let client = bench.check(&machine).await.unwrap();
    assert_eq!(user.subject(), client.subject());
    assert_ne!(user.claims().get("azp"), client.claims().get("azp"));
    assert_eq!(client.claims().get("gty"), Some(&json!("client-credentials")));
    assert_ne!(user.token_id(), client.token_id());
    // An issuer that names parties takes tokens of those clients alone.
    let bound = Bench::with(|settings| settings.authorized_parties = vec!["web".to_owned()]).await;
    assert!(bound.check(&json!({ "sub": "alice", "azp": "web" })).await.is_ok());
    assert!(bound.check(&json!({ "sub": "alice", "azp": "alice" })).await.is_err());
}
