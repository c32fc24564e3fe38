//! One run: what a crew or job did in one execution, across all targets on one time axis.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::sessions::{Row, now};
use super::visitor::{Turned, Visitor};
use super::{Frame, page, reader, text, word};
use crate::database::{Command, Session, Timestamp};
use crate::policy::Verdict;
use crate::web::api::Api;
use crate::web::problem::Problem;
use crate::web::query::Ask;

/// The width of the time axis, in units of its picture.
const WIDTH: i64 = 1000;
/// The height of a session's lane there.
const LANE: i64 = 26;
/// What is drawn later lies over what is drawn before.
const ORDER: [&str; 3] = ["allow", "approve", "block"];
/// Sessions and commands on one page.
const MOST: (&str, &str) = ("200", "1000");

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/run", get(run))
}

/// Which run; its name may hold anything.
#[derive(Deserialize)]
struct Wish {
    run: String,
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    run: String,
    workflow: String,
    lanes: Vec<Lane>,
    steps: Vec<Step>,
    /// Of the picture.
    height: i64,
    first: String,
    last: String,
    lasted: String,
    blocked: i64,
    approved: i64,
    more: bool,
}

/// A session of the run.
struct Lane {
    row: Row,
    y: i64,
    x: i64,
    width: i64,
    marks: Vec<Mark>,
}

/// A command on the axis.
struct Mark {
    x: i64,
    y: i64,
    verdict: &'static str,
    label: String,
    link: String,
}

/// A command in the list.
struct Step {
    link: String,
    at: String,
    offset: String,
    target: String,
    verdict: &'static str,
    text: String,
    duration: String,
    error: String,
}

async fn run(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    reader(&api, caller, "/run").await?;
    let Query(wish) = wish.map_err(|error| Problem::bad(error.body_text()))?;
    let ask = |limit: &str| {
        Ask::of(vec![("run".to_owned(), wish.run.clone()), ("limit".to_owned(), limit.to_owned())])
    };
    let sessions = api.sessions(caller, ask(MOST.0)?).await?;
    let commands = api.commands(caller, ask(MOST.1)?).await?;
    if sessions.items.is_empty() {
        return Err(Problem::not_found().into());
    }
    let more = sessions.next.is_some() || commands.next.is_some();
    let axis = Axis::of(&sessions.items, &commands.items);
    let mut lanes: Vec<&Session> = sessions.items.iter().collect();
    lanes.sort_by_key(|session| session.opened_at);
    let lanes: Vec<Lane> = (0_i64..)
        .zip(lanes)
        .map(|(n, session)| Lane::of(n, session, &commands.items, &axis))
        .collect();
    let run = text::line(&wish.run);
    page(&RunPage {
        frame: Frame::of(&api, &visitor, "sessions", format!("Run {run}")),
        run,
        workflow: text::line(
            sessions.items.iter().find_map(|s| s.workflow.as_deref()).unwrap_or_default(),
        ),
        height: LANE * i64::try_from(lanes.len()).unwrap_or(1),
        lanes,
        steps: commands.items.iter().rev().map(|command| Step::of(command, &axis)).collect(),
        first: text::time(Timestamp(axis.from)),
        last: text::time(Timestamp(axis.to)),
        lasted: text::duration(axis.to.saturating_sub(axis.from)),
        blocked: sessions.items.iter().map(|session| session.blocked).sum(),
        approved: sessions.items.iter().map(|session| session.approved).sum(),
        more,
    })
    .map_err(Into::into)
}

/// From the first session's begin to the last command's end. What stays open behind it, idle, would
/// press everything else together.
struct Axis {
    from: i64,
    to: i64,
}

impl Axis {
    fn of(sessions: &[Session], commands: &[Command]) -> Self {
        let from = sessions.iter().map(|session| session.opened_at.0).min().unwrap_or(0);
        let until = |session: &Session| session.closed_at.unwrap_or_else(now).0;
        let ended = |command: &Command| {
            let of = || sessions.iter().find(|session| session.id == command.session);
            match command.duration_us {
                Some(us) => command.at.0.saturating_add(us),
                None => of().map_or(command.at.0, until),
            }
        };
        let to = commands.iter().map(ended).max();
        let to = to.or_else(|| sessions.iter().map(until).max());
        Self { from, to: to.unwrap_or(from).max(from.saturating_add(1)) }
    }

    fn place(&self, at: Timestamp) -> i64 {
        let at = i128::from(at.0.clamp(self.from, self.to)) - i128::from(self.from);
        let whole = i128::from(self.to) - i128::from(self.from);
        i64::try_from(at * i128::from(WIDTH) / whole.max(1)).unwrap_or(0)
    }
}

impl Lane {
    fn of(n: i64, session: &Session, commands: &[Command], axis: &Axis) -> Self {
        let x = axis.place(session.opened_at);
        let end = axis.place(session.closed_at.unwrap_or_else(now));
        let y = n * LANE;
        let own = commands.iter().filter(|command| command.session == session.id);
        let mut marks: Vec<Mark> = own.map(|command| Mark::of(command, y, axis)).collect();
        // What was refused is drawn over what was not.
        marks.sort_by_key(|mark| ORDER.iter().position(|word| *word == mark.verdict));
        Self { row: Row::of(session), y, x, width: (end - x).max(3), marks }
    }
}

impl Mark {
    fn of(command: &Command, y: i64, axis: &Axis) -> Self {
        let what = text::line(command.text.as_deref().unwrap_or(&command.form));
        let verdict = word(command.verdict);
        Self {
            x: axis.place(command.at).min(WIDTH - 3),
            y,
            verdict,
            label: format!("{verdict}: {what}"),
            link: link(command),
        }
    }
}

impl Step {
    fn of(command: &Command, axis: &Axis) -> Self {
        Self {
            link: link(command),
            at: text::time(command.at),
            offset: text::duration(command.at.0.saturating_sub(axis.from).max(0)),
            target: text::line(&command.target),
            verdict: word(command.verdict),
            text: text::line(command.text.as_deref().unwrap_or(&command.form)),
            duration: command.duration_us.map(text::duration).unwrap_or_default(),
            // What never ran did not fail at the target.
            error: match command.verdict {
                Verdict::Block => String::new(),
                _ => text::line(command.error_code.as_deref().unwrap_or_default()),
            },
        }
    }
}

fn link(command: &Command) -> String {
    format!("/sessions/{}?command={}", command.session, command.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_holds_every_time() {
        let axis = Axis { from: 1_000, to: 3_000 };
        let places = [0, 1_000, 2_000, 3_000, i64::MAX].map(|at| axis.place(Timestamp(at)));
        assert_eq!(places, [0, 0, 500, 1000, 1000]);
        assert_eq!(Axis { from: 5, to: 6 }.place(Timestamp(5)), 0);
    }
}
