//! `[ssh]`, and `[[target]]` with `protocol = "ssh"`.

use std::path::Path;

use russh::keys::{Algorithm, PublicKey};

use super::model::{Ssh, SshCredential, SshTarget};
use super::reader::{Field, Table, quoted};
use super::value;

/// The longest login name that systems take.
const MAX_USER: usize = 255;
/// RSA keys below this are not taken for a host's.
const MIN_RSA_BITS: u32 = 2_048;
const WHERE_KEYS_STAND: &str = "the target's /etc/ssh/ssh_host_ed25519_key.pub, \
                                or `ssh-keyscan -t ed25519 HOST`, without the host's name";

pub(super) fn ssh(top: &Table<'_>, data_dir: &Path) -> Ssh {
    let mut ssh =
        Ssh { host_key: data_dir.join("ssh_host_ed25519"), user_ca: data_dir.join("ssh_user_ca") };
    if let Some(table) = top.table("ssh") {
        table.set(&mut ssh.host_key, "host_key", Field::path);
        table.set(&mut ssh.user_ca, "user_ca", Field::path);
        table.finish();
    }
    ssh
}

pub(super) fn target(table: &Table<'_>) -> Option<SshTarget> {
    let address = table.require("address", value::host_and_port);
    let host_key = table.require("host_key", host_key);
    let credential = table.require("credential", credential);
    let record_input =
        table.read("record_input", |field| field.word(&[("full", true)])).unwrap_or(false);
    let ((host, port), (user, credential)) = (address?, credential?);
    Some(SshTarget { host, port, host_key: host_key?, user, credential, record_input })
}

fn host_key(field: Field<'_>) -> Option<PublicKey> {
    let text = field.text()?;
    let Ok(mut key) = PublicKey::from_openssh(text) else {
        return field.wrong_with(format!("{} is not a public key", quoted(text)), WHERE_KEYS_STAND);
    };
    let strong = match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => true,
        Algorithm::Rsa { .. } => {
            key.key_data().rsa().is_some_and(|rsa| rsa.key_size() >= MIN_RSA_BITS)
        }
        _ => false,
    };
    if !strong {
        return field.wrong_with(
            "is a key of a kind that is not taken",
            "Ed25519, ECDSA, or RSA of 2048 bits or more",
        );
    }
    key.set_comment("");
    Some(key)
}

fn credential(field: Field<'_>) -> Option<(String, SshCredential)> {
    let table = field.table()?;
    let user = table.require("user", user);
    let password = table.read("password", value::secret);
    let private_key = table.read("private_key", value::secret);
    let both = (table.has("password"), table.has("private_key"));
    table.finish();
    let credential = match both {
        (true, false) => password.map(SshCredential::Password),
        (false, true) => private_key.map(SshCredential::PrivateKey),
        _ => field.wrong_with(
            "is one of two: a password or a private key",
            "credential = { user = \"deploy\", private_key = { file = \"deploy_key\" } }",
        ),
    };
    Some((user?, credential?))
}

fn user(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.len() <= MAX_USER && !text.contains(char::is_control) {
        Some(text.to_owned())
    } else {
        field.wrong(format!("{} is not a login name", quoted(text)))
    }
}
