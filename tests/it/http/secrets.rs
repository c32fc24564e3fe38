//! Who gets in, and what neither side sees of the other's secrets.

use std::fs;

use crate::support::gateway::Setup;
use crate::support::http::{App, Caller, curl, gateway, setup};

const CREDENTIAL: &str = "canary-Xq7vT2/mK9cR4-credential";

#[test]
fn whoever_is_refused_is_told_one_and_the_same_and_nothing_goes_up() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let ask = |path: &str, header: String| curl(&["-H", &header, &caller.url(path)]);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let elsewhere = gateway.issuer().token_for("agent", "elsewhere");
    let stranger = gateway.issuer().token("stranger");
    let cases = [
        ("no token", ask("/crew/x", "X-A: 1".to_owned())),
        ("no JWT", ask("/crew/x", bearer("secret"))),
        ("another audience", ask("/crew/x", bearer(&elsewhere))),
        ("another scheme", ask("/crew/x", format!("Authorization: Basic {}", caller.token))),
    ];
    let first = &cases[0].1;
    assert_eq!(first.status, 401);
    assert_eq!(first.header("www-authenticate").as_deref(), Some("Bearer realm=\"portcullis\""));
    for (what, told) in &cases {
        assert_eq!((told.status, &told.body), (401, &first.body), "{what}");
    }
    // Whoever has a token that counts is told another, one and the same for all.
    let asked = ["/nowhere/x", "/", "/CREW/x"].map(|path| (path, &*caller.token));
    let asked = [&asked[..], &[("/crew/x", &stranger)]].concat();
    let refused: Vec<_> = asked.iter().map(|(path, token)| ask(path, bearer(token))).collect();
    for ((path, _), told) in asked.iter().zip(&refused) {
        assert_eq!((told.status, &told.body), (403, &refused[0].body), "{path}");
    }
    assert_eq!(app.paths(), [] as [&str; 0], "a request of somebody refused went up");
    assert_eq!(ask("/crew/x", format!("X-Portcullis-Token: {}", caller.token)).status, 200);
    assert_eq!(ask("/crew/x", format!("authorization: bearer {}", caller.token)).status, 200);
}

/// Row A50 of the cases of tokens: one token in one place, or none.
#[test]
fn a_token_twice_or_elsewhere_gets_nobody_in() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let token = &caller.token;
    let bearer = format!("Authorization: Bearer {token}");
    let own = format!("X-Portcullis-Token: {token}");
    let ask = |path: &str, fields: &[&str]| {
        let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", *field]).collect();
        curl(&[&fields[..], &[&caller.url(path)]].concat()).status
    };
    let query = format!("/crew/x?access_token={token}");
    // A field that counts once and is there twice makes no request at all.
    for fields in [[&*bearer, &*bearer], [&bearer, "Authorization: Basic bXk6b3du"], [&own, &own]] {
        assert_eq!(ask("/crew/x", &fields), 400, "{}", fields.join(" | ").replace(token, "TOKEN"));
    }
    for (path, fields) in [
        ("/crew/x", &[&*format!("Authorization: Bearer {token}, Bearer {token}")][..]),
        ("/crew/x", &[&format!("Authorization: Bearer\t{token}")]),
        ("/crew/x", &[&format!("Authorization: {token}")]),
        ("/crew/x", &[&format!("Cookie: access_token={token}")]),
        (&query, &[]),
    ] {
        assert_eq!(ask(path, fields), 401, "{path} {}", fields.join(" | ").replace(token, "TOKEN"));
    }
    assert_eq!(app.paths(), [] as [&str; 0]);
    assert_eq!(ask("/crew/x", &[&format!("AUTHORIZATION: bearer {token}")]), 200);
}

#[test]
fn the_callers_own_authorization_goes_up_when_its_token_comes_apart() {
    let app = App::start();
    let gateway = gateway(&app.target("crew", ""));
    let caller = Caller::of(&gateway);
    let token = format!("X-Portcullis-Token: {}", caller.token);
    let own = "Authorization: Basic bXk6b3du";
    // The answer does not repeat it.
    curl(&["-H", &token, "-H", own, &caller.url("/crew/status/200")]);
    let headers = app.told()[0]["headers"].to_string();
    assert!(headers.contains("Basic bXk6b3du") && !headers.contains("portcullis"), "{headers}");
    assert!(gateway.stop().success());
    let stored = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    assert!(
        !stored.contains("bXk6b3du") && stored.contains("authorization: [withheld]"),
        "{stored}"
    );
}

/// It could not be told from other text where the service repeats it.
#[test]
fn a_credential_that_is_too_short_to_be_hidden_opens_nothing() {
    let app = App::start();
    let (_keep, folder) = crate::support::http::folder();
    let file = folder.join("credential");
    fs::write(&file, "12345").unwrap();
    let credential =
        format!("credential = {{ header = \"Authorization\", value = {{ file = {file:?} }} }}");
    let gateway = gateway(&app.target("crew", &credential));
    let caller = Caller::of(&gateway);
    let refused = caller.get("/crew/echo");
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(refused.text().contains("gateway's operator"), "{}", refused.text());
    gateway.daemon().wait_for_log("less than 6 bytes");
    assert_eq!(app.paths(), [] as [&str; 0]);
    fs::write(&file, "123456").unwrap();
    assert_eq!(caller.get("/crew/echo").status, 200);
}

#[test]
fn no_canary_of_credential_or_token_crosses_or_is_stored() {
    let app = App::start();
    let (_keep, folder) = crate::support::http::folder();
    let file = folder.join("credential");
    fs::write(&file, CREDENTIAL).unwrap();
    let credential = format!(
        "credential = {{ header = \"Authorization\", value = {{ file = {file:?} }}, prefix = \"Bearer \" }}"
    );
    let gateway = crate::support::gateway::Gateway::start(&Setup {
        ..setup(&app.target("crew", &credential))
    });
    let caller = Caller::of(&gateway);
    let mut told = String::new();
    for path in ["/crew/echo", "/crew/leak", "/crew/leak-header", "/crew/gzip", "/crew/cookie"] {
        for arguments in [&[][..], &["--compressed"], &["-H", "Connection: close, Authorization"]] {
            let answer = caller.curl(path, arguments);
            told += &format!("{}\n{}\n", answer.head, answer.text());
        }
    }
    let used = app.told();
    let with = format!("[\"authorization\",\"Bearer {CREDENTIAL}\"]");
    for request in &used {
        assert!(request["headers"].to_string().contains(&with), "not used: {request}");
    }
    assert!(told.contains("Bearer *****"), "{told}");
    assert!(told.contains("it is encoded, which was not asked for"), "{told}");
    // The token where it does not belong goes nowhere.
    let token = &caller.token;
    let in_json = format!("{{\"token\": {token:?}}}");
    for wrong in [
        caller.get(&format!("/crew/echo?access_token={token}")),
        caller.curl("/crew/echo", &["-H", &format!("Cookie: session={token}")]),
        caller.curl("/crew/echo", &["-H", &format!("X-Amz-Security-Token: {token}")]),
        caller.curl("/crew/echo", &["-H", &format!("Sec-WebSocket-Protocol: bearer, {token}")]),
        caller.post("/crew/echo", &in_json),
        caller.curl("/crew/echo", &["-H", "Content-Type: text/plain", "--data-binary", &in_json]),
        caller.curl("/crew/echo", &["-H", &format!("Proxy-Authorization: Bearer {token}")]),
    ] {
        assert_eq!(wrong.status, 400, "{wrong:?}");
    }
    assert!(gateway.stop().success());
    gateway.verify_all();

    let command_line = format!("/proc/{}/cmdline", gateway.daemon().pid().as_raw_nonzero());
    let mut places = vec![
        ("what clients were told".to_owned(), told.into_bytes()),
        ("the log".to_owned(), gateway.daemon().log().into_bytes()),
        ("the recordings' contents".to_owned(), gateway.all_contents()),
        ("the command line".to_owned(), fs::read(command_line).unwrap_or_default()),
    ];
    for stored in gateway.stored_files() {
        places.push((stored.display().to_string(), fs::read(&stored).unwrap()));
    }
    let signature = token.rsplit('.').next().unwrap();
    let up = serde_json::to_vec(&app.told()).unwrap();
    assert!(!contains(&up, &signature[..20]), "the token went up");
    for canary in [&signature[..20], &CREDENTIAL[..20], &CREDENTIAL[8..], "sekrit-cookie"] {
        for (place, bytes) in &places {
            assert!(!contains(bytes, canary), "{canary} stands in {place}");
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn cookies_of_the_targets_pass_where_callers_prove_themselves_to_it() {
    let app = App::start();
    let gateway = gateway(&app.target("own", ""));
    let caller = Caller::of(&gateway);
    assert!(caller.get("/own/cookie").header("set-cookie").is_some());
    caller.curl("/own/status/200", &["-H", "Cookie: sid=mine"]);
    assert!(app.told()[1]["headers"].to_string().contains("sid=mine"));
    assert!(gateway.stop().success());
    let stored = String::from_utf8_lossy(&gateway.all_contents()).into_owned();
    assert!(!stored.contains("sid=mine") && !stored.contains("sekrit-cookie"), "{stored}");
}
