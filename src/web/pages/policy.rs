//! What the rules say: those that concern somebody on a target, and what they make of a command.
//!
//! Everybody sees the rules for themselves; who may read what was recorded also for others.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::visitor::{Turned, Visitor};
use super::{Frame, page, text, word};
use crate::access;
use crate::decode;
use crate::names::TargetName;
use crate::policy::{Caller, EffectiveRule, Explanation, Selector, SessionFacts};
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
    command: Option<String>,
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
    command: String,
    rules: Vec<Shown>,
    explained: Option<Explained>,
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

/// What the rules make of a command.
struct Explained {
    verdict: &'static str,
    by: String,
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
    let others = (wish.user.as_deref().unwrap_or_default(), wish.groups.as_deref());
    if reads && (!others.0.is_empty() || others.1.is_some_and(|groups| !groups.is_empty())) {
        let groups = others.1.unwrap_or_default().split(',').map(str::trim);
        caller = Caller {
            username: others.0.to_owned(),
            groups: groups.filter(|group| !group.is_empty()).map(str::to_owned).collect(),
            ..Caller::default()
        };
    }
    let command = wish.command.unwrap_or_default();
    if command.len() > MAX_COMMAND {
        return Err(Problem::bad(format!("command: at most {MAX_COMMAND} bytes")).into());
    }
    let facts = target.map(|target| target.facts());
    let policy = rules.policy();
    let (mut explained, mut unread) = (None, String::new());
    if let Some(facts) = facts.as_ref().filter(|_| !command.trim().is_empty()) {
        match decode::command(facts.protocol, &command) {
            Ok(read) => {
                let masked = rules.masks().guard(facts.name.as_str(), &caller.groups);
                let told = policy.explain(&caller, facts, &SessionFacts::default(), masked, &read);
                explained = Some(Explained::of(&told, word(facts.default)));
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
        command,
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

impl Explained {
    fn of(told: &Explanation, default: &str) -> Self {
        let decision = &told.decision;
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
