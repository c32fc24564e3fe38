//! Files: scp in both protocols, sftp, rsync, git.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::gateway::told;
use crate::support::random::bytes;
use crate::support::ssh::Site;

fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", told(&output));
}

fn scp(site: &Site, more: &[&str]) -> Command {
    let mut scp = site.program("scp");
    scp.args(site.proved()).args(["-P", &site.port().to_string(), "-q"]).args(more);
    scp
}

fn remote(site: &Site, name: &str) -> (PathBuf, String) {
    let path = site.path(name);
    let remote = format!("web-1@127.0.0.1:{}", path.display());
    (path, remote)
}

#[test]
fn scp_copies_both_ways_in_both_protocols() {
    let site = Site::new("");
    let content = bytes(3_000_000);
    fs::write(site.path("local"), &content).unwrap();
    for (protocol, name) in [("-s", "by sftp"), ("-O", "by_scp")] {
        let name = name.replace(' ', "_");
        let (path, remote) = remote(&site, &name);
        let local = site.path("local").display().to_string();
        run(scp(&site, &[protocol, "-p", &local, &remote]));
        assert!(fs::read(&path).unwrap() == content, "{protocol} up");
        let back = site.path("back").display().to_string();
        run(scp(&site, &[protocol, &remote, &back]));
        assert!(fs::read(&back).unwrap() == content, "{protocol} down");
        // A folder.
        fs::create_dir_all(site.path("tree/deep")).unwrap();
        fs::write(site.path("tree/deep/file"), "x").unwrap();
        let tree = site.path("tree").display().to_string();
        run(scp(&site, &[protocol, "-r", &tree, &format!("{remote}.tree")]));
        assert_eq!(fs::read(site.path(&format!("{name}.tree/deep/file"))).unwrap(), b"x");
    }
    let recorded = site.recorded("\"action\":\"sftp.write\"");
    assert!(recorded.contains("\"via\":\"scp\""));
    site.finish();
}

#[test]
fn sftp_lists_fetches_stores_moves_and_removes() {
    let site = Site::new("");
    let content = bytes(1_000_000);
    fs::create_dir(site.path("far")).unwrap();
    fs::write(site.path("far/a"), &content).unwrap();
    let far = site.path("far").display().to_string();
    let near = site.path("near").display().to_string();
    site.write(
        "batch",
        &format!(
            "cd {far}\nls -l\nget a {near}\nput {near} b\nrename b c\nln -s c d\nchmod 600 c\n\
             mkdir e\nrmdir e\ndf\nrm a\nls\n"
        ),
    );
    let mut sftp = site.program("sftp");
    sftp.args(site.proved()).args(["-P", &site.port().to_string(), "-b"]);
    sftp.arg(site.path("batch")).arg("web-1@127.0.0.1");
    run(sftp);
    assert!(fs::read(site.path("far/c")).unwrap() == content && !site.path("far/a").exists());
    let recorded = site.recorded("\"action\":\"sftp.remove\"");
    for wanted in [
        format!("\"object\":\"file:{far}/a\""),
        format!("\"text\":\"open {far}/b\""),
        format!("\"text\":\"posix-rename {far}/b -> {far}/c\""),
        "\"action\":\"sftp.list\"".to_owned(),
        "\"object\":\"subsystem:sftp\"".to_owned(),
    ] {
        assert!(recorded.contains(&wanted), "{wanted} is not recorded");
    }
    site.finish();
}

#[test]
fn rsync_and_git_work_over_it() {
    let site = Site::new("");
    let shell = format!("ssh {} -p {}", site.proved().join(" "), site.port());
    fs::create_dir_all(site.path("source/deep")).unwrap();
    for name in ["source/a", "source/deep/b"] {
        fs::write(site.path(name), bytes(300_000)).unwrap();
    }
    let (copy, to) = remote(&site, "copy");
    let mut rsync = site.program("rsync");
    rsync.args(["-az", "-e", &shell]).arg(format!("{}/", site.path("source").display())).arg(&to);
    run(rsync);
    let same = |name: &str| {
        fs::read(copy.join(name)).unwrap() == fs::read(site.path("source").join(name)).unwrap()
    };
    assert!(same("a") && same("deep/b"));

    let git = |folder: &str, arguments: &[&str]| {
        let mut git = site.program("git");
        git.env("GIT_SSH_COMMAND", &shell)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=agent", "-c", "user.email=agent@example.com"])
            .args(["-c", "init.defaultBranch=main", "-C"])
            .arg(site.path(folder))
            .args(arguments);
        run(git);
    };
    fs::create_dir(site.path("far.git")).unwrap();
    git("far.git", &["init", "-q", "--bare"]);
    git("source", &["init", "-q"]);
    git("source", &["add", "."]);
    git("source", &["commit", "-qm", "first"]);
    let url = format!("ssh://web-1@127.0.0.1:{}{}", site.port(), site.path("far.git").display());
    git("source", &["push", "-q", &url, "main"]);
    git("", &["clone", "-q", &url, "cloned"]);
    let (first, cloned) = (fs::read(site.path("source/a")), fs::read(site.path("cloned/a")));
    assert!(first.unwrap() == cloned.unwrap());
    let recorded = site.recorded("\"via\":\"git\"");
    assert!(recorded.contains("\"via\":\"rsync\""));
    site.finish();
}
