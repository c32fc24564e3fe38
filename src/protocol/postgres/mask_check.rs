//! What masks mean for what the client asks: whether it may run, and what is stored of it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::Value;

use crate::decode::postgres::command;
use crate::decode::postgres::frontend::Message;
use crate::decode::sql::{Reading, Source, Withhold};
use crate::gate::{Against, Sent};
use crate::policy::Attributes;

use super::masking::{AtSource, Masking, Standing};
use super::messages::to_target::{self, Unwritable};
use super::planner::Planner;
use super::refusal::Words;
use super::replies::Candidates;

/// Bound values that may be shown and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Withheld {
    /// None of them.
    None,
    /// All of them.
    All,
    /// All but those at these places.
    But(BTreeSet<usize>),
}

impl Withheld {
    /// Whether the value at a place is one.
    pub(super) fn has(&self, at: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::But(clear) => !clear.contains(&at),
        }
    }
}

/// What masks mean for a command, as a whole.
#[derive(Debug, Default)]
pub(super) struct Weighed {
    /// Why it must not run.
    pub(super) against: Option<Against>,
    /// Its literals, values and COPY data may be shown and kept nowhere.
    pub(super) withhold: bool,
    /// It may make or drop prepared statements and cursors out of sight.
    pub(super) makes_names: bool,
    /// Its statements, with what each does.
    judged: Vec<(Source, Arc<Standing>)>,
}

impl Weighed {
    /// The same, with what else is against it.
    pub(super) fn or_against(self, other: Option<Against>) -> Self {
        Self { against: other.or(self.against), ..self }
    }

    /// The command passes, unless it was refused.
    pub(super) fn passes(&self, masking: &Masking, refused: Option<&Words>) {
        if refused.is_none() {
            for (source, standing) in &self.judged {
                source.statement().iter().for_each(|s| masking.passes(s, &standing.judged));
            }
        }
    }
}

/// What passes in the place of a message whose text another goes to the server for.
pub(super) fn sent_instead(
    message: &Message<'_>,
    reading: &Reading,
    weighed: &Weighed,
) -> Option<Sent> {
    let text = &reading.sent()?.text;
    let mut out = BytesMut::new();
    // Nothing may bring the client's own text back: where the other cannot be written, one that fails
    // takes its place.
    let bytes = match message {
        Message::Query { .. } => match to_target::query(&mut out, text) {
            Ok(()) => out.freeze(),
            Err(Unwritable) => to_target::failing_query(),
        },
        Message::Parse { statement, parameter_types, .. } => {
            match to_target::parse(&mut out, statement, text, parameter_types) {
                Ok(()) => out.freeze(),
                Err(Unwritable) => to_target::failing_parse(statement.is_empty()),
            }
        }
        _ => return None,
    };
    let view = reading.view_of_sent(withheld(weighed))?.into_owned();
    Some(Sent { bytes, view })
}

fn withheld(weighed: &Weighed) -> Withhold {
    if weighed.withhold { Withhold::Literals } else { Withhold::Secrets }
}

impl Planner<'_, '_> {
    /// A text with what goes to the server in its place, and why it must not run, if so.
    pub(super) fn masked_at_source(
        &self,
        reading: &Arc<Reading>,
    ) -> (Arc<Reading>, Option<Against>) {
        match self.masks.map(|masks| self.masking.at_source(masks, reading)) {
            None | Some(AtSource::Same) => (Arc::clone(reading), None),
            Some(AtSource::Instead(reading)) => (reading, None),
            Some(AtSource::Refused(against)) => (Arc::clone(reading), Some(against)),
        }
    }

    /// What masks mean for a text and for what it, or a portal, runs by name.
    pub(super) fn weigh(&self, reading: Option<&Arc<Reading>>, named: &Candidates) -> Weighed {
        let Some(masks) = self.masks else { return Weighed::default() };
        let mut masks = Cow::Borrowed(masks);
        if self.masking.is_changing() {
            masks = Cow::Owned(masks.unsettled());
        }
        let own = reading.into_iter().flat_map(|reading| {
            (0..reading.statements().len()).map(|at| Source::new(Arc::clone(reading), at))
        });
        let mut weighed = Weighed::default();
        let own_text =
            |source: &Source| reading.is_some_and(|reading| Arc::ptr_eq(reading, source.reading()));
        // A table made of what a prepared statement gives.
        let statements = || reading.into_iter().flat_map(|reading| reading.statements());
        let stores = statements().any(|statement| {
            statement.references().next().is_some()
                && statement.effects.iter().any(|effect| effect.action == "sql.create")
        });
        let mut effects = statements().flat_map(|statement| &statement.effects);
        let explains = effects.any(|effect| effect.action == "sql.explain");
        for source in own.chain(named.iter().map(|candidate| candidate.source.clone())) {
            let standing = self.masking.standing(&masks, &source);
            let judged = &standing.judged;
            weighed.withhold |= standing.withhold;
            // An empty text does nothing.
            weighed.makes_names |= source.statement().is_some() && Masking::makes_names(judged);
            weighed.against = weighed.against.or_else(|| standing.objection.clone());
            if !own_text(&source) {
                if explains {
                    weighed.against = weighed.against.or_else(|| masks.counts_others(&source));
                }
                let outdated = || standing.outdated(&masks, &source);
                weighed.against = weighed.against.or_else(outdated);
            }
            if stores && !own_text(&source) {
                weighed.against = weighed.against.or_else(|| masks.gives_masked(judged));
            }
            if Masking::may_change(judged) {
                masks = Cow::Owned(masks.unsettled());
            }
            weighed.judged.push((source, standing));
        }
        if named.unknown || named.doubtful {
            let judged = masks.judge(None);
            weighed.withhold |= masks.withhold(&judged);
            weighed.makes_names = true;
            weighed.against = weighed.against.or_else(|| masks.objection(None, &judged));
            if stores {
                weighed.against = weighed.against.or_else(|| masks.gives_masked(&judged));
            }
        }
        weighed
    }

    /// The request view of a text.
    pub(super) fn view<'r>(&self, reading: &'r Reading, weighed: &Weighed) -> Cow<'r, str> {
        let view = match (weighed.withhold, self.masks) {
            (true, Some(masks)) if self.settles(weighed) => {
                reading.view_for(|belonging| masks.is_clear(belonging))
            }
            (true, _) => Cow::Borrowed(reading.view(Withhold::Literals)),
            (false, _) => Cow::Borrowed(reading.view(Withhold::Secrets)),
        };
        let Some(masks) = self.masks else { return view };
        match view {
            Cow::Borrowed(view) => masks.plan().view(view),
            Cow::Owned(view) => Cow::Owned(masks.plan().view(&view).into_owned()),
        }
    }

    /// Whether the catalog is what it was when it was read, and stays it.
    fn settles(&self, weighed: &Weighed) -> bool {
        let changes =
            weighed.judged.iter().any(|(_, standing)| Masking::may_change(&standing.judged));
        !changes && !self.masking.is_changing()
    }

    /// The same for a text that a command runs by name.
    pub(super) fn view_alone(&self, reading: &Arc<Reading>) -> String {
        let weighed = self.weigh(Some(reading), &Candidates::default());
        self.view(reading, &weighed).into_owned()
    }

    /// The request view of bound values.
    pub(super) fn view_of_values<'a>(&self, attributes: &'a Attributes) -> Cow<'a, Attributes> {
        let mut shown = Cow::Borrowed(attributes);
        let values = attributes.get(command::PARAMETERS).and_then(Value::as_array);
        if let (Some(masks), Some(values)) = (self.masks, values) {
            let mut masked = values.clone();
            for value in &mut masked {
                if let Value::String(text) = value
                    && let Cow::Owned(view) = masks.plan().view(text)
                {
                    *text = view;
                }
            }
            if masked != *values {
                shown.to_mut().insert(command::PARAMETERS.into(), masked.into());
            }
        }
        shown
    }

    /// Which values that are bound to one of these may be shown and kept nowhere.
    pub(super) fn withholds_values(&self, candidates: &Candidates) -> Withheld {
        let secret = |source: &Source| source.reading().is_secret();
        if candidates.unknown || candidates.iter().any(|candidate| secret(&candidate.source)) {
            return Withheld::All;
        }
        let weighed = self.weigh(None, candidates);
        let mut all = candidates.iter();
        match (weighed.withhold, self.masks, all.next(), all.next()) {
            (false, ..) => Withheld::None,
            (true, Some(masks), Some(only), None) if self.settles(&weighed) => {
                let reading = only.source.reading();
                Withheld::But(reading.clear_parameters(|belonging| masks.is_clear(belonging)))
            }
            _ => Withheld::All,
        }
    }
}
