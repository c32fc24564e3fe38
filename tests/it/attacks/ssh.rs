//! SSH: logins, commands, transfers, and the target's own limits.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use russh::client::{self, Handle, KeyboardInteractiveAuthResponse};

use crate::ssh::AnyKey;
use crate::support::client::venv;
use crate::support::gateway::{Setup, portcullis, told};
use crate::support::http::curl;
use crate::support::issuer::Issuer;
use crate::support::ssh::{Conversation, Site, Sshd, keygen};

/// A gateway with logins in a browser.
fn with_browsers(sshd: &Sshd) -> Site {
    let setup = Setup {
        issuer: Some(Arc::new(Issuer::for_pages("http://127.0.0.1:1"))),
        issuer_lines: "client_id = \"portcullis\"".to_owned(),
        ..Setup::default()
    };
    Site::set_up(&sshd.target("web-1", ""), setup)
}

/// ssh as somebody runs it, with all methods in its own order.
fn ssh(site: &Site, more: &[&str]) -> Command {
    let mut ssh = site.program("ssh");
    let options = site.options().into_iter();
    ssh.args(options.map(|option| option.replace("LogLevel=ERROR", "LogLevel=INFO")));
    ssh.args(more).args(["-p", &site.port().to_string(), "web-1@127.0.0.1"]);
    ssh
}

#[test]
fn s01_a_login_with_a_browser_is_offered_to_who_presented_nothing() {
    let sshd = Sshd::start();
    let site = with_browsers(&sshd);
    let file = |name: &str| site.path(name).display().to_string();
    let ca = site.gateway.data_dir().join("ssh_user_ca");
    keygen(&["-t", "ed25519", "-N", "", "-f", &file("other_ca")]);
    for (name, ca, validity) in [
        ("expired", ca.to_str().unwrap(), "-2h:-1h"),
        ("early", ca.to_str().unwrap(), "+1h:+2h"),
        ("foreign", file("other_ca").as_str(), "-1h:+1h"),
        ("bare", "", ""),
    ] {
        keygen(&["-t", "ed25519", "-N", "", "-f", &file(name)]);
        if !ca.is_empty() {
            let public = file(&format!("{name}.pub"));
            keygen(&["-s", ca, "-I", "agent", "-n", "web-1", "-V", validity, &public]);
        }
        let output = ssh(&site, &["-i", &file(name)]).arg("echo in").output().unwrap();
        let said = told(&output);
        assert_eq!(output.status.code(), Some(255), "{name}: {said}");
        assert!(said.contains("Permission denied"), "{name}: {said}");
        assert!(!said.contains("To log in"), "{name}: {said}");
    }
    // A token that does not count.
    site.write("wrong", "hunter2");
    let mut wrong = ssh(&site, &["-o", "PreferredAuthentications=password,keyboard-interactive"]);
    wrong.env("SSH_ASKPASS", site.path("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
    let output = wrong.env("PORTCULLIS_TEST_TOKEN", site.path("wrong")).arg("id").output().unwrap();
    let said = told(&output);
    assert!(said.contains("Permission denied") && !said.contains("To log in"), "{said}");
    // Who asks for it all the same gets no code.
    let both = ["-o", "PreferredAuthentications=publickey,keyboard-interactive"];
    let output = ssh(&site, &[&both[..], &["-i", &file("expired")]].concat()).output().unwrap();
    assert!(!told(&output).contains("To log in"), "{}", told(&output));
    // A good certificate gets in, and who has nothing is shown a code.
    let site_key = site.key().display().to_string();
    let output = ssh(&site, &["-i", &site_key]).arg("echo in").output().unwrap();
    assert_eq!(output.stdout, b"in\n", "{}", told(&output));
    let mut nothing = ssh(&site, &[]);
    nothing.arg("echo in");
    let nothing = Conversation::start(nothing);
    nothing.wait_for("and enter the code ");
    nothing.kill();
    site.finish();
}

/// A connection from another address of this machine.
async fn reach_from(address: &str, site: &Site) -> Handle<AnyKey> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
    let gateway = format!("127.0.0.1:{}", site.port()).parse().unwrap();
    let stream = socket.connect(gateway).await.unwrap();
    client::connect_stream(Arc::new(client::Config::default()), stream, AnyKey).await.unwrap()
}

/// Asks for a login with a browser, answers the first question, and gives what is shown then.
async fn asked(handle: &mut Handle<AnyKey>, answer: bool) -> Option<String> {
    let begun = handle.authenticate_keyboard_interactive_start("web-1", None).await.unwrap();
    let KeyboardInteractiveAuthResponse::InfoRequest { instructions, .. } = begun else {
        return None;
    };
    assert!(!instructions.contains("code"), "a code was opened for a client that did not answer");
    if !answer {
        return Some(instructions);
    }
    match handle.authenticate_keyboard_interactive_respond(Vec::new()).await.unwrap() {
        KeyboardInteractiveAuthResponse::InfoRequest { instructions, .. } => Some(instructions),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a09_who_waits_for_a_browser_has_a_share_and_opens_codes_by_answering() {
    let site = with_browsers(Sshd::shared());
    // Silent ones cost no code and no place.
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut handle = reach_from("127.0.0.2", &site).await;
        assert!(asked(&mut handle, false).await.is_some());
        silent.push(handle);
    }
    // Connect, ask, leave: codes are opened up to the address's share.
    let mut codes = 0;
    for _ in 0..300 {
        let mut handle = reach_from("127.0.0.2", &site).await;
        codes += usize::from(asked(&mut handle, true).await.is_some());
    }
    assert!((1..=16).contains(&codes), "{codes} codes were opened");
    let log = site.gateway.daemon().log();
    let lines = log.lines().filter(|line| line.contains("too many wait")).count();
    assert!(lines > 0 && lines < 300 - codes, "{lines} lines of the log");
    assert!(log.contains("not_logged_before"), "{log}");
    // Others log in meanwhile, and tokens go in beside.
    let mut command = ssh(&site, &["-o", "PreferredAuthentications=keyboard-interactive"]);
    command.arg("echo in");
    let conversation = Conversation::start(command);
    conversation.wait_for("This waits until that is done.");
    let seen = conversation.seen();
    let code = seen.split_once("the code ").unwrap().1.split_once('.').unwrap().0.to_owned();
    site.gateway.issuer().approve(&code, "sam");
    conversation.wait_for("in\n");
    let (status, seen) = conversation.end();
    assert_eq!(status, Some(0), "{seen}");
    drop(silent);
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ssh.md")).unwrap();
    assert!(docs.contains("phishing"), "docs/ssh.md does not warn of it");
    site.finish();
}

/// Runs a batch of sftp's commands; what it said.
fn sftp(site: &Site, batch: &str) -> String {
    site.write("batch", batch);
    let mut sftp = site.program("sftp");
    sftp.args(site.proved()).args(["-P", &site.port().to_string(), "-b"]);
    told(&sftp.arg(site.path("batch")).arg("web-1@127.0.0.1").output().unwrap())
}

#[test]
fn s02_a_rule_about_what_is_below_a_folder_meets_the_folder_and_those_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let far = folder.path().canonicalize().unwrap().display().to_string();
    let rule = |name: &str, object: &str| {
        format!(
            "[[rule]]\nname = {name:?}\nactions = [\"sftp.*\"]\nobjects = [\"file:{object}\"]\n\
             verdict = \"block\"\n"
        )
    };
    let rules = rule("named", &format!("{far}/top/secret/*")) + &rule("anywhere", "*/private/*");
    let site = Site::new(&rules);
    for name in ["top/secret", "top/private", "top/open", "free"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("top/secret/a"), "hidden").unwrap();
    fs::write(folder.path().join("free/a"), "open").unwrap();
    let token = site.path("token").display().to_string();
    for blocked in [
        // The folder itself, and those above it.
        format!("rename {far}/top/secret {far}/moved"),
        format!("rename -l {far}/top/secret {far}/moved"),
        format!("rename {far}/top {far}/moved"),
        format!("ln -s {far}/top/secret {far}/moved"),
        format!("ln -s {far}/top {far}/moved"),
        format!("ln -s / {far}/moved"),
        format!("ln -s top/secret {far}/moved"),
        format!("ln -s ../top/secret {far}/free/moved"),
        format!("ln {far}/top/secret {far}/moved"),
        format!("rename {far}/top/private {far}/moved"),
        format!("ln -s {far}/top/private {far}/moved"),
        format!("rmdir {far}/top/secret"),
        // Something else in its place.
        format!("rename {far}/free {far}/top/secret"),
        format!("rename {far}/free {far}/free/private"),
    ] {
        let said = sftp(&site, &blocked);
        assert!(said.contains("ermission denied"), "{blocked}: {said}");
        assert!(!folder.path().join("moved").exists(), "{blocked}");
    }
    assert!(folder.path().join("top/secret/a").exists());
    // What is beside it moves as it did.
    let said = sftp(
        &site,
        &format!(
            "put {token} {far}/top/open/x.part\nrename {far}/top/open/x.part {far}/top/open/x\n\
             rename {far}/free {far}/top/free\nln -s {far}/top/free {far}/link\n\
             mkdir {far}/empty\nrmdir {far}/empty\n"
        ),
    );
    assert!(!said.contains("denied"), "{said}");
    assert!(folder.path().join("top/open/x").exists() && folder.path().join("link/a").exists());
    site.finish();
}

#[test]
fn s03_an_allowed_program_runs_no_other_and_copies_are_judged() {
    let sshd = Sshd::shared();
    let rules = "[[rule]]\nname = \"tools\"\nactions = [\"ssh.exec\"]\nverdict = \"allow\"\n\
                 objects = [\"program:rsync\", \"program:scp\", \"program:tar\", \"program:find\", \
                 \"program:git\", \"program:env\", \"program:sh\", \"program:timeout\", \
                 \"program:xargs\", \"program:nice\", \"program:sort\", \"program:/usr/bin/id\"]\n\
                 [[rule]]\nname = \"files\"\nactions = [\"sftp.*\"]\nobjects = [\"file:/pub/*\"]\n\
                 verdict = \"allow\"\n";
    let site = Site::with(sshd, "default = \"block\"", rules);
    let program = site.path("program");
    fs::write(&program, format!("#!/bin/sh\necho ran >> {}\n", site.path("ran").display()))
        .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    site.write("priv", "hidden");
    let (prog, far) = (program.display(), site.folder.path().display());
    for line in [
        format!("rsync -e {prog} x:y z"),
        format!("rsync -ae {prog} x:y z"),
        format!("rsync --rsh={prog} x:y z"),
        format!("tar -cf /dev/null {far}/priv --checkpoint=1 --checkpoint-action=exec={prog}"),
        format!("tar --use-compress-program={prog} -cf {far}/out {far}/priv"),
        format!("tar --use-compress-p={prog} -cf {far}/out {far}/priv"),
        format!("find {far}/priv -exec {prog}"),
        format!("git -c core.sshCommand={prog} fetch ssh://x/y"),
        format!("git clone --upload-pack={prog} {far} {far}/out"),
        format!("git fetch ext::{prog}"),
        format!("env {prog}"),
        format!("sh -c {prog}"),
        format!("timeout 5 {prog}"),
        format!("nice {prog}"),
        format!("xargs -a {far}/priv {prog}"),
        format!("sort --compress-program={prog} -S 1 {far}/priv"),
        // Copies on the host, from where no rule lets files be read.
        format!("scp {far}/priv {far}/out"),
        format!("scp -S {prog} x:y z"),
        format!("scp -o ProxyCommand={prog} x:y z"),
        format!("rsync {far}/priv {far}/out"),
        "/usr/lib/openssh/sftp-server".to_owned(),
    ] {
        let output = site.run(&line);
        assert_eq!(output.status.code(), Some(126), "{line}: {}", told(&output));
        assert!(!site.path("ran").exists() && !site.path("out").exists(), "{line}");
    }
    assert!(site.run("/usr/bin/id -u").status.success());
    // Of two plain files both names count.
    let output = site.run("scp /pub/a /pub/b");
    assert_ne!(output.status.code(), Some(126), "{}", told(&output));
    site.finish();
}

/// Removes what a test put into the home of its user, whatever becomes of the test.
struct Removed(Vec<std::path::PathBuf>);

impl Drop for Removed {
    fn drop(&mut self) {
        for path in &self.0 {
            let _not_there = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}

#[test]
fn s05_ansible_finds_the_home_that_a_tilde_means() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in ["ssh.md", "clients.md"] {
        let text = fs::read_to_string(root.join("docs").join(page)).unwrap();
        let inventory = |line: &&str| line.contains("ansible_host=");
        let lines: Vec<_> = text.lines().filter(inventory).collect();
        assert!(!lines.is_empty(), "{page}");
        for line in lines {
            let (named, _) = line.split_once("and no `ansible_user`").unwrap_or((line, ""));
            assert!(named.contains("-o User=") && !named.contains("ansible_user="), "{line}");
        }
    }
    let site = Site::new("");
    let home = std::path::PathBuf::from(site.stdout("echo ~").trim());
    let own = format!(".portcullis-test-{}", std::process::id());
    let async_dir = format!(".portcullis-async-{}", std::process::id());
    let _removed = Removed(vec![home.join(&own)]);
    let options = site.proved().join(" ");
    site.write(
        "inventory",
        &format!(
            "web-1 ansible_host=127.0.0.1 ansible_port={} ansible_python_interpreter={}\n\
             [all:vars]\nansible_async_dir='~/{async_dir}'\n\
             ansible_ssh_common_args='-o User=web-1 {options}'\n",
            site.port(),
            venv().join("bin/python").display(),
        ),
    );
    let ansible = |arguments: &[&str]| {
        let output = Command::new(venv().join("bin/python"))
            .args(["-m", "ansible", "adhoc", "web-1", "-i"])
            .arg(site.path("inventory"))
            .args(arguments)
            .env("HOME", site.folder.path())
            .env("ANSIBLE_LOCAL_TEMP", site.path("ansible"))
            .env("ANSIBLE_REMOTE_TEMP", site.path("ansible-far"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        told(&output)
    };
    ansible(&["-m", "copy", "-a", &format!("content=here dest=~/{own}")]);
    assert_eq!(fs::read_to_string(home.join(&own)).unwrap(), "here");
    assert!(ansible(&["-m", "stat", "-a", &format!("path=~/{own}")]).contains("\"exists\": true"));
    let shell = ansible(&["-m", "shell", "-a", "echo ~", "-B", "60", "-P", "1"]);
    assert!(shell.contains(home.to_str().unwrap()), "{shell}");
    if rustix::process::geteuid().is_root() {
        let escalated = ["-b", "--become-method", "su", "--become-user", "root"];
        let copy = ["-m", "copy", "-a"];
        let dest = format!("content=become dest=~/{own}");
        ansible(&[&copy[..], &[&dest], &escalated].concat());
        assert_eq!(fs::read_to_string(home.join(&own)).unwrap(), "become");
    }
    let _jobs = fs::remove_dir_all(home.join(&async_dir));
    site.finish();
}

/// An sshd that penalises addresses as OpenSSH 9.8 does: each refused login counts for five seconds,
/// and from fifteen on every connection is closed at once.
fn penalising(sshd: &'static Sshd) -> u16 {
    use std::io::copy;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::{Duration, Instant};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut counted, mut until) = (refusals(sshd), Instant::now());
        for client in listener.incoming().map_while(Result::ok) {
            let now = refusals(sshd);
            let penalty = Duration::from_secs(5) * u32::try_from(now - counted).unwrap();
            counted = now;
            until = until.max(Instant::now()) + penalty;
            if until.saturating_duration_since(Instant::now()) >= Duration::from_secs(15) {
                continue;
            }
            let Ok(server) = TcpStream::connect(sshd.address()) else { continue };
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || {
                    let _broken = copy(&mut from, &mut to);
                    let _gone = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

/// Connections whose user sshd did not let in.
fn refusals(sshd: &Sshd) -> usize {
    sshd.log().matches("Connection closed by authenticating user").count()
        + sshd.log().matches("Disconnected from authenticating user").count()
}

#[test]
fn s06_a_target_that_refuses_the_gateway_does_not_take_others_with_it() {
    let sshd: &'static Sshd = Box::leak(Box::new(Sshd::start()));
    let port = penalising(sshd);
    let wrong = tempfile::tempdir().unwrap();
    let key = wrong.path().join("key");
    keygen(&["-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    let own = format!("127.0.0.1:{}", sshd.address().split_once(':').unwrap().1);
    let through = |name: &str| sshd.target(name, "").replace(&own, &format!("127.0.0.1:{port}"));
    let bad = through("bad").replace(sshd.user_key().to_str().unwrap(), key.to_str().unwrap());
    // One that closes at once, as a host does that penalises already.
    let closing = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = closing.local_addr().unwrap().port();
    std::thread::spawn(move || closing.incoming().for_each(drop));
    let gone = sshd.target("gone", "").replace(&own, &format!("127.0.0.1:{closed}"));
    let setup = Setup { listen: "metrics = \"127.0.0.1:0\"".to_owned(), ..Setup::default() };
    let site = Site::set_up(&[through("web-1"), bad, gone].concat(), setup);
    site.key();
    for n in 0..12 {
        let refused = site.ssh_to("bad").arg("id").output().unwrap();
        assert_eq!(refused.status.code(), Some(255), "{}", told(&refused));
        assert_eq!(site.stdout(&format!("echo {n}")), format!("{n}\n"));
    }
    assert!(refusals(sshd) <= 4, "it was asked {} times", refusals(sshd));
    let output = site.ssh_to("gone").arg("id").output().unwrap();
    assert_eq!(output.status.code(), Some(255), "{}", told(&output));
    let log = site.gateway.daemon().wait_for_log("PerSourcePenaltyExemptList");
    assert!(log.contains("\"cause\":\"dropped\""), "{log}");
    site.gateway.daemon().wait_for_log("\"cause\":\"refused\"");
    site.gateway.daemon().wait_for_log("it is tried again in");
    let figures = format!("http://{}/metrics", site.gateway.daemon().address_of("metrics"));
    let figures = curl(&[&figures]).text();
    for cause in ["refused", "dropped", "resting"] {
        assert!(figures.contains(&format!("cause=\"{cause}\"}}")), "{cause}: {figures}");
    }
    let config = site.gateway.configuration();
    let checked = portcullis(&["check", "--online", "--config", config.to_str().unwrap()]);
    assert!(told(&checked).contains("PerSourcePenaltyExemptList"), "{}", told(&checked));
    site.finish();
}
