//! Trying rules that are not in force on what was recorded.

use std::sync::Arc;
use std::time::SystemTime;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;

use super::visitor::{Posted, Turned, Visitor};
use super::{Frame, page, reader, text, word};
use crate::database::Timestamp;
use crate::replay::backtest::Change;
use crate::web::api::Api;
use crate::web::policy::{Draft, Tried};

/// The days that can be chosen.
const DAYS: [i64; 4] = [1, 7, 30, 90];
const DAY_US: i64 = 86_400_000_000;
/// The longest draft, in bytes.
const MAX_DRAFT: usize = 48 << 10;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/policy/draft", get(draft).post(tried))
}

#[derive(Template)]
#[template(path = "draft.html")]
struct DraftPage {
    frame: Frame,
    draft: String,
    days: i64,
    choices: [i64; 4],
    outcome: Option<Outcome>,
    /// Why it cannot be tried.
    wrong: String,
}

/// What came of it, in words.
struct Outcome {
    since: String,
    complete: bool,
    figures: Vec<(&'static str, String)>,
    damaged: u64,
    changes: Vec<Row>,
}

struct Row {
    from: &'static str,
    to: &'static str,
    by: String,
    count: String,
    text: String,
    link: String,
}

async fn draft(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    uri: Uri,
) -> Result<Response, Turned> {
    reader(&api, &visitor.caller, uri.path()).await?;
    let frame = Frame::of(&api, &visitor, "policy", "Try a draft");
    let (draft, wrong) = (String::new(), String::new());
    let shown = DraftPage { frame, draft, days: 7, choices: DAYS, outcome: None, wrong };
    page(&shown).map_err(Into::into)
}

async fn tried(State(api): State<Arc<Api>>, uri: Uri, posted: Posted) -> Result<Response, Turned> {
    let visitor = &posted.visitor;
    reader(&api, &visitor.caller, uri.path()).await?;
    let draft = posted.field("draft").unwrap_or_default().replace("\r\n", "\n");
    let days = posted.field("days").and_then(|days| days.parse().ok());
    let days = days.filter(|days| DAYS.contains(days)).unwrap_or(7);
    let now = Timestamp::from(SystemTime::now());
    let from = Timestamp(now.0.saturating_sub(days * DAY_US));
    let (mut outcome, mut wrong) = (None, String::new());
    if draft.len() > MAX_DRAFT {
        wrong = format!("A draft is {} KiB at most.", MAX_DRAFT >> 10);
    } else {
        let asked = Draft { draft: draft.clone(), from: Some(from), to: Some(now) };
        match api.tried_out(&visitor.caller, asked).await {
            Ok(tried) => outcome = Some(Outcome::of(&tried)),
            Err(problem) => {
                let (_, title, detail) = problem.told();
                wrong = text::block(detail.unwrap_or(title), MAX_DRAFT);
            }
        }
    }
    let frame = Frame::of(&api, visitor, "policy", "Try a draft");
    page(&DraftPage { frame, draft, days, choices: DAYS, outcome, wrong }).map_err(Into::into)
}

impl Outcome {
    fn of(tried: &Tried) -> Self {
        let report = &tried.report;
        let number = |number: u64| text::number(i64::try_from(number).unwrap_or(i64::MAX));
        let otherwise = report.changed.iter().map(|change| change.count).sum();
        Self {
            since: text::time(tried.from),
            complete: tried.complete,
            figures: vec![
                ("Sessions", number(report.sessions)),
                ("Commands", number(report.commands)),
                ("As before", number(report.unchanged)),
                ("Otherwise", number(otherwise)),
                ("Undecidable", number(report.undecidable)),
                ("Of targets that are gone", number(report.no_target)),
            ],
            damaged: tried.damaged,
            changes: report.changed.iter().map(Row::of).collect(),
        }
    }
}

impl Row {
    fn of(change: &Change) -> Self {
        let example = &change.example;
        Self {
            from: word(change.from),
            to: word(change.to),
            by: match change.rules.as_slice() {
                [] => "the target's default".to_owned(),
                rules => text::line(&rules.join(", ")),
            },
            count: text::number(i64::try_from(change.count).unwrap_or(i64::MAX)),
            text: text::line(&example.text),
            link: format!("/sessions/{}?command={}", example.session, example.sequence),
        }
    }
}
