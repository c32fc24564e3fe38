//! A session as one page that stands by itself: for somebody who has no account here.
//!
//! It needs nothing but itself. It has no script, and its own policy lets none run; what was
//! recorded is text in it, as on the pages.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::assets::STYLE;
use super::detail::{Answer, Detail};
use super::proof::Proof;
use super::{text, word};
use crate::database::Timestamp;
use crate::policy::Verdict;
use crate::recording::{self, Against, Keyring, Opened, Reader, Sequence};
use crate::replay::export::{Entry, ExportError, commands};
use crate::replay::{self, ReplayError};

/// Commands that are listed, and of which what was answered is shown.
const LISTED: usize = 10_000;
const DETAILED: usize = 500;
/// Bytes of details, roughly; the first that goes beyond is the last.
const DETAILS: usize = 24 << 20;

#[derive(Template)]
#[template(path = "export.html")]
struct Page {
    style: &'static str,
    style_hash: String,
    title: String,
    session: String,
    protocol: &'static str,
    facts: Vec<(&'static str, String)>,
    proof: Proof,
    made: String,
    version: &'static str,
    count: String,
    lines: Vec<Line>,
    /// Commands that are not listed.
    more: usize,
    details: Vec<Detail>,
    /// Commands that are listed and not shown.
    undetailed: usize,
    damage: Option<String>,
}

struct Line {
    sequence: Sequence,
    offset: String,
    verdict: &'static str,
    text: String,
    ended: String,
    error: String,
    detailed: bool,
}

/// Writes a recording as a page, with what verifying it found. Gives the damage before which the page
/// ends, if there is one; the page tells of it.
///
/// # Errors
/// When it cannot be read at all, or the page not written.
pub fn html(
    path: &Path,
    keyring: &Keyring,
    out: &mut dyn Write,
) -> Result<Option<ExportError>, ExportError> {
    let against = Against { keyring: keyring.clone(), ..Against::default() };
    let report = recording::verify(path, &against).map_err(ReplayError::from)?;
    let (mut opened, mut lines, mut count) = (None::<Opened>, Vec::new(), 0);
    let read = commands(Reader::open_with(path, keyring)?, |by, entry| {
        if opened.is_none() {
            opened = Some(by.clone());
        }
        let prepares = matches!(&*entry.recorded.command.form, "parse" | "bind");
        if !prepares || entry.recorded.decision.verdict() != Verdict::Allow {
            count += 1;
            if lines.len() < LISTED {
                lines.push(Line::of(&entry));
            }
        }
        Ok(())
    });
    let damage = read.err();
    let opened = match opened {
        Some(opened) => opened,
        None => first(path, keyring)?,
    };
    let details = details((path, keyring), &opened, &mut lines);
    let undetailed = lines.len() - details.len();
    let number = |number: usize| text::number(i64::try_from(number).unwrap_or(i64::MAX));
    let page = Page {
        style: STYLE,
        style_hash: STANDARD.encode(digest(&SHA256, STYLE.as_bytes())),
        title: text::line(&format!("{} on {}", opened.identity.username, opened.target)),
        session: opened.session.to_string(),
        protocol: opened.protocol.as_str(),
        facts: facts(&opened),
        proof: Proof::of(&report),
        made: format!("{} UTC", text::time(Timestamp::from(SystemTime::now()))),
        version: env!("CARGO_PKG_VERSION"),
        count: number(count),
        more: count - lines.len(),
        lines,
        details,
        undetailed,
        damage: damage.as_ref().map(|error| text::line(&error.to_string())),
    };
    let html = page.render().map_err(std::io::Error::other)?;
    out.write_all(html.as_bytes())?;
    Ok(damage)
}

/// Who opened a session that has no commands.
fn first(path: &Path, keyring: &Keyring) -> Result<Opened, ExportError> {
    let first = Reader::open_with(path, keyring)?.next().transpose()?;
    let opened = first.and_then(|event| serde_json::from_slice(&event.payload).ok());
    opened.ok_or_else(|| std::io::Error::other("it is no session's recording").into())
}

fn details((path, keyring): (&Path, &Keyring), opened: &Opened, lines: &mut [Line]) -> Vec<Detail> {
    let (mut details, mut bytes) = (Vec::new(), 0);
    for line in lines.iter_mut().take(DETAILED) {
        // Behind a damage there is nothing to show.
        let Ok(Some(moment)) = replay::moment(path, keyring, line.sequence) else { break };
        let mut detail = Detail::of(opened.session, line.sequence, &moment);
        detail.linked = false;
        bytes += size(&detail);
        if bytes > DETAILS {
            break;
        }
        line.detailed = true;
        details.push(detail);
    }
    details
}

/// What a detail takes, roughly.
fn size(detail: &Detail) -> usize {
    let tables = detail.answers.iter().map(|answer| match answer {
        Answer::Table(table) => {
            let values = table.rows.iter().flatten().flatten();
            values.map(|value| value.len() + 16).sum()
        }
        _ => 200,
    });
    let bodies = [&detail.request, &detail.response];
    let bodies: usize = bodies.into_iter().flatten().map(|http| http.body.len()).sum();
    let texts = detail.text.len() + detail.output.len() + detail.error_output.len();
    1_000 + texts + bodies + tables.sum::<usize>()
}

fn facts(opened: &Opened) -> Vec<(&'static str, String)> {
    let told = |told: &Option<recording::Told>| {
        told.as_ref().map(|told| {
            let who = if told.proved { "by a claim" } else { "as the client says" };
            format!("{} ({who})", told.name)
        })
    };
    let identity = &opened.identity;
    let mut facts = vec![
        ("Session", opened.session.to_string()),
        ("Opened", format!("{} UTC", text::time(Timestamp::from(opened.session.created())))),
        ("User", identity.username.clone()),
        ("Subject", identity.subject.clone()),
        ("Issuer", identity.issuer.clone()),
        ("Groups", identity.groups.join(", ")),
        ("Client", opened.client.clone()),
        ("Target", opened.target.to_string()),
    ];
    facts.extend(opened.database.clone().map(|database| ("Database", database)));
    facts.extend(told(&opened.workflow).map(|workflow| ("Workflow", workflow)));
    facts.extend(told(&opened.run).map(|run| ("Run", run)));
    facts.push(("Policy", opened.policy.clone()));
    facts.into_iter().map(|(name, value)| (name, text::line(&value))).collect()
}

impl Line {
    fn of(entry: &Entry) -> Self {
        let blocked = entry.recorded.decision.verdict() == Verdict::Block;
        let outcome = entry.outcome.as_ref();
        let ended = match outcome {
            _ if blocked => "never ran".to_owned(),
            None => String::new(),
            Some(outcome) => {
                let rows = outcome.rows.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX));
                let rows = rows.map(|rows| text::count(rows, "row"));
                let took = text::duration(i64::try_from(outcome.duration_us).unwrap_or(i64::MAX));
                rows.into_iter().chain([took]).collect::<Vec<_>>().join(", ")
            }
        };
        let error = outcome.and_then(|outcome| outcome.error.as_ref()).filter(|_| !blocked);
        let shown = if entry.text.is_empty() { &entry.recorded.command.form } else { &*entry.text };
        Self {
            sequence: entry.sequence,
            offset: text::duration(i64::try_from(entry.monotonic_us).unwrap_or(i64::MAX)),
            verdict: word(entry.recorded.decision.verdict()),
            text: text::line(shown),
            ended,
            error: text::line(error.map(|error| error.code.as_str()).unwrap_or_default()),
            detailed: false,
        }
    }
}
