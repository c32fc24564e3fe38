//! Who else may read or change what the gateway relies on: modes and owners of its files.
//!
//! These are warnings: who mounts a secret (Kubernetes, systemd) chooses its mode. A `data_dir` that
//! everybody may write is refused where it is opened.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, SecretRef, SshCredential, Target, TargetKind};

const READ_BY_ALL: u32 = 0o004;
const WRITTEN_BY_OTHERS: u32 = 0o022;

/// What others could do with the files that a configuration names.
pub fn doubts(config: &Config) -> Vec<String> {
    let data_dir = &config.server.data_dir;
    let owner = data_dir.metadata().ok().map(|of| of.uid());
    let mut doubts = Vec::new();
    let mut look = |path: &Path, what: &str, secret: bool| {
        doubts.extend(
            doubt(path, secret, owner).map(|why| format!("{what} {}: {why}", path.display())),
        );
    };
    look(&config.path, "the configuration", false);
    look(data_dir, "data_dir", false);
    if let Some(tls) = &config.tls {
        look(&tls.certificate, "[tls] certificate", false);
        look(&tls.private_key, "[tls] private_key", true);
    }
    look(&config.ssh.host_key, "[ssh] host_key", true);
    look(&config.ssh.user_ca, "[ssh] user_ca", true);
    look(&config.recording.signing_key, "[recording] signing_key", true);
    let mut secret = |of: &SecretRef, what: &str| {
        if let SecretRef::File(path) = of {
            look(path, what, true);
        }
    };
    secret(&config.recording.mask_key, "[recording] mask_key");
    if let Some(identity) = &config.recording.identity {
        secret(identity, "[recording] identity");
    }
    for issuer in &config.issuers {
        if let Some(of) = &issuer.client_secret {
            secret(of, &format!("client_secret of issuer {}", issuer.name));
        }
    }
    for target in config.targets.values() {
        let what = format!("credential of target {}", target.name);
        for of in credentials(&target.kind) {
            secret(of, &what);
        }
    }
    doubts
}

/// Credentials of targets that cannot be read now, so that sessions there would fail.
pub fn unread_credentials(config: &Config) -> Vec<String> {
    let unread = |target: &Arc<Target>| {
        let error = credentials(&target.kind).into_iter().find_map(SecretRef::missing)?;
        Some(format!("target {}: {error}; sessions there fail until it can be read", target.name))
    };
    config.targets.values().filter_map(unread).collect()
}

fn credentials(kind: &TargetKind) -> Vec<&SecretRef> {
    match kind {
        TargetKind::Postgres(target) => vec![&target.password],
        TargetKind::Ssh(target) => match &target.credential {
            SshCredential::Password(secret) | SshCredential::PrivateKey(secret) => vec![secret],
        },
        TargetKind::Http(target) => target.credential.iter().map(|of| &of.value).collect(),
    }
}

/// What is doubtful about one file, which need not be there.
fn doubt(path: &Path, secret: bool, data_dir_owner: Option<u32>) -> Option<String> {
    let of = path.metadata().ok()?;
    let (mode, owner) = (of.mode() & 0o777, of.uid());
    let own = rustix::process::geteuid().as_raw();
    let known = owner == own || owner == 0 || (own == 0 && Some(owner) == data_dir_owner);
    if !known {
        return Some(format!("it belongs to another user (uid {owner}), who can change it"));
    }
    if mode & WRITTEN_BY_OTHERS & !group_of_ours(of.gid()) != 0 {
        return Some(format!("others may write it (mode {mode:o}): chmod go-w"));
    }
    (secret && mode & READ_BY_ALL != 0)
        .then(|| format!("everybody may read it (mode {mode:o}): chmod 600"))
}

/// The bit of a group that the gateway is in: Kubernetes mounts volumes that such a group may write.
fn group_of_ours(group: u32) -> u32 {
    let ours = rustix::process::getgroups().unwrap_or_default();
    let ours = ours.iter().any(|of| of.as_raw() == group);
    if ours || rustix::process::getegid().as_raw() == group { 0o020 } else { 0 }
}
