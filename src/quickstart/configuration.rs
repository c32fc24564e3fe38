//! What the quickstart's issuer knows and what its gateway is told.

use std::net::SocketAddr;

use super::host::Host;

/// The gateway's `data_dir`, in the quickstart's folder.
pub(super) const DATA_DIR: &str = "data";
/// The file with the password of the gateway's role in the shop's database.
pub(super) const SHOP_PASSWORD: &str = "shop_password";
/// The gateway's role there.
pub(super) const SHOP_ROLE: &str = "shop_agent";

/// Settings of the development issuer: a user for each part there is to play. None has a
/// password, so a login is a click.
pub(super) fn issuer(web: SocketAddr) -> String {
    format!(
        r#"
audiences = ["portcullis"]
token_seconds = 86_400

[[client]]
id = "portcullis-cli"
grants = ["device_code", "authorization_code"]
redirect_uris = ["http://{web}/login/callback"]
post_logout_redirect_uris = ["http://{web}/"]
{USERS}"#
    )
}

const USERS: &str = r#"
[[user]]
name = "agent"
email = "agent@example.com"
groups = ["agents"]

[[user]]
name = "approver"
email = "approver@example.com"
groups = ["approvers"]

[[user]]
name = "auditor"
email = "auditor@example.com"
groups = ["auditors"]

[[user]]
name = "admin"
email = "admin@example.com"
groups = ["admins"]
"#;

/// Where the gateway listens, beside SSH.
pub(super) struct Listeners {
    pub(super) postgres: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) web: SocketAddr,
}

/// What stands behind it.
#[derive(Clone, Copy)]
pub(super) struct Targets<'a> {
    pub(super) shop_port: u16,
    /// And where SSH clients connect for it.
    pub(super) host: Option<(&'a Host, SocketAddr)>,
    pub(super) crew: SocketAddr,
}

/// The gateway's configuration. Paths are relative to the folder it stands in.
pub(super) fn gateway(issuer: &str, listeners: &Listeners, behind: Targets<'_>) -> String {
    let Listeners { postgres, http, web } = listeners;
    let Targets { shop_port, host, crew } = behind;
    let listen = host.map(|(_, address)| format!("ssh = \"{address}\"\n")).unwrap_or_default();
    let targets =
        if host.is_some() { "\"shop\", \"crew\", \"host\"" } else { "\"shop\", \"crew\"" };
    let host = host.map(|(host, _)| target(host)).unwrap_or_default();
    format!(
        r#"# The gateway of `portcullis quickstart`, which writes this file anew at each start. To try a change,
# edit it and run `portcullis reload --config` with this file; docs/configuration.md explains every key.

[server]
data_dir = "{DATA_DIR}"                # recordings, their ledger, keys

[listen]
postgres = "{postgres}"
http = "{http}"
{listen}web = "{web}"            # pages for people, and the API; /api/openapi.json describes it

# Who may vouch for callers: the development issuer, in the same process as the gateway. A user of
# its own is in each of the groups agents, approvers, auditors and admins.
[[issuer]]
name = "quickstart"
url = "{issuer}"
audiences = ["portcullis"]
client_id = "portcullis-cli"

# Who may read what was recorded, and who may end sessions too.
[web]
public_url = "http://{web}"       # where browsers go; links in messages begin with it
auditors = ["auditors"]
admins = ["admins"]

# There is no [database]: the gateway keeps its index in a PostgreSQL server of its own, in data_dir.

# Clients name a target as their database: psql "dbname=shop …". The role and its password are the
# gateway's; the agent never sees them. The role is the one that `portcullis policy harden shop --role {SHOP_ROLE}`
# prints for the rules and masks below, applied at each start: the database itself refuses what they hide and block.
[[target]]
name = "shop"
protocol = "postgres"
address = "127.0.0.1:{shop_port}"
database = "shop"
tls = "disable"                   # it is on this machine
credential = {{ user = "{SHOP_ROLE}", password = {{ file = "{SHOP_PASSWORD}" }} }}
labels = {{ env = "demo" }}

# Clients name it by the first part of the path: http://{http}/crew/kickoff. The crew's token is the gateway's.
[[target]]
name = "crew"
protocol = "http"
url = "http://{crew}"
kind = "crewai"                   # names workflow and run
credential = {{ header = "Authorization", value = {{ file = "crew_token" }}, prefix = "Bearer " }}
labels = {{ env = "demo" }}

# Nothing is reachable without a rule that says so.
[[access]]
groups = ["agents"]
targets = [{targets}]
{host}
# What nobody's agent may do. docs/policy.md tells the language, and `portcullis policy explain --config` with
# this file says which rules a statement meets.
[[rule]]
name = "no-destructive-ddl"
targets = ["shop"]
actions = ["sql.drop", "sql.truncate"]
verdict = "block"
reason = "DROP and TRUNCATE are for a migration, not for an agent."

# What waits for somebody else: the agent's psql waits, and the approver says yes or no.
[[rule]]
name = "changes-need-a-human"
targets = ["shop"]
actions = ["sql.update", "sql.delete"]
verdict = "approve"
approvers = ["approvers"]
timeout = "10m"
reason = "Somebody looks at it before rows change."

# What no agent sees, and no recording holds: recordings, index and log have the masks, too.
[[mask]]
name = "customer-contact"
targets = ["shop"]
columns = ["customers.email"]
with = "partial"

[[mask]]
name = "customer-numbers"
targets = ["shop"]
columns = ["customers.card_number", "customers.ssn"]

[[mask]]
name = "crew-answers"
targets = ["crew"]
fields = ["customer.email", "customer.card_number", "customer.ssn"]
patterns = ["email", "credit-card"]   # also in the middle of a sentence

# What the rules are meant to do; `portcullis check --config` with this file tries it.
[[test]]
identity = {{ user = "agent", groups = ["agents"] }}
target = "shop"
command = "with gone as (select 1) select * from gone; drop table customers"
expect = "block"
rule = "no-destructive-ddl"

[[test]]
identity = {{ user = "agent", groups = ["agents"] }}
target = "shop"
command = "select 'drop table customers'"
expect = "allow"

# What a block of code leads to cannot be checked, so it could bypass rules and masks.
[[test]]
identity = {{ user = "agent", groups = ["agents"] }}
target = "shop"
command = "do $$begin update customers set name = 'x'; end$$"
expect = "block"

[[test]]
identity = {{ user = "agent", groups = ["agents"] }}
target = "shop"
command = "with paid as (update orders set status = 'paid' returning id) select count(*) from paid"
expect = "approve"
rule = "changes-need-a-human"
"#
    )
}

/// The demonstration host as a target, and what rules say of it.
fn target(host: &Host) -> String {
    let Host { port, user, key, credential, .. } = host;
    format!(
        r#"
# Clients name it as their user: ssh host@127.0.0.1. The key that opens it is the gateway's.
[[target]]
name = "host"
protocol = "ssh"
address = "127.0.0.1:{port}"
host_key = "{key}"
credential = {{ user = {user:?}, private_key = {{ file = {credential:?} }} }}
labels = {{ env = "demo" }}

[[rule]]
name = "no-keys"
targets = ["host"]
actions = ["sftp.*"]
objects = ["file:*/.ssh/*", "file:/etc/shadow"]
verdict = "block"
reason = "Keys and passwords stay on the host."
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::dev_issuer::Settings;

    #[test]
    fn the_issuer_takes_its_settings() {
        Settings::parse(&issuer(([127, 0, 0, 1], 8443).into())).unwrap();
    }
}
