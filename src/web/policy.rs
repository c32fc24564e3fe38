//! What the rules say: to a command, and to what was recorded.
//!
//! Everybody may ask for themselves what the rules in force make of a command; who may read what was
//! recorded also for others, and try a draft of rules on the recordings of this gateway. A try is
//! bounded in time and in commands, runs beside the sessions on one thread, and one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use super::api::{Answer, Api};
use super::ask::Body;
use super::caller::{Caller, Person, Reader};
use super::problem::Problem;
use crate::access;
use crate::catalog::Rules;
use crate::config::Target;
use crate::database::Timestamp;
use crate::decode;
use crate::names::TargetName;
use crate::policy::{self, Explanation, SessionFacts};
use crate::recording::{self, Keyring, ReadError};
use crate::replay::backtest::{self, Backtest, Report};

/// The longest command that is explained, in bytes.
pub(super) const MAX_COMMAND: usize = 16 << 10;
/// How long a try may take, and how many commands it may decide.
const TRY_TIME: Duration = Duration::from_secs(20);
const TRY_COMMANDS: u64 = 1_000_000;
/// What is looked at when nothing is said.
const DAYS: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Kinds of change that are told.
const MOST_CHANGES: usize = 200;

static TRYING: Semaphore = Semaphore::const_new(1);

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/policy/explain", post(explain))
        .route("/api/v1/policy/backtest", post(try_draft))
}

/// A command, and for whom and where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    target: String,
    command: String,
    /// Whose command it would be; the caller's own when neither is given.
    user: Option<String>,
    groups: Option<Vec<String>>,
}

/// What the rules make of it.
#[derive(Debug, Serialize)]
struct Explained {
    target: TargetName,
    /// The hash of the policy that says it.
    policy: String,
    #[serde(flatten)]
    explanation: Explanation,
}

async fn explain(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    Body(question): Body<Question>,
) -> Answer<Explained> {
    let rules = api.catalog.current();
    let target = visible(&api, &caller, &rules, &question.target)?;
    if question.command.len() > MAX_COMMAND {
        return Err(Problem::bad(format!("command: at most {MAX_COMMAND} bytes")));
    }
    let whose = whose(&api, &caller, question.user, question.groups)?;
    let facts = target.facts();
    let command = decode::command(facts.protocol, &question.command).map_err(Problem::bad)?;
    let policy = rules.policy();
    let masked = rules.masks().guard(facts.name.as_str(), &whose.groups);
    let explanation = policy.explain(&whose, &facts, &SessionFacts::default(), masked, &command);
    let (target, policy) = (target.name.clone(), policy.hash().to_owned());
    Ok(Json(Explained { target, policy, explanation }))
}

/// The target of that name; one that the caller may not know of is as one that is not there.
pub(super) fn visible(
    api: &Api,
    caller: &Caller,
    rules: &Rules,
    name: &str,
) -> Result<Arc<Target>, Problem> {
    let known = |name: &TargetName| {
        caller.may_read(api.roles())
            || caller.identity().is_some_and(|own| access::right(rules, own, name).is_ok())
    };
    let name = name.parse::<TargetName>().ok().filter(known);
    name.and_then(|name| rules.target(&name)).cloned().ok_or_else(Problem::not_found)
}

/// Of whom something is asked: the caller, or for those who may read, somebody described.
fn whose(
    api: &Api,
    caller: &Caller,
    user: Option<String>,
    groups: Option<Vec<String>>,
) -> Result<policy::Caller, Problem> {
    if user.is_none() && groups.is_none() {
        return Ok(caller.identity().map(policy::Caller::from).unwrap_or_default());
    }
    if !caller.may_read(api.roles()) {
        return Err(Problem::forbidden("auditors and admins alone ask for others"));
    }
    let (username, groups) = (user.unwrap_or_default(), groups.unwrap_or_default());
    Ok(policy::Caller { username, groups, ..policy::Caller::default() })
}

/// A draft, and what it is tried on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    /// `[[rule]]`s in TOML; none tries the rules in force.
    #[serde(default)]
    pub(super) draft: String,
    /// The sessions that opened in this time.
    pub(super) from: Option<Timestamp>,
    pub(super) to: Option<Timestamp>,
}

/// What came of a try.
#[derive(Debug, Serialize)]
pub(super) struct Tried {
    /// Names the rules that were tried.
    pub(super) policy: String,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// Whether all recordings of that time were read to their ends; the latest are read first.
    pub(super) complete: bool,
    /// Recordings that are damaged; what was read of them counts.
    pub(super) damaged: u64,
    #[serde(flatten)]
    pub(super) report: Report,
}

async fn try_draft(
    State(api): State<Arc<Api>>,
    Reader(caller): Reader,
    Body(draft): Body<Draft>,
) -> Answer<Tried> {
    api.tried_out(&caller, draft).await.map(Json)
}

impl Api {
    /// Tries a draft of rules on what was recorded here.
    pub(super) async fn tried_out(&self, caller: &Caller, draft: Draft) -> Result<Tried, Problem> {
        let now = Timestamp::from(SystemTime::now());
        let to = draft.to.unwrap_or(now);
        let days = i64::try_from(DAYS.as_micros()).unwrap_or(i64::MAX);
        let from = draft.from.unwrap_or(Timestamp(to.0.saturating_sub(days)));
        let rules = self.catalog.current();
        let policy =
            rules.draft(&draft.draft).map_err(|mistakes| Problem::bad(mistakes.to_string()))?;
        let Ok(turn) = TRYING.try_acquire() else {
            return Err(Problem::busy("ask again in some seconds"));
        };
        let said = BTreeMap::from([
            ("policy".to_owned(), json!(policy.hash())),
            ("from".to_owned(), json!(from)),
            ("to".to_owned(), json!(to)),
        ]);
        self.shown(caller, "policy.backtest", None, said).await?;
        let (data_dir, keyring) = (self.data_dir().to_owned(), self.keyring());
        let tried = tokio::task::spawn_blocking(move || {
            let targets = |name: &TargetName| {
                let facts = rules.target(name)?.facts();
                let (masks, name) = (rules.masks(), name.as_str());
                Some(backtest::Target {
                    facts,
                    masked: masks.guard(name, &[]),
                    hides: masks.hide(name),
                })
            };
            let tried = attempt((&data_dir, &keyring), &policy, &targets, from, to);
            drop(turn);
            tried
        });
        match tried.await {
            Ok(Ok(tried)) => Ok(tried),
            Ok(Err(error)) => {
                tracing::error!(%error, "recordings cannot be listed");
                Err(Problem::internal())
            }
            Err(_) => Err(Problem::internal()),
        }
    }
}

fn attempt(
    (data_dir, keyring): (&std::path::Path, &Keyring),
    policy: &policy::Policy,
    targets: &dyn Fn(&TargetName) -> Option<backtest::Target>,
    from: Timestamp,
    to: Timestamp,
) -> std::io::Result<Tried> {
    let ends = Instant::now() + TRY_TIME;
    let mut recordings = recording::recordings(data_dir)?;
    recordings.sort_by_key(|(session, ..)| std::cmp::Reverse(*session));
    let mut backtest = Backtest::new(policy, targets);
    let (mut complete, mut damaged) = (true, 0);
    for (session, path, _) in recordings {
        let opened = Timestamp::from(session.created());
        if opened < from || opened > to {
            continue;
        }
        let goes_on = |commands, _| commands < TRY_COMMANDS && Instant::now() < ends;
        match backtest.read((&path, keyring), goes_on) {
            Ok(true) => {}
            Ok(false) => {
                complete = false;
                break;
            }
            Err(ReadError::NoKey(_)) => complete = false,
            Err(_) => damaged += 1,
        }
    }
    let mut report = backtest.finish();
    report.changed.truncate(MOST_CHANGES);
    let policy = policy.hash().to_owned();
    Ok(Tried { policy, from, to, complete, damaged, report })
}
