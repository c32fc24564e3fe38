//! Which answers the server may give, by what it owes. What does not fit ends the session: a server
//! and a client that are out of step show the client one command's answer as another's.
//!
//! | owed | may come (notices, notifications and parameters at any time) |
//! | --- | --- |
//! | Parse, Bind, Close | its completion, or an error |
//! | Describe of a statement | `ParameterDescription`, then RowDescription or `NoData`; an error |
//! | Describe of a portal | RowDescription or `NoData`; an error |
//! | Execute | rows, if it gives any, then `CommandComplete` or `PortalSuspended`; `EmptyQueryResponse`; a COPY; an error |
//! | Query | for each statement RowDescription and rows, a COPY, or neither, and `CommandComplete`; an error in place of the rest; then `ReadyForQuery` |
//! | Sync | `ReadyForQuery`, or an error and `ReadyForQuery` |
//! | nothing | nothing; within a step that no Sync ended, an error and `ReadyForQuery` (a timeout) |
//! | anything | an error that ends the session: nothing follows it |
//!
//! Source: "Message Flow" of PostgreSQL's documentation; `exec_simple_query`,
//! `exec_execute_message` and `PostgresMain` of `postgres.c`.

use super::{Expected, Name, Replies, Running, Runs, Stage, Unfit};
use crate::decode::sql::{Source, StatementKind};

impl Replies {
    /// Holds the kind of a message (never `DataRow` or `CopyData`) against what is owed.
    pub(super) fn fits(&self, tag: u8, is_fatal: bool) -> Result<(), Unfit> {
        let fits = match (tag, self.expected.front()) {
            _ if self.is_over => false,
            (b'N' | b'A' | b'S', _) => true,
            (b'E', _) if is_fatal => true,
            (b'E', None) => self.step_is_open && !self.skipping,
            (_, None) => false,
            (tag, Some(front)) => self.answers(front, tag),
        };
        if fits { Ok(()) } else { Err(Unfit::Answer) }
    }

    fn answers(&self, front: &Expected, tag: u8) -> bool {
        use Expected::{
            Bind, Close, Describe, Execute, FunctionCall, Parse, Probe, Query, Rehearsal, Sync,
        };
        match front {
            Parse { refused: Some(_), .. } => tag == b'E',
            Parse { .. } => matches!(tag, b'1' | b'E'),
            Bind { .. } => matches!(tag, b'2' | b'E'),
            Close(_) => matches!(tag, b'3' | b'E'),
            Describe { name: Name::Statement(_), parameters: false } => matches!(tag, b't' | b'E'),
            Describe { .. } | Probe(_) => matches!(tag, b'T' | b'n' | b'E'),
            Sync { failed } => tag == b'Z' || (tag == b'E' && !failed),
            FunctionCall { failed, .. } => tag == if *failed { b'Z' } else { b'E' },
            Rehearsal { .. } => b"123tTnCEZ".contains(&tag),
            Query(running) | Execute(running) if running.refused.is_some() => {
                tag == b'E' && running.stage != Stage::Failed
                    || tag == b'Z' && running.stage == Stage::Failed
            }
            Execute(running) => self.ends_execute(running, tag),
            Query(running) => self.goes_on(running, tag),
        }
    }

    #[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
    fn ends_execute(&self, running: &Running, tag: u8) -> bool {
        let Running { stage, copies, may_suspend, .. } = running;
        match (tag, stage) {
            (b'E', _) => true,
            (b'C', Stage::Between | Stage::Rows | Stage::CopyOutEnded) => true,
            (b'C', Stage::CopyIn) => self.has_ended_data(),
            (b's', Stage::Between | Stage::Rows) => *may_suspend,
            (b'I', Stage::Between) => true,
            (b'G', Stage::Between) => copies.from_client,
            (b'H', Stage::Between) => copies.to_client,
            (b'c', Stage::CopyOut) => true,
            _ => false,
        }
    }

    #[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
    fn goes_on(&self, running: &Running, tag: u8) -> bool {
        let Running { stage, copies, .. } = running;
        let (done, all) = running.progress().unwrap_or((0, usize::MAX));
        let more = done < all;
        match (tag, stage) {
            (b'Z', Stage::Failed) => true,
            (_, Stage::Failed) => false,
            (b'E', _) => true,
            // A text without statements is answered once, too.
            (b'I', Stage::Between) => all == 0 && done == 0 || all == usize::MAX,
            (b'Z', Stage::Between) => match &running.runs {
                _ if all != usize::MAX => done == all.max(1),
                Runs::Text(_, answered) => *answered > 0,
                Runs::Portal(_) => false,
            },
            (b'T', Stage::Between) => more,
            // Rules of a table may have more queries run than the one that was asked for.
            (b'T', Stage::Rows) => more && may_have_rules(running),
            (b'C', Stage::Between | Stage::Rows | Stage::CopyOutEnded) => more,
            (b'C', Stage::CopyIn) => self.has_ended_data(),
            (b'G', Stage::Between) => more && copies.from_client,
            (b'H', Stage::Between) => more && copies.to_client,
            (b'c', Stage::CopyOut) => true,
            _ => false,
        }
    }

    /// Takes the beginning of a row or of COPY data.
    pub(in crate::protocol::postgres) fn takes_data(&mut self, tag: u8) -> Result<(), Unfit> {
        let fits = match self.expected.front_mut() {
            _ if self.is_over => false,
            Some(Expected::Query(running)) if tag == b'D' => running.stage == Stage::Rows,
            Some(Expected::Execute(running)) if tag == b'D' => match (running.stage, &running.runs)
            {
                (Stage::Rows, _) => true,
                (Stage::Between, Runs::Portal(name)) if running.refused.is_none() => {
                    running.stage = Stage::Rows;
                    !self.names.portal_by(name).is_some_and(|portal| portal.no_rows)
                }
                _ => false,
            },
            Some(Expected::Query(running) | Expected::Execute(running)) => {
                running.stage == Stage::CopyOut
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(Unfit::Answer) }
    }
}

/// Whether the statement that answers now may be one that rules of a table add queries to.
fn may_have_rules(running: &Running) -> bool {
    let Runs::Text(Some(reading), at) = &running.runs else { return true };
    let source = Source::new(std::sync::Arc::clone(reading), *at);
    let kind = source.statement().map(|statement| &statement.kind);
    matches!(
        kind,
        None | Some(
            StatementKind::Write | StatementKind::Execute { .. } | StatementKind::NotUnderstood
        )
    )
}
