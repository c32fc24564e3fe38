//! Logging in and out: what an attacker could try on the way.

use super::{Browser, start};
use crate::support::gateway::Setup;

#[test]
fn a_login_goes_through_the_issuer_and_ends_there_too() {
    let gateway = start(Setup::default());
    let mut browser = Browser::of(&gateway);
    assert!(browser.get("/").body.contains("Log in with dev"));
    // A page that was asked for is where one comes out.
    let answer = browser.get("/sessions?user=a%20b");
    assert_eq!((answer.status, answer.location()), (303, "/login?to=%2Fsessions%3Fuser%3Da%2520b"));
    let back = browser.at_issuer("audrey", "%2Fsessions%3Fuser%3Da%2520b");
    let answer = browser.get(&back);
    assert_eq!((answer.status, answer.location()), (303, "/sessions?user=a%20b"));
    let page = browser.get("/sessions");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("audrey"), "{}", page.body);
    for (name, wanted) in [
        ("content-security-policy", "default-src 'none'; script-src 'self'; style-src 'self'"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert!(page.header(name).unwrap().contains(wanted), "{name}");
    }
    // The cookie reads the API as well, and changes nothing there.
    assert_eq!(browser.get("/api/v1/sessions").status, 200);
    assert_eq!(browser.send("POST", "/api/v1/tickets", &[], "").status, 401);

    let kept = browser.cookies.clone();
    let answer = browser.post("/logout", "");
    assert_eq!(answer.status, 200);
    let at_issuer = answer.header("refresh").unwrap().strip_prefix("0;url=").unwrap();
    let answer = browser.get(at_issuer);
    assert_eq!(answer.location(), format!("http://{}/", gateway.web()));
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    // Whoever kept the cookie has nothing.
    browser.cookies = kept;
    assert_eq!(browser.get("/sessions").status, 303);
    assert_eq!(browser.get("/api/v1/sessions").status, 401);
    assert!(gateway.stop().success());
}

#[test]
fn a_code_of_one_browser_logs_no_other_in() {
    let gateway = start(Setup::default());
    let (mut honest, mut attacker) = (Browser::of(&gateway), Browser::of(&gateway));
    let of_attacker = attacker.at_issuer("sam", "/");
    // A link that an attacker sends: without an attempt, and with one of one's own.
    assert_eq!(honest.get(&of_attacker).status, 403);
    let of_honest = honest.at_issuer("audrey", "/");
    assert_eq!(honest.get(&of_attacker).status, 403);
    // A code of the attacker's under the state of the honest one: another nonce, another verifier.
    let part = |address: &str, name: &str| {
        let query = address.split_once('?').unwrap().1;
        let found = query.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap();
        found.to_owned()
    };
    let mixed = format!(
        "/login/callback?code={}&state={}",
        part(&of_attacker, "code="),
        part(&of_honest, "state=")
    );
    assert_eq!(honest.get(&mixed).status, 403);
    assert!(!honest.cookies.contains_key("portcullis"));
    // A code is good once, and its own browser may use it.
    assert_eq!(honest.get(&of_honest).status, 303);
    assert_eq!(honest.get(&of_honest).status, 403);
    let answer = attacker.get("/login/callback?error=access_denied&state=x");
    assert_eq!(answer.status, 403);
    gateway.daemon().wait_for_log("login refused");
}

#[test]
fn a_login_has_a_new_secret_whatever_the_browser_brought() {
    let gateway = start(Setup::default());
    let mut browser = Browser::of(&gateway);
    browser.cookies.insert("portcullis".to_owned(), "chosen-by-an-attacker".to_owned());
    let back = browser.at_issuer("audrey", "/");
    assert_eq!(browser.get(&back).status, 303);
    let first = browser.cookies["portcullis"].clone();
    assert_ne!(first, "chosen-by-an-attacker");
    assert_eq!(browser.get("/sessions").status, 200);
    let mut attacker = Browser::of(&gateway);
    attacker.cookies.insert("portcullis".to_owned(), "chosen-by-an-attacker".to_owned());
    assert_eq!(attacker.get("/sessions").status, 303);
    // And again with the next login.
    let back = browser.at_issuer("audrey", "/");
    browser.get(&back);
    assert_ne!(browser.cookies["portcullis"], first);
    // The secret stands nowhere: not in the log, not in what is stored.
    let secret = browser.cookies["portcullis"].clone();
    assert!(!gateway.daemon().log().contains(&secret));
}

#[test]
fn after_a_login_nobody_is_sent_to_another_site() {
    let gateway = start(Setup::default());
    for to in ["//evil.example/", "https://evil.example/", "/%5Cevil.example", "%2F%2Fevil.example"]
    {
        let mut browser = Browser::of(&gateway);
        let back = browser.at_issuer("audrey", to);
        assert_eq!(browser.get(&back).location(), "/", "{to}");
    }
}

#[test]
fn a_form_counts_when_this_logins_own_page_sent_it() {
    let gateway = start(Setup::default());
    let mut audrey = Browser::logged_in(&gateway, "audrey");
    let mut sam = Browser::logged_in(&gateway, "sam");
    let (of_audrey, of_sam) = (audrey.proof(), sam.proof());
    assert_ne!(of_audrey, of_sam);
    for body in ["", "proof=", "proof=x", &format!("proof={of_sam}")] {
        assert_eq!(audrey.send("POST", "/logout", &[], body).status, 403, "{body}");
    }
    let body = format!("proof={of_audrey}");
    for from in ["cross-site", "same-site", "none"] {
        let header = format!("Sec-Fetch-Site: {from}");
        assert_eq!(audrey.send("POST", "/logout", &[&header], &body).status, 403, "{from}");
    }
    let json = ["Content-Type: text/plain"];
    assert_eq!(audrey.send("POST", "/logout", &json, &body).status, 400);
    assert_eq!(audrey.get("/sessions").status, 200);
    let own = ["Sec-Fetch-Site: same-origin"];
    assert_eq!(audrey.send("POST", "/logout", &own, &body).status, 200);
    // Without a login there is no form.
    let nobody = Browser::of(&gateway).send("POST", "/logout", &[], &body);
    assert_eq!((nobody.status, nobody.location()), (303, "/login?to=%2F"));
}
