//! `portcullis quickstart`: a gateway to try, with everything around it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::output;
use crate::quickstart::{self, CREW, SHOP, Serving};

/// Try it: a gateway on this machine, a database behind it, and tokens.
///
/// Everything listens on loopback and stands in one folder: a development issuer, a PostgreSQL
/// server with demonstration data (the machine's PostgreSQL programs are used), the gateway. Not
/// for production. Ctrl-C stops all of it; the data stay, and a later start goes on with them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis quickstart --data-dir /tmp/portcullis")]
pub(super) struct Options {
    /// The folder for everything [default: portcullis-quickstart in `$XDG_DATA_HOME` or
    /// ~/.local/share; for root in /var/lib].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where the gateway takes Postgres clients [default: 127.0.0.1:6432, or the next free port].
    #[arg(long, value_name = "ADDRESS")]
    postgres: Option<SocketAddr>,
    /// Where the gateway's pages and API are [default: 127.0.0.1:8443, or the next free port].
    #[arg(long, value_name = "ADDRESS")]
    web: Option<SocketAddr>,
    /// Where the gateway takes SSH clients [default: 127.0.0.1:2222, or the next free port].
    #[arg(long, value_name = "ADDRESS")]
    ssh: Option<SocketAddr>,
    /// Where the gateway takes HTTP clients [default: 127.0.0.1:8080, or the next free port].
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let data_dir = match options.data_dir {
        Some(ref folder) => folder.clone(),
        None => default_folder().context("there is no home directory; give --data-dir")?,
    };
    let Options { postgres, web, ssh, http, .. } = options;
    let options = quickstart::Options { data_dir, postgres, web, ssh, http };
    quickstart::run(options, |serving| {
        // Nobody has to read it; the same stands in the folder.
        let _gone = output::print(&told(serving));
    })
    .await
}

fn default_folder() -> Option<PathBuf> {
    const NAME: &str = "portcullis-quickstart";
    // The specification has relative paths ignored.
    let chosen = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    if let Some(chosen) = chosen.filter(|folder| folder.is_absolute()) {
        return Some(chosen.join(NAME));
    }
    if rustix::process::geteuid().is_root() {
        // The user that PostgreSQL then runs as cannot pass through root's home.
        return Some(Path::new("/var/lib").join(NAME));
    }
    Some(std::env::home_dir()?.join(".local/share").join(NAME))
}

/// What to do now, in lines to paste.
fn told(serving: &Serving) -> String {
    let Serving {
        data_dir, config, passwords, approver, state, issuer, postgres, web, after, ..
    } = serving;
    let ssh = told_of_ssh(serving);
    let (http, header) = (serving.http, quoted(&serving.header));
    let portcullis = std::env::current_exe().unwrap_or_else(|_| "portcullis".into());
    let (portcullis, config) = (quoted(&portcullis), quoted(config));
    let (passwords, approver) = (quoted(passwords), quoted(approver));
    let recordings = quoted(&data_dir.join("data/recordings"));
    let (host, port) = (postgres.ip(), postgres.port());
    let (data_dir, state) = (data_dir.display(), state.display());
    let seconds = after.as_secs_f32();
    format!(
        r#"
Portcullis serves, {seconds:.1} s after its start. Everything stands in {data_dir}.

1. Be the agent, in another terminal: ordinary psql, with a token for its password.

  PGPASSFILE={passwords} psql "host={host} port={port} dbname={SHOP} user=agent"

   To try: \d    select * from customers limit 5;    select * from open_orders limit 5;    select spent(7);
   What a rule blocks: drop table customers;    select 1; truncate orders;

   Or with curl, which takes the header with the token from a file:

  curl -sS -H @{header} http://{http}/{CREW}/inputs
  curl -sS -H @{header} http://{http}/{CREW}/kickoff --json '{{"inputs": {{"customer": "7"}}}}'

{ssh}
2. Be the approver, in a third terminal: an UPDATE or DELETE of the agent's waits for you.

  export PORTCULLIS_SERVER=http://{web} PORTCULLIS_TOKEN="$(cat {approver})"
  {portcullis} approval list --watch
  {portcullis} approval approve ID    (or: deny ID --comment 'why')

   Or in a browser, where a login is a click: http://{web}/approvals (as approver).

   What waits: update orders set status = 'paid' where id = 1;

3. See what it did, in a browser: http://{web} (as auditor, or as admin to end sessions too). Or here:

  {portcullis} session list --config {config}
  {portcullis} replay "$(ls -t {recordings}/*/*.rec | head -1)"

The API is at http://{web}/api/v1, the development issuer at {issuer}.
Addresses, and tokens for the agent, approver, auditor and admin, are in {state};
tokens last a day, and each start makes new ones.
Ctrl-C stops everything and keeps the data."#
    )
}

/// The lines for an SSH client.
fn told_of_ssh(serving: &Serving) -> String {
    let Some(address) = serving.ssh else {
        return "   (There is no target host: sshd is not installed. Debian: openssh-server.)\n"
            .to_owned();
    };
    let portcullis = std::env::current_exe().unwrap_or_else(|_| "portcullis".into());
    let (portcullis, token) = (quoted(&portcullis), quoted(&serving.token));
    let key = quoted(&serving.data_dir.join("agent_ssh"));
    // ssh takes the value apart at spaces itself, once the shell has done so.
    let known_hosts = serving.known_hosts.display();
    let known_hosts = match serving.known_hosts.to_string_lossy().contains(' ') {
        true => format!("UserKnownHostsFile=\"{known_hosts}\""),
        false => format!("UserKnownHostsFile={known_hosts}"),
    };
    let known_hosts = quoted(Path::new(&known_hosts));
    let (web, ip, port) = (serving.web, address.ip(), address.port());
    format!(
        r#"   Or with ordinary ssh, on this machine as the target host: a certificate first, then the login.

  {portcullis} ssh-cert --server http://{web} --token-file {token} --out {key}
  ssh -i {key} -o IdentitiesOnly=yes -o {known_hosts} -p {port} host@{ip}

   It logs in as the user who started this, so over SSH the agent can read the other tokens and all else that you can.
"#
    )
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-=".contains(c)) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/srv/a-b_c.d")), "/srv/a-b_c.d");
        assert_eq!(quoted(Path::new("/it's here")), r"'/it'\''s here'");
    }
}
