//! `tests/cases/http_cases.tsv`: every row, by its number, against nginx and a Python server.
//!
//! Left out are the rows about Kubernetes.

use std::collections::BTreeMap;
use std::net::TcpListener;

use crate::support::daemon::wait_until;
use crate::support::http::{App, Caller, Canned, Nginx, gateway, statuses, target};
use crate::support::sources::test_is_there;

/// Rows that tests of their own hold: file and function.
const ELSEWHERE: &[(&str, &[(&str, &str)])] = &[
    (
        "H51",
        &[
            ("websocket", "frames_that_no_client_may_send_end_the_connection"),
            ("masks", "messages_of_websockets_are_masked"),
        ],
    ),
    ("H55", &[("conformance", "every_rule_of_http2_holds_downstream")]),
    ("H56", &[("limits", FLOODS)]),
    ("H58", &[("limits", FLOODS), ("conformance", "every_rule_of_http2_holds_downstream")]),
    (
        "H60",
        &[
            ("limits", "a_flood_of_header_bytes_is_cut_off_and_others_are_served"),
            ("limits", "tiny_chunks_pass_one_by_one"),
        ],
    ),
    ("H62", &[("sentinel", "in_no_coding_or_charset_does_a_masked_value_cross")]),
    ("H64", &[("sentinel", "however_it_is_written_and_cut_a_masked_value_does_not_cross")]),
    ("H66", &[("sentinel", "however_it_is_written_and_cut_a_masked_value_does_not_cross")]),
    ("H68", &[("sentinel", "however_it_is_written_and_cut_a_masked_value_does_not_cross")]),
    ("H70", &[("masks", "heads_ask_for_nothing_and_tell_nothing_that_masks_could_not_hold")]),
];

const FLOODS: &str = "rapid_reset_and_floods_of_frames_close_the_connection_and_others_are_served";

const RULES: &str = r#"
[[rule]]
name = "no-admin"
objects = ["path:/admin*"]
verdict = "block"

[[rule]]
name = "not-two"
when = '"2" in effect.query.id'
actions = ["http.delete"]
verdict = "block"
"#;

/// A gateway before both servers, named `n` and `a`.
struct Stage {
    nginx: Nginx,
    app: App,
    gateway: crate::support::gateway::Gateway,
}

impl Stage {
    fn new() -> Self {
        let (nginx, app) = (Nginx::start(), App::start());
        let gateway = gateway(&format!("{}{}{RULES}", nginx.target("n"), app.target("a", "")));
        Self { nginx, app, gateway }
    }

    fn caller(&self) -> Caller {
        Caller::of(&self.gateway)
    }

    /// Everything that reached either server.
    fn reached(&self) -> String {
        format!("{} {}", self.nginx.requests().join("\n"), self.app.paths().join("\n"))
    }

    /// Sends the bytes for both targets (`{t}` is the target), and holds that each is answered
    /// with one of these statuses, once, the connection closed, and nothing reached a server.
    fn refused(&self, request: &str, fine: &[u16]) {
        for target in ["n", "a"] {
            let request = request.replace("{t}", target);
            let answer = self.caller().raw(&request);
            let got = statuses(&answer);
            assert!(got.len() == 1 && fine.contains(&got[0]), "{request:?}: {got:?} {answer}");
            assert!(!self.reached().contains("smuggled"), "{request:?} reached a server");
        }
    }
}

type Check = fn(&Stage);

fn smuggling(stage: &Stage, framing: &str, body: &str) {
    let behind = "GET /{t}/smuggled HTTP/1.1\r\nHost: x\r\n{auth}\r\n";
    let request = format!(
        "POST /{{t}}/smuggled-0 HTTP/1.1\r\nHost: x\r\n{{auth}}{framing}\r\n\r\n{body}{behind}"
    );
    stage.refused(&request, &[400, 413, 431]);
}

/// A chunk that is wrong: the request may have begun at the target, but what is behind it is not
/// one of its own.
fn broken_chunk(stage: &Stage, body: &str) {
    for target in ["n", "a"] {
        let behind = format!("GET /{target}/smuggled HTTP/1.1\r\nHost: x\r\n{{auth}}\r\n");
        let head = format!(
            "POST /{target}/begun HTTP/1.1\r\nHost: x\r\n{{auth}}Transfer-Encoding: chunked\r\n\r\n"
        );
        let answer = stage.caller().raw(&format!("{head}{body}{behind}"));
        assert!(statuses(&answer).len() <= 1, "{body:?}: {answer}");
        assert!(!answer.contains("HTTP/1.1 200"), "{body:?}: {answer}");
        assert!(!stage.reached().contains("smuggled"), "{body:?}");
    }
}

fn get(stage: &Stage, path: &str, fine: &[u16]) {
    stage.refused(
        &format!("GET /{{t}}{path} HTTP/1.1\r\nHost: x\r\n{{auth}}Connection: close\r\n\r\n"),
        fine,
    );
}

const CHECKS: &[(&str, Check)] = &[
    ("H01", |stage| {
        smuggling(stage, "Content-Length: 44\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
    }),
    ("H03", |stage| {
        smuggling(stage, "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
    }),
    ("H05", |stage| smuggling(stage, "Transfer-Encoding: chunked, identity", "0\r\n\r\n")),
    ("H07", |stage| smuggling(stage, "Transfer-Encoding: \x0bchunked", "0\r\n\r\n")),
    ("H09", |stage| smuggling(stage, "X-A: 1\r\n Transfer-Encoding: chunked", "0\r\n\r\n")),
    ("H11", |stage| {
        for length in ["+3", "-1", "0x3", "18446744073709551616", "18446744073709551615"] {
            smuggling(stage, &format!("Content-Length: {length}"), "abc");
        }
    }),
    ("H13", |stage| broken_chunk(stage, "3;a\nxx\r\nabc\r\n0\r\n\r\n")),
    ("H15", |stage| {
        for size in ["10000000000000003", "0x3", "3 "] {
            broken_chunk(stage, &format!("{size}\r\nabc\r\n0\r\n\r\n"));
        }
    }),
    ("H17", |stage| {
        stage.refused("GET /{t}/smuggled HTTP/1.1\nHost: x\n{auth}\r\n\r\n", &[400]);
    }),
    ("H19", a_get_with_a_body),
    ("H21", expect_continue),
    ("H23", |stage| {
        for host in ["169.254.169.254", "x"] {
            stage.refused(
                &format!("GET http://{host}/{{t}}/smuggled HTTP/1.1\r\nHost: x\r\n{{auth}}\r\n"),
                &[400, 421],
            );
        }
    }),
    ("H25", |stage| {
        stage.refused("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n{auth}\r\n", &[405]);
    }),
    ("H27", the_authority_is_the_catalogs),
    ("H29", the_address_is_the_catalogs),
    ("H30", |stage| {
        for path in ["/public/%2e%2e/admin", "/public/../admin", "/public/%2E./admin"] {
            get(stage, path, &[400]);
        }
    }),
    ("H32", |stage| {
        for path in ["/public%2f..%2fadmin", "/public/%2E%2E%2Fadmin", "/public%5c..%5cadmin"] {
            get(stage, path, &[400]);
        }
    }),
    ("H34", |stage| {
        for path in ["//admin", "/a//b", "/./admin", "/admin/."] {
            get(stage, path, &[400]);
        }
    }),
    ("H36", |stage| {
        get(stage, "/%61dmin", &[400]);
        get(stage, "/%2561dmin", &[400]);
        get(stage, "/adm%69n", &[400]);
    }),
    ("H38", |stage| {
        for path in ["/public#/../admin", "/%c0%ae%c0%ae/admin", "/adm\u{ed}n", "/a;b", "/a%00"] {
            get(stage, path, &[400]);
        }
    }),
    ("H40", every_value_of_a_parameter_counts),
    ("H41", |stage| {
        let long = "A".repeat(1_000);
        for method in ["get", "GeT", "DELETE\0", &long, "BREW"] {
            let request = format!("{method} /{{t}}/smuggled HTTP/1.1\r\nHost: x\r\n{{auth}}\r\n");
            stage.refused(&request, &[400, 405, 501]);
        }
    }),
    ("H43", other_methods),
    ("H44", |stage| {
        let caller = stage.caller();
        assert_eq!(caller.get("/a/echo").status, 200);
        let told = serde_json::to_string(&stage.app.told()).unwrap();
        assert!(!told.contains(&caller.token[..40]) && !told.contains("authorization"), "{told}");
    }),
    ("H46", |stage| {
        let caller = stage.caller();
        let fields = ["-H", "Connection: close, Authorization, X-Forwarded-User"];
        let echo =
            caller.curl("/a/echo", &[&fields[..], &["-H", "X-Forwarded-User: root"]].concat());
        assert!(!echo.text().contains("x-forwarded-user"), "{echo:?}");
    }),
    ("H48", cookies),
    ("H50", a_challenge_is_passed),
    ("H53", an_upgrade_that_nobody_asked_for),
    ("H72", answers_without_a_body),
    ("H74", |stage| {
        let blocked = stage.caller().get("/a/admin%3Cscript%3E");
        assert_eq!(blocked.status, 403);
        assert_eq!(blocked.header("x-content-type-options").as_deref(), Some("nosniff"));
        assert!(!blocked.text().contains("script"), "{blocked:?}");
    }),
];

fn a_get_with_a_body(stage: &Stage) {
    let body = "GET /{t}/with-body HTTP/1.1\r\nHost: x\r\n{auth}Content-Length: 3\r\n\r\nabc";
    let next = "GET /{t}/next HTTP/1.1\r\nHost: x\r\n{auth}Connection: close\r\n\r\n";
    let answer = stage.caller().raw(&format!("{body}{next}").replace("{t}", "a"));
    assert_eq!(statuses(&answer), [200, 200], "{answer}");
    assert!(answer.contains("\"length\": 3") && answer.contains("\"body\": \"abc\""), "{answer}");
    let chunked = "GET /a/chunked HTTP/1.1\r\nHost: x\r\n{auth}Transfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\n\r\n";
    let answer = stage.caller().raw(&format!("{chunked}{}", next.replace("{t}", "a")));
    assert_eq!(statuses(&answer), [200, 200], "{answer}");
    assert!(answer.contains("\"length\": 3"), "{answer}");
    wait_until("the last request", || stage.reached().contains("/next"));
}

fn expect_continue(stage: &Stage) {
    let request = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{{auth}}Expect: 100-continue\r\n\
             Content-Length: 3\r\nConnection: close\r\n\r\nabc"
        )
    };
    assert_eq!(statuses(&stage.caller().raw(&request("/a/admin/x"))), [403], "no 100 when blocked");
    assert_eq!(statuses(&stage.caller().raw(&request("/a/fine"))), [100, 200]);
    let other = request("/a/fine").replace("100-continue", "the-unexpected");
    assert_eq!(statuses(&stage.caller().raw(&other)), [417]);
}

fn the_authority_is_the_catalogs(stage: &Stage) {
    for path in ["//evil.com/x", "/\\evil.com/x", "/@evil.com/x", "/a@evil.com/x"] {
        let answer = stage.caller().raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: evil.com\r\n{{auth}}Connection: close\r\n\r\n"
        ));
        assert!(matches!(*statuses(&answer), [400 | 403]), "{path}: {answer}");
    }
    let told = stage.caller().curl("/a/@evil.com/x", &["-H", "Host: evil.com"]).json();
    assert_eq!(told["path"], "/@evil.com/x");
    assert!(told["headers"].to_string().contains(&format!("127.0.0.1:{}", stage.app.port)));
}

/// The name is resolved for the connection that is used; a client has no say in it.
fn the_address_is_the_catalogs(stage: &Stage) {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    for field in ["Host", "X-Forwarded-Host", "Forwarded", "X-Host"] {
        let field = format!("{field}: 127.0.0.1:{port}");
        assert_eq!(stage.caller().curl("/a/x", &["-H", &field]).status, 200);
    }
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "somebody came where the client sent them");
}

fn every_value_of_a_parameter_counts(stage: &Stage) {
    for (query, status) in [
        ("id=1", 200),
        ("id=2", 403),
        ("id=1&id=2", 403),
        ("id=2&id=1", 403),
        ("%69d=2", 403),
        ("id=%32", 403),
        ("x=1;id=2", 403),
        ("id=1;id=2", 403),
        ("id=%zz", 400),
    ] {
        let told = stage.caller().curl(&format!("/a/x?{query}"), &["-X", "DELETE"]);
        assert_eq!(told.status, status, "{query}");
    }
}

fn other_methods(stage: &Stage) {
    let caller = stage.caller();
    let blocked = |path: &str, arguments: &[&str]| caller.curl(path, arguments).status;
    assert_eq!(blocked("/a/admin", &["-I"]), 403, "HEAD is judged as GET");
    for method in ["OPTIONS", "PATCH", "PROPFIND"] {
        assert_eq!(blocked("/a/admin", &["-X", method]), 403, "{method}");
    }
    assert_eq!(blocked("/a/x", &["-X", "TRACE"]), 405);
    let to = |destination: &str| {
        blocked("/a/x", &["-X", "MOVE", "-H", &format!("Destination: {destination}")])
    };
    assert_eq!(to("/a/admin/x"), 403, "the destination is judged");
    assert_eq!(to(&caller.url("/a/y")), 200);
    assert_eq!(to("/n/y"), 400, "another target");
    assert_eq!(to("http://evil.com/a/y"), 400);
    assert_eq!(to("/a/../admin"), 400);
    let overridden = ["-X", "POST", "-H", "X-HTTP-Method-Override: DELETE"];
    assert_eq!(blocked("/a/x?id=2", &overridden), 403, "the method that is asked for is judged");
    for header in ["X-HttpMethod-Override", "X-HTTP-Verb", "X-Tunneled-Method"] {
        let overridden = ["-X", "POST", "-H", &format!("{header}: DELETE, POST")];
        assert_eq!(blocked("/a/x?id=2", &overridden), 403, "{header}");
    }
    // As PHP spells it, and those that nest.
    for name in [".method", "%5Bmethod", "+_method", "_method%00a", "_method[]", "[_method]"] {
        let query = format!("/a/x?id=2&{name}=DELETE");
        assert_eq!(blocked(&query, &["-g", "-X", "POST"]), 403, "{name} in the query");
        let form = format!("{name}=DELETE");
        assert_eq!(blocked("/a/x?id=2", &["-d", &form]), 403, "{name} in a form");
    }
    let form = "Content-Type: application/x-www-form-urlencoded,a";
    assert_eq!(blocked("/a/x?id=2", &["-d", "_method=DELETE", "-H", form]), 403);
    for name in [".method", "[_method]", " _method"] {
        let part = format!("{name}=DELETE");
        assert_eq!(blocked("/a/x?id=2", &["-F", &part]), 403, "{name} in a part");
    }
    assert_eq!(blocked("/a/x?id=2", &["-d", "payment.method=DELETE"]), 200);
    let behind = format!("a={}&.method=DELETE", "b".repeat(2 << 20));
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("form");
    std::fs::write(&file, behind).unwrap();
    let sent = format!("@{}", file.display());
    assert_ne!(blocked("/a/x?id=2", &["--data-binary", &sent]), 200, "behind what is read");
    assert_eq!(blocked("/a/x", &["-H", "X-Original-URL: /admin"]), 400);
    let echo = caller
        .curl("/a/echo", &["-H", "X-Override-URL: /admin", "-H", "X-HTTP-Path-Override: /admin"]);
    assert!(!echo.text().contains("override"), "{echo:?}");
    assert_eq!(blocked("/a/x", &["-H", "X_Forwarded_User: root"]), 400);
}

fn cookies(stage: &Stage) {
    let lines = "credential = { header = \"X-Key\", value = { env = \"PATH\" } }";
    let gateway = gateway(&stage.app.target("kept", lines));
    let caller = Caller::of(&gateway);
    let told = caller.curl("/kept/cookie", &["-H", "Cookie: sid=another"]);
    assert!(told.header("set-cookie").is_none(), "the cookie belongs to the gateway: {told:?}");
    let seen = serde_json::to_string(&stage.app.told()).unwrap();
    assert!(!seen.contains("sid=another"), "{seen}");
}

fn a_challenge_is_passed(_: &Stage) {
    let challenge =
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
    let canned = Canned::answering(challenge.as_bytes());
    let lines = "credential = { header = \"Authorization\", value = { env = \"PATH\" } }";
    let gateway = gateway(&canned.target("login", lines));
    let told = Caller::of(&gateway).get("/login/x");
    assert_eq!((told.status, told.header("www-authenticate").as_deref()), (401, Some("NTLM")));
}

fn an_upgrade_that_nobody_asked_for(_: &Stage) {
    let switch =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nx";
    let canned = Canned::answering(switch.as_bytes());
    let gateway = gateway(&canned.target("odd", ""));
    let answer = Caller::of(&gateway)
        .raw("GET /odd/x HTTP/1.1\r\nHost: x\r\n{auth}Connection: close\r\n\r\n");
    assert_eq!(statuses(&answer), [502], "{answer}");
}

fn answers_without_a_body(_: &Stage) {
    for (canned, status, body) in [
        (
            "HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            "ok",
        ),
        (
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra",
            204,
            "",
        ),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nextra", 304, ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nextra", 200, "ok"),
    ] {
        let server = Canned::answering(canned.as_bytes());
        let gateway = gateway(&server.target("odd", ""));
        let caller = Caller::of(&gateway);
        for _ in 0..2 {
            let told = caller.get("/odd/x");
            assert_eq!((told.status, told.text().as_str()), (status, body), "{canned}");
            assert!(!told.head.contains("x-hint"), "{told:?}");
        }
    }
    for odd in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nX-A: 1\r\nX A: 1\r\n\r\n",
        "not HTTP at all\r\n\r\n",
        "",
    ] {
        let server = Canned::answering(odd.as_bytes());
        let gateway = gateway(&target("odd", &format!("http://127.0.0.1:{}", server.port), ""));
        assert_eq!(Caller::of(&gateway).get("/odd/x").status, 502, "{odd}");
    }
}

#[test]
fn every_row_of_the_cases_holds() {
    let file = include_str!("../../cases/http_cases.tsv");
    let checks: BTreeMap<_, _> = CHECKS.iter().copied().collect();
    let stage = Stage::new();
    let mut missing = Vec::new();
    for row in file.lines().skip(1) {
        let columns: Vec<_> = row.split('\t').collect();
        let [id, class, ..] = *columns else { panic!("{row}") };
        if class == "kubernetes" {
            continue;
        }
        if let Some((_, tests)) = ELSEWHERE.iter().find(|(other, _)| *other == id) {
            for (file, test) in *tests {
                assert_eq!(test_is_there(&format!("http/{file}.rs"), test), Ok(()), "{id}");
            }
            continue;
        }
        match checks.get(id) {
            Some(check) => {
                println!("{id}: {}", columns.get(3).unwrap_or(&""));
                check(&stage);
            }
            None => missing.push(id),
        }
    }
    assert!(missing.is_empty(), "rows without a check: {missing:?}");
    assert!(stage.gateway.stop().success());
    stage.gateway.verify_all();
}
