//! Rules tried on what was recorded, and what the targets' catalogs say of masks there.

use serde_json::{Value, json};

use super::{Browser, start};
use crate::approval::ask_with;
use crate::support::client::{Database, transcript};
use crate::support::daemon::wait_until;
use crate::support::gateway::Setup;
use crate::support::talk::{Talk, query};

const MASKS: &str = r#"
[[mask]]
name = "mails"
columns = ["public.t.email"]

[[mask]]
name = "numbers"
columns = ["public.v.number"]

[[rows]]
name = "own-tenant"
table = "public.u"
where = "tenant = {claim.tenant}"
unless_groups = ["support-agents"]
"#;

const TABLES: &str = "create table t (i int, email text); create table u (tenant text); \
                      create table v (number text)";

#[test]
fn a_try_asks_the_catalogs_what_masks_do_where_that_is_chosen() {
    let database = Database::fresh();
    let mut psql = database.client().psql();
    psql.args(["-c", TABLES]);
    assert!(transcript(psql).0);
    let gateway = start(Setup {
        policy: MASKS.to_owned(),
        ..Setup::for_targets([database.target("orders")])
    });
    let (agent, auditor) = (gateway.issuer().token("agent"), gateway.issuer().token("auditor"));
    let mut talk = Talk::opened(gateway.address(), "agent", "orders", &agent);
    talk.ask(&[query("select 1")]);
    talk.ask(&[query("select email from t")]);
    talk.ask(&[query("create view w as select email from t")]);
    drop(talk);
    let try_out =
        |body: Value| ask_with(&gateway, &auditor, "POST", "/policy/backtest", &body.to_string());
    wait_until("the commands in the recording", || try_out(json!({})).1["commands"] == 3);

    let (status, offline) = try_out(json!({}));
    assert_eq!((status, offline.get("masks"), offline.get("unreachable")), (200, None, None));
    let (status, online) = try_out(json!({ "online": true }));
    assert_eq!((status, &online["unreachable"]), (200, &json!([])), "{online}");
    let masks = &online["masks"];
    assert_eq!((&masks["same"], &masks["instead"]["count"]), (&json!(1), &json!(1)), "{masks}");
    assert!(masks["instead"]["sent"].as_str().unwrap().contains("[masked]"), "{masks}");
    // It names what is concerned, and nothing else that acts on the caller.
    let [refused] = &masks["refused"].as_array().unwrap()[..] else { panic!("{masks}") };
    assert_eq!((&refused["by"], &refused["before"]), (&json!(["mails"]), &json!(1)), "{masks}");

    let mut browser = Browser::logged_in(&gateway, "audrey");
    let page = browser.post("/policy/draft", "draft=&days=1&online=1").body;
    for words in ["checked", "Answered otherwise", "[masked]", "<td>mails</td>", "would be stored"]
    {
        assert!(page.contains(words), "{words} in {page}");
    }
    let page = browser.post("/policy/draft", "draft=&days=1").body;
    assert!(!page.contains("Answered otherwise") && !page.contains("checked"), "{page}");
}
