//! A recorded answer, message by message, as the client wants its rows.

use bytes::{Bytes, BytesMut};

use super::super::messages::to_client;
use super::tape::Place;
use crate::decode::postgres::backend::{self, Column};
use crate::decode::postgres::frame::{self, Piece, Side, Walker};
use crate::decode::postgres::values::{hexadecimal, to_text};
use crate::decode::postgres::{Malformed, frontend::Format};
use crate::protocol::taped::Taped;
use crate::recording::{Direction, Kind, ReadError, Reader};

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the recording ends there")]
    Ends,
}

/// The server's messages from a place on. Reads the file as far as it is asked to.
#[derive(Debug)]
pub(super) struct Messages {
    reader: Reader,
    walker: Walker,
    bytes: BytesMut,
    /// Bytes of the first event that come before.
    skip: usize,
}

impl Messages {
    /// From that place; rows come whole where they have to be rewritten. Blocks on the file system.
    pub(super) fn open(taped: &Taped, place: Place, whole: bool) -> Result<Self, Broken> {
        let mut reader = taped.reader()?;
        reader.seek_sequence(place.event)?;
        let mut walker = Walker::new(Side::Backend);
        walker.keep_whole(whole);
        Ok(Self { reader, walker, bytes: BytesMut::new(), skip: place.byte })
    }

    /// The next message, or piece of one. Blocks on the file system.
    pub(super) fn next(&mut self) -> Result<(Piece, Bytes), Broken> {
        loop {
            if let Some(piece) = self.walker.next(&self.bytes)? {
                return Ok((piece, self.bytes.split_to(piece.length).freeze()));
            }
            let event = self.reader.next().ok_or(Broken::Ends)??;
            match (event.kind, event.direction) {
                (Kind::Gap, _) => return Err(Broken::Ends),
                (Kind::Data, Direction::Down) => {
                    let skip = std::mem::take(&mut self.skip);
                    self.bytes.extend_from_slice(event.payload.get(skip..).unwrap_or_default());
                }
                _ => {}
            }
        }
    }
}

/// How rows that were recorded are handed out.
#[derive(Debug)]
pub(super) enum Rows {
    /// As they are.
    Same,
    /// Those of these columns that are binary, as text.
    AsText(Vec<Column>, Vec<bool>),
}

impl Rows {
    /// For rows of these formats, wanted in those; one entry stands for all columns, none for text.
    /// `None` when they would have to be made binary, or what they are is not known.
    pub(super) fn of(
        recorded: &[bool],
        wanted: &[bool],
        description: Option<&Bytes>,
    ) -> Option<Self> {
        if each(recorded, 1) == each(wanted, 1) && recorded.len() < 2 && wanted.len() < 2 {
            return Some(Self::Same);
        }
        let columns = match description {
            // No rows are no matter of format.
            Some(message) if message.first() == Some(&b'n') => return Some(Self::Same),
            Some(message) => backend::row_description(message).ok()?,
            None if recorded == wanted => return Some(Self::Same),
            None => return None,
        };
        let (recorded, wanted) = (each(recorded, columns.len()), each(wanted, columns.len()));
        if recorded == wanted {
            return Some(Self::Same);
        }
        let possible = recorded.iter().zip(&wanted).all(|(is, wanted)| *is || !*wanted);
        possible.then(|| {
            let changed = recorded.iter().zip(&wanted).map(|(is, wanted)| *is && !*wanted);
            let changed = changed.collect();
            Self::AsText(columns, changed)
        })
    }

    /// Whether rows are rewritten, so that they have to be there as a whole.
    pub(super) fn rewrites(&self) -> bool {
        matches!(self, Self::AsText(..))
    }

    /// A row, or a piece of one, as it is handed out.
    pub(super) fn row(&self, message: Bytes) -> Result<Bytes, Malformed> {
        let Self::AsText(columns, changed) = self else { return Ok(message) };
        let row = backend::data_row(&message)?;
        let count = row.left();
        let values = row.enumerate().map(|(at, value)| {
            let Some(value) = value? else { return Ok(None) };
            Ok(Some(match (changed.get(at), columns.get(at)) {
                (Some(true), Some(column)) => to_text(column.type_oid, value)
                    .unwrap_or_else(|| hexadecimal(value).into_bytes().into()),
                _ => value.into(),
            }))
        });
        let mut out = BytesMut::with_capacity(message.len() * 2);
        to_client::data_row(&mut out, count, values)?;
        Ok(out.freeze())
    }
}

/// A `RowDescription` that says these formats of its columns. It is changed in its place, since the
/// names of columns need not be UTF-8.
pub(super) fn description_in(message: &Bytes, wanted: &[bool]) -> Bytes {
    let rewrite = || {
        let columns = backend::row_description(message).ok()?.len();
        let formats = each(wanted, columns);
        let mut out = BytesMut::from(&message[..]);
        let mut at = frame::HEADER + 2;
        for binary in formats {
            at += message.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
            // Table, number, type, size, modifier; then the format.
            let format = out.get_mut(at + 16..at + 18)?;
            format.copy_from_slice(&u16::from(binary).to_be_bytes());
            at += 18;
        }
        Some(out.freeze())
    };
    match message.first() {
        Some(b'T') => rewrite().unwrap_or_else(|| message.clone()),
        _ => message.clone(),
    }
}

/// The formats that a client asked for, as [`Rows`] takes them.
pub(super) fn binary(formats: &[Format]) -> Vec<bool> {
    formats.iter().map(|format| *format == Format::Binary).collect()
}

/// One entry for each column.
fn each(formats: &[bool], columns: usize) -> Vec<bool> {
    match formats {
        [] => vec![false; columns],
        [all] => vec![*all; columns],
        some => some.iter().copied().chain(std::iter::repeat(false)).take(columns).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message;

    fn described(columns: &[(&str, u32)]) -> Bytes {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (name, oid) in columns {
            body.extend([name.as_bytes(), &[0; 7], &oid.to_be_bytes(), &[0; 8]].concat());
        }
        message(b'T', &body).into()
    }

    #[test]
    fn binary_rows_are_handed_out_as_text_and_text_never_as_binary() {
        let description = described(&[("n", 23), ("note", 25)]);
        let rows = Rows::of(&[true], &[], Some(&description)).unwrap();
        let row = [&[0, 2][..], &[0, 0, 0, 4, 0, 0, 0, 7], &[0, 0, 0, 2], b"hi"].concat();
        let shown = rows.row(message(b'D', &row).into()).unwrap();
        let expected = [&[0, 2][..], &[0, 0, 0, 1], b"7", &[0, 0, 0, 2], b"hi"].concat();
        assert_eq!(shown, message(b'D', &expected));
        assert!(Rows::of(&[], &[true], Some(&description)).is_none());
        assert!(Rows::of(&[false, true], &[], None).is_none());
        assert!(matches!(Rows::of(&[], &[false], None), Some(Rows::Same)));
        assert!(matches!(Rows::of(&[true], &[true, true], Some(&description)), Some(Rows::Same)));
        let none: Bytes = message(b'n', b"").into();
        assert!(matches!(Rows::of(&[], &[true], Some(&none)), Some(Rows::Same)));
    }

    #[test]
    fn a_description_says_the_formats_that_were_asked_for() {
        let description = described(&[("n", 23), ("", 25)]);
        let shown = description_in(&description, &[false, true]);
        let columns = backend::row_description(&shown).unwrap();
        assert_eq!(
            columns.iter().map(|c| c.format).collect::<Vec<_>>(),
            [Format::Text, Format::Binary]
        );
        assert_eq!(description_in(&shown, &[]), description);
    }
}
