//! What the client's messages mean: what each of them would do is asked of policy, and noted to be
//! recorded, to pass, and to be answered, before any of them goes on.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Weak};

use crate::decode::postgres::Malformed;
use crate::decode::postgres::command;
use crate::decode::postgres::frontend::{Bind, Message, Parameter};
use crate::decode::sql::{Analyzer, LexerSettings, Reading, Source, Unparsed, is_deep};
use crate::gate::{Against, Asked, Gate, Pending, Plan, Renumber, Ruling};
use crate::policy::{Attributes, CommandParts, Decision, Effect, SessionPolicy, Verdict};
use crate::recording::{Renumbered, Sequence};

use super::mask_check::{Weighed, Withheld, sent_instead};
use super::masking::{Masking, MasksNow};
use super::messages::to_target;
use super::prepared::{Bound, Values};
use super::reader::LARGE;
use super::refusal::{Objection, Words};
use super::rehearsal::Unit;
use super::replies::{Candidates, Course, Entered, Replies};

/// Bound values of more bytes than this are not kept for rules that look at values.
const MOST_VALUES: usize = 16 << 10;

static UNKNOWN_NAME: LazyLock<[Effect; 1]> = LazyLock::new(|| [command::unknown_name()]);

/// A message of the client, where it stands, and its text as it was read beforehand.
pub(super) type Placed<'a> = (Range<usize>, Message<'a>, Option<Arc<Reading>>);

/// Plans what becomes of the client's messages: in the recording, and in the queue of replies.
pub(super) struct Planner<'p, 'g> {
    pub(super) plan: &'p mut Plan<'g>,
    pub(super) replies: &'p mut Replies,
    pub(super) gate: &'p Gate,
    pub(super) analyzer: &'p Analyzer,
    pub(super) masking: &'p Masking,
    /// `None` where nothing is masked.
    pub(super) masks: Option<&'p MasksNow>,
    /// A run of messages that are no commands: recorded as one event.
    pub(super) plain: Range<usize>,
    /// A run of COPY data that is not to be stored.
    pub(super) secret: Range<usize>,
    /// The messages that prepare a command and wait with it when it is held.
    pub(super) unit: Option<Unit>,
}

/// Why planning stopped before the last message.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is moved once, and looked at right away")]
pub(super) enum Stopped {
    /// The message at this place waits for an answer of the server.
    Waits(usize),
    /// The command at this place would not pass; what it is for certain shows when everything before
    /// it is answered. What prepares it, and was not forwarded, waits with it.
    Unsettled(usize, Option<Unit>, bytes::Bytes),
    /// People decide a command.
    Pending(Stop),
}

/// A command that people decide, and what happens once they have.
#[derive(Debug)]
pub(super) struct Stop {
    /// Its place among the messages.
    pub(super) at: usize,
    /// What prepares it, and was not forwarded yet.
    pub(super) unit: Option<Unit>,
    /// The command.
    pub(super) held: Box<Pending>,
    /// What stands for it when it does not run.
    pub(super) harmless: bytes::Bytes,
    /// The portal, when that begins with a question of the gateway's own about it.
    pub(super) probes: Option<Box<str>>,
    /// How it enters the queue.
    pub(super) entered: Entered,
    /// What masks mean for it.
    pub(super) weighed: Weighed,
}

impl Renumber for Stopped {
    fn renumber(&mut self, renumbered: Renumbered) {
        if let Self::Pending(Stop { held, entered, .. }) = self {
            held.renumber(renumbered);
            entered.of.renumber(renumbered);
        }
    }
}

/// What policy says of a message.
enum Asking {
    /// It goes on, or what fails does, and the client is told this.
    Settled(Sequence, Option<Words>),
    /// People decide it.
    Pending(Box<Pending>),
}

/// How a message was entered.
#[expect(clippy::large_enum_variant, reason = "it is moved once, and looked at right away")]
enum Done {
    /// It was.
    Entered,
    /// People decide it.
    Pending(Stop),
    /// It was not: it would not pass, and what was forwarded before is not answered yet.
    Unsettled,
}

impl Planner<'_, '_> {
    /// Plans messages, up to one that people decide or that waits for an answer.
    pub(super) fn messages(
        &mut self,
        messages: &[Placed<'_>],
    ) -> Result<Option<Stopped>, Malformed> {
        for (at, (range, message, read)) in messages.iter().enumerate() {
            let range = range.clone();
            match self.replies.course(message) {
                Course::Forward => {}
                Course::Keep => {
                    self.end_run(range.end);
                    self.replies.keep_sync();
                    continue;
                }
                course => {
                    self.end_run(range.start);
                    if course == Course::Fail {
                        self.plan.beside(&to_target::copy_fail());
                        self.replies.end_copy();
                    }
                    self.plan.beside(&to_target::flush());
                    return Ok(Some(Stopped::Waits(at)));
                }
            }
            match message {
                Message::Query { .. }
                | Message::Parse { .. }
                | Message::Bind(_)
                | Message::Execute { .. }
                | Message::FunctionCall => {
                    self.end_run(range.end);
                    if !self.continues_unit(message, &range) {
                        self.begin_unit(message, &range);
                    }
                }
                Message::CopyData if self.replies.takes_secrets() => {
                    self.end_plain(range.end);
                    self.secret.end = range.end;
                }
                _ => {
                    self.end_secret(range.end);
                    self.plain.end = range.end;
                    if !self.continues_unit(message, &range) {
                        self.unit = None;
                    }
                }
            }
            let done = match message {
                Message::Query { sql } => {
                    let reading = self.read(sql, read.as_ref());
                    self.query(range, message, &reading)?
                }
                Message::Parse { statement, sql, parameter_types } => {
                    let reading = self.read(sql, read.as_ref());
                    let open = self.replies.in_transaction();
                    let attributes = command::parse(&reading, statement, parameter_types, open);
                    let unnamed = statement.is_empty();
                    if !self.parse(range, message, &reading, &attributes, unnamed)? {
                        self.unit = None;
                    }
                    Done::Entered
                }
                Message::Bind(bind) => {
                    self.bind(range, message, bind)?;
                    Done::Entered
                }
                Message::Execute { portal, max_rows } => {
                    let done = self.execute(range, message, portal, *max_rows)?;
                    if matches!(done, Done::Entered) {
                        self.unit = None;
                    }
                    done
                }
                Message::FunctionCall => {
                    self.plan.note("refused", "the function call message".to_owned());
                    self.plan.instead(&to_target::failing_query());
                    let refused = Some(Objection::FunctionCall.to_words());
                    let entered = Entered { refused, ..Entered::default() };
                    self.replies.expect(message, self.plan.now(), entered)?;
                    Done::Entered
                }
                _ => {
                    self.replies.expect(message, self.plan.now(), Entered::default())?;
                    Done::Entered
                }
            };
            match done {
                Done::Entered => {}
                Done::Pending(stop) => {
                    let unit = self.unit.take();
                    return Ok(Some(Stopped::Pending(Stop { at, unit, ..stop })));
                }
                Done::Unsettled => {
                    let (unit, waits) = (self.unit.take(), self.plan.take_back());
                    self.plan.beside(&to_target::flush());
                    return Ok(Some(Stopped::Unsettled(at, unit, waits)));
                }
            }
        }
        self.end_run(0);
        Ok(None)
    }

    /// Whether a message belongs to what prepares the next command.
    fn continues_unit(&mut self, message: &Message<'_>, range: &Range<usize>) -> bool {
        self.unit.as_mut().is_some_and(|unit| unit.takes(message, range))
    }

    /// What was told so far passes whatever is held behind it; the message may begin to prepare a
    /// command.
    fn begin_unit(&mut self, message: &Message<'_>, range: &Range<usize>) {
        self.plan.step();
        let asks = self.plan.asks_people();
        self.unit = asks.then(|| Unit::begun_by(message, range, self.replies)).flatten();
    }

    /// The text as the server will read it. Where that is not certain, because of what was
    /// forwarded and is not answered, it is read both ways or not at all.
    fn read(&self, sql: &str, read: Option<&Arc<Reading>>) -> Arc<Reading> {
        let lexing = self.replies.lexing();
        if lexing.settled {
            let fits = |read: &&Arc<Reading>| read.settings() == lexing.settings;
            return match read.filter(fits) {
                Some(read) => Arc::clone(read),
                None if is_costly(sql, lexing.settings) => unsettled(sql, lexing.settings),
                None => self.analyzer.read(sql, lexing.settings),
            };
        }
        let foreign = if lexing.encoding_settled {
            // In some encodings the second byte of a character can be a backslash.
            sql.as_bytes().windows(2).any(|two| matches!(two, [0x80..=0xff, b'\\']))
        } else {
            !sql.is_ascii()
        };
        if foreign || (sql.contains('\\') && is_costly(sql, lexing.settings)) {
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
    ) -> Result<Done, Malformed> {
        let (reading, unmaskable) = self.masked_at_source(reading);
        let reading = &reading;
        let attributes = command::query(reading, self.replies.in_transaction());
        let candidates = self.replies.named_in(reading);
        let mut runs = runs(reading);
        if candidates.unknown {
            runs.push(&*UNKNOWN_NAME);
        }
        let weighed = self.weigh(Some(reading), &candidates).or_against(unmaskable);
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
            against: against(reading, &weighed),
            sent: sent_instead(message, reading, &weighed),
        };
        let decision = self.plan.decide(&asked);
        if self.is_unsettled(&decision) {
            return Ok(Done::Unsettled);
        }
        let asking = self.rule(range, &asked, Some(reading), decision, to_target::failing_query);
        let mut entered = Entered {
            reading: Some(Arc::clone(reading)),
            candidates,
            takes_secrets: weighed.withhold,
            makes_names: weighed.makes_names,
            ..Entered::default()
        };
        match asking {
            Asking::Settled(of, refused) => {
                weighed.passes(self.masking, refused.as_ref());
                (entered.of, entered.refused) = (of, refused);
                self.replies.expect(message, self.plan.now(), entered)?;
                Ok(Done::Entered)
            }
            Asking::Pending(mut held) => {
                entered.of = held.sequence();
                self.show_named(&mut held, reading, &entered.candidates);
                let harmless = to_target::failing_query();
                let unit = None;
                Ok(Done::Pending(Stop {
                    at: 0,
                    unit,
                    held,
                    harmless,
                    probes: None,
                    entered,
                    weighed,
                }))
            }
        }
    }

    /// Gives whether it passes.
    fn parse(
        &mut self,
        range: Range<usize>,
        message: &Message<'_>,
        reading: &Arc<Reading>,
        attributes: &Attributes,
        unnamed: bool,
    ) -> Result<bool, Malformed> {
        let (reading, unmaskable) = self.masked_at_source(reading);
        let reading = &reading;
        let runs = runs(reading);
        let own = CommandParts { form: "parse", text: reading.text(), attributes, effects: &runs };
        let named = self.masks.map(|_| self.replies.named_in(reading)).unwrap_or_default();
        let weighed = self.weigh(Some(reading), &named).or_against(unmaskable);
        let shown = self.view(reading, &weighed);
        let asked = Asked {
            commands: &[own],
            view: CommandParts { text: &shown, ..own },
            withheld: !std::ptr::eq(&*shown, reading.text()),
            prepares: true,
            of: None,
            against: against(reading, &weighed),
            sent: sent_instead(message, reading, &weighed),
        };
        let harmless = || to_target::failing_parse(unnamed);
        let (of, refused) = self.ask(range, &asked, Some(reading), harmless).settled();
        let (reading, passes) = (Some(Arc::clone(reading)), refused.is_none());
        let entered = Entered { of, refused, reading, ..Entered::default() };
        self.replies.expect(message, self.plan.now(), entered)?;
        Ok(passes)
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
        let withheld = if has_values { self.withholds_values(&candidates) } else { Withheld::None };
        let is_value = |(_, parameter): &(usize, &Parameter<'_>)| parameter.value.is_some();
        let values = bind.parameters.iter().enumerate().filter(is_value);
        let secret = values.map(|(at, _)| at).any(|at| withheld.has(at));
        let attributes = command::bind_without(bind, |at| withheld.has(at));
        let shown = self.view_of_values(&attributes);
        let view = CommandParts { form: "bind", text: "", attributes: &shown, effects: &[] };
        let of = self.replies.basis(message);
        let withheld = secret || matches!(shown, Cow::Owned(_));
        let asked =
            Asked { commands: &[], view, withheld, prepares: false, of, against: None, sent: None };
        let asks = self.plan.asks_people();
        let exact = asks.then(|| self.plan.keyed_hash(range.clone()));
        let harmless = || to_target::failing_parse(false);
        let (of, refused) = self.ask(range, &asked, None, harmless).settled();
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
        // Planning calls functions that are not volatile, and those may close and open cursors.
        let plans = self.masks.is_some() && self.replies.has_named_portals();
        let makes_names = plans && self.weigh(None, &candidates).makes_names;
        let entered = Entered { of, refused, bound, makes_names, ..Entered::default() };
        self.replies.expect(message, self.plan.now(), entered)
    }

    /// Decides what a portal will run while its values are at hand that are not kept.
    fn pass_with_values(
        &self,
        candidates: &Candidates,
        bind: &Bind<'_>,
        secret: bool,
        attributes: Attributes,
    ) -> Option<Weak<SessionPolicy>> {
        if candidates.unknown || !self.plan.looks_at(command::PARAMETERS) {
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
        self.plan.lets_pass(&commands)
    }

    fn execute(
        &mut self,
        range: Range<usize>,
        message: &Message<'_>,
        portal: &str,
        max_rows: u32,
    ) -> Result<Done, Malformed> {
        let mut candidates = self.replies.portal_candidates(portal);
        let unknown_portal = candidates.is_empty();
        candidates.unknown |= unknown_portal;
        self.replies.follow(&mut candidates);
        let weighed = self.weigh(None, &candidates);
        let attributes = command::execute(portal, max_rows, self.replies.in_transaction());
        let looks_at_values = self.plan.looks_at(command::PARAMETERS);
        let named: Vec<_> = candidates
            .iter()
            .map(|candidate| {
                let bound = candidate.bound.as_deref().filter(|_| looks_at_values);
                Named::new(&candidate.source, "execute", &attributes, bound, |policy| {
                    self.plan.is_by(policy)
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
        let asked = Asked {
            commands: &commands,
            view,
            withheld: false,
            prepares: false,
            of,
            against,
            sent: None,
        };
        let decision = self.plan.decide(&asked);
        if self.is_unsettled(&decision) {
            return Ok(Done::Unsettled);
        }
        // Masks must know the columns of what comes.
        let asks = self.masks.is_some() && self.replies.lacks_rows(portal);
        if asks {
            self.plan.beside(&to_target::describe_portal(portal));
            self.replies.expect_probe(portal);
        }
        let probes = (unknown_portal && !asks).then(|| Box::from(portal));
        let harmless = || match probes.is_some() {
            // The server says itself that there is no such portal.
            true => [to_target::describe_portal(portal), to_target::failing_parse(false)]
                .concat()
                .into(),
            false => to_target::failing_parse(false),
        };
        let made = Entered {
            takes_secrets: weighed.withhold,
            makes_names: weighed.makes_names,
            ..Entered::default()
        };
        match self.rule(range, &asked, None, decision, harmless) {
            Asking::Settled(of, refused) => {
                weighed.passes(self.masking, refused.as_ref());
                if let (Some(portal), true) = (&probes, refused.is_some()) {
                    self.replies.expect_probe(portal);
                }
                let entered = Entered { of, refused, candidates, ..made };
                self.replies.expect(message, self.plan.now(), entered)?;
                Ok(Done::Entered)
            }
            Asking::Pending(mut held) => {
                self.show(&mut held, &candidates);
                let of = held.sequence();
                let entered = Entered { of, candidates, ..made };
                let (harmless, unit) = (harmless(), None);
                Ok(Done::Pending(Stop { at: 0, unit, held, harmless, probes, entered, weighed }))
            }
        }
    }

    /// Shows people what a text runs by name.
    fn show_named(&self, held: &mut Pending, of: &Arc<Reading>, candidates: &Candidates) {
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
    fn show(&self, held: &mut Pending, candidates: &Candidates) {
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
        reading: Option<&Arc<Reading>>,
        instead: impl FnOnce() -> bytes::Bytes,
    ) -> Asking {
        let decision = self.plan.decide(asked);
        self.rule(range, asked, reading, decision, instead)
    }

    /// Whether a decision against a command may be one about what it does not turn out to be.
    fn is_unsettled(&self, decision: &Decision) -> bool {
        let last = self.unit.as_ref().map_or(0, |unit| unit.replies(self.replies));
        decision.verdict() != Verdict::Allow && !self.replies.is_settled_but_for(last)
    }

    fn rule(
        &mut self,
        range: Range<usize>,
        asked: &Asked<'_>,
        reading: Option<&Arc<Reading>>,
        decision: Decision,
        instead: impl FnOnce() -> bytes::Bytes,
    ) -> Asking {
        let (of, ruling) = self.plan.rule(range, asked, decision);
        let decision = match ruling {
            Ruling::Passes => return Asking::Settled(of, None),
            Ruling::Refused(decision) => decision,
            Ruling::Pending(mut held) => {
                if asked.commands.iter().any(|parts| parts.effects().any(reads_copy_data)) {
                    held.caution("the rows that the client sends then are not part of this");
                }
                if asked.withheld {
                    held.caution("parts of the text are withheld; the hash covers them");
                }
                return Asking::Pending(held);
            }
        };
        self.plan.instead(&instead());
        let reason = decision.reason().or(decision.rules().is_empty().then_some(NO_RULE));
        let reason = reason.map(str::to_owned);
        Asking::Settled(of, Some(self.objection(reading, reason).to_words()))
    }

    /// What a client is told of a command that policy refused.
    fn objection(&self, reading: Option<&Arc<Reading>>, reason: Option<String>) -> Objection {
        use Unparsed::{Syntax, TooComplex, TooDeep, TooLong};
        let session = self.gate.session();
        match (reading, reading.and_then(|reading| reading.unparsed())) {
            (Some(reading), Some(unparsed @ (Syntax | TooComplex | TooDeep | TooLong))) => {
                let mut syntax = reading.syntax_error();
                if let (Some(masks), Some(syntax)) = (self.masks, &mut syntax) {
                    syntax.stored = masks.plan().view(&syntax.stored).into_owned();
                }
                let reason = reason.unwrap_or_else(|| "Policy refuses what it is.".to_owned());
                Objection::NotUnderstood { unparsed, syntax, reason, session }
            }
            (Some(reading), None) if reading.leaves_utf8() => Objection::Encoding { session },
            _ => Objection::Policy { reason, session },
        }
    }

    /// Records the runs so far; the next ones begin at `next`.
    fn end_run(&mut self, next: usize) {
        self.end_plain(next);
        self.end_secret(next);
    }

    fn end_plain(&mut self, next: usize) {
        let run = std::mem::replace(&mut self.plain, next..next);
        if !run.is_empty() {
            self.plan.data(run, None);
        }
    }

    fn end_secret(&mut self, next: usize) {
        let run = std::mem::replace(&mut self.secret, next..next);
        if !run.is_empty() {
            self.plan.withheld(run, "COPY data");
        }
    }
}

impl Asking {
    /// Of a message that only prepares, which is never held.
    fn settled(self) -> (Sequence, Option<Words>) {
        match self {
            Self::Settled(of, refused) => (of, refused),
            Self::Pending(held) => (held.sequence(), None),
        }
    }
}

/// What a client is told where the target's default refused.
const NO_RULE: &str = "no rule allows the command, and this target runs only what a rule allows";

/// What is against a text whatever the rules say.
fn against(reading: &Reading, weighed: &Weighed) -> Option<Against> {
    let reason = "client_encoding can only be UTF8 in this session";
    let against = || Against { masks: Vec::new(), reason: reason.into() };
    let encoding = || reading.leaves_utf8().then(against);
    weighed.against.clone().or_else(encoding)
}

fn reads_copy_data(effect: &Effect) -> bool {
    effect.action == "sql.copy-from"
}

/// Whether reading a text may hold others up.
fn is_costly(sql: &str, settings: LexerSettings) -> bool {
    sql.len() > LARGE || is_deep(sql, settings)
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
