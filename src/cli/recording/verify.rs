//! `portcullis recording verify` and `rotate-key`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::super::identities::Identities;
use super::super::migrate;
use super::super::progress::Progress;
use super::super::{ConfigFile, output};
use crate::archive::{self, Kept, Shelf};
use crate::config::{self, Config};
use crate::database::{Compared, Database, Difference, PrivateServer};
use crate::names::SessionId;
use crate::recording::{
    self, Against, Audit, Claim, Head, LedgerFollower, LedgerNews, PublicKey, Report, State,
};

/// Prove that recordings are what was written.
///
/// Holds every byte against the chain of hashes and the signed seal, and the seal against the
/// signed ledger of the directory that the recording stands in; with --all also that no recording
/// is missing; with --database or --head that the ledger's history was not cut or written anew.
/// With --index also holds the rows that searches and pages show against the recordings, which
/// alone are evidence. Says what was proved and what was not. Fails for a recording that is not
/// sealed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  portcullis recording verify SESSION.rec --public-key seal_ed25519.pub\n  portcullis recording verify --all --database"
)]
pub(super) struct Verify {
    /// A recording's file, or a session's id.
    #[arg(value_name = "PATH | ID", required_unless_present = "all", conflicts_with = "all")]
    recording: Option<String>,
    /// Verify all recordings of the configuration's `data_dir`.
    #[arg(long)]
    all: bool,
    /// With --all, the directory to verify: a `data_dir` or a copy of one.
    #[arg(long, value_name = "DIRECTORY", requires = "all")]
    data_dir: Option<PathBuf>,
    /// Another ledger to hold them against.
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// A PEM file of public keys, one of which must have signed.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// A head of the ledger that was noted elsewhere, as --all prints it.
    #[arg(long, value_name = "LINES:HASH", value_parser = head)]
    head: Vec<Head>,
    /// Hold the ledger against the head that the gateway keeps in its database.
    #[arg(long, requires = "all")]
    database: bool,
    /// Hold the index against the recordings: whatever was changed, added or removed in the
    /// database's rows of this gateway's sessions and commands.
    #[arg(long, requires = "all")]
    index: bool,
    /// Hold the ledger against the checkpoints that a witness has: `https://…`, `s3://bucket/prefix`,
    /// `file:///path`, or a file of what a webhook got, one checkpoint a line.
    #[arg(long, value_name = "WITNESS", requires = "all")]
    witness: Option<String>,
    /// Accept what is not sealed yet.
    #[arg(long)]
    allow_open: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    identities: Identities,
    #[command(flatten)]
    config: ConfigFile,
}

fn head(text: &str) -> Result<Head, String> {
    let bad = || "write it as --all prints it: a number, a colon, 64 digits".to_owned();
    let (lines, hash) = text.split_once(':').ok_or_else(bad)?;
    let digits = hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    let lines = lines.parse().ok().filter(|_| digits).ok_or_else(bad)?;
    Ok(Head { lines, hash: hash.to_ascii_lowercase() })
}

pub(super) async fn verify(options: &Verify) -> anyhow::Result<()> {
    let mut against = Against {
        ledger: options.ledger.clone(),
        heads: options.head.clone(),
        keys: Vec::new(),
        keyring: options.identities.keyring().await?,
    };
    if let Some(file) = &options.public_key {
        against.keys = PublicKey::read(file)
            .with_context(|| format!("cannot use --public-key {}", file.display()))?;
    }
    // A copy of a recording or of a whole directory is proved without a configuration.
    if let Ok(config) = config::load(&options.config.path)
        && let Ok(gateway) =
            gateway_of(options.data_dir.as_ref().unwrap_or(&config.server.data_dir))
    {
        let shelf = archive::open(&config, Some(&gateway));
        let shelf = shelf.context("[recording] archive cannot be used")?;
        against.keyring = against.keyring.with_elsewhere(shelf.map(Shelf::elsewhere));
    }
    match &options.recording {
        Some(recording) => one(options, recording, &against),
        None => all(options, against).await,
    }
}

fn one(options: &Verify, recording: &str, against: &Against) -> anyhow::Result<()> {
    let path = match recording.parse::<SessionId>() {
        Ok(session) => {
            recording::recording_path(&config::data_dir(&options.config.path)?, &session)
        }
        Err(_) => PathBuf::from(recording),
    };
    let shown = path.display();
    let report =
        recording::verify(&path, against).with_context(|| format!("cannot verify {shown}"))?;
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        tell(&mut out, &report)?;
    }
    match (&report.wrong, report.state) {
        (Some(wrong), _) => {
            bail!("{shown} is not what was written: {}", output::visible(&wrong.to_string()))
        }
        (None, State::Open) if !options.allow_open => {
            bail!("{shown} is open, not sealed (--allow-open accepts that)")
        }
        _ => Ok(()),
    }
}

fn tell(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let Report { blocks, events, file_bytes, raw_bytes, missing_events, .. } = report;
    let amount = format!(
        "{events} events in {blocks} blocks, {file_bytes} bytes ({raw_bytes} before compression)"
    );
    let proved = |claim| report.proved.contains(&claim);
    match report.state {
        State::Whole => {
            let how = output::visible(report.how.as_deref().unwrap_or_default());
            writeln!(out, "whole: {amount}; ended by: {how}")?;
            writeln!(out, "proved: this recording is what was written, from first event to seal")?;
            if report.ledger {
                writeln!(out, "proved: the ledger has the same seal")?;
            } else {
                writeln!(out, "not proved: that the ledger knows it; there was none")?;
            }
            tell_key(out, report.key, proved(Claim::Signed))?;
            writeln!(out, "not proved: that no other recording is missing (--all)")?;
        }
        State::Open => {
            writeln!(out, "open, not sealed: {amount}")?;
            writeln!(out, "proved: what is in blocks is what was written")?;
            writeln!(out, "not proved: that nothing was cut from its end")?;
        }
        State::Wrong => writeln!(out, "wrong; before that: {events} events in {blocks} blocks")?,
    }
    if report.unread_events > 0 {
        let unread = report.unread_events;
        writeln!(out, "note: {unread} events are encrypted; what they say was not looked at")?;
    }
    if report.interrupted {
        writeln!(out, "note: its gateway died; it was sealed as it was found")?;
    }
    if *missing_events > 0 {
        writeln!(out, "note: {missing_events} events are missing where the recording says so")?;
    }
    Ok(())
}

fn tell_key(out: &mut impl Write, key: Option<PublicKey>, signed: bool) -> io::Result<()> {
    match key {
        _ if signed => writeln!(out, "proved: it was signed by whoever has the key given"),
        Some(key) => {
            writeln!(
                out,
                "not proved: that {key}, which signed it, is the gateway's (--public-key)"
            )
        }
        None => writeln!(out, "not proved: who wrote it; a version that did not sign did"),
    }
}

async fn all(options: &Verify, mut against: Against) -> anyhow::Result<()> {
    let data_dir = match &options.data_dir {
        Some(folder) => folder.clone(),
        None => config::data_dir(&options.config.path)?,
    };
    if options.database {
        // Before the ledger is read, which only gets longer.
        against.heads.push(noted_head(&config::load(&options.config.path)?, &data_dir).await?);
    }
    if let Some(witness) = &options.witness {
        against.heads.extend(witnessed(witness, &data_dir).await?);
    }
    let shown = data_dir.display();
    let mut line = None;
    let audit = recording::verify_all_with(&data_dir, &against, |looked_at, of| {
        let line = line.get_or_insert_with(|| Progress::of(of));
        line.done(looked_at, || format!("{looked_at} of {of} recordings"));
    });
    drop(line);
    let audit = audit.with_context(|| format!("cannot verify {shown}"))?;
    let index = match options.index {
        true => Some(index(options, &data_dir).await?),
        false => None,
    };
    let mut out = io::stdout().lock();
    if options.json {
        let told = Told { audit: &audit, index: index.as_ref() };
        serde_json::to_writer_pretty(&mut out, &told).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        tell_all(&mut out, &audit)?;
        if let Some(index) = &index {
            tell_index(&mut out, index)?;
        }
    }
    let wrong = audit.wrong.len() as u64 + audit.more_wrong;
    if wrong > 0 {
        bail!("{wrong} things in {shown} are not what was written");
    }
    let (differing, behind) = index.map_or((0, 0), |index| (index.differing, index.behind));
    if differing > 0 {
        bail!(
            "the index says something else of {differing} sessions than their recordings \
             (`portcullis recording reindex` makes it anew)"
        );
    }
    let unfinished = audit.open > 0 || audit.torn_ledger > 0;
    if unfinished && !options.allow_open {
        bail!("{shown} is in use, or its gateway died (--allow-open accepts that)");
    }
    if behind > 0 && !options.allow_open {
        bail!("the index has not read {behind} recordings yet (--allow-open accepts that)");
    }
    Ok(())
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    audit: &'a Audit,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<&'a Compared>,
}

/// Holds the index of the gateway of a `data_dir` against its recordings.
async fn index(options: &Verify, data_dir: &Path) -> anyhow::Result<Compared> {
    let config = config::load(&options.config.path)?;
    let keyring = options.identities.keyring_or(&config).await?;
    let reached = Reached::of(&config).await?;
    let compared =
        reached.database.compare_index(data_dir, config.database.index_text, &keyring).await;
    reached.close().await;
    compared.context("cannot hold the index against the recordings")
}

fn tell_index(out: &mut impl Write, index: &Compared) -> io::Result<()> {
    let Compared { recordings, differing, behind, locked, damaged, .. } = index;
    for Difference { session, what } in &index.differences {
        writeln!(out, "wrong: the index, {session}: {}", output::visible(what))?;
    }
    let told = index.differences.len() as u64;
    if *differing > told {
        writeln!(out, "wrong: the index, {} more sessions", differing - told)?;
    }
    writeln!(out, "index: held against {recordings} recordings, {differing} sessions differ")?;
    for (count, why) in [
        (behind, "are sealed, and the index has not read them to their end"),
        (locked, "are encrypted; the index was not held against them (--identity)"),
        (damaged, "cannot be read whole; the index was not held against them"),
    ] {
        if *count > 0 {
            writeln!(out, "note: {count} recordings {why}")?;
        }
    }
    for (gateway, sessions) in &index.elsewhere {
        let gateway = output::visible(gateway);
        writeln!(
            out,
            "note: {sessions} sessions in the index are of gateway {gateway}: verify them there"
        )?;
    }
    if differing + behind + locked + damaged == 0 {
        writeln!(
            out,
            "proved: the index has the rows that these recordings make, and no others of this gateway"
        )?;
    }
    Ok(())
}

fn tell_all(out: &mut impl Write, audit: &Audit) -> io::Result<()> {
    let Audit { recordings, whole, open, interrupted, file_bytes, .. } = audit;
    for finding in &audit.wrong {
        let wrong = finding.wrong.to_string();
        let path = finding.path.display().to_string();
        writeln!(out, "wrong: {}: {}", output::visible(&path), output::visible(&wrong))?;
    }
    if audit.more_wrong > 0 {
        writeln!(out, "wrong: {} more", audit.more_wrong)?;
    }
    writeln!(out, "{recordings} recordings: {whole} whole, {open} open; {file_bytes} bytes")?;
    if audit.unread > 0 {
        let unread = audit.unread;
        writeln!(out, "note: {unread} are encrypted; what their events say was not looked at")?;
    }
    if *interrupted > 0 {
        writeln!(out, "note: {interrupted} were sealed as they were found after a gateway died")?;
    }
    if audit.deleted > 0 {
        let Audit { deleted, deleted_missing, .. } = audit;
        writeln!(out, "note: {deleted} were deleted by retention, as signed tombstones say")?;
        if *deleted_missing > 0 {
            writeln!(
                out,
                "note: {deleted_missing} of them were gone before retention came to them"
            )?;
        }
    }
    if audit.torn_ledger > 0 {
        writeln!(out, "note: the ledger ends within a line, as a crash leaves it")?;
    }
    if let Some(Head { lines, hash }) = &audit.head {
        writeln!(out, "head: {lines}:{hash}")?;
    }
    let proved = |claim| audit.proved.contains(&claim);
    if proved(Claim::Whole) {
        writeln!(out, "proved: every recording is what was written")?;
    }
    if proved(Claim::Complete) {
        writeln!(out, "proved: none that the ledger knows is missing, and none was added")?;
        tell_key(out, audit.keys.last().copied(), proved(Claim::Signed))?;
        if proved(Claim::Anchored) {
            writeln!(out, "proved: the ledger has the history that was noted elsewhere")?;
        } else {
            writeln!(
                out,
                "not proved: that the end of the ledger was not cut, with what it knew (--witness, \
                 --database, --head)"
            )?;
        }
    }
    Ok(())
}

/// The heads that a witness has of the ledger in a `data_dir`.
async fn witnessed(witness: &str, data_dir: &Path) -> anyhow::Result<Vec<Head>> {
    let gateway = gateway_of(data_dir)?;
    let heads = match config::witness(witness) {
        Some(witness) => Kept::open(&witness)?.heads(&gateway).await?,
        None => archive::testimonies(Path::new(witness), &gateway)?,
    };
    if heads.is_empty() {
        bail!("{witness} has no checkpoint of the ledger of gateway {gateway}");
    }
    Ok(heads)
}

fn gateway_of(data_dir: &Path) -> anyhow::Result<String> {
    let first = LedgerFollower::open(data_dir, 0).and_then(|mut ledger| ledger.next_line());
    let Ok(Some(LedgerNews::Gateway(gateway))) = first else {
        bail!("the ledger in {} does not say whose it is", data_dir.display());
    };
    Ok(gateway)
}

/// The head that the gateway of a `data_dir` noted in its database last.
async fn noted_head(config: &Config, data_dir: &Path) -> anyhow::Result<Head> {
    let gateway = gateway_of(data_dir)?;
    let reached = Reached::of(config).await?;
    let head = reached.database.ledger_head(&gateway).await;
    reached.close().await;
    head.context("cannot ask the database")?
        .with_context(|| format!("the database has no head of the ledger of gateway {gateway}"))
}

/// The database, whether a gateway runs or not.
struct Reached {
    database: Database,
    opened: Option<migrate::Opened>,
}

impl Reached {
    async fn of(config: &Config) -> anyhow::Result<Self> {
        if let Ok(opened) = migrate::open(config).await {
            return Ok(Self { database: opened.database.clone(), opened: Some(opened) });
        }
        // A gateway runs, and its database with it.
        let database = match &config.database.url {
            Some(url) => Database::from_url(url).context("[database] url")?,
            None => Database::new(PrivateServer::check(&config.server.data_dir).await?),
        };
        Ok(Self { database, opened: None })
    }

    async fn close(self) {
        self.database.close().await;
        if let Some(opened) = self.opened {
            opened.close().await;
        }
    }
}

/// Replace the key that signs seals and ledger.
///
/// Makes a new key in the file of `[recording] signing_key`, for which the old one signs in the
/// ledger, and takes the old one away. What the old one signed stays proved. Not while the gateway
/// runs.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis recording rotate-key --config config/portcullis.toml"
)]
pub(super) struct RotateKey {
    #[command(flatten)]
    config: ConfigFile,
    /// The old key is lost: nobody signs for the new one, which is the one in the file, if there
    /// is one. Verifying with the old public key then proves the ledger no further than this.
    #[arg(long)]
    lost: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn rotate_key(options: &RotateKey) -> anyhow::Result<()> {
    let config = config::load(&options.config.path)?;
    let key_file = &config.recording.signing_key;
    let rotated = recording::rotate_key(&config.server.data_dir, key_file, options.lost)?;
    if options.json {
        return output::print_json(&rotated);
    }
    let by = if rotated.handed_over { "for which the old one signed" } else { "unsigned for" };
    let file = key_file.display();
    Ok(output::print(&format!(
        "{} signs from now on, {by}; its public key is in {file}.pub",
        rotated.new
    ))?)
}
