//! The commands about the configuration, as typed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use portcullis::config::{self, Mistakes};
use portcullis::web::admin::{AdminSocket, FILE_NAME, Reloaded, routes};
use tokio_util::sync::CancellationToken;

const RIGHT: &str = "[server]\ndata_dir = \".\"\n[[issuer]]\nname = \"dev\"\nurl = \"http://127.0.0.1:9100\"\naudiences = [\"portcullis\"]\n";

fn portcullis(arguments: &[&str], config: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .env("PORTCULLIS_CONFIG", config)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_tells_right_from_wrong_by_exit_code_and_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, RIGHT).unwrap();
    let done = portcullis(&["check"], &path);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("portcullis.toml is right: issuers 1, targets 0"));
    assert!(text(&done.stdout).contains("warning: "));

    let web = "[listen]\nweb = \"127.0.0.1:0\"\n[web]\npublic_url = \"http://127.0.0.1:1\"\n";
    fs::write(&path, format!("{RIGHT}{web}")).unwrap();
    let done = portcullis(&["check"], &path);
    let place = "portcullis.toml:9:1: [web] names no auditors and no admins";
    assert!(text(&done.stdout).contains(place), "{}", text(&done.stdout));

    fs::write(&path, RIGHT.replace("audiences", "audience")).unwrap();
    let done = portcullis(&["check"], Path::new("/no/such"));
    assert_eq!(done.status.code(), Some(2));
    let done = portcullis(&["check", "--config", path.to_str().unwrap()], Path::new("/no/such"));
    assert_eq!(done.status.code(), Some(2));
    assert_eq!(text(&done.stdout), "");
    let place =
        format!("{}:6:1: unknown key \"audience\" in [[issuer]]\n  did you mean", path.display());
    assert!(text(&done.stderr).contains(&place), "{}", text(&done.stderr));

    let done = portcullis(&["check", "--json"], &path);
    assert_eq!(done.status.code(), Some(2));
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found[1]["severity"], "mistake");
    assert_eq!((&found[1]["line"], &found[1]["column"]), (&6.into(), &1.into()));
    assert_eq!(found[1]["hint"], "did you mean \"audiences\"?");
}

#[test]
fn what_is_neither_an_id_nor_a_file_is_said_to_be_neither() {
    let nowhere = Path::new("/no/such");
    for command in [&["replay", "junk"][..], &["recording", "export", "junk", "--format", "csv"]] {
        let done = portcullis(command, nowhere);
        assert_eq!(done.status.code(), Some(1));
        let said = text(&done.stderr);
        assert_eq!(said, "portcullis: junk is neither a session's id nor a file\n");
    }
    let said = portcullis(&["replay", "/no/such.rec"], nowhere);
    let said = text(&said.stderr);
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let nowhere = Path::new("/no/such");
    assert_eq!(portcullis(&["chekc"], nowhere).status.code(), Some(2));
    assert_eq!(portcullis(&["check", "--log", "a=b=c"], nowhere).status.code(), Some(2));
    for command in ["serve", "check", "reload", "schema", "completions", "man"] {
        let help = portcullis(&[command, "--help"], nowhere);
        assert_eq!(help.status.code(), Some(0));
        assert!(text(&help.stdout).contains("Example:\n  portcullis "), "{}", text(&help.stdout));
    }
    let script = portcullis(&["completions", "bash"], nowhere);
    assert!(text(&script.stdout).contains("_portcullis()"));
}

#[test]
fn the_schema_is_printed_for_an_editor() {
    let printed = portcullis(&["schema"], Path::new("/no/such"));
    assert_eq!(printed.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(schema, config::schema());
}

/// A page for every command, which has each of its options.
#[test]
fn manual_pages_have_every_command_with_its_options() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let nowhere = Path::new("/no/such");
    for _twice in 0..2 {
        let done = portcullis(&["man", folder.to_str().unwrap()], nowhere);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    }
    let (mut commands, mut options) = (vec![Vec::<String>::new()], 0);
    let mut pages = 0;
    while let Some(command) = commands.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = portcullis(&words, nowhere);
        let name = [&["portcullis".to_owned()][..], &command].concat().join("-");
        let page =
            fs::read_to_string(folder.join(format!("{name}.1"))).unwrap().replace("\\-", "-");
        pages += 1;
        let version = concat!("portcullis ", env!("CARGO_PKG_VERSION"));
        assert!(page.contains(version), "{name}.1 has no version:\n{page}");
        for variable in text(&help.stdout).split("[env: ").skip(1) {
            let variable = variable.split('=').next().unwrap();
            assert!(page.contains(variable), "{name}.1 lacks {variable}:\n{page}");
        }
        let mut is_command = false;
        for line in text(&help.stdout).lines() {
            if !line.starts_with(' ') {
                is_command = line == "Commands:";
            } else if is_command && line.starts_with("  ") && !line.starts_with("   ") {
                let sub = line.split_whitespace().next().unwrap();
                if sub != "help" {
                    commands.push([&command[..], &[sub.to_owned()]].concat());
                }
            } else if line.trim_start().starts_with('-') {
                for option in line.split([' ', ',']).filter(|word| word.starts_with("--")) {
                    options += 1;
                    assert!(page.contains(option), "{name}.1 lacks {option}:\n{page}");
                }
            }
        }
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), pages);
    assert!(pages > 50 && options > 300, "{pages} pages, {options} options");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let done = portcullis(&["man", file.to_str().unwrap()], nowhere);
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    let place = format!("portcullis: cannot write manual pages into {}: ", file.display());
    assert!(said.starts_with(&place), "{said}");
}

#[test]
fn reload_says_when_no_gateway_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, RIGHT).unwrap();
    let done = portcullis(&["reload"], &path);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("no gateway runs here"), "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_has_the_gateway_decide_about_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, RIGHT).unwrap();
    let before = config::load(&path).unwrap();
    let file = path.clone();
    let reload = move || -> Result<Reloaded, Mistakes> {
        let new = config::load(&file)?;
        let needs_restart = before.needs_restart(&new).into_iter().map(str::to_owned).collect();
        Ok(Reloaded { needs_restart, warnings: new.warnings })
    };
    let socket = AdminSocket::bind(&dir.path().join(FILE_NAME)).await.unwrap();
    let cancel = CancellationToken::new();
    let asked = cancel.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let _stop = asked.drop_guard();
        fs::write(&path, format!("{RIGHT}[recording]\ndurability = \"disk\"")).unwrap();
        let done = portcullis(&["reload"], &path);
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        let said = text(&done.stdout);
        assert!(
            said.starts_with("the configuration is in force, but [recording] changed and need"),
            "{said}"
        );
        assert!(said.contains("\nwarning: "), "{said}");

        fs::write(&path, format!("{RIGHT}[recording]\ndurability = \"disc\"")).unwrap();
        let done = portcullis(&["reload"], &path);
        assert_eq!(done.status.code(), Some(1));
        let said = text(&done.stderr);
        assert!(said.contains("the old one stays in force"), "{said}");
        assert!(
            said.contains(
                "portcullis.toml:8:14: durability: unknown value \"disc\"\n  did you mean \"disk\"?"
            ),
            "{said}"
        );
    });
    let (served, asked) = tokio::join!(socket.serve(routes(reload), cancel), asking);
    served.unwrap();
    asked.unwrap();
}

const RULES: &str = r#"
[[target]]
name = "orders"
protocol = "postgres"
address = "127.0.0.1:5432"
database = "orders"
credential = { user = "orders", password = { env = "ORDERS_PASSWORD" } }

[[rule]]
name = "no-drop"
text = '(?i)\bdrop\b'
unless_groups = ["dba"]
verdict = "block"
reason = "Through a migration."

[[test]]
identity = { user = "crew-7", groups = ["support-agents"] }
target = "orders"
command = "drop table customers"
expect = "block"
rule = "no-drop"

[[test]]
identity = { groups = ["dba"] }
target = "orders"
command = "drop table customers"
expect = "EXPECTED"
"#;

#[test]
fn policy_tests_pass_or_say_what_came_instead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, format!("{RIGHT}{}", RULES.replace("EXPECTED", "allow"))).unwrap();
    let done = portcullis(&["policy", "test"], &path);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout), "policy tests passed: 2\n");
    assert!(text(&portcullis(&["check"], &path).stdout).contains("policy tests 2"));

    fs::write(&path, format!("{RIGHT}{}", RULES.replace("EXPECTED", "block"))).unwrap();
    for command in [&["policy", "test"][..], &["check"]] {
        let done = portcullis(command, &path);
        assert_eq!(done.status.code(), Some(1));
        let place = format!("{}:29:1: drop table customers: ", path.display());
        assert!(text(&done.stderr).contains(&place), "{}", text(&done.stderr));
        assert_eq!(text(&done.stderr).matches("portcullis.toml").count(), 1);
        let words = "expected block, got allow by the target's default";
        assert!(text(&done.stderr).contains(words), "{}", text(&done.stderr));
    }
    let done = portcullis(&["policy", "test", "--json"], &path);
    let tested: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&tested[0]["passed"], &tested[1]["passed"]), (&true.into(), &false.into()));
}

#[test]
fn policy_explain_says_which_rule_and_what_spares() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, format!("{RIGHT}{}", RULES.replace("EXPECTED", "allow"))).unwrap();
    let explain = |more: &[&str]| {
        let arguments = [&["policy", "explain", "--target", "orders"], more].concat();
        text(&portcullis(&arguments, &path).stdout).to_owned()
    };
    let blocked = explain(&["--group", "agents", "DROP TABLE t"]);
    assert!(blocked.starts_with("block by no-drop\n  reason: Through a migration.\n"), "{blocked}");
    assert!(blocked.contains("\n  no-drop (block) matches"), "{blocked}");
    let spared = explain(&["--group", "dba", "DROP TABLE t"]);
    assert!(spared.starts_with("allow by no rule; the default of orders is allow"), "{spared}");
    assert!(spared.contains("spared by: no-drop"), "{spared}");
    assert!(spared.contains("unless_groups: the caller is in dba"), "{spared}");
    let missed = explain(&["SELECT 1"]);
    assert!(missed.contains("does not match\n    text: "), "{missed}");
    let json: serde_json::Value = serde_json::from_str(&explain(&["--json", "drop"])).unwrap();
    assert_eq!(json["decision"]["rules"][0], "no-drop");

    let rule =
        "[[rule]]\nname = \"no-truncate\"\nactions = [\"sql.truncate\"]\nverdict = \"block\"\n";
    fs::write(&path, format!("{RIGHT}{}{rule}", RULES.replace("EXPECTED", "allow"))).unwrap();
    let misspelled = explain(&["selct 1"]);
    let why = "\n  not understood: syntax error at or near \"selct\", at character 1";
    assert!(misspelled.starts_with("block by no-truncate"), "{misspelled}");
    assert!(misspelled.contains(why), "{misspelled}");
    let might = "no-truncate (block) might concern it: so it is blocked";
    assert!(misspelled.contains(might), "{misspelled}");
    assert!(!misspelled.contains("no-truncate (block) does not match"), "{misspelled}");

    let unknown = portcullis(&["policy", "explain", "--target", "order", "x"], &path);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("there is no target order; there are orders"));
}

/// What sessions take into account the tools do too: with masked columns a text that cannot be read
/// is blocked, since it might be about them.
#[test]
fn explanations_and_tests_know_the_masks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    let mask = "[[mask]]\nname = \"pii\"\ncolumns = [\"*.ssn\"]\npatterns = [\"email\"]\n\
                unless_groups = [\"pii-readers\"]\n";
    let test = |group: &str, command: &str, expect: &str, masks: &str| {
        format!(
            "[[test]]\nidentity = {{ groups = [{group:?}] }}\ntarget = \"orders\"\n\
             command = {command:?}\nexpect = {expect:?}\nmasks = {masks}\n"
        )
    };
    let target = RULES.split_once("[[rule]]").unwrap().0;
    let write = |masks: &str, tests: &[String]| {
        fs::write(&path, format!("{RIGHT}{target}{masks}{}", tests.concat())).unwrap();
    };
    let right = [
        test("agents", "select 1", "allow", r#"["pii"]"#),
        test("pii-readers", "select 1", "allow", "[]"),
        test("agents", "selekt what", "block", r#"["pii"]"#),
    ];
    write(mask, &right);
    let done = portcullis(&["policy", "test"], &path);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let explain = |more: &[&str]| {
        let arguments = [&["policy", "explain", "--target", "orders"], more].concat();
        text(&portcullis(&arguments, &path).stdout).to_owned()
    };
    let told = explain(&["--group", "agents", "selekt what"]);
    assert!(told.starts_with("block"), "{told}");
    assert!(told.ends_with("mask pii: hides *.ssn, email\n"), "{told}");
    let told = explain(&["--group", "agents", "select id from people"]);
    assert!(told.starts_with("by the rules: allow by no rule"), "{told}");
    assert!(told.contains("\n  masks or row filters may refuse it; "), "{told}");
    let told = explain(&["--group", "pii-readers", "select id from people"]);
    assert!(told.starts_with("allow by no rule"), "{told}");
    let told = explain(&["--group", "pii-readers", "select 1"]);
    assert!(told.contains("from storage alone: the caller sees it"), "{told}");
    let json: serde_json::Value = serde_json::from_str(&explain(&["--json", "select 1"])).unwrap();
    assert_eq!(
        (&json["masks"][0]["mask"], &json["masks"][0]["lifted"]),
        (&"pii".into(), &false.into())
    );

    write("", &right);
    let done = portcullis(&["policy", "test"], &path);
    let said = text(&done.stderr);
    assert!(said.contains("masks: there is no [[mask]]"), "{said}");
    let other = target.replace("name = \"orders\"", "name = \"elsewhere\"");
    write(&format!("{other}{mask}targets = [\"elsewhere\"]\n"), &right);
    let done = portcullis(&["policy", "test"], &path);
    let said = text(&done.stderr);
    assert!(said.contains("expected pii to hide values from the caller, got no mask"), "{said}");
    assert!(said.contains("expected block, got allow"), "{said}");
}

#[test]
fn tests_name_the_row_filters_that_act_on_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    let filters = "[[rows]]\nname = \"own-tenant\"\ntable = \"public.invoices\"\n\
                   where = \"tenant_id = {claim.tenant}\"\nunless_groups = [\"billing\"]\n\
                   [[rows]]\nname = \"open\"\ntable = \"public.orders\"\nwhere = \"NOT closed\"\n";
    let target = RULES.split_once("[[rule]]").unwrap().0;
    let said = |command: &[&str], identity: &str, rows: &str| {
        let test = format!(
            "[[test]]\nidentity = {identity}\ntarget = \"orders\"\n\
             command = \"select 1\"\nexpect = \"allow\"\nrows = {rows}\n"
        );
        fs::write(&path, format!("{RIGHT}{target}{filters}{test}")).unwrap();
        let done = portcullis(command, &path);
        (done.status.code(), text(&done.stderr).to_owned())
    };
    let acme = "{ groups = [\"agents\"], claims = { tenant = \"acme\" } }";
    let both = r#"["open", "own-tenant"]"#;
    for command in [&["policy", "test"][..], &["check"]] {
        assert_eq!(said(command, acme, both), (Some(0), String::new()));
        assert_eq!(said(command, "{ groups = [\"billing\"] }", r#"["open"]"#).0, Some(0));
        for (identity, rows, words) in [
            (acme, "[]", "expected no row filter to act on the caller, got own-tenant, open"),
            (acme, r#"["open"]"#, "expected open to act on the caller, got own-tenant, open"),
            (
                "{ groups = [\"billing\"] }",
                both,
                "expected open, own-tenant to act on the caller, got open",
            ),
            (
                "{ groups = [\"agents\"] }",
                both,
                "the row filter own-tenant needs the claim tenant, which the identity lacks",
            ),
            (
                "{ claims = { tenant = [\"acme\", \"other\"] } }",
                both,
                "the row filter own-tenant needs the claim tenant as one text, number or boolean",
            ),
        ] {
            let (code, said) = said(command, identity, rows);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains(&format!("select 1: {words}")), "{said}");
        }
    }
}

/// Where a row filter would refuse a command, a test that expects it to run does not pass, whether it
/// names row filters or not.
#[test]
fn a_test_expects_nothing_that_a_row_filter_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    let filters = "[[rows]]\nname = \"own-tenant\"\ntable = \"public.invoices\"\n\
                   where = \"tenant_id = {claim.tenant}\"\nunless_groups = [\"billing\"]\n\
                   [[rule]]\nname = \"no-delete\"\nactions = [\"sql.delete\"]\nverdict = \"block\"\n";
    let target = RULES.split_once("[[rule]]").unwrap().0;
    let said = |identity: &str, statement: &str, expect: &str| {
        let test = format!(
            "[[test]]\nidentity = {identity}\ntarget = \"orders\"\ncommand = \"{statement}\"\n\
             expect = \"{expect}\"\n"
        );
        fs::write(&path, format!("{RIGHT}{target}{filters}{test}")).unwrap();
        let done = portcullis(&["policy", "test"], &path);
        let failed = (done.status.code() == Some(1)).then(|| text(&done.stderr).to_owned());
        assert_eq!(failed.is_none(), done.status.code() == Some(0));
        failed
    };
    let (nobody, acme) = ("{ groups = [\"agents\"] }", "{ claims = { tenant = \"acme\" } }");
    let (lacks, closed) =
        ("needs the claim tenant, which the identity lacks", "lets nobody do sql.");
    for (identity, statement, words) in [
        (nobody, "select total from public.invoices", lacks),
        (nobody, "select total from invoices", lacks),
        (nobody, "select 1; update invoices set total = 0 where id = 7", lacks),
        (acme, "truncate invoices", closed),
        (acme, "alter table public.invoices add note text", closed),
        (acme, "copy public.invoices from stdin", closed),
        (acme, "explain select total from invoices", "lets nobody explain a statement there"),
    ] {
        let said = said(identity, statement, "allow").unwrap_or_default();
        let refused = "expected allow, got a refusal: the row filter own-tenant on public.invoices";
        assert!(said.contains(&format!("{statement}: {refused} {words}")), "{statement}: {said}");
        assert!(said.contains("(by the rules alone: allow by the target's default)"), "{said}");
    }
    for (identity, statement, expect) in [
        (nobody, "select 1", "allow"),
        (nobody, "select total from other.invoices", "allow"),
        (nobody, "delete from invoices where id = 7", "block"),
        ("{ groups = [\"billing\"] }", "truncate invoices", "allow"),
        (acme, "select total from invoices for update", "allow"),
        (acme, "update invoices set total = 0 where id = 7", "allow"),
    ] {
        assert_eq!(said(identity, statement, expect), None, "{statement}");
    }
}
