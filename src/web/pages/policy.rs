//! What the rules say: those that concern somebody on a target, and what becomes of a command by them, the
//! masks and the row filters.
//!
//! Everybody sees the rules for themselves; who may read what was recorded also for others.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::visitor::{Turned, Visitor};
use super::{Frame, page, text, word};
use crate::access;
use crate::catalog::{Explained, MaskNamed, Outcome, Preview};
use crate::names::{Protocol, TargetName};
use crate::policy::{Caller, EffectiveRule, Selector, claims};
use crate::web::api::Api;
use crate::web::policy::MAX_COMMAND;
use crate::web::problem::Problem;

/// Effects shown of one command.
const EFFECTS: usize = 50;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/policy", get(policy))
}

/// Of whom, where, and perhaps what.
#[derive(Deserialize, Default)]
struct Wish {
    target: Option<String>,
    user: Option<String>,
    groups: Option<String>,
    claims: Option<String>,
    command: Option<String>,
    online: Option<String>,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    frame: Frame,
    targets: Vec<String>,
    target: String,
    default: &'static str,
    user: String,
    groups: String,
    claims: String,
    command: String,
    /// Whether there is a catalog to ask, and whether it is asked.
    has_catalog: bool,
    online: bool,
    rules: Vec<Shown>,
    explained: Option<Told>,
    /// Why the command cannot be read.
    unread: String,
    policy: String,
}

/// A rule in words.
struct Shown {
    name: String,
    verdict: &'static str,
    enforced: bool,
    actions: String,
    objects: String,
    conditions: Vec<String>,
    reason: String,
    approvers: String,
}

/// What becomes of a command.
struct Told {
    /// Masks or row filters refuse it.
    refused: bool,
    /// They may, and nobody was asked.
    undecided: bool,
    refused_by: String,
    because: String,
    /// What the rules say.
    verdict: &'static str,
    by: String,
    /// What goes to the server; none where that was not asked, or nothing does.
    sent: Option<String>,
    /// Masks and row filters of the target, in words.
    hides: Vec<String>,
    reason: String,
    exempted: String,
    effects: Vec<Effect>,
}

struct Effect {
    action: String,
    object: String,
    verdict: &'static str,
    matching: Vec<String>,
    /// Rules that one selector keeps from matching, and which.
    almost: Vec<(String, String)>,
}

async fn policy(
    State(api): State<Arc<Api>>,
    visitor: Visitor,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Turned> {
    let Query(wish) = wish.map_err(|error| Problem::bad(error.body_text()))?;
    let Some(identity) = visitor.caller.identity() else { return Err(Problem::internal().into()) };
    let reads = visitor.caller.may_read(api.roles());
    let rules = api.catalog.current();
    // A target that the visitor may not know of is as one that is not there.
    let known = |name: &TargetName| reads || access::right(&rules, identity, name).is_ok();
    let targets: Vec<&TargetName> = rules.names().filter(|name| known(name)).collect();
    let wanted = wish.target.filter(|name| !name.is_empty());
    let wanted = wanted.or_else(|| targets.first().map(ToString::to_string));
    let target = match wanted.as_deref().map(str::parse::<TargetName>) {
        None => None,
        Some(name) => {
            let name = name.ok().filter(|name| known(name));
            let found = name.and_then(|name| rules.target(&name));
            Some(found.ok_or_else(Problem::not_found)?)
        }
    };
    let mut caller = Caller::from(identity);
    let claims = wish.claims.unwrap_or_default();
    let others = (wish.user.unwrap_or_default(), wish.groups.unwrap_or_default());
    if reads && [&others.0, &others.1, &claims].into_iter().any(|given| !given.is_empty()) {
        caller = Caller {
            username: others.0,
            groups: listed(&others.1).map(str::to_owned).collect(),
            claims: claims_of(&claims)?,
            ..Caller::default()
        };
    }
    let command = wish.command.unwrap_or_default();
    if command.len() > MAX_COMMAND {
        return Err(Problem::bad(format!("command: at most {MAX_COMMAND} bytes")).into());
    }
    let facts = target.map(|target| target.facts());
    let has_catalog = target.is_some_and(|target| target.protocol() == Protocol::Postgres);
    let online = wish.online.is_some();
    let policy = rules.policy();
    let (mut explained, mut unread) = (None, String::new());
    let asked = target.zip(facts.as_ref()).filter(|_| !command.trim().is_empty());
    if let Some((target, facts)) = asked {
        match target.read_command(&command) {
            Ok(read) => {
                let of = (&caller, command.as_str(), &read);
                let told = api.explained(&rules, target, of, online).await?;
                explained = Some(Told::of(&told, word(facts.default)));
            }
            Err(why) => unread = text::line(&why),
        }
    }
    let effective = facts.as_ref().map(|facts| policy.effective(&caller, facts));
    page(&PolicyPage {
        frame: Frame::of(&api, &visitor, "policy", "Policy"),
        targets: targets.iter().map(ToString::to_string).collect(),
        target: target.map(|target| target.name.to_string()).unwrap_or_default(),
        default: facts.as_ref().map_or("", |facts| word(facts.default)),
        user: caller.username.clone(),
        groups: caller.groups.join(", "),
        claims,
        command,
        has_catalog,
        online,
        rules: effective.unwrap_or_default().iter().map(Shown::of).collect(),
        explained,
        unread,
        policy: policy.hash().to_owned(),
    })
    .map_err(Into::into)
}

impl Shown {
    fn of(rule: &EffectiveRule) -> Self {
        let part = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{name} {}", text::line(value)))
        };
        Self {
            name: text::line(&rule.name),
            verdict: word(rule.verdict),
            enforced: rule.enforced,
            actions: text::line(&rule.actions.join(", ")),
            objects: text::line(&rule.objects.join(", ")),
            conditions: [part("text", &rule.text), part("when", &rule.when)]
                .into_iter()
                .flatten()
                .collect(),
            reason: text::line(rule.reason.as_deref().unwrap_or_default()),
            approvers: rule
                .approvers
                .as_ref()
                .map(|(groups, count)| format!("{count} of {}", text::line(&groups.join(", "))))
                .unwrap_or_default(),
        }
    }
}

/// What stands between commas.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// `tenant=acme, region=eu`; a name that comes several times has a list.
fn claims_of(text: &str) -> Result<Map<String, Value>, Problem> {
    let claim = |claim: &str| {
        let (name, value) = claim.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    };
    let given: Option<Vec<_>> = listed(text).map(claim).collect();
    given.map(claims).ok_or_else(|| Problem::bad("claims: NAME=VALUE, and commas between them"))
}

impl Told {
    fn of(explained: &Explained, default: &str) -> Self {
        let told = &explained.explanation;
        let decision = &told.decision;
        let masks = explained.masks.iter().map(MaskNamed::in_words);
        let rows = explained.rows.iter().map(|rows| rows.in_words().join(": "));
        let effects = told.effects.iter().take(EFFECTS).map(|effect| Effect {
            action: text::line(&effect.action),
            object: effect.object.as_ref().map(|o| text::line(&o.to_string())).unwrap_or_default(),
            verdict: word(effect.verdict),
            matching: effect
                .rules
                .iter()
                .filter(|rule| rule.matches())
                .map(|rule| text::line(&rule.rule))
                .collect(),
            almost: effect
                .rules
                .iter()
                .filter(|rule| rule.almost())
                .filter_map(|rule| {
                    // A rule for another action is far away.
                    let missed = rule.missed.first()?;
                    if missed.selector == Selector::Actions {
                        return None;
                    }
                    let why = format!("{}: {}", missed.selector, missed.because);
                    Some((text::line(&rule.rule), text::line(&why)))
                })
                .collect(),
        });
        Self {
            refused: explained.outcome == Outcome::Refused,
            undecided: explained.outcome == Outcome::Undecided,
            refused_by: text::line(&explained.refused_by.join(", ")),
            because: text::line(explained.because.as_deref().unwrap_or_default()),
            sent: match &explained.sent {
                Some(Preview::Same) => Some(String::new()),
                Some(Preview::Instead(text)) => Some(text::line(text)),
                Some(Preview::Refused { .. }) | None => None,
            },
            hides: masks.chain(rows).map(|words| text::line(&words)).collect(),
            verdict: word(decision.verdict()),
            by: match decision.rules() {
                [] => format!("no rule; the target's default is {default}"),
                rules => text::line(&rules.join(", ")),
            },
            reason: text::line(decision.reason().unwrap_or_default()),
            exempted: text::line(&decision.exempted().join(", ")),
            effects: effects.collect(),
        }
    }
}
