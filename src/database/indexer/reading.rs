//! From the events of one session to its rows; no clock, no socket, no database.
//!
//! A row is one thing that a client had done, or tried. A command that only prepares (`parse`,
//! `bind`) has no row unless it failed or was not allowed; a command that runs what was prepared
//! (`execute`) is one row with the text, the parameters, the effects and the rules of what it
//! builds on. `docs/index.md` says so to users.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::batch::{Batch, Ended, Released, Typed};
use super::lru::{Prepared, Recent, Remembered};
use super::shorten;
use crate::database::rows::{Command, Session, Timestamp};
use crate::names::SessionId;
use crate::policy::{Attributes, Effect, Verdict};
use crate::recording::{
    ApprovalStep, Bookmark, Closed, Direction, Event, Gap, Kind, Note, Opened, Outcome,
    RecordedCommand, Sequence, Told,
};

/// Forms that only prepare.
const PREPARING: [&str; 2] = ["parse", "bind"];
/// An execute builds on a bind, which builds on a parse.
const MAX_BASES: usize = 2;

/// One recording, as far as it was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: SessionId,
    pub(super) position: Bookmark,
    /// The session's row; none before it opened, and for recordings that belong to no session.
    pub(super) row: Option<Session>,
    pub(super) sealed: bool,
    /// Why it cannot be read on.
    pub(super) failed: Option<String>,
    /// Whether encrypted events were passed over.
    pub(super) unread: bool,
    /// When it ended, as far as that was read since the index was loaded.
    pub(super) closed_us: Option<i64>,
    /// When the last event that was read was recorded.
    pub(super) last_us: Option<i64>,
    recent: Recent,
}

/// What the rows of a recording depend on beside its events.
pub(super) struct Context<'a> {
    /// The gateway's id.
    pub(super) gateway: &'a str,
    /// Whether texts and values go into the index.
    pub(super) index_text: bool,
    /// Reads an event again by its sequence.
    pub(super) look_up: &'a mut dyn FnMut(Sequence) -> Option<Event>,
}

impl Reading {
    /// A recording of which the index has nothing.
    pub(super) fn new(id: SessionId) -> Self {
        Self::resumed(id, Bookmark::default(), None)
    }

    /// A recording of which the index has the beginning.
    pub(super) fn resumed(id: SessionId, position: Bookmark, row: Option<Session>) -> Self {
        Self {
            id,
            position,
            row,
            sealed: false,
            failed: None,
            unread: false,
            closed_us: None,
            last_us: None,
            recent: Recent::default(),
        }
    }

    /// Takes the next event. One whose payload is not of its kind changes nothing.
    pub(super) fn take(&mut self, event: &Event, context: &mut Context<'_>, batch: &mut Batch) {
        self.last_us = Some(event.wall_us);
        match event.kind {
            Kind::Opened => {
                let opened = payload::<Opened>(event);
                self.row = opened.map(|opened| opened_row(self.id, &opened, event, context));
            }
            Kind::Command => self.command(event, context, batch),
            Kind::Outcome => self.outcome(event, context, batch),
            Kind::Data => {
                let Some(row) = &mut self.row else { return };
                let bytes = number(event.payload.len() as u64);
                match event.direction {
                    Direction::Up => row.bytes_up = row.bytes_up.saturating_add(bytes),
                    _ => row.bytes_down = row.bytes_down.saturating_add(bytes),
                }
            }
            Kind::Gap => {
                if let (Some(row), Some(gap)) = (&mut self.row, payload::<Gap>(event)) {
                    row.missing_events = row.missing_events.saturating_add(number(gap.events));
                }
            }
            Kind::Closed => {
                self.closed_us = Some(Timestamp(event.wall_us).storable().0);
                if let (Some(row), Some(closed)) = (&mut self.row, payload::<Closed>(event)) {
                    row.closed_at = Some(Timestamp(event.wall_us).storable());
                    row.ended = Some(shorten::name(&closed.how));
                    let told = context.index_text && !closed.text.is_empty();
                    row.ended_text = told.then(|| shorten::message(&closed.text));
                }
            }
            Kind::Approval => self.approval(event, batch),
            Kind::Note => self.note(event, context, batch),
            Kind::Gateway | Kind::Refused => {}
        }
    }

    /// Notes the end of a recording whose last event could not be read.
    pub(super) fn end_unread(&mut self, ended_us: Option<i64>, how: &str) {
        let (Some(wall_us), None) = (ended_us, self.closed_us) else { return };
        let closed_at = Timestamp(wall_us).storable();
        self.closed_us = Some(closed_at.0);
        if let Some(row) = &mut self.row {
            row.closed_at = Some(closed_at);
            row.ended = Some(shorten::name(how));
        }
    }

    fn note(&mut self, event: &Event, context: &Context<'_>, batch: &mut Batch) {
        let (Some(row), Some(note)) = (&mut self.row, payload::<Note>(event)) else { return };
        match (&*note.what, event.of) {
            // A run that has its name from the target's answer.
            ("run", _) if row.run.is_none() => {
                row.run = Some(shorten::name(&note.text));
                row.run_proved = Some(false);
            }
            ("typed", Some(of)) if context.index_text => {
                batch.typed(Typed { session: self.id, sequence: number(of), text: note.text });
            }
            _ => {}
        }
    }

    /// A command that people let go ran although a rule held it.
    fn approval(&mut self, event: &Event, batch: &mut Batch) {
        let (Some(of), Some(step)) = (event.of, payload::<ApprovalStep>(event)) else { return };
        let Some(row) = &mut self.row else { return };
        if step.step != ApprovalStep::RELEASED {
            return;
        }
        row.overridden += 1;
        let mut rules = Vec::new();
        step.rules.iter().for_each(|rule| name_once(&mut rules, rule));
        batch.release(Released {
            session: self.id,
            sequence: number(of),
            overridden: "approval",
            overridden_rules: rules,
        });
    }

    fn command(&mut self, event: &Event, context: &mut Context<'_>, batch: &mut Batch) {
        let Some(recorded) = payload::<RecordedCommand<'static>>(event) else { return };
        let (of, wall_us) = (event.of, event.wall_us);
        if only_prepares(&recorded) {
            let prepared = Remembered::Prepared(Arc::new(Prepared { recorded, of, wall_us }));
            self.recent.insert(event.sequence, prepared);
        } else {
            self.add_row(event.sequence, &Prepared { recorded, of, wall_us }, context, batch);
            self.recent.insert(event.sequence, Remembered::Running);
        }
    }

    fn outcome(&mut self, event: &Event, context: &mut Context<'_>, batch: &mut Batch) {
        let (Some(of), Some(outcome)) = (event.of, payload::<Outcome>(event)) else { return };
        match self.remembered(of, context) {
            Some(Remembered::Running) => self.recent.remove(of),
            // What was prepared in vain is worth a row; what was skipped is not.
            Some(Remembered::Prepared(prepared)) if outcome.error.is_some() => {
                self.add_row(of, &prepared, context, batch);
            }
            Some(Remembered::Prepared(_)) | None => return,
        }
        let Some(row) = &mut self.row else { return };
        row.failed += i64::from(outcome.error.is_some());
        row.rows = row.rows.saturating_add(outcome.rows.map_or(0, number));
        let (error_code, error_message) = match &outcome.error {
            Some(error) => (Some(shorten::name(&error.code)), Some(&error.message)),
            None => (None, None),
        };
        let error_message = error_message.filter(|_| context.index_text);
        batch.end(Ended {
            session: self.id,
            sequence: number(of),
            status: outcome.status.as_deref().map(shorten::name),
            rows: outcome.rows.map(number),
            error_code,
            error_message: error_message.map(|message| shorten::message(message)),
            duration_us: number(outcome.duration_us),
            masked: outcome.masked.iter().map(|(m, n)| (shorten::name(m), number(*n))).collect(),
        });
    }

    /// An earlier command; one that was forgotten, or came before this gateway started, is read
    /// again.
    fn remembered(&mut self, sequence: Sequence, context: &mut Context<'_>) -> Option<Remembered> {
        if let Some(remembered) = self.recent.get(sequence) {
            return Some(remembered.clone());
        }
        let event = (context.look_up)(sequence).filter(|event| event.kind == Kind::Command)?;
        let recorded = payload::<RecordedCommand<'static>>(&event)?;
        if !only_prepares(&recorded) {
            return Some(Remembered::Running);
        }
        let prepared = Prepared { recorded, of: event.of, wall_us: event.wall_us };
        let prepared = Remembered::Prepared(Arc::new(prepared));
        self.recent.insert(sequence, prepared.clone());
        Some(prepared)
    }

    fn add_row(
        &mut self,
        sequence: Sequence,
        command: &Prepared,
        context: &mut Context<'_>,
        batch: &mut Batch,
    ) {
        let bases = self.bases(command.of, context);
        let Some(session) = &mut self.row else { return };
        let bases = bases.iter().map(|base| &base.recorded);
        let parts: Vec<_> = std::iter::once(&command.recorded).chain(bases).collect();
        let merged = Merged::of(&parts, context.index_text);
        session.commands += 1;
        session.overridden += i64::from(merged.overridden.is_some());
        *match merged.verdict {
            Verdict::Allow => &mut session.allowed,
            Verdict::Approve => &mut session.approved,
            Verdict::Block => &mut session.blocked,
        } += 1;
        batch.add(Command {
            session: session.id,
            sequence: number(sequence),
            at: Timestamp(command.wall_us).storable(),
            protocol: session.protocol,
            target: session.target.clone(),
            username: session.username.clone(),
            workflow: session.workflow.clone(),
            run: session.run.clone(),
            form: shorten::name(&command.recorded.command.form),
            text: merged.text,
            cut: merged.cut,
            attributes: merged.attributes,
            effects: merged.effects,
            verdict: merged.verdict,
            rules: merged.rules,
            reason: merged.reason,
            overridden: merged.overridden.map(str::to_owned),
            overridden_rules: merged.overridden_rules,
            status: None,
            rows: None,
            error_code: None,
            error_message: None,
            duration_us: None,
            masked: BTreeMap::new(),
        });
    }

    /// What a command builds on, the nearest first.
    fn bases(&mut self, mut of: Option<Sequence>, context: &mut Context<'_>) -> Vec<Arc<Prepared>> {
        let mut bases = Vec::new();
        while let Some(sequence) = of.take()
            && bases.len() < MAX_BASES
        {
            if let Some(Remembered::Prepared(prepared)) = self.remembered(sequence, context) {
                of = prepared.of;
                bases.push(prepared);
            }
        }
        bases
    }
}

/// What a row takes from a command and all that it builds on.
struct Merged {
    text: Option<String>,
    cut: bool,
    attributes: BTreeMap<String, Value>,
    effects: Vec<Effect>,
    verdict: Verdict,
    rules: Vec<String>,
    reason: Option<String>,
    overridden: Option<&'static str>,
    overridden_rules: Vec<String>,
}

impl Merged {
    /// `parts` is the command, then what it builds on.
    fn of(parts: &[&RecordedCommand<'_>], index_text: bool) -> Self {
        let mut cut = false;
        let text = parts.iter().map(|part| &*part.command.text).find(|text| !text.is_empty());
        let effects = parts.iter().map(|part| &part.command.effects).find(|e| !e.is_empty());
        let mut effects = shorten::effects(effects.map_or(&[], Vec::as_slice), &mut cut);
        let mut attributes = Attributes::new();
        // From the ground up: the command's own words count, and the first of equal verdicts.
        let (mut rules, mut verdict, mut reason) = (Vec::new(), Verdict::Allow, None);
        let (mut overridden, mut overridden_rules) = (None, Vec::new());
        for part in parts.iter().rev() {
            attributes.extend(part.command.attributes.clone());
            let decision = &part.decision;
            decision.rules().iter().for_each(|rule| name_once(&mut rules, rule));
            for rule in decision.exempted() {
                overridden = Some("exemption");
                name_once(&mut overridden_rules, rule);
            }
            for seen in decision.observed().iter().filter(|seen| seen.verdict > decision.verdict())
            {
                overridden = overridden.or(Some("observe"));
                name_once(&mut overridden_rules, &seen.rule);
            }
            if reason.is_none() || part.decision.verdict() > verdict {
                verdict = part.decision.verdict();
                reason = part.decision.reason().map(shorten::message);
            }
        }
        if !index_text {
            attributes.clear();
            effects.iter_mut().for_each(|effect| effect.attributes.clear());
        }
        Self {
            text: text.filter(|_| index_text).map(|text| shorten::text(text, &mut cut)),
            attributes: shorten::attributes(&attributes, &mut cut),
            effects,
            cut,
            verdict,
            rules,
            reason,
            overridden,
            overridden_rules,
        }
    }
}

fn name_once(names: &mut Vec<String>, name: &str) {
    let name = shorten::name(name);
    if !names.contains(&name) {
        names.push(name);
    }
}

/// Whether a command has no row of its own unless it fails.
fn only_prepares(recorded: &RecordedCommand<'_>) -> bool {
    PREPARING.contains(&&*recorded.command.form) && recorded.decision.verdict() == Verdict::Allow
}

fn opened_row(id: SessionId, opened: &Opened, event: &Event, context: &Context<'_>) -> Session {
    let short = |text: &str| shorten::name(text);
    let told = |told: &Option<Told>| {
        (told.as_ref().map(|told| short(&told.name)), told.as_ref().map(|told| told.proved))
    };
    let (workflow, workflow_proved) = told(&opened.workflow);
    let (run, run_proved) = told(&opened.run);
    let parameters = opened.client_parameters.iter();
    Session {
        id,
        gateway: context.gateway.to_owned(),
        protocol: opened.protocol,
        target: opened.target.to_string(),
        database: opened.database.as_deref().map(short),
        client: short(&opened.client),
        issuer: short(&opened.identity.issuer),
        subject: short(&opened.identity.subject),
        username: short(&opened.identity.username),
        groups: opened.identity.groups.iter().map(|group| short(group)).collect(),
        workflow,
        workflow_proved,
        run,
        run_proved,
        client_parameters: parameters.map(|(name, value)| (short(name), short(value))).collect(),
        policy: short(&opened.policy),
        gateway_version: short(&opened.gateway_version),
        opened_at: Timestamp(event.wall_us).storable(),
        closed_at: None,
        ended: None,
        ended_text: None,
        commands: 0,
        allowed: 0,
        approved: 0,
        blocked: 0,
        overridden: 0,
        failed: 0,
        rows: 0,
        bytes_up: 0,
        bytes_down: 0,
        missing_events: 0,
    }
}

fn payload<T: DeserializeOwned>(event: &Event) -> Option<T> {
    serde_json::from_slice(&event.payload).ok()
}

/// What is larger than PostgreSQL's largest integer is stored as that.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
