//! The pages in headless Chromium, over sessions that recorded what attackers would have pages
//! show. `tests/clients/browser.py` says what is done there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};

use super::start;
use crate::support::client::{Client, Database, clients_folder, transcript, venv};
use crate::support::daemon::wait_until;
use crate::support::gateway::{Setup, told};
use crate::support::http::App;
use crate::support::ssh::{Site, Sshd, fed};

const RULES: &str = r#"
[[rule]]
name = "no-drops"
actions = ["sql.drop"]
verdict = "block"
reason = "<script>window.pwned = 1</script> Dropping is for migrations."

[[rule]]
name = "deletes-wait"
actions = ["sql.delete"]
verdict = "approve"
approvers = ["dba"]
timeout = "2m"
reason = "Somebody looks at it."

[[access]]
groups = ["dba"]
targets = ["orders"]
grant = "approval"
approvers = ["agents"]
duration = "1h"
"#;

/// What comes back is as hostile as what is sent.
const HOSTILE: &str = r#"
create table "<script>window.pwned = 1</script>" (id int, "<b>note</b>" text);
insert into "<script>window.pwned = 1</script>" values
  (1, '<img src=x onerror="window.pwned = 1">'),
  (2, '"><svg/onload=window.pwned=1>'),
  (3, 'javascript:window.pwned=1'), (4, E'a\x1b]0;title\x07b\u202ec\u200bd'),
  (5, repeat('<i>long</i>', 3000)), (6, null);
select * from "<script>window.pwned = 1</script>" order by id;
do $$ begin raise notice '</pre><script>window.pwned = 1</script>'; end $$;
select '<iframe src=//evil.example></iframe>'::int;
select '{{ 7*7 }} </textarea><script>window.pwned = 1</script>' as "${x}";
drop table "<script>window.pwned = 1</script>";
"#;

fn psql(client: &Client, statement: &str) -> Command {
    let mut psql = client.psql();
    psql.args(["-v", "ON_ERROR_STOP=0", "-c", statement]);
    psql
}

/// A program that the browser's script starts itself, to have something to watch.
fn as_json(command: &Command) -> String {
    let text = |text: &OsStr| text.to_str().unwrap().to_owned();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let environment =
        command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
    serde_json::json!({
        "words": words.map(text).collect::<Vec<_>>(),
        "environment": environment.collect::<BTreeMap<_, _>>(),
    })
    .to_string()
}

fn in_background(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn every_page_works_in_a_browser_and_runs_nothing_of_what_was_recorded() {
    let database = Database::fresh();
    let app = App::start();
    let targets = [Sshd::shared().target("web-1", ""), app.target("crew", "")].concat();
    let gateway = start(Setup {
        listen: "ssh = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"".to_owned(),
        policy: [&targets, RULES].concat(),
        ..Setup::for_targets([database.target("orders")])
    });
    let site = Site::around(gateway);
    let gateway = &site.gateway;
    let agent = gateway.client("orders").with("PGAPPNAME", "portcullis:<u>crew</u>/\"><script>");
    let mut hostile = agent.psql();
    hostile.args(["-v", "ON_ERROR_STOP=0", "-f", "-"]);
    let output = fed(hostile, HOSTILE.as_bytes());
    assert!(told(&output).contains("Dropping is for migrations"), "{}", told(&output));
    // What a screen can be made to do, in five steps.
    let steps = [
        r"printf '\033[31mred\033[0m one\r\n\033[4mtwo\033[0m\r\n'",
        r"printf '\033[5;10Hplaced\033[7;1Hline\033[3Gover\033[6;1H\033[1mbold\033[K'",
        r"printf '\033[10;1H'; seq 1 30",
        r"printf '\033[?1049h\033[2J\033[3;3Hother screen'",
        r"printf '\033[?1049l back\033[2;9r\033[9;1H\nscrolled\nagain\033[r\033[12;4H┌─┐\033[3Dx'",
    ];
    let mut ssh = site.ssh();
    ssh.args(["-tt", &steps.join("; sleep 0.3; ")]);
    let (done, said) = transcript(ssh);
    assert!(done, "{said}");
    let drawn = "printf '\\033[31mred \\033[0m<script>window.pwned = 1</script>\\r\\n\\033]0;t\\007'; sleep 0.3; echo end";
    let mut ssh = site.ssh();
    ssh.args(["-tt", drawn]);
    let (done, said) = transcript(ssh);
    assert!(done, "{said}");
    let http = gateway.daemon().address_of("http");
    let token = gateway.issuer().token("agent");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-H", &format!("Authorization: Bearer {token}")])
        .args(["-H", "Content-Type: application/json"])
        .args(["-d", r#"{"note": "</pre><script>window.pwned = 1</script>", "n": [1, 2]}"#])
        .arg(format!("http://{http}/crew/kickoff?x=%3Cscript%3E"));
    let (done, said) = transcript(curl);
    assert!(done, "{said}");
    let held =
        "delete from \"<script>window.pwned = 1</script>\" where id = 1 and '\u{202e}x' <> ''";
    let mut held = in_background(psql(&gateway.client("orders"), held));
    let sleeper = gateway.client("orders").with("PGAPPNAME", "portcullis:sleeper/1");
    let mut sleeper = in_background(psql(&sleeper, "select pg_sleep(300)"));

    let watched = gateway.client("orders").with("PGAPPNAME", "portcullis:watched/1");
    let mut browser = Command::new(venv().join("bin/python"));
    browser.arg("-B").arg(clients_folder().join("browser.py"));
    browser.arg(format!("http://{}", gateway.web())).arg(as_json(&watched.psql()));
    let (done, said) = transcript(browser);
    assert!(done, "{said}\n{}", gateway.daemon().log());
    wait_until("the held and the ended client to end", || {
        held.try_wait().unwrap().is_some() && sleeper.try_wait().unwrap().is_some()
    });
    assert_eq!(held.wait().unwrap().code(), Some(0));
    assert!(!sleeper.wait().unwrap().success());
    site.finish();
}
