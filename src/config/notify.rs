//! `[[notify]]`: who is told of what.

use super::model::{Notify, NotifyEvent, NotifyKind};
use super::reader::{Field, Table, quoted};
use super::value;

/// The longest name.
const MAX_NAME: usize = 63;

const EVENTS: &[(&str, NotifyEvent)] = &[
    ("approval", NotifyEvent::Approval),
    ("block", NotifyEvent::Block),
    ("session-start", NotifyEvent::SessionStart),
    ("session-end", NotifyEvent::SessionEnd),
    ("recording", NotifyEvent::Recording),
];

pub(super) fn notify(top: &Table<'_>) -> Vec<Notify> {
    let mut names: Vec<String> = Vec::new();
    let mut all = Vec::new();
    for table in top.tables("notify") {
        let name = table.require("name", |field| name(field, &names));
        names.extend(name.clone());
        all.extend(one(table, name));
    }
    all
}

fn one(table: Table<'_>, name: Option<String>) -> Option<Notify> {
    let kinds = [("webhook", NotifyKind::Webhook), ("slack", NotifyKind::Slack)];
    let kind = table.require("kind", |field| field.word(&kinds));
    let url = table.require("url", value::secret);
    let secret = table.read("secret", value::secret);
    let events = table.require("events", |field| field.some(|event| event.word(EVENTS)));
    match kind {
        Some(NotifyKind::Webhook) if !table.has("secret") => table.wrong(
            "[[notify]] with kind = \"webhook\" has no secret",
            Some("messages are signed: give secret = { file = \"path\" }, and check it there"),
        ),
        Some(NotifyKind::Slack) if table.has("secret") => {
            table.wrong_at("secret", "Slack checks no signature", "leave it out");
        }
        _ => {}
    }
    table.finish();
    Some(Notify { name: name?, kind: kind?, url: url?, secret, events: events? })
}

/// A name that is fit for logs and figures, and that no other has.
fn name(field: Field<'_>, names: &[String]) -> Option<String> {
    let text = field.text()?;
    let of_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.len() > MAX_NAME || !text.chars().all(of_names) {
        return field.wrong(format!("{} is not a name of letters, digits, - and _", quoted(text)));
    }
    if names.iter().any(|known| known == text) {
        return field.wrong(format!("another [[notify]] has the name {}", quoted(text)));
    }
    Some(text.to_owned())
}
