//! Clients as people write them, through the gateway.

use crate::support::http::{App, Caller, gateway};

const ADMIN: &str =
    "[[rule]]\nname = \"no-admin\"\nobjects = [\"path:/admin*\"]\nverdict = \"block\"\n";

fn runs(program: &str) {
    let app = App::start();
    let gateway = gateway(&format!("{}{ADMIN}", app.target("crew", "")));
    let output = Caller::of(&gateway).python(program, &[]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("ok"), "{told}{complaint}");
    assert!(gateway.stop().success());
    gateway.verify_all();
}

#[test]
fn requests_works_unchanged() {
    runs("http_requests.py");
}

#[test]
fn httpx_works_unchanged_over_http2_with_server_sent_events() {
    runs("http_httpx.py");
}
