//! The audit log: who looked, decided, ended, changed.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde_json::Value;

use super::asked::Asked;
use super::visitor::{Turned, Visitor};
use super::{Frame, page, reader, text};
use crate::database::AuditRecord;
use crate::web::api::Api;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/audit", get(audit))
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    asked: Asked,
    lines: Vec<Line>,
    next: Option<String>,
}

/// A line of the audit log.
pub(super) struct Line {
    pub(super) at: String,
    pub(super) user: String,
    pub(super) client: String,
    pub(super) action: String,
    pub(super) object: String,
    /// The session's page, when the object is one.
    pub(super) link: Option<String>,
    /// What became of it, unless it was done.
    pub(super) outcome: Option<String>,
    pub(super) detail: String,
}

impl Line {
    pub(super) fn of(record: &AuditRecord) -> Self {
        let entry = &record.entry;
        let object = entry.object.as_deref().unwrap_or_default();
        let page = match entry.action.split('.').next() {
            Some("session" | "recording") => Some("sessions"),
            Some("approval") => Some("approvals"),
            Some("access") if !entry.action.ends_with("request") => Some("access-requests"),
            _ => None,
        };
        let detail =
            entry.detail.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| {
                let value = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                format!("{key}: {value}")
            });
        Self {
            at: text::time(record.at),
            user: text::line(&entry.username),
            client: text::line(entry.client.as_deref().unwrap_or_default()),
            action: text::line(&entry.action),
            object: text::line(object),
            link: page
                .filter(|_| object.parse::<uuid::Uuid>().is_ok())
                .map(|page| format!("/{page}/{object}")),
            outcome: (entry.outcome != "done").then(|| text::line(&entry.outcome)),
            detail: text::line(&detail.collect::<Vec<_>>().join(", ")),
        }
    }
}

async fn audit(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    asked: Asked,
) -> Result<axum::response::Response, Turned> {
    reader(&api, &visitor.caller, "/audit").await?;
    let found = api.audit(&visitor.caller, asked.ask.clone()).await?;
    page(&AuditPage {
        frame: Frame::of(&api, &visitor, "audit", "Audit"),
        lines: found.items.iter().map(Line::of).collect(),
        next: found.next.as_deref().map(|cursor| asked.with(&[("cursor", Some(cursor))])),
        asked,
    })
    .map_err(Into::into)
}
