//! The development issuer's flows, end to end: its tokens must satisfy the verifier.

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use portcullis::config::TokenKind;
use portcullis::identity::dev_issuer::{self, BUILT_IN, DevIssuer, Settings};
use serde_json::Value;
use tokio::net::TcpListener;

use super::scripted::{Running, settings};

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const CALLBACK: &str = "http://127.0.0.1:8443/login/callback";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    fn location(&self) -> String {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.headers[header::LOCATION].to_str().unwrap().to_owned()
    }
}

async fn started(toml: &str) -> DevIssuer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    dev_issuer::start(listener, Settings::parse(toml).unwrap()).unwrap()
}

async fn send(request: Request<Full<bytes::Bytes>>) -> Reply {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Reply { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn get(url: String) -> Reply {
    send(Request::get(url).body(Full::default()).unwrap()).await
}

/// Posts a form, with an Authorization header when one is given.
async fn post(url: String, form: &[(&str, &str)], authorization: Option<String>) -> Reply {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    send(request.body(Full::from(query(form))).unwrap()).await
}

fn query(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect()
    };
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn basic(id: &str, secret: &str) -> Option<String> {
    Some(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
}

/// The value of a parameter of a redirect.
fn parameter<'a>(location: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = location.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap_or_else(|| panic!("no {name} in {json}")).to_owned()
}

#[tokio::test]
async fn a_client_gets_a_token_that_verifies() {
    let issuer = started(BUILT_IN).await;
    let running = Running::start(&[settings(issuer.url())]).await.unwrap();
    let token_url = format!("{}/token", issuer.url());
    let form = [("grant_type", "client_credentials"), ("audience", "portcullis")];
    let by_header = post(token_url.clone(), &form, basic("agent", "agent-secret")).await;
    let in_form = [&form[..], &[("client_id", "agent"), ("client_secret", "agent-secret")]];
    let by_form = post(token_url.clone(), &in_form.concat(), None).await;
    for reply in [by_header, by_form] {
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
        assert!(reply.headers.contains_key("x-portcullis-development-issuer"));
        let proved = running.verify(&text(&reply.json(), "access_token")).await.unwrap();
        assert_eq!(
            (proved.subject(), proved.groups()),
            ("agent", &["support-agents".to_owned()][..])
        );
    }
    for (form, authorization, error) in [
        (&form[..], basic("agent", "wrong"), "invalid_client"),
        (&form[..], basic("nobody", "agent-secret"), "invalid_client"),
        (&form[..], Some("Basic %%%".to_owned()), "invalid_client"),
        (&form[..], None, "invalid_request"),
        (&[("grant_type", "password")], basic("agent", "agent-secret"), "unsupported_grant_type"),
        (
            &[("grant_type", "authorization_code")],
            basic("agent", "agent-secret"),
            "unauthorized_client",
        ),
        (&[form[0], ("audience", "other")], basic("agent", "agent-secret"), "invalid_target"),
        (&[form[0], form[0]], basic("agent", "agent-secret"), "invalid_request"),
        (&[form[0], ("client_id", "portcullis")], None, "unauthorized_client"),
    ] {
        let reply = post(token_url.clone(), form, authorization).await;
        assert_eq!(reply.error(), error, "{form:?}");
    }
}

#[tokio::test]
async fn a_person_logs_in_through_the_browser_with_pkce() {
    let issuer = started(BUILT_IN).await;
    let authorize = format!("{}/authorize", issuer.url());
    let asked = [
        ("response_type", "code"),
        ("client_id", "portcullis"),
        ("redirect_uri", CALLBACK),
        ("scope", "openid"),
        ("state", "s&\"<"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let page = get(format!("{authorize}?{}", query(&asked))).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.body.contains("DEVELOPMENT ISSUER") && page.body.contains("value=\"alice\""));
    assert!(page.body.contains("s&amp;&quot;&lt;") && !page.body.contains("s&\"<"));
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("'self' http://127.0.0.1:8443")
    );

    let login = async || {
        let reply =
            post(authorize.clone(), &[&asked[..], &[("user", "alice")]].concat(), None).await;
        let location = reply.location();
        assert!(location.starts_with(&format!("{CALLBACK}?code=")), "{location}");
        assert_eq!(parameter(&location, "state"), Some("s%26%22%3C"));
        parameter(&location, "code").unwrap().to_owned()
    };
    let redeem = async |code: &str, verifier: &str, redirect_uri: &str| {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "portcullis"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        post(format!("{}/token", issuer.url()), &form, None).await
    };
    let code = login().await;
    let tokens = redeem(&code, VERIFIER, CALLBACK).await.json();
    assert_eq!(redeem(&code, VERIFIER, CALLBACK).await.error(), "invalid_grant", "a second time");
    assert_eq!(redeem(&login().await, CHALLENGE, CALLBACK).await.error(), "invalid_grant");
    let other = "http://localhost:8443/login/callback";
    assert_eq!(redeem(&login().await, VERIFIER, other).await.error(), "invalid_grant");

    let (access, id) = (text(&tokens, "access_token"), text(&tokens, "id_token"));
    assert_eq!(claims_of(&id)["nonce"], "n-1");
    let mut logins = settings(issuer.url());
    let running = Running::start(&[logins.clone()]).await.unwrap();
    let proved = running.verify(&access).await.unwrap();
    assert_eq!((proved.subject(), proved.username()), ("alice", "alice@example.com"));
    assert!(running.verify(&id).await.is_err(), "an ID token is no access token");
    logins.accept = vec![TokenKind::Id];
    logins.audiences = vec!["portcullis".to_owned()];
    logins.client_id = Some("portcullis".to_owned());
    let running = Running::start(&[logins]).await.unwrap();
    assert_eq!(running.verify(&id).await.unwrap().subject(), "alice");
    assert!(running.verify(&access).await.is_err());

    let info = Request::get(format!("{}/userinfo", issuer.url()))
        .header(header::AUTHORIZATION, format!("Bearer {access}"));
    let info = send(info.body(Full::default()).unwrap()).await.json();
    assert_eq!((info["sub"].as_str(), info["groups"][0].as_str()), (Some("alice"), Some("dba")));
    let info = Request::get(format!("{}/userinfo", issuer.url()))
        .header(header::AUTHORIZATION, format!("Bearer {id}"));
    assert_eq!(send(info.body(Full::default()).unwrap()).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_login_request_that_is_not_right_goes_nowhere_it_should_not() {
    let issuer = started(BUILT_IN).await;
    let ask = async |changes: &[(&str, &str)]| {
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", "portcullis"),
            ("redirect_uri", CALLBACK),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        for (name, value) in changes {
            fields.retain(|(field, _)| field != name);
            fields.push((name, value));
        }
        get(format!("{}/authorize?{}", issuer.url(), query(&fields))).await
    };
    for changes in [
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "http://127.0.0.1:8443/login/callback/"),
        ("redirect_uri", "http://127.0.0.1:8443/login/callback?x=1"),
        ("client_id", "nobody"),
        ("client_id", "agent"),
    ] {
        let reply = ask(&[changes]).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(!reply.headers.contains_key(header::LOCATION), "{changes:?}");
    }
    for (changes, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("audience", "other"), "invalid_target"),
    ] {
        let location = ask(&[changes]).await.location();
        assert!(location.starts_with(CALLBACK), "{location}");
        assert_eq!(parameter(&location, "error"), Some(error), "{changes:?}");
    }
    let logout = async |target: &str| {
        let fields = [("client_id", "portcullis"), ("post_logout_redirect_uri", target)];
        get(format!("{}/logout?{}", issuer.url(), query(&fields))).await
    };
    assert_eq!(logout("https://evil.example/").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(logout("http://127.0.0.1:8443/").await.location(), "http://127.0.0.1:8443/");
}

#[tokio::test]
async fn a_password_is_asked_where_one_is_set() {
    let issuer = started(
        "audiences = ['portcullis']\n[[client]]\nid = 'web'\ngrants = ['authorization_code']\n\
         redirect_uris = ['http://127.0.0.1/cb']\n[[user]]\nname = 'eve'\npassword = 'hunter2'\n",
    )
    .await;
    let log_in = async |password: &str| {
        let form = [
            ("response_type", "code"),
            ("client_id", "web"),
            ("redirect_uri", "http://127.0.0.1/cb"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("user", "eve"),
            ("password", password),
        ];
        post(format!("{}/authorize", issuer.url()), &form, None).await
    };
    for wrong in ["", "hunter", "hunter22"] {
        let reply = log_in(wrong).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body.contains("wrong password") && !reply.body.contains("hunter2\""));
    }
    assert!(log_in("hunter2").await.location().contains("code="));
}

#[tokio::test]
async fn a_device_gets_a_token_once_a_person_approves() {
    let issuer = started(&format!("device_interval_seconds = 0\n{BUILT_IN}")).await;
    let device = async || {
        let form = [("client_id", "portcullis"), ("scope", "openid")];
        let reply = post(format!("{}/device_authorization", issuer.url()), &form, None).await;
        reply.json()
    };
    let poll = async |code: &str| {
        let form =
            [("grant_type", DEVICE_GRANT), ("client_id", "portcullis"), ("device_code", code)];
        post(format!("{}/token", issuer.url()), &form, None).await
    };
    let decide = async |user_code: &str, decision: &str, user: &str| {
        let form = [("user_code", user_code), ("decision", decision), ("user", user)];
        post(format!("{}/device", issuer.url()), &form, None).await.body
    };
    let asked = device().await;
    let (code, user_code) = (text(&asked, "device_code"), text(&asked, "user_code"));
    assert_eq!(poll(&code).await.error(), "authorization_pending");
    let page = get(text(&asked, "verification_uri_complete")).await;
    assert!(page.body.contains(&user_code) && page.body.contains("portcullis"), "{}", page.body);
    assert!(decide(&user_code, "approve", "nobody").await.contains("Unknown user"));
    assert_eq!(poll(&code).await.error(), "authorization_pending");
    let typed = user_code.to_lowercase().replace('-', "");
    assert!(decide(&typed, "approve", "alice").await.contains("approved"));
    let tokens = poll(&code).await.json();
    assert_eq!(poll(&code).await.error(), "invalid_grant", "a second time");
    let running = Running::start(&[settings(issuer.url())]).await.unwrap();
    let proved = running.verify(&text(&tokens, "access_token")).await.unwrap();
    assert_eq!((proved.subject(), proved.groups()), ("alice", &["dba".to_owned()][..]));
    assert!(!text(&tokens, "id_token").is_empty());

    let denied = device().await;
    assert!(decide(&text(&denied, "user_code"), "deny", "").await.contains("denied"));
    assert_eq!(poll(&text(&denied, "device_code")).await.error(), "access_denied");
    assert!(decide("BBBB-BBBB", "approve", "alice").await.contains("No such code"));
    let hostile = get(format!("{}/device?user_code=%3Cscript%3E", issuer.url())).await;
    assert!(!hostile.body.contains("<script>"));
}

#[tokio::test]
async fn a_device_that_hurries_is_slowed_down() {
    let issuer = started(BUILT_IN).await;
    let form = [("client_id", "portcullis")];
    let asked = post(format!("{}/device_authorization", issuer.url()), &form, None).await.json();
    assert_eq!(asked["interval"], 5);
    let code = text(&asked, "device_code");
    let form = [("grant_type", DEVICE_GRANT), ("client_id", "portcullis"), ("device_code", &code)];
    let token_url = format!("{}/token", issuer.url());
    assert_eq!(post(token_url.clone(), &form, None).await.error(), "authorization_pending");
    assert_eq!(post(token_url, &form, None).await.error(), "slow_down");
}

#[tokio::test]
async fn tokens_of_rotated_keys_verify_and_those_of_forgotten_ones_do_not() {
    let issuer = started(BUILT_IN).await;
    let running = Running::start(&[settings(issuer.url())]).await.unwrap();
    let hour = std::time::Duration::from_secs(3600);
    let before = issuer.issue("agent", hour).unwrap();
    let rotated = post(format!("{}/_dev/rotate", issuer.url()), &[], None).await;
    assert_eq!(rotated.json()["keys"].as_array().unwrap().len(), 2);
    let after = issuer.issue("alice", hour).unwrap();
    assert_eq!(running.verify(after.expose()).await.unwrap().subject(), "alice");
    assert!(running.verify(before.expose()).await.is_ok(), "still published");
    issuer.rotate(true).unwrap();
    let fresh = Running::start(&[settings(issuer.url())]).await.unwrap();
    assert!(fresh.verify(before.expose()).await.is_err());
    assert!(fresh.verify(issuer.issue("root", hour).unwrap().expose()).await.is_ok());
    assert!(issuer.issue("nobody", hour).is_none());
}

#[tokio::test]
async fn a_kept_key_lets_tokens_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut kept = Settings::parse(BUILT_IN).unwrap();
    kept.key_file = Some(dir.path().join("key.der"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = dev_issuer::start(listener, kept.clone()).unwrap();
    let token = first.issue("agent", std::time::Duration::from_secs(60)).unwrap();
    first.stop().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let second = dev_issuer::start(socket.listen(16).unwrap(), kept).unwrap();
    let running = Running::start(&[settings(second.url())]).await.unwrap();
    assert_eq!(running.verify(token.expose()).await.unwrap().subject(), "agent");
}

#[tokio::test]
async fn a_foreign_page_and_a_large_body_get_nothing() {
    let issuer = started(BUILT_IN).await;
    let rebound =
        Request::get(format!("{}/jwks", issuer.url())).header(header::HOST, "evil.example");
    let reply = send(rebound.body(Full::default()).unwrap()).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let form = Request::post(format!("{}/_dev/rotate", issuer.url()))
        .header(header::ORIGIN, "https://evil.example");
    assert_eq!(send(form.body(Full::default()).unwrap()).await.status, StatusCode::FORBIDDEN);
    let large = "x".repeat(20_000);
    let reply = post(format!("{}/token", issuer.url()), &[("scope", &large)], None).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
}
