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
use crate::replay::backtest::{Change, Example, MaskReport, Refused, Undecidable};
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
    online: bool,
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
    undecidable: Vec<Reason>,
    masks: Option<Masks>,
    /// Databases whose catalogs could not be read, each with the reason.
    unreachable: Vec<String>,
}

/// What masks and row filters would do.
struct Masks {
    figures: Vec<(&'static str, String)>,
    /// What goes to the server in the place of the first statement that is answered otherwise.
    sent: String,
    instead: Option<Shown>,
    refused: Vec<Refusal>,
    undecidable: Vec<Reason>,
}

/// Why nobody can tell of some.
struct Reason {
    reason: String,
    count: String,
    example: Shown,
}

struct Refusal {
    by: String,
    reason: String,
    count: String,
    before: String,
    example: Shown,
}

struct Row {
    from: &'static str,
    to: &'static str,
    by: String,
    count: String,
    example: Shown,
}

/// A command, and where it is shown.
struct Shown {
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
    let (days, choices, online, outcome) = (7, DAYS, false, None);
    let shown = DraftPage { frame, draft, days, choices, online, outcome, wrong };
    page(&shown).map_err(Into::into)
}

async fn tried(State(api): State<Arc<Api>>, uri: Uri, posted: Posted) -> Result<Response, Turned> {
    let visitor = &posted.visitor;
    reader(&api, &visitor.caller, uri.path()).await?;
    let draft = posted.field("draft").unwrap_or_default().replace("\r\n", "\n");
    let days = posted.field("days").and_then(|days| days.parse().ok());
    let days = days.filter(|days| DAYS.contains(days)).unwrap_or(7);
    let online = posted.field("online").is_some();
    let now = Timestamp::from(SystemTime::now());
    let from = Timestamp(now.0.saturating_sub(days * DAY_US));
    let (mut outcome, mut wrong) = (None, String::new());
    if draft.len() > MAX_DRAFT {
        wrong = format!("A draft is {} KiB at most.", MAX_DRAFT >> 10);
    } else {
        let asked = Draft { draft: draft.clone(), from: Some(from), to: Some(now), online };
        match api.tried_out(&visitor.caller, asked).await {
            Ok(tried) => outcome = Some(Outcome::of(&tried)),
            Err(problem) => {
                let (_, title, detail) = problem.told();
                wrong = text::block(detail.unwrap_or(title), MAX_DRAFT);
            }
        }
    }
    let frame = Frame::of(&api, visitor, "policy", "Try a draft");
    let shown = DraftPage { frame, draft, days, choices: DAYS, online, outcome, wrong };
    page(&shown).map_err(Into::into)
}

impl Outcome {
    fn of(tried: &Tried) -> Self {
        let report = &tried.report;
        let unreachable = tried.unreachable.iter().flatten().map(|database| {
            text::line(&format!(
                "The catalog of {}, database {}, cannot be read: {}",
                database.target, database.database, database.error
            ))
        });
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
            undecidable: report.undecidable_by_reason.iter().map(Reason::of).collect(),
            masks: report.masks.as_ref().map(Masks::of),
            unreachable: unreachable.collect(),
        }
    }
}

fn number(number: u64) -> String {
    text::number(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Masks {
    fn of(report: &MaskReport) -> Self {
        let MaskReport { same, undecidable, undecidable_by_reason, instead, refused } = report;
        Self {
            figures: vec![
                ("Sent as they are", number(*same)),
                ("Answered otherwise", number(instead.count)),
                ("Refused", number(refused.iter().map(|refused| refused.count).sum())),
                ("Undecidable", number(*undecidable)),
            ],
            sent: text::line(instead.sent.as_deref().unwrap_or_default()),
            instead: instead.example.as_ref().map(Shown::of),
            refused: refused.iter().map(Refusal::of).collect(),
            undecidable: undecidable_by_reason.iter().map(Reason::of).collect(),
        }
    }
}

impl Reason {
    fn of(undecidable: &Undecidable) -> Self {
        Self {
            reason: text::line(&undecidable.reason),
            count: number(undecidable.count),
            example: Shown::of(&undecidable.example),
        }
    }
}

impl Refusal {
    fn of(refused: &Refused) -> Self {
        Self {
            by: text::line(&refused.by.join(", ")),
            reason: text::line(&refused.reason),
            count: number(refused.count),
            before: number(refused.before),
            example: Shown::of(&refused.example),
        }
    }
}

impl Shown {
    fn of(example: &Example) -> Self {
        Self {
            text: text::line(&example.text),
            link: format!("/sessions/{}?command={}", example.session, example.sequence),
        }
    }
}

impl Row {
    fn of(change: &Change) -> Self {
        Self {
            from: word(change.from),
            to: word(change.to),
            by: match change.rules.as_slice() {
                [] => "the target's default".to_owned(),
                rules => text::line(&rules.join(", ")),
            },
            count: number(change.count),
            example: Shown::of(&change.example),
        }
    }
}
