//! Every operation that the API describes, for everybody who may ask: the right that it needs is
//! the one that is held, and whatever is answered is described.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::client::Database;
use crate::support::daemon::{PATIENCE, wait_until};
use crate::support::gateway::{Gateway, Setup};

const WEB: &str =
    "web = \"127.0.0.1:0\"\n[web]\nauditors = [\"security\"]\nadmins = [\"platform\"]";

/// Who may do what an operation does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Right {
    /// Also without a token.
    Anyone,
    /// Whoever is proved; what they see or change is decided by whose it is.
    Person,
    /// Auditors and admins.
    Reader,
    /// Admins.
    Admin,
}

/// An operation that is not here has no right that anybody thought of.
const RIGHTS: &[(Right, &[&str])] = &[
    (Right::Anyone, &["health", "readiness", "description"]),
    (
        Right::Reader,
        &[
            "sessions",
            "session",
            "session_commands",
            "session_recording",
            "session_recording_key",
            "session_events",
            "export_session",
            "commands",
            "revoked_users",
            "withdrawn_tokens",
            "notifications",
            "backtest_policy",
            "audit",
        ],
    ),
    (
        Right::Admin,
        &[
            "kill_session",
            "lift_token",
            "revoke_user",
            "restore_user",
            "holds",
            "set_hold",
            "lift_hold",
            "prune",
        ],
    ),
    (
        Right::Person,
        &[
            "targets",
            "tickets",
            "make_ticket",
            "revoke_ticket",
            "approvals",
            "approval",
            "approve_approval",
            "deny_approval",
            "access_requests",
            "request_access",
            "access_request",
            "approve_access_request",
            "deny_access_request",
            "grants",
            "revoke_grant",
            "explain_policy",
            "sshCertificate",
        ],
    ),
];

fn ask(gateway: &Gateway, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(gateway.web()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let body = if method == "GET" { "" } else { "{}" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        bearer.unwrap_or_default(),
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[test]
fn every_operation_needs_its_right_and_answers_as_it_is_described() {
    let database = Database::fresh();
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    gateway.daemon().wait_for_log("state is read");
    let issuer = gateway.issuer();
    let auditor = issuer.token("auditor");
    wait_until("the database to be asked", || {
        ask(&gateway, "GET", "/api/v1/sessions", Some(&auditor)).0 == 200
    });
    let (_, document) = ask(&gateway, "GET", "/api/openapi.json", None);
    let (_, document) = document.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(document).unwrap();
    let callers: Vec<(&str, Option<String>)> = ["agent", "stranger", "auditor", "admin"]
        .into_iter()
        .map(|user| (user, Some(issuer.token(user))))
        .chain([("nobody", None), ("somebody with a wrong token", Some("x.y.z".to_owned()))])
        .collect();
    let (mut asked, mut wrong) = (0, Vec::new());
    for (path, operations) in document["paths"].as_object().unwrap() {
        let place = path.replace("{id}", "01890000-0000-7000-8000-000000000000");
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let id = operation["operationId"].as_str().unwrap();
            let Some((right, _)) = RIGHTS.iter().find(|(_, ids)| ids.contains(&id)) else {
                wrong.push(format!("{id}: no right is said"));
                continue;
            };
            for (user, token) in &callers {
                let (status, answer) = ask(&gateway, &method, &place, token.as_deref());
                let proved = !matches!(*user, "nobody" | "somebody with a wrong token");
                let has_right = match right {
                    Right::Anyone | Right::Person => true,
                    Right::Reader => matches!(*user, "auditor" | "admin"),
                    Right::Admin => *user == "admin",
                };
                let fine = match () {
                    () if *right == Right::Anyone => status == 200,
                    () if !proved => status == 401,
                    () if !has_right => status == 403,
                    () => status != 401 && (*right == Right::Person || status != 403),
                };
                let described = &operation["responses"][status.to_string()];
                asked += 1;
                if !fine || described.is_null() || status >= 500 {
                    wrong.push(format!("{method} {path} for {user}: {answer}"));
                }
            }
        }
    }
    assert!(asked > 180, "{asked} questions");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
