//! What follows from decisions: counts, spans, and news. Nothing of it happens before the append that
//! records the decisions has succeeded, for what is not recorded has not happened.

use crate::config::NotifyEvent;
use crate::notify::News;
use crate::policy::{CommandParts, Decision, Verdict};
use crate::recording::{Renumbered, Sequence};
use crate::telemetry::CommandSpan;

use super::Gate;

/// What follows from the decisions of one append.
#[derive(Debug, Default)]
pub(super) struct Consequences {
    /// How many commands were allowed of which there is no more to tell.
    allowed: u64,
    others: Vec<Consequence>,
}

#[derive(Debug)]
struct Consequence {
    sequence: Sequence,
    verdict: Verdict,
    span: Option<CommandSpan>,
    /// Of a command that was blocked.
    news: Option<News>,
}

impl Consequences {
    /// Notes a decision.
    pub(super) fn of(
        &mut self,
        gate: &Gate,
        sequence: Sequence,
        view: &CommandParts<'_>,
        decision: &Decision,
    ) {
        let verdict = decision.verdict();
        let span = gate.spans.command(view, verdict);
        if verdict == Verdict::Allow && span.is_none() {
            self.allowed += 1;
            return;
        }
        let news = || News {
            rules: decision.rules().iter().map(ToString::to_string).collect(),
            reason: decision.reason().map(str::to_owned),
            text: view.text.to_owned(),
            ..News::default()
        };
        let news = (verdict == Verdict::Block).then(news);
        self.others.push(Consequence { sequence, verdict, span, news });
    }

    /// Whether nothing was decided.
    pub(super) fn is_empty(&self) -> bool {
        self.allowed == 0 && self.others.is_empty()
    }

    /// The decisions are appended: they have happened.
    pub(super) fn happen(self, gate: &Gate, renumbered: Renumbered) {
        if self.allowed > 0 {
            gate.metrics.decided(Verdict::Allow, self.allowed);
        }
        for Consequence { sequence, verdict, span, news } in self.others {
            gate.metrics.decided(verdict, 1);
            if let Some(span) = span {
                gate.spans.begin(renumbered.sequence(sequence), span);
            }
            if verdict != Verdict::Allow {
                gate.grant.opens();
            }
            if let Some(news) = news {
                gate.tell(NotifyEvent::Block, || news);
            }
        }
    }
}
