//! Before people are asked about an Execute, the server says whether it could run: what prepares it is
//! rehearsed under names of the gateway's own, and undone.
//!
//! The client's Parse and Bind wait with their Execute, so that nothing is locked while people
//! decide. They may fail, and the Execute would then be skipped: people would be asked for
//! nothing. Within a transaction the rehearsal is undone by a savepoint, else by its Sync.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::decode::postgres::frontend::{Message, Named};

use super::messages::to_target::{self, Unwritable};
use super::prepared::Key;
use super::replies::Replies;

/// The name of what the gateway makes for a moment.
const OWN: &str = "portcullis rehearsal";

/// The messages that make the portal which the next Execute runs, as far as they came one behind the
/// other: its Parse, its Bind, and questions about both.
#[derive(Debug)]
pub(super) struct Unit {
    /// How many replies were expected before them.
    mark: u64,
    /// Messages were forwarded before them in the same step.
    within_step: bool,
    statement: Key,
    portal: Option<Key>,
    parse: Option<Range<usize>>,
    bind: Option<Range<usize>>,
}

impl Unit {
    /// The unit that a message begins, if it is one that prepares.
    pub(super) fn begun_by(
        message: &Message<'_>,
        range: &Range<usize>,
        replies: &Replies,
    ) -> Option<Self> {
        let (statement, portal) = match message {
            Message::Parse { statement, .. } => (*statement, None),
            Message::Bind(bind) => (bind.statement, Some(bind.portal)),
            _ => return None,
        };
        Some(Self {
            mark: replies.entered(),
            within_step: replies.step_is_open(),
            statement: statement.into(),
            portal: portal.map(Key::from),
            parse: portal.is_none().then(|| range.clone()),
            bind: portal.is_some().then(|| range.clone()),
        })
    }

    /// Takes a message that goes on with it; says whether it does.
    pub(super) fn takes(&mut self, message: &Message<'_>, range: &Range<usize>) -> bool {
        match message {
            Message::Bind(bind) if self.portal.is_none() && self.statement.is(bind.statement) => {
                (self.portal, self.bind) = (Some(bind.portal.into()), Some(range.clone()));
                true
            }
            Message::Describe(Named::Statement(name)) => self.statement.is(name),
            Message::Describe(Named::Portal(name)) | Message::Execute { portal: name, .. } => {
                self.portal.as_ref().is_some_and(|portal| portal.is(name))
            }
            _ => false,
        }
    }

    /// How many replies are expected for it.
    pub(super) fn replies(&self, replies: &Replies) -> u64 {
        replies.entered().saturating_sub(self.mark)
    }

    /// Whether other messages of its step were forwarded before it.
    pub(super) fn is_within_step(&self) -> bool {
        self.within_step
    }

    /// The messages that rehearse it, and how many `ReadyForQuery`s answer them.
    pub(super) fn rehearsal(
        &self,
        bytes: &Bytes,
        in_transaction: bool,
    ) -> Result<(Bytes, usize), Unwritable> {
        let message = |range: &Option<Range<usize>>| {
            range.as_ref().and_then(|range| bytes.get(range.clone())).unwrap_or_default()
        };
        let mut out = BytesMut::new();
        let mut readies = 1;
        if in_transaction {
            run(&mut out, "savepoint portcullis_rehearsal")?;
            readies += 3;
        }
        close_own(&mut out)?;
        let parse = message(&self.parse);
        if !parse.is_empty() {
            to_target::renamed(&mut out, parse, &[Some(OWN)])?;
        }
        let statement = (!parse.is_empty()).then_some(OWN);
        to_target::renamed(&mut out, message(&self.bind), &[Some(OWN), statement])?;
        close_own(&mut out)?;
        to_target::sync(&mut out);
        if in_transaction {
            run(&mut out, "rollback to savepoint portcullis_rehearsal")?;
            run(&mut out, "release savepoint portcullis_rehearsal")?;
        }
        Ok((out.freeze(), readies))
    }
}

/// Runs a statement. A Query would drop the client's unnamed statement.
fn run(out: &mut BytesMut, sql: &str) -> Result<(), Unwritable> {
    close_own(out)?;
    to_target::parse(out, OWN, sql, &[])?;
    to_target::bind(out, OWN, OWN)?;
    to_target::execute(out, OWN)?;
    close_own(out)?;
    to_target::sync(out);
    Ok(())
}

fn close_own(out: &mut BytesMut) -> Result<(), Unwritable> {
    to_target::close(out, Named::Portal(OWN))?;
    to_target::close(out, Named::Statement(OWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message;
    use crate::decode::postgres::frontend;

    #[test]
    fn a_message_keeps_everything_but_its_names() {
        let bind = message(b'B', b"p\0s\0\0\0\0\x01\0\0\0\x02ab\0\0");
        let mut out = BytesMut::new();
        to_target::renamed(&mut out, &bind, &[Some(OWN), None]).unwrap();
        let Ok(Message::Bind(read)) = frontend::message(&out) else { panic!("{out:?}") };
        assert_eq!((read.portal, read.statement), (OWN, "s"));
        assert_eq!(read.parameters[0].value, Some(&b"ab"[..]));
    }

    #[test]
    fn a_rehearsal_has_these_bytes() {
        let parse = message(b'P', b"s\0select 1\0\0\0");
        let bind = message(b'B', b"p\0s\0\0\0\0\0\0\0");
        let bytes = Bytes::from([&parse[..], &bind].concat());
        let unit = |parse: Option<Range<usize>>| Unit {
            mark: 0,
            within_step: false,
            statement: "s".into(),
            portal: Some("p".into()),
            parse,
            bind: Some(bytes.len() - bind.len()..bytes.len()),
        };
        let whole = unit(Some(0..parse.len()));
        let close = b"C\0\0\0\x1aPportcullis rehearsal\0C\0\0\0\x1aSportcullis rehearsal\0";
        let bound = b"B\0\0\x004portcullis rehearsal\0portcullis rehearsal\0\0\0\0\0\0\0";
        let executed = b"E\0\0\0\x1dportcullis rehearsal\0\0\0\0\0";
        let sync = b"S\0\0\0\x04";
        let run = |parsed: &[u8]| [&close[..], parsed, bound, executed, close, sync].concat();
        let parsed = b"P\0\0\0$portcullis rehearsal\0select 1\0\0\0";
        let both = [&close[..], parsed, bound, close, sync].concat();
        let within = [
            run(b"P\0\0\0:portcullis rehearsal\0savepoint portcullis_rehearsal\0\0\0"),
            both.clone(),
            run(b"P\0\0\0Fportcullis rehearsal\0rollback to savepoint portcullis_rehearsal\0\0\0"),
            run(b"P\0\0\0Bportcullis rehearsal\0release savepoint portcullis_rehearsal\0\0\0"),
        ];
        let of_another = b"B\0\0\0!portcullis rehearsal\0s\0\0\0\0\0\0\0";
        let alone = [&close[..], of_another, close, sync].concat();
        for (unit, in_transaction, golden) in
            [(&whole, false, both), (&whole, true, within.concat()), (&unit(None), false, alone)]
        {
            let (written, _) = unit.rehearsal(&bytes, in_transaction).unwrap();
            assert_eq!(written, golden, "{}", written.escape_ascii());
        }
    }
}
