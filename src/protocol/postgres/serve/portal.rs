//! What a client reads of a recorded answer, and what it is told when there is none.

use bytes::Bytes;
use tokio::task::block_in_place;

use super::super::messages::to_client;
use super::super::refusal;
use super::answer::{Broken, Messages};
use super::tape::{Run, Tape};
use crate::decode::postgres::Malformed;

/// What answers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// A run of the recording.
    Run(usize),
    /// The replay itself: a transaction begins or ends.
    Control(&'static str),
}

/// A portal that the client made.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) source: Source,
    pub(super) text: Box<str>,
    /// The formats that the client wants.
    pub(super) wanted: Vec<bool>,
    /// The answer that is being read, and which of the run's it is.
    reading: Option<Messages>,
    answer: usize,
    /// A row that did not fit into the client's limit.
    pub(super) pending: Option<Bytes>,
    pub(super) done: bool,
}

impl Portal {
    pub(super) fn new(source: Source, text: &str, wanted: Vec<bool>) -> Self {
        let text = text.into();
        Self { source, text, wanted, reading: None, answer: 0, pending: None, done: false }
    }

    /// The next message of the answer: its tag, whether it is its first piece, its bytes. Where it
    /// was suspended when it was recorded, it goes on with the next answer.
    pub(super) fn next(
        &mut self,
        tape: &Tape,
        run: &Run,
        whole: bool,
    ) -> Answered<(u8, bool, Bytes)> {
        loop {
            let messages = match &mut self.reading {
                Some(messages) => messages,
                None => {
                    let Some(place) = run.answers.get(self.answer) else {
                        // It was never run to its end.
                        return Ok((b'C', true, done("SELECT 0")));
                    };
                    self.answer += 1;
                    self.reading.insert(Messages::open(&tape.of, *place, whole)?)
                }
            };
            let (piece, bytes) = messages.next()?;
            match piece.tag {
                b's' => self.reading = None,
                tag => return Ok((tag, piece.first, bytes)),
            }
        }
    }
}

impl Tape {
    /// The `RowDescription` of a run's result, or that there is none.
    pub(super) fn rows_of(&self, run: &Run) -> Answered<Option<Bytes>> {
        if let Some(rows) = self.described(run).and_then(|described| described.rows.clone()) {
            return Ok(Some(rows).filter(|rows| rows.first() == Some(&b'T')));
        }
        let Some(place) = run.answers.first().filter(|_| run.bound.is_none()) else {
            return Ok(None);
        };
        block_in_place(|| {
            let mut messages = Messages::open(&self.of, *place, false)?;
            loop {
                let (piece, bytes) = messages.next()?;
                match piece.tag {
                    b'N' | b'S' | b'A' => {}
                    b'T' => return Ok(Some(bytes)),
                    _ => return Ok(None),
                }
            }
        })
    }
}

/// Why a client is not answered with what was recorded.
#[derive(Debug)]
pub(super) enum Unanswered {
    NotRecorded,
    OtherValues,
    NoSuchName,
    OnlyText,
    TooMany,
    Refused(Bytes),
    Broken(String),
}

pub(super) type Answered<T> = Result<T, Unanswered>;

impl From<Broken> for Unanswered {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken.to_string())
    }
}

impl From<Malformed> for Unanswered {
    fn from(malformed: Malformed) -> Self {
        Self::Broken(malformed.to_string())
    }
}

impl Unanswered {
    /// What the client is told.
    pub(super) fn words(&self, tape: &Tape) -> Bytes {
        let target = tape.of.target.clone();
        let session = tape.of.session;
        let words = match self {
            Self::Refused(message) => return message.clone(),
            Self::NotRecorded => refusal::replay_not_recorded(
                "this statement is not in the recording",
                &target,
                session,
            ),
            Self::OtherValues => refusal::replay_not_recorded(
                "this statement is in the recording, but not with these values",
                &target,
                session,
            ),
            Self::NoSuchName => {
                refusal::replay_error("26000", "there is no statement or portal of that name", "")
            }
            Self::OnlyText => refusal::replay_error(
                "0A000",
                "the recording has these rows as text, not binary",
                "Ask for the text format.",
            ),
            Self::TooMany => {
                refusal::replay_error("53000", "too many statements for one connection", "")
            }
            Self::Broken(why) => {
                let what = format!("the recording has no whole answer to this: {why}");
                refusal::replay_error("58030", &what, "")
            }
        };
        Bytes::copy_from_slice(words.as_bytes())
    }
}

/// A `CommandComplete`.
pub(super) fn done(tag: &str) -> Bytes {
    to_client::bytes_of(|out| to_client::command_complete(out, tag))
}

/// A `ParameterDescription` of a statement that was never described: as many as were bound, of
/// types that are not known.
pub(super) fn parameters_of(run: Option<&Run>) -> Bytes {
    let bound = run.and_then(|run| run.bound.as_ref()).and_then(|bound| bound.shown.as_array());
    let count = bound.map_or(0, Vec::len);
    let count = u16::try_from(count).unwrap_or_default();
    // 0 is no type; drivers take 25, which is text.
    let types = vec![25; count.into()];
    to_client::bytes_of(|out| to_client::parameter_description(out, types))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::postgres::serve::tape::Values;

    #[test]
    fn what_is_not_recorded_is_written_with_these_bytes() {
        assert_eq!(done("SELECT 0"), b"C\0\0\0\x0dSELECT 0\0"[..]);
        assert_eq!(parameters_of(None), b"t\0\0\0\x06\0\0"[..]);
        let run = |count: usize| Run {
            sequence: 1,
            text: "".into(),
            withheld: false,
            bound: Some(Values { shown: vec![0; count].into(), withheld: false }),
            answers: Vec::new(),
            binary: Vec::new(),
            refused: None,
        };
        let two = parameters_of(Some(&run(2)));
        assert_eq!(two, b"t\0\0\0\x0e\0\x02\0\0\0\x19\0\0\0\x19"[..]);
        let most = parameters_of(Some(&run(65_535)));
        assert_eq!(most[..7], b"t\0\x04\0\x02\xff\xff"[..]);
        assert_eq!(parameters_of(Some(&run(65_536))), b"t\0\0\0\x06\0\0"[..]);
    }
}
