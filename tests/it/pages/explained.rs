//! What the page of rules, and the API, say of a command that masks or row filters refuse.

use serde_json::{Value, json};

use super::{Browser, start};
use crate::approval::ask_with;
use crate::support::client::{Database, transcript};
use crate::support::gateway::{Setup, Target};

const HIDDEN: &str = r#"
[[mask]]
name = "mails"
columns = ["public.t.email"]

[[rows]]
name = "own-tenant"
table = "public.invoices"
where = "tenant = {claim.tenant}"

[[rule]]
name = "no-deletes"
actions = ["sql.delete"]
verdict = "block"
"#;

const TABLES: &str = "create table t (i int, email text); create table invoices (tenant text, total int); \
                      create view sums as select sum(total) from invoices; create table plain (i int)";

#[test]
fn an_explanation_takes_masks_and_row_filters_into_account() {
    let database = Database::fresh();
    let mut psql = database.client().psql();
    psql.args(["-c", TABLES]);
    assert!(transcript(psql).0);
    let gone = Target { name: "gone".to_owned(), port: 1, ..database.target("orders") };
    let gateway = start(Setup {
        policy: HIDDEN.to_owned(),
        ..Setup::for_targets([database.target("orders"), gone])
    });
    let (agent, auditor) = (gateway.issuer().token("agent"), gateway.issuer().token("auditor"));
    let explain = |token: &str, more: Value, command: &str| {
        let mut body = json!({ "target": "orders", "command": command });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask_with(&gateway, token, "POST", "/policy/explain", &body.to_string())
    };
    let told = |token: &str, more: Value, command: &str| {
        let (status, told) = explain(token, more, command);
        assert_eq!(status, 200, "{told}");
        told
    };
    let (nothing, online) = (json!({}), json!({ "online": true }));

    // What the text says without the catalog.
    let sums = "select total from invoices";
    let refused = told(&agent, nothing.clone(), sums);
    assert_eq!(
        (&refused["outcome"], &refused["decision"]["verdict"]),
        (&json!("refused"), &json!("allow"))
    );
    assert_eq!(refused["refused_by"], json!(["own-tenant"]), "{refused}");
    let because = refused["because"].as_str().unwrap();
    assert!(because.contains("needs the claim tenant"), "{refused}");
    assert_eq!((&refused["rows"][0]["rows"], refused.get("sent")), (&json!("own-tenant"), None));
    let emptied = told(&auditor, json!({ "claims": { "tenant": "acme" } }), "truncate invoices");
    assert_eq!(emptied["outcome"], "refused", "{emptied}");
    for command in ["create view w as select email from t", "select * from sums", "table plain"] {
        let told = told(&agent, nothing.clone(), command);
        assert_eq!(told["outcome"], "undecided", "{told}");
        assert!(told["because"].as_str().unwrap().contains("catalog"), "{told}");
    }
    let blocked = told(&agent, online.clone(), "delete from invoices");
    assert_eq!((&blocked["outcome"], blocked.get("sent")), (&json!("block"), None), "{blocked}");

    // What the catalog says.
    let stored = told(&agent, online.clone(), "create view w as select email from t");
    assert_eq!((&stored["outcome"], &stored["refused_by"]), (&json!("refused"), &json!(["mails"])));
    let by_view = told(&agent, online.clone(), "select * from sums");
    assert_eq!(by_view["refused_by"], json!(["own-tenant"]), "{by_view}");
    let plain = told(&agent, online.clone(), "table plain");
    assert_eq!((&plain["outcome"], &plain["sent"]), (&json!("allow"), &json!("same")), "{plain}");
    let acme = json!({ "online": true, "claims": { "tenant": "acme" } });
    let own = told(&auditor, acme.clone(), sums);
    let sent = own["sent"]["instead"].as_str().unwrap();
    assert!(own["outcome"] == "allow" && sent.contains("'acme'"), "{own}");

    assert_eq!(explain(&agent, acme, sums).0, 403, "claims of others are for auditors");
    let gone = json!({ "target": "gone", "command": sums, "claims": { "tenant": "acme" }, "online": true });
    let (status, told) = ask_with(&gateway, &auditor, "POST", "/policy/explain", &gone.to_string());
    assert_eq!((status, &told["title"]), (503, &json!("the target's catalog cannot be read now")));

    let mut browser = Browser::logged_in(&gateway, "audrey");
    let mut page = |more: &str| {
        let ask = "/policy?target=orders&command=select+total+from+invoices";
        browser.get(&format!("{ask}{more}")).body
    };
    for (more, words) in [
        (
            "",
            [
                "<span class=\"verdict block\">refused</span> by own-tenant",
                "needs the claim tenant",
            ],
        ),
        (
            "&claims=tenant%3Dacme",
            ["By the rules alone: <span class=\"verdict allow\">allow", "only the target"],
        ),
        (
            "&claims=tenant%3Dacme&online=1",
            ["It goes to the server as <code>", "rows own-tenant: of public.invoices"],
        ),
    ] {
        let page = page(more);
        assert!(words.iter().all(|words| page.contains(words)), "{words:?} in {page}");
    }
    assert!(page("&claims=tenant").contains("NAME=VALUE"), "what is no claim is told");
}
