//! Heads: what operators let pass, and what else is a name, an address or a credential.

use super::{CREDENTIAL, Stage, WITH_CREDENTIAL};
use crate::support::http::{Caller, Canned, gateway};

#[test]
fn a_header_that_the_target_is_given_goes_up_and_no_other_spelling_of_it() {
    let stage = Stage::new("pass_headers = [\"X-Trino-User\", \"via\"]", "");
    let fields = ["X-Trino-User: a", "X_Trino_User: b", "X-Presto-User: c", "Via: d"];
    let arguments: Vec<&str> = fields.iter().flat_map(|field| ["-H", *field]).collect();
    assert_eq!(stage.ask("/crew/x", &arguments).status, 200);
    let headers = stage.headers();
    let passed: Vec<&str> = headers
        .iter()
        .filter(|(_, value)| value.len() == 1)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(passed, ["x-trino-user", "via"], "{headers:?}");
}

#[test]
fn rules_see_the_headers_that_go_up_and_no_credential_in_them() {
    let rule = "[[rule]]\nname = \"r\"\nverdict = \"block\"\n\
                when = 'effect.headers[\"x-plan\"] == \"gold\" || effect.headers.cookie != \"[withheld]\"'\n";
    let stage = Stage::new("", rule);
    let with = |plan: &str| {
        let plan = format!("X-Plan: {plan}");
        // The answer does not repeat it.
        stage.ask("/crew/status/200", &["-H", &plan, "-H", "Cookie: sid=sekrit-cookie"]).status
    };
    assert_eq!((with("gold"), with("silver")), (403, 200));
    stage.finish(&["sekrit-cookie"]);
}

#[test]
fn trailers_and_other_forms_of_the_address_lead_nowhere_else() {
    let trailing = |port: u16| {
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, x-next, x-backend\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Next: http://127.0.0.1:{port}/y\r\n\
             X-Backend: 127.0.0.1:{port}\r\n\r\n"
        )
    };
    let server = Canned::answering_with(trailing);
    let gateway = gateway(&server.target("crew", ""));
    let request =
        "GET /crew/x HTTP/1.1\r\nHost: x\r\n{auth}TE: trailers\r\nConnection: TE, close\r\n\r\n";
    let answer = Caller::of(&gateway).raw(request).to_lowercase();
    assert!(answer.contains("x-sum: 7") && answer.contains("x-next: /crew/y"), "{answer}");
    assert!(!answer.contains("x-backend:"), "{answer}");
}

#[test]
fn a_part_of_an_answer_passes_from_no_target_with_a_credential() {
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\n\
                Content-Length: 3\r\n\r\nabc";
    let server = Canned::answering(part.as_bytes());
    let (_keep, folder) = crate::support::http::folder();
    let file = folder.join("credential");
    std::fs::write(&file, CREDENTIAL).unwrap();
    let lines = WITH_CREDENTIAL.replace("{file}", file.to_str().unwrap());
    for (lines, status) in [(lines.as_str(), 502), ("", 206)] {
        let gateway = gateway(&server.target("crew", lines));
        assert_eq!(Caller::of(&gateway).get("/crew/x").status, status, "{lines}");
    }
}

#[test]
fn a_token_in_basic_authentication_or_escaped_in_a_body_goes_nowhere() {
    let stage = Stage::new("", "");
    let token = stage.caller.token.clone();
    let own = format!("X-Portcullis-Token: {token}");
    let pair =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("user:{token}"));
    let basic = format!("Authorization: Basic {pair}");
    let url = stage.caller.url("/crew/x");
    assert_eq!(crate::support::http::curl(&["-H", &own, "-H", &basic, &url]).status, 400);
    let form = format!("t=%65{}", token.split_at(1).1);
    assert_eq!(stage.ask("/crew/x", &["--data-binary", &form]).status, 400);
    assert_eq!(stage.app.paths(), [""; 0]);
}
