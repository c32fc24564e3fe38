//! What happened lately, in figures, and how recording goes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::asked::Asked;
use super::sessions::{Chart, Counts};
use super::visitor::{Turned, Visitor};
use super::{Frame, page, reader, text};
use crate::database::{Filter, RequestKind, RequestState, Sum, Timestamp, Wanted};
use crate::percent::encoded;
use crate::web::api::Api;
use crate::web::problem::Problem;

/// What may be looked back at.
const SPANS: [(u64, &str); 4] = [(1, "day"), (7, "week"), (30, "month"), (365, "year")];
const DAY: Duration = Duration::from_secs(86_400);
/// Requests and sessions that are counted one by one.
const COUNTED: u32 = 500;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/overview", get(overview))
}

/// How far back.
#[derive(Deserialize)]
struct Wish {
    days: Option<u64>,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    days: u64,
    spans: [(u64, &'static str); 4],
    counts: Counts,
    chart: Chart,
    open: String,
    waiting: String,
    /// The sessions of this time, as a question.
    since: String,
    tops: Vec<Top>,
    health: Vec<(&'static str, String, bool)>,
    healthy: bool,
}

/// The most active of one kind.
struct Top {
    title: &'static str,
    what: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    link: Option<String>,
    count: String,
    /// Of a hundred.
    width: i64,
    blocked: i64,
    blocked_width: i64,
}

async fn overview(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    reader(&api, caller, "/overview").await?;
    let Query(wish) = wish.map_err(|error| Problem::bad(error.body_text()))?;
    let days = wish.days.filter(|days| SPANS.iter().any(|(span, _)| span == days)).unwrap_or(7);
    let what = [("days".to_owned(), days.into())];
    api.shown(caller, "overview.show", None, what.into()).await?;
    let back = DAY.saturating_mul(u32::try_from(days).unwrap_or(7));
    let now = SystemTime::now();
    let since = Timestamp::from(now.checked_sub(back).unwrap_or(now));
    let database = &api.database;
    let filter = Filter { from: Some(since), to: Some(Timestamp::from(now)), ..Filter::default() };
    let histogram = database.histogram(&filter).await.map_err(Problem::from)?;
    let sums = database.overview(since).await.map_err(Problem::from)?;
    let open = database.open_sessions(COUNTED).await.map_err(Problem::from)?;
    let wanted = Wanted { limit: Some(COUNTED), cursor: None };
    let mut waiting = 0;
    for kind in [RequestKind::Command, RequestKind::Access] {
        let pending = Some(RequestState::Pending);
        let found = database.requests(kind, pending, None, &wanted).await.map_err(Problem::from)?;
        waiting += found.items.len();
    }
    let from = format!("?from={}", encoded(&since.to_string()));
    let by = |key| Some(format!("/sessions{from}&{key}"));
    let tops = vec![
        Top::of("Users", "commands", &sums.users, by("user").as_deref()),
        Top::of("Targets", "commands", &sums.targets, by("target").as_deref()),
        Top::of("Rules that acted", "commands", &sums.rules, None),
        Top::of("Masks", "values", &sums.masked, None),
    ];
    let health = health(&api, sums.missing_events);
    let number = |n: usize| text::number(i64::try_from(n).unwrap_or(i64::MAX));
    page(&OverviewPage {
        frame: Frame::of(&api, &visitor, "overview", "Overview"),
        days,
        spans: SPANS,
        counts: Counts::of(&histogram.sums),
        chart: Chart::of(&Asked::nothing(), &histogram),
        open: number(open.len()),
        waiting: number(waiting),
        tops,
        since: from,
        healthy: health.iter().all(|(_, _, fine)| *fine),
        health,
    })
    .map_err(Into::into)
}

/// Facts about recording, each with whether it is as it should be.
fn health(api: &Api, missing: i64) -> Vec<(&'static str, String, bool)> {
    let (index, behind) = api.index_state();
    let behind = behind.map(|behind| format!(", {} s behind at most", behind.as_secs()));
    let undelivered = api.catalog.desk().notifier().dead_letters().len();
    let reachable = api.catalog.desk().is_reachable();
    vec![
        ("Index", format!("{index}{}", behind.unwrap_or_default()), index == "current"),
        ("State", if reachable { "current" } else { "unreachable" }.to_owned(), reachable),
        ("Events that could not be recorded", text::number(missing), missing == 0),
        ("Messages that could not be delivered", undelivered.to_string(), undelivered == 0),
    ]
}

impl Top {
    fn of(title: &'static str, what: &'static str, sums: &[Sum], to: Option<&str>) -> Self {
        let most = sums.iter().map(|sum| sum.count).max().unwrap_or(0).max(1);
        let part = |n: i64| if n > 0 { (n.saturating_mul(100) / most).max(1) } else { 0 };
        let bars = sums.iter().map(|sum| Bar {
            name: text::line(&sum.name),
            link: to.map(|to| format!("{to}={}", encoded(&sum.name))),
            count: text::number(sum.count),
            width: part(sum.count),
            blocked: sum.blocked,
            blocked_width: part(sum.blocked),
        });
        Self { title, what, bars: bars.collect() }
    }
}
