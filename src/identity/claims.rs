//! What a signed token must claim before it counts as an [`Identity`]: pure, given the time.
//!
//! Each check fails closed. A claim that is there but of another shape than it should be refuses
//! the token; nothing is guessed, split, trimmed or folded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::keys::Signed;
use super::token::{Typ, refuse, shown};
use super::{Identity, Refused, likeness};
use crate::config::{ClaimPath, Issuer, TokenKind};

/// How far an issuer's clock may be ahead of ours, for `iat` and `nbf`. There is none for `exp`:
/// a session would end the moment it began.
const LEEWAY: Duration = Duration::from_secs(30);

/// The longest subject, user name or label, in bytes: OpenID Connect Core section 2 bounds `sub`.
const MAX_NAME: usize = 255;

/// The longest group name, in bytes: some directories give whole distinguished names.
const MAX_GROUP: usize = 1024;

type Claims = Map<String, Value>;

/// Checks the claims of a signed token against its issuer's settings and the time.
pub(super) fn identify(
    issuer: &Issuer,
    token: Signed<'_>,
    now: SystemTime,
) -> Result<Identity, Refused> {
    let token = token.token();
    let mut claims = token.claims;
    if claims.get("iss").and_then(Value::as_str) != Some(&issuer.url) {
        return refuse("iss is another issuer");
    }
    let expires = expiry(issuer, &claims, now)?;
    audience_and_kind(issuer, &claims, token.typ)?;
    if claims.contains_key("cnf") {
        return refuse("it is bound to a key (cnf) whose possession cannot be proved here");
    }
    let subject = match claims.get("sub") {
        Some(Value::String(subject)) if is_name(subject, MAX_NAME) => subject.clone(),
        _ => return refuse(format!("sub is not a text of 1 to {MAX_NAME} bytes")),
    };
    if claims.get("email_verified") != Some(&Value::Bool(true)) {
        // Left in, access rules could match an address that nobody verified.
        claims.remove("email");
    }
    let groups = groups(issuer.groups_claim.as_ref(), &claims)?;
    let username = display_name(&issuer.username_claim, &claims).unwrap_or(&subject).to_owned();
    Ok(Identity {
        likeness: likeness(&claims, &username, &groups),
        issuer: issuer.url.as_str().into(),
        username,
        groups,
        workflow: label(issuer.workflow_claim.as_ref(), &claims, "workflow_claim")?,
        run: label(issuer.run_claim.as_ref(), &claims, "run_claim")?,
        expires,
        token_id: token_id(&issuer.url, &claims, &token.payload),
        subject,
        claims,
        bound: None,
    })
}

/// `exp`, `iat` and `nbf`, all whole seconds (RFC 7519 section 4.1), and the lifetime's cap.
fn expiry(issuer: &Issuer, claims: &Claims, now: SystemTime) -> Result<SystemTime, Refused> {
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let soon = unix.saturating_add(LEEWAY.as_secs());
    let seconds = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(seconds) => Ok(Some(seconds)),
            None => refuse(format!("{name} is not a whole number of seconds")),
        },
    };
    let Some(exp) = seconds("exp")? else { return refuse("it has no exp") };
    if exp <= unix {
        return refuse(format!("it expired {} seconds ago", unix - exp));
    }
    let issued = seconds("iat")?;
    if issued.is_some_and(|iat| iat > soon) {
        return refuse("iat is in the future");
    }
    if seconds("nbf")?.is_some_and(|nbf| nbf > soon) {
        return refuse("nbf is in the future");
    }
    // Without iat the rest of its life counts; milliseconds for seconds fail here either way.
    let cap = issuer.max_lifetime.as_secs();
    if exp.saturating_sub(issued.unwrap_or(unix).min(exp)) > cap {
        return refuse(format!("it lives longer than max_lifetime ({cap} seconds)"));
    }
    match UNIX_EPOCH.checked_add(Duration::from_secs(exp)) {
        Some(expires) => Ok(expires),
        None => refuse("exp is beyond the end of time"),
    }
}

/// `aud`, `azp`, and which kind of token this is (OpenID Connect Core section 3.1.3.7).
fn audience_and_kind(issuer: &Issuer, claims: &Claims, typ: Typ) -> Result<(), Refused> {
    let Some(audiences) = claims.get("aud").and_then(audiences) else {
        return refuse("aud is not a text or a list of texts");
    };
    if !audiences.iter().any(|audience| issuer.audiences.iter().any(|ours| ours == audience)) {
        let first = audiences.first().copied().unwrap_or_default();
        return refuse(format!("none of its audiences is ours; the first is {}", shown(first)));
    }
    let kind = kind(issuer.client_id.as_deref(), &audiences, claims, typ)?;
    if !issuer.accept.contains(&kind) {
        return match kind {
            TokenKind::Id => refuse("it is, or may be, an ID token, which is not accepted"),
            TokenKind::Access => refuse("it is an access token, which is not accepted"),
        };
    }
    let party = claims.get("azp");
    let must_name_party = audiences.len() > 1
        || !issuer.authorized_parties.is_empty()
        || (kind == TokenKind::Id && party.is_some());
    let ours = |party: &str| {
        issuer.client_id.as_deref() == Some(party)
            || issuer.authorized_parties.iter().any(|name| name == party)
    };
    if must_name_party && !party.and_then(Value::as_str).is_some_and(ours) {
        return refuse("azp is neither client_id nor one of authorized_parties");
    }
    Ok(())
}

fn audiences(claim: &Value) -> Option<Vec<&str>> {
    match claim {
        Value::String(one) => Some(vec![one]),
        Value::Array(many) => many.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Tells an access token from an ID token by the surest sign there is. A token for our own client
/// that nothing marks as an access token counts as an ID token.
fn kind(
    client_id: Option<&str>,
    audiences: &[&str],
    claims: &Claims,
    typ: Typ,
) -> Result<TokenKind, Refused> {
    if claims.contains_key("events") {
        return refuse("it is a security event or logout token");
    }
    match typ {
        Typ::Access => return Ok(TokenKind::Access),
        Typ::Id => return Ok(TokenKind::Id),
        Typ::Plain => {}
    }
    // Keycloak says it in the payload.
    match claims.get("typ").and_then(Value::as_str) {
        Some("Bearer") => return Ok(TokenKind::Access),
        Some("ID") => return Ok(TokenKind::Id),
        Some(other @ ("Refresh" | "Offline" | "Logout")) => {
            return refuse(format!("it is a token of type {other}"));
        }
        _ => {}
    }
    let has = |names: &[&str]| names.iter().any(|name| claims.contains_key(*name));
    if has(&["nonce", "at_hash", "c_hash", "s_hash"]) {
        return Ok(TokenKind::Id);
    }
    let for_our_client = client_id.is_some_and(|client| audiences.contains(&client));
    if for_our_client && !has(&["scope", "scp"]) {
        return Ok(TokenKind::Id);
    }
    Ok(TokenKind::Access)
}

/// The groups: a list of texts, or none where the claim is missing. Anything else refuses the
/// token: with fewer groups than its holder has, a rule that blocks a group would not match.
fn groups(path: Option<&ClaimPath>, claims: &Claims) -> Result<Vec<String>, Refused> {
    let Some(path) = path else { return Ok(Vec::new()) };
    if are_left_out(path, claims) {
        return refuse(
            "its issuer left the groups out and says where to ask for them (group overage): have \
             it name fewer, such as those assigned to the application",
        );
    }
    let Some(claim) = at(path, claims) else { return Ok(Vec::new()) };
    let list = claim.as_array().and_then(|entries| {
        let names =
            entries.iter().map(|entry| entry.as_str().filter(|name| is_name(name, MAX_GROUP)));
        names.map(|name| name.map(str::to_owned)).collect()
    });
    list.ok_or_else(|| Refused("the groups claim is not a list of texts".to_owned()))
}

/// Whether the token says that the claim is kept elsewhere (OpenID Connect Core section 5.6.2), as
/// Entra ID's do for users of more than 200 groups; its implicit flow has `hasgroups`.
fn are_left_out(path: &ClaimPath, claims: &Claims) -> bool {
    let name = match path {
        ClaimPath::Name(name) => name.as_str(),
        ClaimPath::Pointer(pointer) => pointer.split('/').nth(1).unwrap_or_default(),
    };
    let elsewhere = claims.get("_claim_names").and_then(Value::as_object);
    elsewhere.is_some_and(|names| names.contains_key(name))
        || claims.get("hasgroups") == Some(&Value::Bool(true))
}

/// The name for people, when the claim is fit to be one.
fn display_name<'a>(path: &ClaimPath, claims: &'a Claims) -> Option<&'a str> {
    at(path, claims)?.as_str().filter(|name| is_name(name, MAX_NAME))
}

/// A workflow or run; one that is not a plain text refuses the token, because a missing one lets
/// the client say its own.
fn label(
    path: Option<&ClaimPath>,
    claims: &Claims,
    setting: &str,
) -> Result<Option<String>, Refused> {
    match path.and_then(|path| at(path, claims)) {
        None => Ok(None),
        Some(Value::String(text)) if is_name(text, MAX_NAME) => Ok(Some(text.clone())),
        Some(_) => refuse(format!("{setting} is not a text of 1 to {MAX_NAME} bytes")),
    }
}

fn at<'a>(path: &ClaimPath, claims: &'a Claims) -> Option<&'a Value> {
    match path {
        ClaimPath::Name(name) => claims.get(name),
        ClaimPath::Pointer(pointer) => {
            let mut steps = pointer.strip_prefix('/')?.splitn(2, '/');
            let first = steps.next()?.replace("~1", "/").replace("~0", "~");
            let value = claims.get(&first)?;
            match steps.next() {
                None => Some(value),
                Some(rest) => value.pointer(&format!("/{rest}")),
            }
        }
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && !text.contains(char::is_control)
}

/// 64 hexadecimal digits: a hash of issuer and `jti`, or of issuer and payload where there is no
/// `jti`. Never of the token's text: a second valid signature over the same claims is easily made.
fn token_id(issuer: &str, claims: &Claims, payload: &[u8]) -> String {
    let (kind, id) = match claims.get("jti").and_then(Value::as_str) {
        Some(jti) if !jti.is_empty() => ("jti", jti.as_bytes()),
        _ => ("claims", payload),
    };
    let mut hasher = blake3::Hasher::new_derive_key("portcullis token id v1");
    for part in [kind.as_bytes(), issuer.as_bytes(), id] {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes()).update(part);
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::test_key::TestKey;
    use super::super::token::parse;
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn issuer() -> Issuer {
        Issuer {
            name: "corp".to_owned(),
            url: "https://login.example.com".to_owned(),
            audiences: vec!["portcullis".to_owned()],
            accept: vec![TokenKind::Access],
            client_id: None,
            client_secret: None,
            authorized_parties: Vec::new(),
            jwks_hosts: Vec::new(),
            username_claim: ClaimPath::Name("email".to_owned()),
            groups_claim: Some(ClaimPath::Name("groups".to_owned())),
            workflow_claim: Some(ClaimPath::Name("crew".to_owned())),
            run_claim: None,
            max_lifetime: Duration::from_secs(3600),
            ca: None,
        }
    }

    /// The claims of a good token, with some changed; null removes one.
    fn claims(changes: &Value) -> Value {
        let mut claims = json!({
            "iss": "https://login.example.com", "sub": "crew-7", "aud": "portcullis",
            "iat": NOW - 10, "exp": NOW + 600, "groups": ["dev"],
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        claims
    }

    fn check(issuer: &Issuer, changes: &Value) -> Result<Identity, Refused> {
        let token = TestKey::new("k").sign(&claims(changes));
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        identify(issuer, Signed::trusted(parse(&token).unwrap()), now)
    }

    #[test]
    fn an_identity_is_what_the_token_says() {
        let proved = check(&issuer(), &json!({ "crew": "refunds", "azp": "crew-prod" })).unwrap();
        assert_eq!((proved.issuer(), proved.subject()), ("https://login.example.com", "crew-7"));
        assert_eq!((proved.username(), proved.groups()), ("crew-7", &["dev".to_owned()][..]));
        assert_eq!((proved.workflow(), proved.run()), (Some("refunds"), None));
        assert_eq!(proved.expires(), UNIX_EPOCH + Duration::from_secs(NOW + 600));
        assert_eq!(proved.claims()["azp"], "crew-prod");
    }

    #[test]
    fn times_hold_to_the_second_with_leeway_for_the_issuers_clock_alone() {
        let leeway = LEEWAY.as_secs();
        for good in [
            json!({ "exp": NOW + 1 }),
            json!({ "iat": NOW + leeway, "nbf": NOW + leeway }),
            json!({ "iat": null, "exp": NOW + 3600 }),
            json!({ "iat": NOW - 3000, "exp": NOW + 600 }),
        ] {
            assert!(check(&issuer(), &good).is_ok(), "{good}");
        }
        for bad in [
            json!({ "exp": NOW }),
            json!({ "exp": (NOW + 600) * 1000 }),
            json!({ "exp": (NOW + 600) * 1000, "iat": NOW * 1000 }),
            json!({ "exp": (NOW + 600) * 1000, "iat": null }),
            json!({ "exp": u64::MAX }),
            json!({ "exp": NOW as f64 + 600.5 }),
            json!({ "iat": NOW + leeway + 1 }),
            json!({ "nbf": NOW + leeway + 1 }),
            json!({ "iat": NOW - 3001, "exp": NOW + 600 }),
            json!({ "iat": null, "exp": NOW + 3601 }),
            json!({ "iat": "yesterday" }),
        ] {
            assert!(check(&issuer(), &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_kind_of_a_token_is_told_by_its_surest_sign() {
        let mut ours = issuer();
        ours.client_id = Some("portcullis".to_owned());
        // Who asked for the token does not matter while no parties are named.
        assert!(check(&ours, &json!({ "scope": "db", "azp": "crew" })).is_ok());
        assert!(check(&ours, &json!({ "typ": "Bearer", "nonce": "n" })).is_ok());
        for id_like in [
            json!({}),
            json!({ "scope": "openid", "nonce": "n" }),
            json!({ "scope": "openid", "at_hash": "h" }),
            json!({ "typ": "ID" }),
            json!({ "typ": "Refresh" }),
            json!({ "events": {}, "scope": "x" }),
        ] {
            assert!(check(&ours, &id_like).is_err(), "{id_like}");
        }
        ours.accept = vec![TokenKind::Id];
        assert!(check(&ours, &json!({ "nonce": "n" })).is_ok());
        assert!(check(&ours, &json!({ "nonce": "n", "azp": "portcullis" })).is_ok());
        assert!(check(&ours, &json!({ "nonce": "n", "azp": "other" })).is_err());
        assert!(check(&ours, &json!({ "typ": "Bearer" })).is_err());
    }

    #[test]
    fn named_parties_bind_every_token() {
        let mut bound = issuer();
        bound.authorized_parties = vec!["crew-prod".to_owned()];
        assert!(check(&bound, &json!({ "azp": "crew-prod" })).is_ok());
        let several = json!({ "azp": "crew-prod", "aud": ["account", "portcullis"] });
        assert!(check(&bound, &several).is_ok());
        for bad in [json!({}), json!({ "azp": "other" }), json!({ "azp": ["crew-prod"] })] {
            assert!(check(&bound, &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_that_is_no_text_refuses_the_token() {
        for bad in [json!(7), json!(""), json!(["refunds"]), json!("a\nb"), json!("x".repeat(256))]
        {
            assert!(check(&issuer(), &json!({ "crew": bad })).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_bound_to_a_key_is_refused() {
        assert!(check(&issuer(), &json!({ "cnf": { "jkt": "x" } })).is_err());
    }

    #[test]
    fn revocation_keys_on_what_was_signed() {
        let id = |changes: Value| check(&issuer(), &changes).unwrap().token_id().to_owned();
        assert_eq!(id(json!({})), id(json!({})), "two signatures over the same claims");
        assert_ne!(id(json!({})), id(json!({ "exp": NOW + 601 })));
        assert_eq!(id(json!({ "jti": "a" })), id(json!({ "jti": "a", "exp": NOW + 601 })));
        assert_ne!(id(json!({ "jti": "a" })), id(json!({ "jti": "b" })));
        let mut other = issuer();
        other.url = "https://other.example.com".to_owned();
        let foreign = check(&other, &json!({ "jti": "a", "iss": other.url })).unwrap();
        assert_ne!(id(json!({ "jti": "a" })), foreign.token_id());
    }

    #[test]
    fn a_pointer_reaches_into_claims_and_a_name_does_not() {
        let claims = json!({
            "realm_access": { "roles": ["a"] }, "realm_access.roles": ["dotted"],
            "resource_access": { "a.b": { "roles": ["b"] } }, "https://x/groups": ["c"], "": "empty",
        });
        let claims = claims.as_object().unwrap();
        let pointer = |text: &str| at(&ClaimPath::Pointer(text.to_owned()), claims).cloned();
        let name = |text: &str| at(&ClaimPath::Name(text.to_owned()), claims).cloned();
        assert_eq!(pointer("/realm_access/roles"), Some(json!(["a"])));
        assert_eq!(pointer("/resource_access/a.b/roles/0"), Some(json!("b")));
        assert_eq!(pointer("/https:~1~1x~1groups"), Some(json!(["c"])));
        assert_eq!(pointer("/"), Some(json!("empty")));
        assert_eq!(pointer("/realm_access/roles/1"), None);
        assert_eq!(name("realm_access.roles"), Some(json!(["dotted"])));
        assert_eq!(name("https://x/groups"), Some(json!(["c"])));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_claim_of_any_shape_makes_the_checks_panic(
            name in prop_oneof![
                Just("iss"), Just("sub"), Just("aud"), Just("azp"), Just("exp"), Just("iat"),
                Just("nbf"), Just("jti"), Just("email"), Just("groups"), Just("crew"), Just("typ"),
            ],
            value in any_json(),
        ) {
            let _proved = check(&issuer(), &json!({ name: value }));
        }
    }
}
