//! The checked, resolved configuration: what the rest of the gateway works with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;
use ipnet::IpNet;
use russh::keys::PublicKey;

use super::archive::Archive;
use super::mistake::Mistake;
use super::retention::Retention;
use super::secret_ref::SecretRef;
use crate::age::Recipient;
use crate::decode::{self, http::dialects::Dialect};
use crate::mask::Masks;
use crate::names::{Protocol, TargetName};
use crate::policy::{Command, Policy, PolicyTest, TargetFacts, Verdict};

/// A whole configuration: every value checked, every name resolved, secrets still by reference.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from; a reload reads it again.
    pub path: PathBuf,
    /// `[server]`
    pub server: Server,
    /// `[listen]`
    pub listen: Listen,
    /// `[tls]`
    pub tls: Option<Tls>,
    /// `[[issuer]]`
    pub issuers: Vec<Issuer>,
    /// `[ssh]`
    pub ssh: Ssh,
    /// `[web]`
    pub web: Web,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[database]`
    pub database: Database,
    /// `[recording]`
    pub recording: Recording,
    /// Where sealed recordings and checkpoints of the ledger go: keys of `[recording]`.
    pub archive: Archive,
    /// `[tickets]`
    pub tickets: Tickets,
    /// `[approvals]`
    pub approvals: Approvals,
    /// `[[notify]]`
    pub notify: Vec<Notify>,
    /// `[http]`
    pub http: Http,
    /// `[[target]]`
    pub targets: BTreeMap<TargetName, Arc<Target>>,
    /// `[[access]]`
    pub access: Vec<AccessRule>,
    /// `[policy]` and `[[rule]]`, compiled; known by the hash.
    pub policy: Arc<Policy>,
    /// `[[mask]]`, with the `[[pattern]]`s that they name.
    pub masks: Arc<Masks>,
    /// `[[test]]`
    pub tests: Vec<NamedTest>,
    /// `[[retention]]`
    pub retention: Vec<Retention>,
    /// What works but is hardly meant, to be shown to the operator.
    pub warnings: Vec<Mistake>,
}

impl Config {
    /// The sections in which `new` differs from this configuration but which take effect only
    /// when the gateway starts.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        [
            ("[server]", self.server != new.server),
            ("[listen]", self.listen != new.listen),
            ("[tls]", self.tls.is_some() != new.tls.is_some()),
            ("[[issuer]]", self.issuers != new.issuers),
            ("[ssh]", self.ssh != new.ssh),
            ("[web]", self.web != new.web),
            ("[telemetry]", self.telemetry != new.telemetry),
            ("[database]", self.database != new.database),
            ("[recording]", self.recording != new.recording || self.archive != new.archive),
            ("[[notify]]", self.notify != new.notify),
            ("[http]", self.http != new.http),
        ]
        .into_iter()
        .filter_map(|(section, changed)| changed.then_some(section))
        .collect()
    }
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where recordings, ledger and keys stand.
    pub data_dir: PathBuf,
    /// How many sessions may be open at once.
    pub max_sessions: usize,
    /// How long a stop waits for sessions to end by themselves.
    pub drain_timeout: Duration,
    /// How long a running command may go on when its token ends.
    pub expiry_grace: Duration,
}

/// `[listen]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listen {
    /// Where Postgres clients connect.
    pub postgres: Option<SocketAddr>,
    /// Whether Postgres clients beyond loopback may come without TLS.
    pub postgres_insecure: bool,
    /// Where SSH clients connect.
    pub ssh: Option<SocketAddr>,
    /// Where HTTP clients connect.
    pub http: Option<SocketAddr>,
    /// Whether HTTP clients beyond loopback may come without TLS.
    pub http_insecure: bool,
    /// Where the API is.
    pub web: Option<SocketAddr>,
    /// Whether the API may be used without TLS from beyond loopback.
    pub web_insecure: bool,
    /// Where Prometheus gets its figures, always without TLS.
    pub metrics: Option<SocketAddr>,
    /// Peers whose PROXY protocol headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[tls]`: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's key.
    pub private_key: PathBuf,
}

/// `[[issuer]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The name that access rules use.
    pub name: String,
    /// The issuer identifier, compared byte for byte with `iss`.
    pub url: String,
    /// A token's `aud` must hold one of these.
    pub audiences: Vec<String>,
    /// Which kinds of token are taken.
    pub accept: Vec<TokenKind>,
    /// Our client at the issuer, for logins.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<SecretRef>,
    /// Clients that may stand in `azp` when a token has several audiences.
    pub authorized_parties: Vec<String>,
    /// Hosts other than the issuer's own that its keys may come from, over TLS
    /// (`www.googleapis.com` for Google).
    pub jwks_hosts: Vec<String>,
    /// Where the user's name is.
    pub username_claim: ClaimPath,
    /// Where the groups are.
    pub groups_claim: Option<ClaimPath>,
    /// Where the workflow's name is.
    pub workflow_claim: Option<ClaimPath>,
    /// Where the run's id is.
    pub run_claim: Option<ClaimPath>,
    /// Tokens that live longer than this (`exp - iat`) are refused.
    pub max_lifetime: Duration,
    /// A CA file to trust for the issuer's TLS, instead of the system's.
    pub ca: Option<PathBuf>,
}

/// The kinds of token an issuer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// RFC 9068 access tokens and their like.
    Access,
    /// OpenID Connect ID tokens.
    Id,
}

/// Where a claim is: a top-level name, or a JSON pointer (RFC 6901) when it starts with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimPath {
    /// A top-level claim.
    Name(String),
    /// A pointer into the claims.
    Pointer(String),
}

/// `[ssh]`: private keys, made on first start where they are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// The gateway's own key towards clients.
    pub host_key: PathBuf,
    /// The key that signs short-lived user certificates.
    pub user_ca: PathBuf,
}

/// `[web]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Web {
    /// Where people reach the gateway's pages and API, without a slash at the end.
    pub public_url: Option<String>,
    /// Groups that may read what was recorded.
    pub auditors: Vec<String>,
    /// Groups that may do all that the API offers.
    pub admins: Vec<String>,
}

/// `[telemetry]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// The collector that gets spans, by OTLP over HTTP.
    pub otlp: Option<String>,
}

/// `[database]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Where the database is, without a password; the private server when left out.
    pub url: Option<String>,
    /// Whether texts and values of commands go into the index.
    pub index_text: bool,
}

/// `[recording]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// When a command counts as recorded.
    pub durability: Durability,
    /// How large one recording may grow, in bytes of its events before compression.
    pub max_session: u64,
    /// How large the directory of recordings may grow, in bytes on disk.
    pub max_local: u64,
    /// The Ed25519 key of seals and ledger, PKCS #8 in PEM; made on first start.
    pub signing_key: PathBuf,
    /// The key for hashes of masked and withheld values; made on first start.
    pub mask_key: SecretRef,
    /// Whose keys recordings are encrypted to; not encrypted when there is none.
    pub recipients: Vec<Recipient>,
    /// Identities with which the gateway itself reads encrypted recordings of before.
    pub identity: Option<SecretRef>,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Targets may also be named by a host name under this domain.
    pub base_domain: Option<String>,
    /// How long a session stays open without a request.
    pub session_idle: Duration,
    /// The largest JSON body that rules look into, in bytes.
    pub max_json: usize,
}

/// When a command counts as recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the operating system has it: survives the death of the gateway.
    Process,
    /// When the disk has it: survives the death of the machine.
    Disk,
}

/// `[[target]]`: one named system.
#[derive(Debug)]
pub struct Target {
    /// Its name in the catalog.
    pub name: TargetName,
    /// Free words that access rules select by.
    pub labels: BTreeMap<String, String>,
    /// What happens when its sessions cannot be recorded.
    pub on_recording_failure: OnRecordingFailure,
    /// What happens to effects that no rule matches: they are allowed or blocked.
    pub default: Verdict,
    /// What it speaks, and where.
    pub kind: TargetKind,
}

/// What a target speaks.
#[derive(Debug)]
pub enum TargetKind {
    /// A PostgreSQL server.
    Postgres(PostgresTarget),
    /// An SSH host.
    Ssh(SshTarget),
    /// An HTTP service.
    Http(HttpTarget),
}

impl Target {
    /// The protocol that the target speaks.
    pub fn protocol(&self) -> Protocol {
        match self.kind {
            TargetKind::Postgres(_) => Protocol::Postgres,
            TargetKind::Ssh(_) => Protocol::Ssh,
            TargetKind::Http(_) => Protocol::Http,
        }
    }

    /// Reads a command that somebody wrote down, as sessions on the target read theirs.
    ///
    /// # Errors
    /// When it cannot be one, with what it should look like.
    pub fn read_command(&self, text: &str) -> Result<Command, String> {
        match &self.kind {
            TargetKind::Http(http) => http.kind.read_text(text),
            TargetKind::Postgres(_) | TargetKind::Ssh(_) => decode::command(self.protocol(), text),
        }
    }

    /// Why a command that somebody wrote down is not understood, if so: the parser's words, and
    /// where it stumbles.
    pub fn misunderstood(&self, text: &str) -> Option<String> {
        decode::misunderstood(self.protocol(), text)
    }

    /// What policy knows of it.
    pub fn facts(&self) -> TargetFacts {
        TargetFacts {
            name: self.name.clone(),
            protocol: self.protocol(),
            labels: self.labels.clone(),
            default: self.default,
        }
    }
}

/// A PostgreSQL target.
#[derive(Debug)]
pub struct PostgresTarget {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database that the bare target name means.
    pub database: String,
    /// Others that may be named, as `target/database`.
    pub databases: Vec<String>,
    /// How its TLS is used.
    pub tls: UpstreamTls,
    /// A CA file to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The user the gateway logs in as.
    pub user: String,
    /// That user's password.
    pub password: SecretRef,
}

/// An HTTP target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// Whether it is reached over TLS, its certificate proved.
    pub https: bool,
    /// Host, and port where it is not the scheme's own.
    pub authority: String,
    /// A CA file to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// What is known of the service.
    pub kind: &'static dyn Dialect,
    /// What the gateway proves itself with.
    pub credential: Option<HttpCredential>,
    /// Whether cookies pass.
    pub cookies: bool,
    /// Content types whose bodies pass although masks cannot read them.
    pub unmasked_types: Vec<ContentTypes>,
    /// Request headers that go up although they name an identity or an address, in lower case.
    pub pass_headers: Vec<String>,
    /// What an encoded slash in a path means.
    pub encoded_slash: EncodedSlash,
}

/// Content types: `application/pdf`, `image/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentTypes {
    /// `application`.
    pub kind: String,
    /// `pdf`; none names all of the kind.
    pub form: Option<String>,
}

impl ContentTypes {
    /// Whether a content type, in lower case and without parameters, is one of them.
    pub fn names(&self, content_type: &str) -> bool {
        let (kind, form) = content_type.split_once('/').unwrap_or((content_type, ""));
        kind == self.kind && self.form.as_deref().is_none_or(|named| named == form)
    }
}

/// What `%2F` in a path means to a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Nobody knows: the request is refused.
    #[default]
    Refuse,
    /// A character of its segment: it goes up and rules see it as `%2F`.
    Data,
    /// A slash: it goes up and rules see it as one.
    Slash,
}

/// A header that the gateway sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCredential {
    /// The header's name, in lower case.
    pub header: String,
    /// What it holds,
    pub value: SecretRef,
    /// behind this.
    pub prefix: String,
}

/// An SSH target.
#[derive(Debug)]
pub struct SshTarget {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The key that the target must show.
    pub host_key: PublicKey,
    /// The user the gateway logs in as.
    pub user: String,
    /// How it proves to be that user.
    pub credential: SshCredential,
    /// Whether what is typed into terminals is recorded, and not its length alone.
    pub record_input: bool,
}

/// What an SSH target lets the gateway in for.
#[derive(Debug)]
pub enum SshCredential {
    /// A password.
    Password(SecretRef),
    /// A private key in OpenSSH's format, without a passphrase.
    PrivateKey(SecretRef),
}

/// How TLS towards a target is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamTls {
    /// Never.
    Disable,
    /// Always, with any certificate.
    Require,
    /// Always; the certificate's chain and name must hold.
    VerifyFull,
}

/// `on_recording_failure`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRecordingFailure {
    /// The session ends, and no new one opens.
    Refuse,
    /// The session goes on, and the gap is an event.
    Continue,
}

/// `[[access]]`: who may open sessions on what. All selectors must hold.
#[derive(Debug, Clone)]
pub struct AccessRule {
    /// Groups that are named; `*` names every group.
    pub groups: Vec<String>,
    /// Users that are named.
    pub users: Vec<UserKey>,
    /// Claims that must have exactly these values.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// Which targets.
    pub targets: TargetSelector,
    /// The longest that a session lives.
    pub max_session: Option<Duration>,
    /// Whether a session may go on after its token ends.
    pub outlive_token: bool,
    /// Whether what was presented opens one session and never another.
    pub single_session: bool,
    /// Who has to grant the access first; none when it stands.
    pub asked: Option<AskedAccess>,
}

/// `grant = "approval"`: access that people grant, for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedAccess {
    /// The groups whose members may.
    pub approvers: Vec<String>,
    /// How many of them must.
    pub approvals: u32,
    /// How long it lasts, from then on.
    pub duration: Duration,
}

/// `[[notify]]`: who is told of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// Its name, in logs and figures.
    pub name: String,
    /// How it is told.
    pub kind: NotifyKind,
    /// Where; such addresses are secrets themselves.
    pub url: SecretRef,
    /// What a webhook's messages are signed with.
    pub secret: Option<SecretRef>,
    /// Of what.
    pub events: Vec<NotifyEvent>,
}

/// How somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyKind {
    /// JSON, signed.
    Webhook,
    /// A message to a Slack channel.
    Slack,
}

/// What somebody may be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotifyEvent {
    /// A command or access waits for people.
    Approval,
    /// A command was blocked.
    Block,
    /// A session opened.
    SessionStart,
    /// A session ended.
    SessionEnd,
    /// Something could not be recorded.
    Recording,
}

impl NotifyEvent {
    /// The word in configuration and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approval => "approval",
            Self::Block => "block",
            Self::SessionStart => "session-start",
            Self::SessionEnd => "session-end",
            Self::Recording => "recording",
        }
    }
}

/// `[tickets]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tickets {
    /// The longest that a ticket lives.
    pub max_lifetime: Duration,
    /// How many tickets one identity may have at a time.
    pub max_live: usize,
    /// How many tickets one identity may make in an hour.
    pub max_per_hour: usize,
}

/// `[approvals]`: how many commands may wait for people, or be approved and not used yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Approvals {
    /// Of one identity, at a time.
    pub per_identity: usize,
    /// Of one session, at a time.
    pub per_session: usize,
    /// For one target, at a time.
    pub per_target: usize,
    /// Of one identity, opened within a minute.
    pub per_minute: usize,
}

/// A user as access rules name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserKey {
    /// The issuer's URL, resolved from its name.
    pub issuer: String,
    /// The token's `sub`.
    pub subject: String,
}

/// `[[test]]`: a policy test, and where it stands.
#[derive(Debug)]
pub struct NamedTest {
    /// `file:line:column`.
    pub place: String,
    /// The test.
    pub test: PolicyTest,
}

/// Which targets a rule is about.
#[derive(Debug, Clone)]
pub enum TargetSelector {
    /// Names, with `*` for any run of characters.
    Names(Vec<GlobMatcher>),
    /// Labels that must all be there.
    Labels(BTreeMap<String, String>),
}
