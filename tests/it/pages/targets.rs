//! What the page of targets, and the API, say of masks and row filters.

use std::process::Command;

use serde_json::Value;

use super::{Browser, start};
use crate::approval::ask_with;
use crate::support::client::{Client, Database, clients_folder, transcript, venv};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::App;

const MASKS: &str = r#"
[[mask]]
name = "pay"
targets = ["orders"]
columns = ["public.staff.pay", "*.<b>salary</b>"]
with = "bucket"
step = 1000
unless_groups = ["dba", "<i>pay</i>"]

[[mask]]
name = "joined"
targets = ["orders"]
columns = ["public.staff.email"]
with = "hash"

[[mask]]
name = "late"
targets = ["orders"]
columns = ["public.staff.note"]
patterns = ["email"]
enforce = "output"

[[mask]]
name = "gone"
targets = ["orders"]
columns = ["public.staff.none"]

[[mask]]
name = "closed"
targets = ["orders"]
columns = ["public.staff.closed"]

[[mask]]
name = "cards"
patterns = ["credit-card"]
fields = ["**.card"]
with = "partial"

[[rows]]
name = "own-<u>tenant</u>"
targets = ["orders"]
table = "public.staff"
where = "tenant = {claim.tenant} AND name <> '<script>'"
unless_groups = ["dba"]
"#;

/// Its owner, who is the gateway's role, may read all but one column.
const TABLE: &str = "create table staff (tenant text, name text, pay int, email text, note text, \
    closed text); revoke select on staff from current_user; \
    grant select (tenant, name, pay, email, note) on staff to current_user";

const ACCESS: &str = "\n[[access]]\ngroups = [\"dba\"]\ntargets = [\"orders\"]\n";

fn target(gateway: &Gateway, token: &str, name: &str) -> Value {
    let (status, told) = ask_with(gateway, token, "GET", "/targets", "");
    assert_eq!(status, 200, "{told}");
    let items = told["items"].as_array().unwrap();
    items.iter().find(|item| item["name"] == name).cloned().unwrap_or_default()
}

fn acts(target: &Value) -> Vec<&str> {
    target["masks"].as_array().unwrap().iter().map(|mask| mask["acts"].as_str().unwrap()).collect()
}

/// What only the catalog tells is said once a session had it read, and no look reads it.
#[test]
fn the_page_of_targets_says_what_is_masked_and_filtered_and_for_whom() {
    let database = Database::fresh();
    let mut psql = database.client().psql();
    psql.args(["-c", TABLE]);
    assert!(transcript(psql).0);
    let app = App::start();
    let gateway = start(Setup {
        listen: "http = \"127.0.0.1:0\"".to_owned(),
        policy: [&app.target("crew", ""), MASKS, ACCESS].concat(),
        ..Setup::for_targets([database.target("orders")])
    });
    let (agent, anna) = (gateway.issuer().token("agent"), gateway.issuer().token("anna"));
    let orders = target(&gateway, &agent, "orders");
    let unknown = "before the server computes, where the server has the functions of policy harden \
                   --functions, else on the output";
    let source = "before the server computes";
    assert_eq!(
        acts(&orders),
        [
            source,
            unknown,
            "columns on the output only; patterns on the output",
            source,
            source,
            "on the output"
        ]
    );
    assert_eq!(orders["access"], "standing");
    assert!(orders.get("catalog_read_at").is_none(), "{orders}");
    assert_eq!(orders["masks"][0]["with"], "bucket 1000");
    assert!(orders["masks"][0].get("role_cannot_read").is_none(), "{orders}");
    assert_eq!(orders["masks"][5]["fields"], Value::Array(Vec::new()), "a database has no fields");
    assert_eq!(
        (&orders["rows"][0]["acts"], &orders["rows"][0]["lacking"]),
        (&true.into(), &"the claim \"tenant\"".into())
    );
    let dba = target(&gateway, &anna, "orders");
    let of_dba = (&dba["masks"][0]["lifted"], &dba["masks"][1]["lifted"], &dba["rows"][0]["acts"]);
    assert_eq!(of_dba, (&true.into(), &false.into(), &false.into()));
    let crew = target(&gateway, &agent, "crew");
    assert_eq!(crew["masks"].as_array().unwrap().len(), 1, "{crew}");
    assert_eq!(crew["masks"][0]["fields"][0], "**.card");
    assert_eq!((acts(&crew), &crew["rows"]), (vec!["on the output"], &Value::Array(Vec::new())));

    let auditor = target(&gateway, &gateway.issuer().token("auditor"), "orders");
    assert_eq!((&auditor["access"], acts(&auditor).len()), (&Value::Null, 6));
    assert_eq!(target(&gateway, &anna, "crew"), Value::Null);

    let mut psql = Client::new(gateway.address().port(), "orders", "anna", &anna).psql();
    psql.args(["-c", "select pay from staff"]);
    let (done, told) = transcript(psql);
    assert!(done, "{told}");
    let orders = target(&gateway, &agent, "orders");
    let lacks = "on the output: the server lacks the functions of policy harden --functions";
    let gone = "nowhere: the catalog has no such column";
    assert_eq!(
        acts(&orders),
        [
            source,
            lacks,
            "columns on the output only; patterns on the output",
            gone,
            source,
            "on the output"
        ]
    );
    assert!(orders["catalog_read_at"].is_string(), "{orders}");
    let role = |at: usize| &orders["masks"][at]["role_cannot_read"];
    assert_eq!((role(0), role(4), role(5)), (&false.into(), &true.into(), &Value::Null));

    let page = Browser::logged_in(&gateway, "sam").get("/targets").body;
    for wanted in [
        "6 masks, 1 row filter",
        "bucket 1000",
        "before the server computes; the gateway's role cannot read it either",
        "*.&#60;b&#62;salary&#60;/b&#62;",
        "dba, &#60;i&#62;pay&#60;/i&#62;; what is stored stays masked",
        lacks,
        "own-&#60;u&#62;tenant&#60;/u&#62;",
        "name &#60;&#62; &#39;&#60;script&#62;&#39;",
        "everybody, not for dba",
        "you lack the claim &#34;tenant&#34;",
        "catalog was read at",
    ] {
        assert!(page.contains(wanted), "{wanted} in {page}");
    }
    assert!(!page.contains("lifted for you") && !page.contains("not for you"), "{page}");
    let page = Browser::logged_in(&gateway, "dora").get("/targets").body;
    assert!(page.contains("lifted for you") && page.contains("not for you"), "{page}");

    let mut browser = Command::new(venv().join("bin/python"));
    browser.arg("-B").arg(clients_folder().join("targets_page.py"));
    browser.arg(format!("http://{}", gateway.web()));
    let (done, said) = transcript(browser);
    assert!(done, "{said}");
    assert!(gateway.stop().success());
}
