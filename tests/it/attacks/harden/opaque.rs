//! Code, and data under another name: refused where masks or rules apply that it could bypass.

use crate::masking::{MASKS, Masked, SENTINELS};
use crate::support::client::Database;
use crate::support::gateway::{Gateway, Setup, portcullis, told};
use crate::support::postgres::PostgresServer;
use crate::support::talk::{Talk, bind, execute, parse, query, run, sync};

const HELD: &str = r#"
[[rule]]
name = "changes-need-a-human"
actions = ["sql.update", "sql.delete"]
verdict = "approve"
approvers = ["approvers"]
timeout = "1s"
"#;

fn refused(said: &str) -> bool {
    said.contains("What it leads to cannot be checked")
}

/// Code that runs at once, as a DO block that holds `statement` does.
fn running(statement: &str) -> Vec<String> {
    vec![
        format!("do $$begin {statement}; end$$"),
        format!("create procedure p() language sql as $$ {statement} $$; call p()"),
        format!(
            "create function pg_temp.f() returns void language plpgsql as $$begin {statement}; end$$"
        ),
        format!(
            "explain analyze create table t as select query_to_xml($${statement}$$, true, true, '')"
        ),
        format!("begin; do $$begin execute '{}'; end$$; commit", statement.replace('\'', "''")),
        "call total_of_everything(1)".to_owned(),
    ]
}

pub fn opaque_code_does_not_reach_masked_columns() {
    let masked = Masked::new(MASKS);
    let keeps = "perform set_config('my.x', (select ssn from customers limit 1), false)";
    for statement in running(keeps) {
        let said = masked.shows_nothing(&format!("{statement}; select current_setting('my.x')"));
        let refused = refused(&said)
            || said.contains("could not be understood")
            || said.contains("ERROR:  what a function of the database's own gives");
        assert!(refused, "{statement}\n{said}");
    }
    // Nor does what runs later, or by itself.
    for statement in [
        "create function pg_temp.f(text) returns text language sql as 'select $1'",
        "create aggregate pg_temp.all_of(text) (sfunc = textcat, stype = text)",
        "create operator ### (leftarg = text, rightarg = text, function = textcat)",
        "create cast (customers as text) with inout",
        "create trigger t after insert on orders for each row execute function suppress_redundant_updates_trigger()",
        "create rule r as on insert to orders do also select ssn from customers",
        "create policy p on orders using (true)",
        "create event trigger e on ddl_command_end execute function suppress_redundant_updates_trigger()",
        "alter function get_contact(int) rename to lower",
        "create extension dblink",
        "create language plsample handler plpgsql_call_handler",
        "create foreign table elsewhere (ssn text) server loop",
        "import foreign schema public from server loop into public",
        "load 'plpgsql'",
    ] {
        let said = masked.shows_nothing(statement);
        assert!(refused(&said) || masks_refuse(&said), "{statement}\n{said}");
    }
    // What shows all that it does goes on.
    for statement in
        ["create table plain (id int)", "select count(*) from customers", "drop table plain"]
    {
        assert!(!masked.says(statement).contains("ERROR"), "{statement}");
    }
    masked.finish(SENTINELS);
}

struct Site {
    database: Database,
    gateway: Gateway,
}

impl Site {
    fn new(policy: &str) -> Self {
        let database = Database::fresh();
        let server = &PostgresServer::shared().server;
        server.psql(
            &database.name,
            "create table public.t (i int, note text); insert into t values (1, ''), (2, ''); \
             grant all on t to public; create function public.one() returns int language sql as 'select 1'",
        );
        let policy = policy.to_owned();
        let gateway =
            Gateway::start(&Setup { policy, ..Setup::for_targets([database.target("orders")]) });
        Self { database, gateway }
    }

    fn talk(&self) -> Talk {
        let token = self.gateway.issuer().token("agent");
        Talk::opened(self.gateway.address(), "agent", "orders", &token)
    }

    fn changed(&self) -> String {
        let server = &PostgresServer::shared().server;
        server
            .psql(&self.database.name, "select count(*) from t where note <> ''")
            .trim()
            .to_owned()
    }
}

pub fn opaque_code_does_not_reach_held_actions() {
    let site = Site::new(HELD);
    let mut talk = site.talk();
    for statement in running("update t set note = 'x'") {
        let said = talk.ask(&[query(&statement)]);
        let refused = refused(&said[0]) || said[0].contains("could not be understood");
        assert!(refused && said[0].starts_with("E[42501"), "{statement}\n{said:?}");
        assert_eq!(said.last().unwrap(), "ZI", "{said:?}");
    }
    let block = "do $$begin update t set note = 'x'; end$$";
    let said = talk.ask(&[run(block), sync()]);
    assert!(refused(&said[0]), "{said:?}");
    let said = talk.ask(&[parse("p", block), bind("", "p", &[]), execute(""), sync()]);
    assert!(refused(&said[0]), "{said:?}");
    // An existing function is the database's own, and calling it is an effect that rules see.
    assert_eq!(talk.ask(&[query("select one()")])[1], "D[1]");
    assert_eq!(site.changed(), "0");
    // A table under another name is another one to rules.
    for statement in [
        "alter table t rename to u",
        "alter table t rename note to other",
        "alter table t set schema pg_temp",
        "alter schema public rename to private",
        "alter table t alter note type text using upper(note)",
        "alter table t add more text generated always as (note) stored",
        "create table above (i int, note text); alter table t inherit above",
    ] {
        assert!(refused(&talk.ask(&[query(statement)])[0]), "{statement}");
    }
    assert!(site.gateway.stop().success());
    site.gateway.verify_all();
}

#[test]
fn a_rule_allows_opaque_code_by_name_to_a_group() {
    let allow = |actions: &str, more: &str| {
        format!(
            "{HELD}[[rule]]\nname = \"code\"\nactions = [{actions}]\n{more}\nverdict = \"allow\"\n"
        )
    };
    let block = "do $$begin update t set note = 'x'; end$$";
    let create = "create function pg_temp.f() returns int language sql as 'select 1'";
    for (policy, command, passes) in [
        (allow("\"sql.do\"", "groups = [\"agents\"]"), block, true),
        (allow("\"sql.do\"", "groups = [\"dba\"]"), block, false),
        // No name for it.
        (allow("\"sql.*\"", "groups = [\"agents\"]"), block, false),
        (allow("\"sql.create\"", "groups = [\"agents\"]"), create, false),
        (
            allow("\"sql.create\"", "groups = [\"agents\"]\nobjects = [\"function:*\"]"),
            create,
            true,
        ),
    ] {
        let site = Site::new(&policy);
        let said = site.talk().ask(&[query(command)]);
        assert_eq!(!refused(&said[0]), passes, "{policy}\n{said:?}");
        assert_eq!(said[0].starts_with("C["), passes, "{policy}\n{said:?}");
    }
    // Without a rule or a mask nothing could be bypassed.
    let open = Site::new("");
    assert_eq!(open.talk().ask(&[query(block)])[0], "C[DO]");
    assert_eq!(open.changed(), "2");
    // Somebody who looks at it decides, where a rule asks for that.
    let asked = Site::new(&format!(
        "{HELD}{}",
        HELD.replace("human\"", "reader\"").replace("sql.update\", \"sql.delete", "sql.do")
    ));
    let said = asked.talk().ask(&[query(block)]);
    assert!(said.iter().any(|line| line.contains("approv")), "{said:?}");
}

#[test]
fn policy_tools_say_what_opaque_code_meets() {
    let rule = |groups: &str| {
        format!("[[rule]]\nname = \"code\"\n{groups}actions = [\"sql.do\"]\nverdict = \"allow\"\n")
    };
    let test = r#"
[[test]]
identity = { user = "agent", groups = ["agents"] }
target = "orders"
command = "do $$begin null; end$$"
expect = "block"
rule = "changes-need-a-human"
"#;
    let closed = Site::new(&format!("{HELD}{test}"));
    let file = closed.gateway.configuration();
    let file = file.to_str().unwrap();
    let checked = portcullis(&["check", "--config", file]);
    assert!(checked.status.success(), "{}", told(&checked));
    assert!(!told(&checked).contains("cannot be checked"), "{}", told(&checked));
    let explain = ["policy", "explain", "--config", file, "--target", "orders", "call p()"];
    let explained = told(&portcullis(&explain));
    assert!(explained.starts_with("block by changes-need-a-human"), "{explained}");
    for part in ["actions = [\"sql.call\"]", "opaque: "] {
        assert!(explained.contains(part), "{explained}");
    }

    // What opens it to everybody is warned of, with what to add.
    for (groups, warned) in
        [("", true), ("groups = [\"*\"]\n", true), ("groups = [\"dba\"]\n", false)]
    {
        let open = Site::new(&format!("{HELD}{}", rule(groups)));
        let checked =
            portcullis(&["check", "--config", open.gateway.configuration().to_str().unwrap()]);
        let said = told(&checked);
        assert_eq!(said.contains("everybody may use sql.do on orders"), warned, "{said}");
        assert_eq!(said.contains("groups = [\"dba\"]"), warned, "{said}");
    }
}

pub fn a_function_that_a_session_makes_hides_none_of_the_servers() {
    let masked = Masked::new(MASKS);
    for name in ["pg_temp.lower(int)", "pg_temp.count(int)", "upper(int)", "pg_temp.to_json(int)"] {
        let function = name.split('(').next().unwrap();
        let said = masked.shows_nothing(&format!(
            "begin; create function {name} returns text language sql as \
             'select string_agg(ssn, '','') from public.customers'; select {function}(1)"
        ));
        assert!(refused(&said), "{said}");
    }
    // One that is there already counts by its name, wherever it is.
    let shadow = "create schema shadow; create function shadow.lower(int) returns text language sql \
                  as 'select string_agg(ssn, '','') from public.customers'";
    crate::masking::run(&masked.database.client(), shadow);
    for statement in
        ["select shadow.lower(1)", "set search_path = shadow, public, pg_catalog; select lower(1)"]
    {
        masked.shows_nothing(statement);
    }
    masked.finish(SENTINELS);
}

pub fn a_masked_table_stays_where_masks_find_it() {
    let masked = Masked::new(MASKS);
    let allowed = format!(
        "{MASKS}[[rule]]\nname = \"owners\"\nactions = [\"sql.alter\"]\n\
         objects = [\"table:*\", \"column:*\", \"schema:*\"]\nverdict = \"allow\"\n"
    );
    let open = Masked::new(&allowed);
    for statements in [
        "alter table cust_child no inherit customers; select email, ssn from cust_child",
        "begin; alter table people detach partition people_p1; select email from people_p1",
        "begin; alter table customers alter note type text using ssn; select note from customers",
        "begin; create table above (id int, name text, email text, ssn text, card_number varchar(19), \
         birth_year int, phone text, note text); alter table customers inherit above; select * from above",
        "begin; alter table customers rename ssn to harmless; select harmless from customers",
        "alter table customers rename to harmless; select email from harmless",
        "begin; alter table customers add shown text generated always as (ssn) stored; \
         select shown from customers",
        "create schema other; alter table customers set schema other; select email from other.customers",
    ] {
        let said = masked.shows_nothing(statements);
        assert!(refused(&said) || masks_refuse(&said), "{statements}\n{said}");
        // A rule that allows it does not lift masks.
        let said = open.shows_nothing(statements);
        assert!(masks_refuse(&said), "{statements}\n{said}");
    }
    // Other tables are not concerned.
    let said = open.says("alter table vendors rename to sellers");
    assert!(!said.contains("ERROR"), "{said}");
    masked.finish(SENTINELS);
    open.finish(SENTINELS);
}

fn masks_refuse(said: &str) -> bool {
    ["ERROR:  masked columns", "ERROR:  tables with masked columns"]
        .iter()
        .any(|words| said.contains(words))
}

pub fn a_text_that_is_not_understood_is_refused_where_columns_are_masked() {
    for rules in [
        "[policy]\nunparsed = \"allow\"\n",
        "[[rule]]\nname = \"open\"\nactions = [\"sql.unparsed\"]\nverdict = \"allow\"\n",
        "[policy]\nunparsed = \"allow\"\n[[rule]]\nname = \"open\"\nactions = [\"sql.unparsed\"]\n\
         groups = [\"agents\"]\nverdict = \"allow\"\n",
    ] {
        let masked = Masked::new(&format!("{rules}{MASKS}"));
        // Deeper than the grammar's stack.
        let nested = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
        let long = format!("{}email{}", "(".repeat(20_000), ")".repeat(20_000));
        for statement in [
            format!("create temp table loot as select ssn, {nested} from customers"),
            format!("create temp table loot as select {long} as x from customers"),
            "fetch all from nobody_made_it".to_owned(),
        ] {
            let said = masked.shows_nothing(&format!("{statement}; select * from loot"));
            assert!(said.contains("ERROR"), "{said}");
        }
        masked.finish(SENTINELS);
    }
}
