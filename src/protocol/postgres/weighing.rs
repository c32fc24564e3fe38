//! What masks mean for what the client asks: whether it may run, and what is stored of it.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::decode::postgres::command;
use crate::decode::sql::{Reading, Source, Withhold};
use crate::gate::Against;
use crate::policy::Attributes;

use super::entering::Entering;
use super::masking::{Judgement, Masking};
use super::refusal::Words;
use super::replies::Candidates;

/// What masks mean for a command, as a whole.
#[derive(Debug, Default)]
pub(super) struct Weighed {
    /// Why it must not run.
    pub(super) against: Option<Against>,
    /// Its literals, values and COPY data may be shown and kept nowhere.
    pub(super) withhold: bool,
    /// Its statements, with what each does.
    judged: Vec<(Source, Judgement)>,
}

impl Weighed {
    /// The command passes, unless it was refused.
    pub(super) fn passes(&self, masking: &Masking, refused: Option<&Words>) {
        if refused.is_none() {
            for (source, judged) in &self.judged {
                source.statement().iter().for_each(|s| masking.passes(s, judged));
            }
        }
    }
}

impl Entering<'_, '_, '_> {
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
        for source in own.chain(named.iter().map(|candidate| candidate.source.clone())) {
            let judged = masks.judge(Some(&source));
            weighed.withhold |= masks.withhold(&judged);
            weighed.against = weighed.against.or_else(|| masks.objection(Some(&source), &judged));
            if Masking::may_change(&judged) {
                masks = Cow::Owned(masks.unsettled());
            }
            weighed.judged.push((source, judged));
        }
        if named.unknown {
            let judged = masks.judge(None);
            weighed.withhold |= masks.withhold(&judged);
            weighed.against = weighed.against.or_else(|| masks.objection(None, &judged));
        }
        weighed
    }

    /// The request view of a text.
    pub(super) fn view<'r>(&self, reading: &'r Reading, weighed: &Weighed) -> Cow<'r, str> {
        let withhold = if weighed.withhold { Withhold::Literals } else { Withhold::Secrets };
        let view = reading.view(withhold);
        self.masks.map_or(Cow::Borrowed(view), |masks| masks.plan().view(view))
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

    /// Whether values that are bound to one of these may be shown and kept nowhere.
    pub(super) fn withholds_values(&self, candidates: &Candidates) -> bool {
        candidates.unknown
            || candidates.iter().any(|candidate| candidate.source.reading().is_secret())
            || self.weigh(None, candidates).withhold
    }
}
