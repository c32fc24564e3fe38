//! Tokens and key sets of the shape that each provider gives them, by the configuration that
//! docs/identity-providers.md tells for it. Values are made up; names and kinds are the provider's.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::claims::identify;
use super::keys::{KeySet, Signed};
use super::test_key::TestKey;
use super::token::parse;
use super::{Identity, Refused};
use crate::config::{self, Issuer};

const NOW: u64 = 1_795_000_000;

/// An `[[issuer]]` with these keys, as the configuration reads it.
pub(super) fn issuer(keys: &str) -> Issuer {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portcullis.toml");
    fs::write(&file, format!("[[issuer]]\nname = \"corp\"\n{keys}\n")).unwrap();
    config::load(&file).unwrap().issuers.remove(0)
}

fn who(issuer: &Issuer, mut claims: Value, changes: &Value) -> Result<Identity, Refused> {
    let all = claims.as_object_mut().unwrap();
    all.entry("iat").or_insert(json!(NOW - 5));
    all.entry("exp").or_insert(json!(NOW + 3595));
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(all.remove(name)),
            value => drop(all.insert(name.clone(), value.clone())),
        }
    }
    let token = TestKey::new("k").sign(&claims);
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    identify(issuer, Signed::trusted(parse(&token).unwrap()), now)
}

#[test]
fn okta() {
    let issuer = issuer(
        "url = \"https://acme.okta.com/oauth2/aus1\"\naudiences = [\"api://portcullis\"]\n\
         preset = \"okta\"",
    );
    let token = json!({
        "ver": 1, "jti": "AT.iA7", "iss": "https://acme.okta.com/oauth2/aus1",
        "aud": "api://portcullis", "cid": "0oa1", "uid": "00u1", "scp": ["openid", "agents"],
        "auth_time": NOW - 60, "sub": "ada@example.com", "groups": ["Everyone", "support-agents"],
    });
    let ada = who(&issuer, token.clone(), &json!({})).unwrap();
    assert_eq!(ada.username(), "ada@example.com");
    assert_eq!(ada.groups(), ["Everyone", "support-agents"]);
    // A machine is its client; it has the groups that a claim of the server gives it, or none.
    let machine = json!({ "sub": "0oa1", "uid": null, "auth_time": null, "groups": null });
    let machine = who(&issuer, token, &machine).unwrap();
    assert_eq!((machine.subject(), machine.groups()), ("0oa1", &[][..]));
}

const ENTRA: &str = "url = \"https://login.microsoftonline.com/9b1f/v2.0\"\n\
     audiences = [\"6e74172b\"]\npreset = \"entra\"\n";

fn entra_token() -> Value {
    json!({
        "aud": "6e74172b", "iss": "https://login.microsoftonline.com/9b1f/v2.0", "nbf": NOW - 5,
        "aio": "AXQA", "azp": "04b07795", "azpacr": "0", "name": "Ada", "oid": "690222be",
        "groups": ["7d4b2b0e-4b0a-4a0e-8b1e-000000000001"], "preferred_username": "ada@example.com",
        "rh": "0.A", "roles": ["Agents.Run"], "scp": "access", "sub": "HKZpfaHyWadeOouYlitj",
        "tid": "9b1f", "uti": "fqiBqXLPj0eQa82S", "ver": "2.0",
    })
}

#[test]
fn entra_by_group_ids_and_by_roles() {
    let ada = who(&issuer(ENTRA), entra_token(), &json!({})).unwrap();
    assert_eq!(ada.username(), "ada@example.com");
    assert_eq!(ada.groups(), ["7d4b2b0e-4b0a-4a0e-8b1e-000000000001"]);

    // Roles have names, and machines have them, too.
    let by_roles = issuer(&format!("{ENTRA}groups_claim = \"roles\""));
    let machine = json!({
        "scp": null, "groups": null, "preferred_username": null, "name": null, "idtyp": "app",
        "sub": "690222be",
    });
    let machine = who(&by_roles, entra_token(), &machine).unwrap();
    assert_eq!((machine.username(), machine.groups().join(" ")), ("690222be", "Agents.Run".into()));
}

#[test]
fn entra_tokens_of_too_many_groups_are_refused() {
    let overage = json!({
        "groups": null, "_claim_names": { "groups": "src1" },
        "_claim_sources": { "src1": { "endpoint": "https://graph.microsoft.com/v1.0/users/690222be/getMemberObjects" } },
    });
    let Refused(why) = who(&issuer(ENTRA), entra_token(), &overage).unwrap_err();
    assert!(why.contains("group overage"), "{why}");
    let implicit = json!({ "groups": null, "hasgroups": true });
    assert!(who(&issuer(ENTRA), entra_token(), &implicit).is_err());
    // What is left out is not what this configuration asks for.
    let by_roles = issuer(&format!("{ENTRA}groups_claim = \"roles\""));
    assert_eq!(who(&by_roles, entra_token(), &overage).unwrap().groups(), ["Agents.Run"]);
}

#[test]
fn an_entra_machine_needs_an_api_apart_from_the_login_client() {
    let shared = issuer(&format!("{ENTRA}client_id = \"6e74172b\""));
    let machine = json!({ "scp": null, "groups": null, "idtyp": "app" });
    // Nothing marks it as an access token, and it is for our own client.
    assert!(who(&shared, entra_token(), &machine).is_err());
    assert!(who(&shared, entra_token(), &json!({})).is_ok());
}

#[test]
fn google_by_address_and_by_domain() {
    let issuer = issuer(
        "url = \"https://accounts.google.com\"\npreset = \"google\"\n\
         audiences = [\"1096.apps.googleusercontent.com\"]\n\
         client_id = \"1096.apps.googleusercontent.com\"\nauthorized_parties = [\"1055\"]",
    );
    let person = json!({
        "iss": "https://accounts.google.com", "azp": "1096.apps.googleusercontent.com",
        "aud": "1096.apps.googleusercontent.com", "sub": "11694", "hd": "example.com",
        "email": "ada@example.com", "email_verified": true, "at_hash": "HK6E", "name": "Ada",
    });
    let ada = who(&issuer, person.clone(), &json!({})).unwrap();
    assert_eq!((ada.username(), ada.groups()), ("ada@example.com", &[][..]));
    assert_eq!(ada.claims()["hd"], "example.com");
    assert!(who(&issuer, person, &json!({ "azp": "another" })).is_err());

    let service = json!({
        "iss": "https://accounts.google.com", "aud": "1096.apps.googleusercontent.com",
        "azp": "1055", "sub": "1055", "email": "crew@acme.iam.gserviceaccount.com",
        "email_verified": true,
    });
    let crew = who(&issuer, service.clone(), &json!({})).unwrap();
    assert_eq!(crew.username(), "crew@acme.iam.gserviceaccount.com");
    // Nothing but our own audience tells that it is an ID token.
    assert!(who(&issuer, service, &json!({ "aud": "portcullis" })).is_err());
}

#[test]
fn keycloak() {
    let issuer = issuer(
        "url = \"https://login.example.com/realms/agents\"\naudiences = [\"portcullis\"]\n\
         preset = \"keycloak\"\nauthorized_parties = [\"crew\"]",
    );
    let token = json!({
        "jti": "trrtcc:1", "iss": "https://login.example.com/realms/agents",
        "aud": ["portcullis", "account"], "sub": "8f3c", "typ": "Bearer", "azp": "crew", "sid": "s",
        "acr": "1", "allowed-origins": ["*"], "scope": "profile email", "email_verified": false,
        "realm_access": { "roles": ["default-roles-agents", "support-agents"] },
        "resource_access": { "account": { "roles": ["view-profile"] } },
        "clientHost": "10.0.0.1", "clientAddress": "10.0.0.1", "client_id": "crew",
        "preferred_username": "service-account-crew",
    });
    let crew = who(&issuer, token.clone(), &json!({})).unwrap();
    assert_eq!(crew.username(), "service-account-crew");
    assert_eq!(crew.groups(), ["default-roles-agents", "support-agents"]);
    // Of several audiences each might have asked for it: whose it is has to be said.
    assert!(who(&issuer, token.clone(), &json!({ "azp": "another" })).is_err());
    assert!(who(&issuer, token.clone(), &json!({ "typ": "Refresh" })).is_err());
    assert!(who(&issuer, token, &json!({ "typ": "ID" })).is_err());
}

#[test]
fn key_sets_hold_what_providers_put_into_them() {
    // Of 2,048 bits, made for this.
    let n = "uJnjhIh0dbbMHvDVaZDRCPaEPHSUcqYnVPUMVgYKPmqMkHwUMPDTYbCwsNiBdmrhEnRK8Zk1kUYhFUjJV6Q\
             XcVrVxEWsyRKcqsODqTAa1AEUFW0KAAnYqVxQXRaPpG6ggm3gGGmJkHgJ1SJK0aTWsLOX7LYzEUuoAWGSp\
             xyCYrLDdkRbnTPiVx6y0vIYzqWJfd0HcNCbFyVhp3GMsuyVBhWM9nYnU3zAFCUuwSFJmDWPBOVp0Q4dUJy\
             FbBfnLYEFNsQAo2mVDwMbTsGqzCGsxZmwgVHaqAJ4TmRmWgKmUYvmRLsTYeXMqLFGMvbzJcYFqvyP0Qkpr\
             bVkOEuDkVcVNQ";
    let entra = json!({ "kty": "RSA", "use": "sig", "kid": "-KI3", "x5t": "-KI3", "n": n,
        "e": "AQAB", "x5c": ["MIIC"], "cloud_instance_name": "microsoftonline.com",
        "issuer": "https://login.microsoftonline.com/9b1f/v2.0" });
    let google =
        json!({ "kid": "a1b2", "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": "AQAB" });
    let keycloak_encryption = json!({ "kid": "enc", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc",
        "n": n, "e": "AQAB", "x5c": ["MIIC"], "x5t#S256": "x" });
    for (set, is_empty) in
        [(vec![&entra], false), (vec![&google], false), (vec![&keycloak_encryption], true)]
    {
        let set = KeySet::parse(json!({ "keys": set }).to_string().as_bytes()).unwrap();
        assert_eq!(set.is_empty(), is_empty);
    }
}
