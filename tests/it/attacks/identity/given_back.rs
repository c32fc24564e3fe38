//! What may open one session only is used up by a session that opened, and by nothing else.

use std::io::Read as _;
use std::net::TcpListener;

use crate::approval::{
    OpenSession, ask, ask_with, client_with, psql, setup, ticket, wait_for_state,
};
use crate::support::client::{Client, Database};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Gateway, Setup, Target};
use crate::support::http::{Caller, setup as http_setup, target};
use crate::support::ssh::{Site, Sshd};

/// A port at which nobody listens until somebody does.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Row A04, over Postgres.
pub fn row() {
    let database = Database::fresh();
    let gone = Target { port: free_port(), ..database.target("gone") };
    let gateway = Gateway::start(&Setup {
        server: "max_sessions = 1\n".to_owned(),
        targets: vec![database.target("orders"), gone],
        ..setup(&database)
    });
    wait_for_state(&gateway);
    // The gateway is full.
    let (_, secret) = ticket(&gateway, r#"{"target": "orders", "single_use": true}"#);
    let by_ticket = client_with(&gateway, "orders", &secret);
    let open = OpenSession::open(&gateway.client("orders"));
    for _ in 0..2 {
        let (ok, said) = psql(&by_ticket, "select 1");
        assert!(!ok && said.contains("no room for another session"), "{said}");
    }
    drop(open);
    let mut said = String::new();
    wait_until("the ticket to open its session", || {
        let (ok, now) = psql(&by_ticket, "select 1");
        said = now;
        assert!(ok || said.contains("no room"), "{said}");
        ok
    });
    // The room of a session that has ended is given back a moment later.
    let refused = |caller: &Client, why: &str| {
        wait_until("the refusal", || {
            let (ok, said) = psql(caller, "select 1");
            assert!(!ok && (said.contains(why) || said.contains("no room")), "{said}");
            said.contains(why)
        });
    };
    refused(&by_ticket, "access denied");

    // The target is not there.
    let (id, secret) = ticket(&gateway, r#"{"target": "gone", "single_use": true}"#);
    let by_ticket = client_with(&gateway, "gone", &secret);
    for _ in 0..3 {
        refused(&by_ticket, "cannot be reached");
        wait_until("the ticket to be given back", || {
            let (_, listed) = ask(&gateway, "agent", "GET", "/tickets", "");
            let of_id = |item: &&serde_json::Value| item["id"] == id.as_str();
            let shown = listed["items"].as_array().unwrap().iter().find(of_id).unwrap().clone();
            shown["used_at"].is_null()
        });
    }
}

#[test]
fn a_ticket_is_given_back_when_an_ssh_host_or_a_service_is_not_there() {
    let port = free_port();
    let sections =
        format!("{}\n{}", Sshd::shared().target("web-1", ""), crate::approval::elsewhere::groups())
            .replace(
                &format!("address = \"{}\"", Sshd::shared().address()),
                &format!("address = \"127.0.0.1:{port}\""),
            );
    let site = Site::set_up(&sections, Setup::default());
    wait_for_state(&site.gateway);
    let (id, secret) = ticket(&site.gateway, r#"{"target": "web-1", "single_use": true}"#);
    site.write("ticket", &secret);
    let unused = |gateway: &Gateway, id: &str| {
        let token = gateway.issuer().token("agent");
        let (_, listed) = ask_with(gateway, &token, "GET", "/tickets", "");
        let items = listed["items"].as_array().unwrap().clone();
        items.iter().any(|item| item["id"] == id && item["used_at"].is_null())
    };
    for _ in 0..2 {
        let mut ssh = site.ssh_with_password("web-1", &site.path("ticket"));
        let output = ssh.arg("true").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("cannot be reached"), "{said}");
        wait_until("the ticket to be given back", || unused(&site.gateway, &id));
    }
    site.finish();

    let port = free_port();
    let sections = format!(
        "web = \"127.0.0.1:0\"\n{}\n{}",
        crate::approval::elsewhere::groups(),
        target("crew", &format!("http://127.0.0.1:{port}"), "")
    );
    let gateway = Gateway::start(&http_setup(&sections));
    wait_for_state(&gateway);
    let (id, secret) = ticket(&gateway, r#"{"target": "crew", "single_use": true}"#);
    let caller = Caller { address: gateway.daemon().address_of("http"), token: secret };
    for _ in 0..2 {
        assert_eq!(caller.get("/crew/x").status, 502);
        wait_until("the ticket to be given back", || unused(&gateway, &id));
    }
    // When it is there, the ticket opens its session.
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            let _request = stream.read(&mut buffer);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
            let _gone = std::io::Write::write_all(&mut stream, answer);
        }
    });
    assert_eq!(caller.get("/crew/x").status, 200);
    assert!(!unused(&gateway, &id));
    assert!(gateway.stop().success());
}
