//! Who gets in, and what those see who do not.

use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::{PrivateKeyWithHashAlg, load_openssh_certificate, load_secret_key};

use super::channels::{AnyKey, connect, reach};
use crate::support::gateway::{Setup, portcullis, told};
use crate::support::ssh::{Site, Sshd, keygen, user};

fn denied(output: &Output) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(255), "{told}");
    assert!(told.contains("Permission denied"), "{told}");
}

#[test]
fn a_token_as_password_lets_in() {
    let site = Site::new("");
    let output = site
        .ssh_with_password("web-1", &site.path("token"))
        .arg("echo hello; id -un")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hello\n{}\n", user()));
    let recorded = site.recorded("echo hello");
    assert!(
        recorded.contains("\"protocol\":\"ssh\"") && recorded.contains("\"username\":\"agent\"")
    );
    let token = fs::read_to_string(site.path("token")).unwrap();
    assert!(!recorded.contains(&token), "the token is recorded");
    site.finish();
}

#[test]
fn whoever_may_not_gets_one_and_the_same_refusal_and_reaches_nothing() {
    let sshd = Sshd::start();
    let site = Site::with(&sshd, "", "");
    let issuer = site.gateway.issuer();
    let good = issuer.token("agent");
    let (rest, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{rest}.{}", signature.chars().rev().collect::<String>());
    for (name, token, target) in [
        ("none", String::new(), "web-1"),
        ("nonsense", "hunter2".to_owned(), "web-1"),
        ("forged", forged, "web-1"),
        ("stranger", issuer.token("stranger"), "web-1"),
        ("elsewhere", issuer.token_for("agent", "elsewhere"), "web-1"),
        ("no such target", good.clone(), "web-2"),
        ("odd", good.clone(), "web-1%x"),
        ("colon", good.clone(), "agent:web-1"),
        ("upper", good.clone(), "WEB-1"),
        ("long", good.clone(), &"a".repeat(300)),
    ] {
        site.write(name, &token);
        let output = site.ssh_with_password(target, &site.path(name)).arg("id").output().unwrap();
        denied(&output);
    }
    let recorded = site.recorded("no such target");
    assert!(!recorded.contains("\"kind\":\"command\""), "{recorded}");
    assert!(!recorded.contains(&good), "a token is recorded");
    let log = site.gateway.daemon().wait_for_log("access denied");
    assert!(!log.contains(&good), "{log}");
    assert!(!sshd.log().contains("Connection from"), "{}", sshd.log());
}

#[test]
fn the_methods_are_told_and_none_alone_is_not_enough() {
    let site = Site::new("");
    let mut ssh = site.program("ssh");
    ssh.args(site.options()).args(["-o", "PreferredAuthentications=none"]);
    let output =
        ssh.args(["-p", &site.port().to_string(), "web-1@127.0.0.1", "id"]).output().unwrap();
    denied(&output);
    assert!(told(&output).contains("(publickey,password"), "{}", told(&output));
}

#[test]
fn a_certificate_of_the_gateways_lets_in_and_no_other_does() {
    let sshd = Sshd::start();
    let site = Site::with(&sshd, "", "");
    assert_eq!(site.stdout("echo in"), "in\n");
    let before = sshd.log().matches("Connection from").count();

    let key = site.key();
    let certificate = site.path("agent-cert.pub");
    let good = fs::read_to_string(&certificate).unwrap();
    let (own, other) = (site.gateway.data_dir().join("ssh_user_ca"), site.path("other_ca"));
    keygen(&["-t", "ed25519", "-N", "", "-f", other.to_str().unwrap()]);
    let sign = |ca: &std::path::Path, more: &[&str]| {
        let public = site.path("agent.pub");
        let mut arguments = vec!["-s", ca.to_str().unwrap(), "-I", "agent"];
        arguments.extend(more);
        arguments.push(public.to_str().unwrap());
        keygen(&arguments);
    };
    let identity = "extension:identity@portcullis={}";
    for (ca, more) in [
        (&other, &["-n", "web-1"][..]),
        (&own, &["-n", "web-1"]),
        (&own, &["-n", "web-1", "-O", identity]),
        (&own, &["-n", "web-1", "-O", "force-command=id"]),
        (&own, &["-n", "web-1", "-h"]),
    ] {
        sign(ca, more);
        denied(&site.run("id"));
    }
    // A certificate that is good, for another target or from a plain key.
    fs::write(&certificate, &good).unwrap();
    denied(&site.ssh_to("web-2").arg("id").output().unwrap());
    fs::remove_file(&certificate).unwrap();
    denied(&site.run("id"));
    // One signed for another key.
    keygen(&["-t", "ed25519", "-N", "", "-f", site.path("thief").to_str().unwrap()]);
    fs::copy(site.path("thief"), &key).unwrap();
    fs::write(&certificate, &good).unwrap();
    assert!(!site.run("id").status.success());
    assert_eq!(sshd.log().matches("Connection from").count(), before);
}

/// A proof that lacks something.
#[derive(Debug, Clone, Copy)]
enum Half {
    /// The right key, without its certificate.
    Key,
    /// The right certificate, with another key.
    Certificate,
    /// A good token for somebody else's gateway.
    Token,
    /// Nothing at all.
    Nothing,
}

impl Half {
    /// Tries it; whether the gateway said that more is wanted and this was good so far.
    async fn tried(self, handle: &mut Handle<AnyKey>, site: &Site) -> bool {
        let key = |name: &str| Arc::new(load_secret_key(site.path(name), None).unwrap());
        let answer = match self {
            Self::Key => {
                let key = PrivateKeyWithHashAlg::new(key("agent"), None);
                handle.authenticate_publickey("web-1", key).await
            }
            Self::Certificate => {
                let certificate = load_openssh_certificate(site.path("agent-cert.pub")).unwrap();
                handle.authenticate_openssh_cert("web-1", key("thief"), certificate).await
            }
            Self::Token => {
                let token = site.gateway.issuer().token_for("agent", "elsewhere");
                handle.authenticate_password("web-1", token).await
            }
            Self::Nothing => handle.authenticate_none("web-1").await,
        };
        match answer.unwrap() {
            AuthResult::Success => panic!("{self:?} lets in"),
            AuthResult::Failure { partial_success, .. } => partial_success,
        }
    }
}

/// Nothing can be opened on a connection.
async fn is_shut(handle: &Handle<AnyKey>) {
    let opened = tokio::time::timeout(Duration::from_secs(20), handle.channel_open_session());
    assert!(!matches!(opened.await, Ok(Ok(_))), "it opens");
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_of_proofs_open_nothing_on_this_connection_or_the_next() {
    let sshd = Sshd::start();
    let site = Site::with(&sshd, "", "");
    site.key();
    keygen(&["-t", "ed25519", "-N", "", "-f", site.path("thief").to_str().unwrap()]);
    let halves = [Half::Key, Half::Certificate, Half::Token, Half::Nothing];
    for first in halves {
        for second in halves {
            let mut handle = reach(&site).await;
            for half in [first, second] {
                assert!(!half.tried(&mut handle, &site).await, "{half:?} counts for something");
            }
            is_shut(&handle).await;
        }
        // What was shown before counts for nothing on the next connection.
        let mut handle = reach(&site).await;
        assert!(!first.tried(&mut handle, &site).await);
        is_shut(&handle).await;
    }
    assert_eq!(sshd.connections(), 0);
    // A whole proof is enough, also behind halves.
    let mut handle = connect(&site).await;
    drop(handle.channel_open_session().await.unwrap());
    handle = reach(&site).await;
    assert!(!Half::Key.tried(&mut handle, &site).await);
    let token = site.gateway.issuer().token("agent");
    assert!(handle.authenticate_password("web-1", token).await.unwrap().success());
    site.finish();
}

#[test]
fn a_certificate_ends_with_its_token() {
    let site = Site::set_up(
        &Sshd::shared().target("web-1", ""),
        Setup { token_seconds: Some(8), ..Setup::default() },
    );
    assert_eq!(site.stdout("echo in"), "in\n");
    crate::support::daemon::wait_until("the token's end", || !site.run("echo in").status.success());
    denied(&site.run("echo in"));
}

#[test]
fn a_target_that_shows_another_host_key_is_not_trusted() {
    let (sshd, other) = (Sshd::start(), Sshd::start());
    let target = sshd.target("web-1", "").replace(&sshd.host_key(), &other.host_key());
    let site = Site::set_up(&target, Setup::default());
    let output = site.run("id");
    let told = told(&output);
    assert_eq!(output.status.code(), Some(255), "{told}");
    assert!(told.contains("cannot be reached") && !told.contains("SHA256"), "{told}");
    let log = site.gateway.daemon().wait_for_log("SHA256:");
    assert!(log.contains("host key"), "{log}");
    site.recorded("SHA256:");
    assert!(!sshd.log().contains("Accepted"), "{}", sshd.log());
    site.finish();
}

#[test]
fn a_certificate_is_for_who_has_a_token() {
    let site = Site::new("");
    site.write("bad", "hunter2");
    let refused = site.ssh_cert(&site.path("bad"), &site.path("key"));
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    site.write("stranger", &site.gateway.issuer().token("stranger"));
    let refused = site.ssh_cert(&site.path("stranger"), &site.path("key"));
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(told(&refused).contains("no SSH target"), "{}", told(&refused));
    assert!(!site.path("key-cert.pub").exists());
}

#[test]
fn the_host_key_stays_the_same_over_restarts() {
    let mut site = Site::new("");
    let key = fs::read(site.gateway.data_dir().join("ssh_host_ed25519.pub")).unwrap();
    assert!(site.gateway.stop().success());
    site.gateway.restart();
    assert_eq!(fs::read(site.gateway.data_dir().join("ssh_host_ed25519.pub")).unwrap(), key);
}

#[test]
fn a_killed_session_ends_and_its_certificate_counts_no_more() {
    let site = Site::new("");
    let config = site.gateway.configuration();
    let config = config.to_str().unwrap();
    let mut child = site.ssh().arg("echo here; sleep 60").spawn().unwrap();
    site.recorded("echo here");
    let id = site.gateway.recordings()[0].file_stem().unwrap().to_str().unwrap().to_owned();
    let killed = portcullis(&["session", "kill", &id, "--config", config]);
    assert!(killed.status.success(), "{}", told(&killed));
    assert!(!child.wait().unwrap().success());
    denied(&site.run("id"));
}
