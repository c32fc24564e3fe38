//! The way of the client's messages into recording and queue: what each of them would do is asked
//! of policy under one append, before any of them goes on.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Instant;

use crate::decode::postgres::Malformed;
use crate::decode::postgres::command;
use crate::decode::postgres::frontend::{Bind, Message, Parameter};
use crate::decode::sql::{Analyzer, LexerSettings, Reading, Source, Unparsed};
use crate::gate::{Admission, Asked, Gate, Held, Ruling};
use crate::policy::{Attributes, CommandParts, Effect, SessionPolicy};
use crate::recording::Sequence;

use super::masking::{Masking, MasksNow};
use super::names::{Bound, Values};
use super::reader::LARGE;
use super::refusal::{self, Objection, Words};
use super::replies::{Candidates, Entered, Replies};
use super::weighing::Weighed;

/// Bound values of more bytes than this are not kept for rules that look at values.
const MOST_VALUES: usize = 16 << 10;

static UNKNOWN_NAME: LazyLock<[Effect; 1]> = LazyLock::new(|| [command::unknown_name()]);

/// A message of the client, where it stands, and its text as it was read beforehand.
pub(super) type Placed<'a> = (Range<usize>, Message<'a>, Option<Arc<Reading>>);

/// Enters the client's messages into recording and queue, under one append.
pub(super) struct Entering<'e, 'g, 'b> {
    pub(super) admission: &'e mut Admission<'g, 'b>,
    pub(super) replies: &'e mut Replies,
    pub(super) gate: &'e Gate,
    pub(super) analyzer: &'e Analyzer,
    pub(super) masking: &'e Masking,
    /// `None` where nothing is masked.
    pub(super) masks: Option<&'e MasksNow>,
    pub(super) now: Instant,
    /// A run of messages that are no commands: recorded as one event.
    pub(super) plain: Range<usize>,
    /// A run of COPY data that is not to be stored.
    pub(super) secret: Range<usize>,
    /// What was entered so far makes the server act: it does not wait with what is held.
    pub(super) acts: bool,
}

/// Where entering stopped: a command that people decide, and what happens once they have.
#[derive(Debug)]
pub(super) struct Stop {
    /// Its place among the messages.
    pub(super) at: usize,
    /// The command.
    pub(super) held: Box<Held>,
    /// What stands for it when it does not run.
    pub(super) harmless: bytes::Bytes,
    /// The portal, when that begins with a question of the gateway's own about it.
    pub(super) probes: Option<Box<str>>,
    /// How it enters the queue.
    pub(super) entered: Entered,
    /// What masks mean for it.
    pub(super) weighed: Weighed,
}

/// What policy says of a message.
enum Asking {
    /// It goes on, or what fails does, and the client is told this.
    Settled(Sequence, Option<Words>),
    /// People decide it.
    Held(Box<Held>),
}

impl Entering<'_, '_, '_> {
    /// Enters messages, up to one that people decide.
    pub(super) fn enter(&mut self, messages: &[Placed<'_>]) -> Result<Option<Stop>, Malformed> {
        for (at, (range, message, read)) in messages.iter().enumerate() {
            let range = range.clone();
            match message {
                Message::Query { .. }
                | Message::Parse { .. }
                | Message::Bind(_)
                | Message::Execute { .. }
                | Message::FunctionCall => {
                    self.end_run(range.end);
                    if std::mem::take(&mut self.acts) {
                        self.admission.step();
                    }
                }
                Message::CopyData if self.replies.takes_secrets() => {
                    self.end_plain(range.end);
                    self.secret.end = range.end;
                }
                _ => {
                    self.end_secret(range.end);
                    self.plain.end = range.end;
                }
            }
            self.acts |= !matches!(
                message,
                Message::Parse { .. } | Message::Bind(_) | Message::Describe(_) | Message::Close(_)
            );
            let stop = match message {
                Message::Query { sql } => {
                    let reading = self.read(sql, read.as_ref());
                    self.query(range, message, &reading)?
                }
                Message::Parse { statement, sql, parameter_types } => {
                    let reading = self.read(sql, read.as_ref());
                    let open = self.replies.in_transaction();
                    let attributes = command::parse(&reading, statement, parameter_types, open);
                    self.parse(range, message, &reading, &attributes, statement.is_empty())?;
                    None
                }
                Message::Bind(bind) => {
                    self.bind(range, message, bind)?;
                    None
                }
                Message::Execute { portal, max_rows } => {
                    self.execute(range, message, portal, *max_rows)?
                }
                Message::FunctionCall => {
                    self.admission.note("refused", "the function call message".to_owned());
                    self.admission.instead(&refusal::failing_query());
                    let refused = Some(Objection::FunctionCall.to_words());
                    let entered = Entered { refused, ..Entered::default() };
                    self.replies.expect(message, self.now, entered)?;
                    None
                }
                _ => {
                    self.replies.expect(message, self.now, Entered::default())?;
                    None
                }
            };
            if let Some(stop) = stop {
                return Ok(Some(Stop { at, ..stop }));
            }
        }
        self.end_run(0);
        Ok(None)
    }

    /// The text as the server will read it. Where that is not certain, because of what was
    /// forwarded and is not answered, it is read both ways or not at all.
    fn read(&self, sql: &str, read: Option<&Arc<Reading>>) -> Arc<Reading> {
        let lexing = self.replies.lexing();
        if lexing.settled {
            let fits = |read: &&Arc<Reading>| read.settings() == lexing.settings;
            return match read.filter(fits) {
                Some(read) => Arc::clone(read),
                None if sql.len() > LARGE => unsettled(sql, lexing.settings),
                None => self.analyzer.read(sql, lexing.settings),
            };
        }
        let foreign = if lexing.encoding_settled {
            // In some encodings the second byte of a character can be a backslash.
            sql.as_bytes().windows(2).any(|two| matches!(two, [0x80..=0xff, b'\\']))
        } else {
            !sql.is_ascii()
        };
        if foreign || (sql.len() > LARGE && sql.contains('\\')) {
            return unsettled(sql, lexing.settings);
        }
        match read.filter(|read| read.settings() == lexing.settings && !sql.contains('\\')) {
            Some(read) => Arc::clone(read),
            None => self.analyzer.read_either_way(sql, lexing.settings),
        }
    }

    fn query(
        &mut self,
        range: Range<usize>,
        message: &Message<'_>,
        reading: &Arc<Reading>,
    ) -> Result<Option<Stop>, Malformed> {
        let attributes = command::query(reading, self.replies.in_transaction());
        let candidates = self.replies.named_in(reading);
        let mut runs = runs(reading);
        if candidates.unknown {
            runs.push(&*UNKNOWN_NAME);
        }
        let weighed = self.weigh(Some(reading), &candidates);
        let own = CommandParts {
            form: "query",
            text: reading.text(),
            attributes: &attributes,
            effects: &runs,
        };
        // What the text itself makes is among its own effects.
        let others = candidates.iter().filter(|c| !Arc::ptr_eq(c.source.reading(), reading));
        let named: Vec<_> =
            others.map(|c| Named::new(&c.source, "query", &attributes, None, |_| false)).collect();
        let named: Vec<_> = named.iter().map(Named::parts).collect();
        let commands: Vec<_> = std::iter::once(own).chain(named.iter().copied()).collect();
        let all: Vec<&[Effect]> =
            commands.iter().flat_map(|parts| parts.effects.iter().copied()).collect();
        let shown = self.view(reading, &weighed);
        let asked = Asked {
            commands: &commands,
            view: CommandParts { text: &shown, effects: &all, ..own },
            withheld: !std::ptr::eq(&*shown, reading.text()),
            prepares: false,
            of: None,
            against: weighed.against.clone(),
        };
        let asking = self.ask(range, &asked, refusal::failing_query);
        let mut entered = Entered {
            reading: Some(Arc::clone(reading)),
            candidates,
            takes_secrets: weighed.withhold,
            ..Entered::default()
        };
        match asking {
            Asking::Settled(of, refused) => {
                weighed.passes(self.masking, refused.as_ref());
                (entered.of, entered.refused) = (of, refused);
                self.replies.expect(message, self.now, entered)?;
                Ok(None)
            }
            Asking::Held(mut held) => {
                entered.of = held.sequence();
                self.show_named(&mut held, reading, &entered.candidates);
                let harmless = refusal::failing_query();
                Ok(Some(Stop { at: 0, held, harmless, probes: None, entered, weighed }))
            }
        }
    }

    fn parse(
        &mut self,
        range: Range<usize>,
        message: &Message<'_>,
        reading: &Arc<Reading>,
        attributes: &Attributes,
        unnamed: bool,
    ) -> Result<(), Malformed> {
        let runs = runs(reading);
        let own = CommandParts { form: "parse", text: reading.text(), attributes, effects: &runs };
        let named = self.masks.map(|_| self.replies.named_in(reading)).unwrap_or_default();
        let weighed = self.weigh(Some(reading), &named);
        let shown = self.view(reading, &weighed);
        let asked = Asked {
            commands: &[own],
            view: CommandParts { text: &shown, ..own },
            withheld: !std::ptr::eq(&*shown, reading.text()),
            prepares: true,
            of: None,
            against: weighed.against.clone(),
        };
        let (of, refused) = self.ask(range, &asked, || refusal::failing_parse(unnamed)).settled();
        let reading = Some(Arc::clone(reading));
        let entered = Entered { of, refused, reading, ..Entered::default() };
        self.replies.expect(message, self.now, entered)
    }

    /// A Bind runs nothing: its portal is decided, with the values, when it is executed.
    fn bind(
        &mut self,
        range: Range<usize>,
        message: &Message<'_>,
        bind: &Bind<'_>,
    ) -> Result<(), Malformed> {
        let mut candidates = self.replies.statement_candidates(bind.statement);
        if self.masks.is_some() {
            self.replies.follow(&mut candidates);
        }
        let has_values = bind.parameters.iter().any(|parameter| parameter.value.is_some());
        let secret = has_values && self.withholds_values(&candidates);
        let attributes = command::bind(bind, secret);
        let shown = self.view_of_values(&attributes);
        let view = CommandParts { form: "bind", text: "", attributes: &shown, effects: &[] };
        let of = self.replies.basis(message);
        let withheld = secret || matches!(shown, Cow::Owned(_));
        let asked = Asked { commands: &[], view, withheld, prepares: false, of, against: None };
        let asks = self.admission.asks_people();
        let exact = asks.then(|| self.admission.keyed_hash(range.clone()));
        let (of, refused) = self.ask(range, &asked, || refusal::failing_parse(false)).settled();
        let bytes: usize = bind.parameters.iter().map(value_bytes).sum();
        let shown = shown.get(command::PARAMETERS).cloned().filter(|_| asks && !secret);
        let values = match () {
            () if bind.parameters.is_empty() => Values::None,
            () if secret || bytes > MOST_VALUES => {
                Values::Forgotten(self.pass_with_values(&candidates, bind, secret, attributes))
            }
            () => Values::Known(attributes),
        };
        let kept = shown.is_some() || matches!(values, Values::Known(_));
        let bytes = if kept { bytes } else { 0 };
        let bound = Bound { formats: bind.result_formats.clone(), values, shown, exact, bytes };
        let bound = Some(Arc::new(bound));
        let entered = Entered { of, refused, bound, ..Entered::default() };
        self.replies.expect(message, self.now, entered)
    }

    /// Decides what a portal will run while its values are at hand that are not kept.
    fn pass_with_values(
        &self,
        candidates: &Candidates,
        bind: &Bind<'_>,
        secret: bool,
        attributes: Attributes,
    ) -> Option<Weak<SessionPolicy>> {
        if candidates.unknown || !self.admission.looks_at(command::PARAMETERS) {
            return None;
        }
        let in_transaction = self.replies.in_transaction();
        let values = if secret { command::bind(bind, false) } else { attributes };
        let values = Bound { values: Values::Known(values), ..Bound::default() };
        let attributes = command::execute(bind.portal, 0, in_transaction);
        let named: Vec<_> = candidates
            .iter()
            .map(|c| Named::new(&c.source, "execute", &attributes, Some(&values), |_| false))
            .collect();
        let commands: Vec<_> = named.iter().map(Named::parts).collect();
        self.admission.lets_pass(&commands)
    }

    fn execute(
        &mut self,
        range: Range<usize>,
        message: &Message<'_>,
        portal: &str,
        max_rows: u32,
    ) -> Result<Option<Stop>, Malformed> {
        let mut candidates = self.replies.portal_candidates(portal);
        let unknown_portal = candidates.is_empty();
        candidates.unknown |= unknown_portal;
        self.replies.follow(&mut candidates);
        let weighed = self.weigh(None, &candidates);
        let attributes = command::execute(portal, max_rows, self.replies.in_transaction());
        let looks_at_values = self.admission.looks_at(command::PARAMETERS);
        let named: Vec<_> = candidates
            .iter()
            .map(|candidate| {
                let bound = candidate.bound.as_deref().filter(|_| looks_at_values);
                Named::new(&candidate.source, "execute", &attributes, bound, |policy| {
                    self.admission.is_by(policy)
                })
            })
            .collect();
        let mut commands: Vec<_> = named.iter().map(Named::parts).collect();
        let unknown: [&[Effect]; 1] = [&*UNKNOWN_NAME];
        let portal_alone =
            CommandParts { form: "execute", text: "", attributes: &attributes, effects: &[] };
        if candidates.unknown || named.iter().any(|named| named.forgotten) {
            commands.push(CommandParts { effects: &unknown, ..portal_alone });
        }
        // What the portal's own Parse holds is not recorded again.
        let of = self.replies.basis(message);
        let bound = candidates.iter().all(|candidate| candidate.bound.is_some());
        let one = commands.len() == 1 && !candidates.unknown && bound;
        let all: Vec<&[Effect]> = match one {
            true => Vec::new(),
            false => commands.iter().flat_map(|parts| parts.effects.iter().copied()).collect(),
        };
        let view = CommandParts { effects: &all, ..portal_alone };
        let against = weighed.against.clone();
        let asked =
            Asked { commands: &commands, view, withheld: false, prepares: false, of, against };
        // Masks must know the columns of what comes.
        let asks = self.masks.is_some() && self.replies.lacks_rows(portal);
        if asks {
            self.admission.beside(&refusal::describe_portal(portal));
            self.replies.expect_probe(portal);
        }
        let probes = (unknown_portal && !asks).then(|| Box::from(portal));
        let harmless = || match probes.is_some() {
            // The server says itself that there is no such portal.
            true => {
                [refusal::describe_portal(portal), refusal::failing_parse(false)].concat().into()
            }
            false => refusal::failing_parse(false),
        };
        let takes_secrets = weighed.withhold;
        match self.ask(range, &asked, harmless) {
            Asking::Settled(of, refused) => {
                weighed.passes(self.masking, refused.as_ref());
                if let (Some(portal), true) = (&probes, refused.is_some()) {
                    self.replies.expect_probe(portal);
                }
                let entered =
                    Entered { of, refused, candidates, takes_secrets, ..Entered::default() };
                self.replies.expect(message, self.now, entered)?;
                Ok(None)
            }
            Asking::Held(mut held) => {
                self.show(&mut held, &candidates);
                let of = held.sequence();
                let entered = Entered { of, candidates, takes_secrets, ..Entered::default() };
                let harmless = harmless();
                Ok(Some(Stop { at: 0, held, harmless, probes, entered, weighed }))
            }
        }
    }

    /// Shows people what a text runs by name.
    fn show_named(&self, held: &mut Held, of: &Arc<Reading>, candidates: &Candidates) {
        for candidate in candidates.iter() {
            let reading = candidate.source.reading();
            if !Arc::ptr_eq(reading, of) {
                held.bind(reading.text());
                let shown = self.view_alone(reading);
                held.view_mut().text += &format!("\n-- runs by name:\n{shown}");
            }
        }
        if candidates.unknown {
            held.caution("a statement that it runs by name is not known");
        }
    }

    /// Shows people what an Execute runs: text and values came before, in other messages. The
    /// approval is bound to them too.
    fn show(&self, held: &mut Held, candidates: &Candidates) {
        let mut texts = Vec::new();
        let mut effects = Vec::new();
        let mut values = None;
        for candidate in candidates.iter() {
            let reading = candidate.source.reading();
            texts.push(self.view_alone(reading));
            effects.extend_from_slice(candidate.source.effects());
            held.bind(reading.text());
            if let Some(bound) = &candidate.bound {
                held.bind(bound.exact.as_deref().unwrap_or_default());
                if bound.shown.is_none() && !matches!(bound.values, Values::None) {
                    held.caution("the values that were bound may not be shown");
                }
                values = values.or_else(|| bound.shown.clone());
            }
        }
        if candidates.unknown {
            held.caution("which statement it runs is not known");
        }
        if texts.len() > 1 {
            held.caution("it runs one of several statements, all of which are shown");
        }
        let view = held.view_mut();
        view.text = texts.join("\n-- or --\n");
        view.effects = effects;
        if let Some(values) = values {
            view.attributes.insert(command::PARAMETERS.into(), values);
        }
    }

    /// Asks policy. What is refused is replaced by what fails; gives what the client is told then.
    fn ask(
        &mut self,
        range: Range<usize>,
        asked: &Asked<'_>,
        instead: impl FnOnce() -> bytes::Bytes,
    ) -> Asking {
        let (of, ruling) = self.admission.ask(range, asked);
        let decision = match ruling {
            Ruling::Passes => return Asking::Settled(of, None),
            Ruling::Refused(decision) => decision,
            Ruling::Held(mut held) => {
                if asked.commands.iter().any(|parts| parts.effects().any(reads_copy_data)) {
                    held.caution("the rows that the client sends then are not part of this");
                }
                if asked.withheld {
                    held.caution("parts of the text are withheld; the hash covers them");
                }
                return Asking::Held(held);
            }
        };
        self.admission.instead(&instead());
        let reason = decision.reason().map(str::to_owned);
        let session = self.gate.session();
        Asking::Settled(of, Some(Objection::Policy { reason, session }.to_words()))
    }

    /// Records the runs so far; the next ones begin at `next`.
    fn end_run(&mut self, next: usize) {
        self.end_plain(next);
        self.end_secret(next);
    }

    fn end_plain(&mut self, next: usize) {
        let run = std::mem::replace(&mut self.plain, next..next);
        if !run.is_empty() {
            self.admission.data(run, None);
        }
    }

    fn end_secret(&mut self, next: usize) {
        let run = std::mem::replace(&mut self.secret, next..next);
        if !run.is_empty() {
            self.admission.withheld(run, "COPY data");
        }
    }
}

impl Asking {
    /// Of a message that only prepares, which is never held.
    fn settled(self) -> (Sequence, Option<Words>) {
        match self {
            Self::Settled(of, refused) => (of, refused),
            Self::Held(held) => (held.sequence(), None),
        }
    }
}

fn reads_copy_data(effect: &Effect) -> bool {
    effect.action == "sql.copy-from"
}

/// A text of which the server may read anything.
fn unsettled(sql: &str, settings: LexerSettings) -> Arc<Reading> {
    Arc::new(Reading::new(sql, settings, Err(Unparsed::Settings)))
}

/// The effects of a text, statement by statement.
fn runs(reading: &Reading) -> Vec<&[Effect]> {
    reading.statements().iter().map(|statement| statement.effects.as_slice()).collect()
}

fn value_bytes(parameter: &Parameter<'_>) -> usize {
    64 + parameter.value.map_or(0, <[u8]>::len)
}

/// A statement that a command runs by name, as a command of its own.
struct Named<'a> {
    source: &'a Source,
    form: &'static str,
    effects: [&'a [Effect]; 1],
    attributes: Cow<'a, Attributes>,
    /// Rules may ask for values that are not known any more.
    forgotten: bool,
}

impl<'a> Named<'a> {
    fn new(
        source: &'a Source,
        form: &'static str,
        attributes: &'a Attributes,
        bound: Option<&Bound>,
        is_in_force: impl Fn(&Weak<SessionPolicy>) -> bool,
    ) -> Self {
        let mut attributes = Cow::Borrowed(attributes);
        let mut forgotten = false;
        match bound.map(|bound| &bound.values) {
            Some(Values::Known(values)) => {
                let value = values.get(command::PARAMETERS).cloned().unwrap_or_default();
                attributes.to_mut().insert(command::PARAMETERS.into(), value);
            }
            Some(Values::Forgotten(passed)) => {
                forgotten = !passed.as_ref().is_some_and(is_in_force);
            }
            Some(Values::None) | None => {}
        }
        Self { source, form, effects: [source.effects()], attributes, forgotten }
    }

    fn parts(&self) -> CommandParts<'_> {
        CommandParts {
            form: self.form,
            text: self.source.reading().text(),
            attributes: &self.attributes,
            effects: &self.effects,
        }
    }
}
