//! What the rules say: to a command, and to what was recorded.
//!
//! Everybody may ask for themselves what becomes of a command; who may read what was recorded also for
//! others. The rules in force say it, and the masks and row filters as far as the text tells what they
//! do; the target's catalog, which a session of the caller's would have read too, says the rest.
//!
//! Who may read what was recorded may also try a draft of rules on the recordings of this gateway. A try
//! is bounded in time and in commands, runs beside the sessions on one thread, and one at a time. It may
//! also ask the targets' catalogs what the masks and row filters in force do with what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api::{Answer, Api};
use super::caller::{Caller, Person, Reader};
use super::problem::Problem;
use super::query::Body;
use crate::access;
use crate::catalog::{Explained, Outcome, Rules};
use crate::config::Target;
use crate::database::Timestamp;
use crate::names::{Protocol, TargetName};
use crate::policy;
use crate::recording::{self, Keyring, ReadError};
use crate::replay::backtest::{self, Backtest, Catalogs, Report, Statement, Unreachable};

/// The longest command that is explained, in bytes.
pub(super) const MAX_COMMAND: usize = 16 << 10;
/// How long a try may take, how many commands it may decide, and how long catalogs may be read before
/// it.
const TRY_TIME: Duration = Duration::from_secs(20);
const TRY_COMMANDS: u64 = 1_000_000;
const CATALOGS_TIME: Duration = Duration::from_secs(20);
/// What is looked at when nothing is said.
const DAYS: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Kinds of change, of refusals by masks and of what is undecidable that are told.
const MOST_CHANGES: usize = 200;

static TRYING: Semaphore = Semaphore::const_new(1);

/// Reads the catalogs of targets' databases that have masks or row filters.
pub(super) type ReadCatalogs =
    fn(Arc<Rules>, BTreeSet<(TargetName, String)>) -> BoxFuture<'static, Box<dyn Catalogs>>;

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
    claims: Option<Map<String, Value>>,
    /// Whether the target's catalog is asked what masks and row filters do.
    #[serde(default)]
    online: bool,
}

/// What becomes of it.
#[derive(Debug, Serialize)]
struct Told {
    target: TargetName,
    /// The hash of the policy that says it.
    policy: String,
    #[serde(flatten)]
    explained: Explained,
}

async fn explain(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    Body(question): Body<Question>,
) -> Answer<Told> {
    let rules = api.catalog.current();
    let target = visible(&api, &caller, &rules, &question.target)?;
    if question.command.len() > MAX_COMMAND {
        return Err(Problem::bad(format!("command: at most {MAX_COMMAND} bytes")));
    }
    let whose = whose(&api, &caller, &question)?;
    let command = target.read_command(&question.command).map_err(Problem::bad)?;
    let of = (&whose, question.command.as_str(), &command);
    let explained = api.explained(&rules, &target, of, question.online).await?;
    let (target, policy) = (target.name.clone(), rules.policy().hash().to_owned());
    Ok(Json(Told { target, policy, explained }))
}

impl Api {
    /// What becomes of a caller's command, which is given as its text and decoded. `online` has the
    /// target's catalog asked, unless the rules block the command anyway.
    pub(super) async fn explained(
        &self,
        rules: &Rules,
        target: &Arc<Target>,
        (whose, text, command): (&policy::Caller, &str, &policy::Command),
        online: bool,
    ) -> Result<Explained, Problem> {
        let by_rules = rules.explained(target, whose, command, None);
        let has_catalog = target.protocol() == Protocol::Postgres;
        if !online || !has_catalog || by_rules.outcome == Outcome::Block {
            return Ok(by_rules);
        }
        let asked = self.held.preview(rules, target, (whose, text));
        let sent = match timeout(CATALOGS_TIME, asked).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(error)) => {
                tracing::warn!(target = %target.name, %error, "catalog not read for an explanation");
                return Err(Problem::no_catalog());
            }
            Err(_) => return Err(Problem::no_catalog()),
        };
        Ok(rules.explained(target, whose, command, Some(sent)))
    }
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
fn whose(api: &Api, caller: &Caller, question: &Question) -> Result<policy::Caller, Problem> {
    let Question { user, groups, claims, .. } = question;
    if user.is_none() && groups.is_none() && claims.is_none() {
        return Ok(caller.identity().map(policy::Caller::from).unwrap_or_default());
    }
    if !caller.may_read(api.roles()) {
        return Err(Problem::forbidden("auditors and admins alone ask for others"));
    }
    Ok(policy::Caller {
        username: user.clone().unwrap_or_default(),
        groups: groups.clone().unwrap_or_default(),
        claims: claims.clone().unwrap_or_default(),
        ..policy::Caller::default()
    })
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
    /// Whether the targets' catalogs are asked what masks and row filters do.
    #[serde(default)]
    pub(super) online: bool,
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
    /// Databases whose catalogs were asked in vain; their statements are undecidable for masks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unreachable: Option<Vec<Unreachable>>,
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
            ("online".to_owned(), json!(draft.online)),
        ]);
        self.shown(caller, "policy.backtest", None, said).await?;
        let (data_dir, keyring) = (self.data_dir().to_owned(), self.keyring());
        let recordings = blocking(move || recordings(&data_dir, from, to)).await?;
        let recordings = recordings.map_err(|error| {
            tracing::error!(%error, "recordings cannot be listed");
            Problem::internal()
        })?;
        let (recordings, mut catalogs) = match draft.online {
            true => self.catalogs_of(Arc::clone(&rules), recordings).await?,
            false => (recordings, None),
        };
        blocking(move || {
            let targets = |name: &TargetName| {
                let facts = rules.target(name)?.facts();
                let (masks, name) = (rules.masks(), name.as_str());
                Some(backtest::Target {
                    facts,
                    masked: masks.guard(name, &[]),
                    hides: masks.hide(name),
                })
            };
            let unreachable = catalogs.as_ref().map(|catalogs| catalogs.unreachable());
            let by = (&policy, &targets as Targets<'_>);
            let (complete, damaged, report) =
                attempt((&recordings, &keyring), by, catalogs.as_deref_mut());
            drop(turn);
            let policy = policy.hash().to_owned();
            Tried { policy, from, to, complete, damaged, report, unreachable }
        })
        .await
    }

    /// Reads the catalogs of the databases that recordings are of.
    async fn catalogs_of(
        &self,
        rules: Arc<Rules>,
        recordings: Vec<PathBuf>,
    ) -> Result<(Vec<PathBuf>, Option<Box<dyn Catalogs>>), Problem> {
        let keyring = self.keyring();
        let (recordings, wanted) = blocking(move || {
            let wanted = backtest::databases(recordings.iter().map(PathBuf::as_path), &keyring);
            (recordings, wanted)
        })
        .await?;
        let read = timeout(CATALOGS_TIME, (self.read_catalogs)(rules, wanted)).await;
        let late = |_| Problem::busy("the targets' catalogs could not be read in time");
        Ok((recordings, Some(read.map_err(late)?)))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Problem::internal())
}

/// The targets of a try, by name.
type Targets<'t> = &'t dyn Fn(&TargetName) -> Option<backtest::Target>;

/// The recordings of sessions that opened in this time, the latest first.
fn recordings(data_dir: &Path, from: Timestamp, to: Timestamp) -> std::io::Result<Vec<PathBuf>> {
    let mut recordings = recording::recordings(data_dir)?;
    recordings.retain(|(session, ..)| (from..=to).contains(&Timestamp::from(session.created())));
    recordings.sort_by_key(|(session, ..)| std::cmp::Reverse(*session));
    Ok(recordings.into_iter().map(|(_, path, _)| path).collect())
}

/// Whether all was read, how many recordings are damaged, and what came of it.
fn attempt(
    (recordings, keyring): (&[PathBuf], &Keyring),
    (policy, targets): (&policy::Policy, Targets<'_>),
    catalogs: Option<&mut (dyn Catalogs + 'static)>,
) -> (bool, u64, Report) {
    let ends = Instant::now() + TRY_TIME;
    let mut masks;
    let mut backtest = Backtest::new(policy, targets);
    if let Some(catalogs) = catalogs {
        masks = |statement: &Statement<'_>| catalogs.masked(statement);
        backtest = backtest.with_masks(&mut masks);
    }
    let (mut complete, mut damaged) = (true, 0);
    for path in recordings {
        let goes_on = |commands, _| commands < TRY_COMMANDS && Instant::now() < ends;
        match backtest.read((path, keyring), goes_on) {
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
    report.undecidable_by_reason.truncate(MOST_CHANGES);
    if let Some(masks) = &mut report.masks {
        masks.undecidable_by_reason.truncate(MOST_CHANGES);
        masks.refused.truncate(MOST_CHANGES);
    }
    (complete, damaged, report)
}
