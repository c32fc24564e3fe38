//! The sessions: filters, counts, a histogram that is also the time filter. All of it stands in
//! the address.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::routing::get;

use super::asked::Asked;
use super::visitor::{Turned, Visitor};
use super::{Frame, Shown, page, reader, text};
use crate::database::{Histogram, Session, Timestamp};
use crate::percent::encoded;
use crate::web::api::Api;
use crate::web::problem::Problem;

/// The histogram's height, in units of its picture.
const HEIGHT: i64 = 56;
/// The width of a column there.
const WIDTH: i64 = 10;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/sessions", get(sessions))
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    asked: Asked,
    counts: Counts,
    chart: Chart,
    rows: Vec<Row>,
    next: Option<String>,
    narrowed: bool,
}

/// What a histogram sums up.
pub(super) struct Counts {
    pub(super) sessions: String,
    pub(super) commands: String,
    pub(super) blocked: String,
    pub(super) approved: String,
}

impl Counts {
    pub(super) fn of(sums: &crate::database::Counts) -> Self {
        Self {
            sessions: text::number(sums.sessions),
            commands: text::number(sums.commands),
            blocked: text::number(sums.blocked),
            approved: text::number(sums.approved),
        }
    }
}

/// A histogram as a picture.
pub(super) struct Chart {
    pub(super) columns: Vec<Column>,
    pub(super) width: i64,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) step: String,
    /// What its highest column counts.
    pub(super) most: String,
}

/// A column of it.
pub(super) struct Column {
    pub(super) x: i64,
    /// From the top: what is not blocked, then what is.
    pub(super) top: i64,
    pub(super) height: i64,
    pub(super) red_top: i64,
    pub(super) red_height: i64,
    pub(super) to: String,
    pub(super) link: String,
    pub(super) label: String,
}

impl Chart {
    /// Its columns lead to the same question about their time alone.
    pub(super) fn of(asked: &Asked, histogram: &Histogram) -> Self {
        let columns = columns(asked, histogram);
        let ends = |column: Option<&crate::database::Column>, after: i64| {
            let at = column.map(|column| Timestamp(column.from.0.saturating_add(after)));
            at.map(text::time).unwrap_or_default()
        };
        Self {
            width: WIDTH * i64::try_from(columns.len()).unwrap_or(1).max(1),
            columns,
            first: ends(histogram.columns.first(), 0),
            last: ends(histogram.columns.last(), histogram.step_us),
            step: text::duration(histogram.step_us),
            most: text::count(most(histogram), "session"),
        }
    }
}

/// A session in a list.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) opened: String,
    pub(super) opened_exact: String,
    pub(super) user: String,
    pub(super) target: String,
    pub(super) protocol: &'static str,
    pub(super) workflow: String,
    pub(super) run: String,
    /// The run's page.
    pub(super) run_link: String,
    pub(super) commands: String,
    pub(super) blocked: i64,
    pub(super) approved: i64,
    pub(super) failed: i64,
    pub(super) rows: String,
    pub(super) bytes: String,
    pub(super) lasted: String,
    pub(super) is_open: bool,
    pub(super) ended: String,
}

impl Row {
    pub(super) fn of(session: &Session) -> Self {
        let until = session.closed_at.unwrap_or_else(now);
        let database = session.database.as_deref().unwrap_or_default();
        let target = match database.is_empty() || database == session.target {
            true => session.target.clone(),
            false => format!("{}/{database}", session.target),
        };
        Self {
            id: session.id.to_string(),
            opened: text::time(session.opened_at),
            opened_exact: session.opened_at.to_string(),
            user: text::line(&session.username),
            target: text::line(&target),
            protocol: session.protocol.as_str(),
            workflow: text::line(session.workflow.as_deref().unwrap_or_default()),
            run: text::line(session.run.as_deref().unwrap_or_default()),
            run_link: format!("/run?run={}", encoded(session.run.as_deref().unwrap_or_default())),
            commands: text::number(session.commands),
            blocked: session.blocked,
            approved: session.approved,
            failed: session.failed,
            rows: text::number(session.rows),
            bytes: text::size(session.bytes_up.saturating_add(session.bytes_down)),
            lasted: text::duration(until.0.saturating_sub(session.opened_at.0)),
            is_open: session.closed_at.is_none(),
            ended: text::line(session.ended.as_deref().unwrap_or_default()),
        }
    }
}

pub(super) fn now() -> Timestamp {
    Timestamp::from(std::time::SystemTime::now())
}

async fn sessions(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    asked: Asked,
) -> Result<axum::response::Response, Turned> {
    reader(&api, &visitor.caller, "/sessions").await?;
    let counted = async { api.database.histogram(&asked.ask.filter).await.map_err(Problem::from) };
    let (found, counted) = tokio::join!(api.sessions(&visitor.caller, asked.ask.clone()), counted);
    let (found, histogram) = (found?, counted?);
    shown(&api, &visitor, asked, &found.items, found.next.as_deref(), &histogram)
        .map_err(Turned::Failed)
}

fn shown(
    api: &Api,
    visitor: &Visitor,
    asked: Asked,
    rows: &[Session],
    next: Option<&str>,
    histogram: &Histogram,
) -> Shown {
    page(&SessionsPage {
        frame: Frame::of(api, visitor, "sessions", "Sessions"),
        counts: Counts::of(&histogram.sums),
        chart: Chart::of(&asked, histogram),
        rows: rows.iter().map(Row::of).collect(),
        next: next.map(|cursor| asked.with(&[("cursor", Some(cursor))])),
        narrowed: !asked.said.is_empty(),
        asked,
    })
}

fn most(histogram: &Histogram) -> i64 {
    histogram.columns.iter().map(|column| column.counts.sessions).max().unwrap_or(0)
}

fn columns(asked: &Asked, histogram: &Histogram) -> Vec<Column> {
    let most = most(histogram).max(1);
    let places = (0_i64..).map(|n| n * WIDTH);
    let column = |(x, column): (i64, &crate::database::Column)| {
        let (counts, from) = (column.counts, column.from.to_string());
        let to = Timestamp(column.from.0.saturating_add(histogram.step_us)).to_string();
        // A column that holds anything can be seen.
        let part = |n: i64| if n > 0 { (n * HEIGHT / most).max(2) } else { 0 };
        let height = part(counts.sessions);
        let red = match counts.commands {
            0 => 0,
            commands => (height * counts.blocked / commands).max(i64::from(counts.blocked > 0) * 2),
        };
        let link = asked.with(&[("from", Some(&from)), ("to", Some(&to))]);
        let label = format!(
            "{}: {} sessions, {} commands, {} blocked",
            text::time(column.from),
            counts.sessions,
            counts.commands,
            counts.blocked
        );
        Column {
            x,
            top: HEIGHT - height,
            height: height - red.min(height),
            red_top: HEIGHT - red.min(height),
            red_height: red.min(height),
            to,
            link,
            label,
        }
    };
    places.zip(&histogram.columns).map(column).collect()
}
