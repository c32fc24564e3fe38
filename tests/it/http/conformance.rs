//! HTTP/2 frame by frame (RFC 9113, RFC 7541): what a server must refuse, how, and what it must take.

use std::net::TcpListener;

use crate::support::gateway::told;
use crate::support::http::{App, Caller, gateway, target};

#[test]
fn every_rule_of_http2_holds_downstream() {
    let app = App::start();
    // Somebody who takes connections and never reads from them.
    let stalled = TcpListener::bind("127.0.0.1:0").unwrap();
    let stalled = format!("http://{}", stalled.local_addr().unwrap());
    let gateway =
        gateway(&format!("{}{}", app.target("crew", ""), target("stalled", &stalled, "")));
    let caller = Caller::of(&gateway);
    let output = caller.python("http2_conformance.py", &[]).output().unwrap();
    let told = told(&output);
    println!("{told}");
    assert!(output.status.success(), "{told}");
    let held = told.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(held >= 90, "{held} rules were tried: {told}");
    assert_eq!(caller.get("/crew/x").status, 200);
    for path in app.paths() {
        assert!(!path.contains("refused"), "{path} went up, and is malformed");
    }
    assert!(gateway.stop().success());
    gateway.verify_all();
}
