//! What a Postgres server said, from recorded bytes in whatever pieces they come.
//!
//! Messages are a tag, a length that counts itself, and a body ("Message Formats" in the protocol
//! chapter of the PostgreSQL manual). Only what is shown is decoded; a body is kept up to a bound,
//! so a value of a gigabyte costs no more than what is shown of it.

use crate::decode::postgres::backend::ReportFields;
use crate::recording::Sequence;

/// What is kept of a message's body.
const KEPT: usize = 256 << 10;
/// A table has at most 1,600 columns, a result 1,664 (`MaxTupleAttributeNumber`).
const MAX_COLUMNS: usize = 1_664;

/// What a server said, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The columns of rows to come.
    RowDescription(Vec<Column>),
    /// One row; a field is null, or its bytes as far as they were kept.
    DataRow(Vec<Option<Vec<u8>>>),
    /// A command was done: its tag.
    CommandComplete(Vec<u8>),
    /// A query string was empty.
    EmptyQuery,
    /// The row limit of an Execute was reached.
    PortalSuspended,
    /// It failed.
    Error(Fields),
    /// A notice.
    Notice(Fields),
    /// So many bytes of COPY data.
    CopyData(u64),
    /// Something that is not shown.
    Other,
}

/// A column as a `RowDescription` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: Vec<u8>,
    pub(super) type_oid: u32,
    pub(super) binary: bool,
}

/// The fields of an error or a notice that are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) severity: Vec<u8>,
    pub(super) code: Vec<u8>,
    pub(super) message: Vec<u8>,
    pub(super) detail: Vec<u8>,
    pub(super) hint: Vec<u8>,
}

impl Fields {
    /// Of a body, or of what was kept of it.
    fn of(body: &[u8]) -> Self {
        let mut fields = Self::default();
        for (kind, text) in ReportFields::of_body(body) {
            let field = match kind {
                b'S' => &mut fields.severity,
                b'C' => &mut fields.code,
                b'M' => &mut fields.message,
                b'D' => &mut fields.detail,
                b'H' => &mut fields.hint,
                _ => continue,
            };
            *field = text.to_vec();
        }
        fields
    }
}

/// The recorded bytes are not messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    head: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the body that are still to come.
    left: u64,
    /// The command that the current message answers.
    of: Option<Sequence>,
}

impl Messages {
    /// Takes the next bytes; gives each whole message with the command that it answers, which is
    /// that of the piece it began in.
    pub(super) fn feed(
        &mut self,
        of: Option<Sequence>,
        mut bytes: &[u8],
        mut see: impl FnMut(Option<Sequence>, Message),
    ) -> Result<(), Malformed> {
        loop {
            if self.head.len() < 5 {
                if bytes.is_empty() {
                    return Ok(());
                }
                if self.head.is_empty() {
                    self.of = of;
                }
                let (more, rest) = split(bytes, (5 - self.head.len()) as u64);
                self.head.extend_from_slice(more);
                bytes = rest;
                let [_, length @ ..] = self.head.as_slice() else { continue };
                let Ok(length) = <[u8; 4]>::try_from(length) else { continue };
                self.left = u64::from(u32::from_be_bytes(length).checked_sub(4).ok_or(Malformed)?);
            }
            let (more, rest) = split(bytes, self.left);
            bytes = rest;
            self.left -= more.len() as u64;
            let (kept, _) = split(more, (KEPT - self.body.len()) as u64);
            self.body.extend_from_slice(kept);
            if self.left > 0 {
                return Ok(());
            }
            see(self.of, self.decode()?);
            self.head.clear();
            self.body.clear();
        }
    }

    fn decode(&self) -> Result<Message, Malformed> {
        let [tag, length @ ..] = self.head.as_slice() else { return Err(Malformed) };
        let mut body = Body(&self.body);
        Ok(match tag {
            b'T' => Message::RowDescription(body.columns()?),
            b'D' => Message::DataRow(body.row()?),
            b'C' => Message::CommandComplete(body.text().to_vec()),
            b'I' => Message::EmptyQuery,
            b's' => Message::PortalSuspended,
            b'E' => Message::Error(Fields::of(&self.body)),
            b'N' => Message::Notice(Fields::of(&self.body)),
            b'd' => {
                let length = length.try_into().map_err(|_| Malformed)?;
                Message::CopyData(u64::from(u32::from_be_bytes(length)) - 4)
            }
            _ => Message::Other,
        })
    }
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn columns(&mut self) -> Result<Vec<Column>, Malformed> {
        (0..self.count()?)
            .map(|_| {
                let name = self.text().to_vec();
                let _table: [u8; 6] = self.array()?;
                let type_oid = u32::from_be_bytes(self.array()?);
                let _size_and_modifier: [u8; 6] = self.array()?;
                let binary = u16::from_be_bytes(self.array()?) == 1;
                Ok(Column { name, type_oid, binary })
            })
            .collect()
    }

    fn row(&mut self) -> Result<Vec<Option<Vec<u8>>>, Malformed> {
        let mut row = Vec::new();
        for _ in 0..self.count()? {
            // The body may have been cut, and a row with it.
            let Ok(length) = self.array() else { break };
            let length = i32::from_be_bytes(length);
            row.push(if length == -1 {
                None
            } else {
                let length = u64::try_from(length).map_err(|_| Malformed)?;
                let (value, rest) = split(self.0, length);
                self.0 = rest;
                Some(value.to_vec())
            });
        }
        Ok(row)
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count <= MAX_COLUMNS { Ok(count) } else { Err(Malformed) }
    }

    fn text(&mut self) -> &'a [u8] {
        // A text that was cut has no end; what was kept of it is shown.
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at_checked(end).unwrap_or((self.0, &[]));
        self.0 = rest.get(1..).unwrap_or_default();
        text
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    usize::try_from(at).ok().and_then(|at| bytes.split_at_checked(at)).unwrap_or((bytes, &[]))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::replay) use crate::decode::postgres::frame::message;

    pub(in crate::replay) fn row_description(columns: &[(&str, u32, u16)]) -> Vec<u8> {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (name, oid, format) in columns {
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0; 7]);
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&format.to_be_bytes());
        }
        message(b'T', &body)
    }

    pub(in crate::replay) fn data_row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            match value {
                None => body.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(value) => {
                    body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        message(b'D', &body)
    }

    fn all(pieces: &[&[u8]]) -> Result<Vec<Message>, Malformed> {
        let mut messages = Messages::default();
        let mut seen = Vec::new();
        for piece in pieces {
            messages.feed(None, piece, |_, message| seen.push(message))?;
        }
        Ok(seen)
    }

    #[test]
    fn every_split_gives_the_same_messages() {
        let stream = [
            row_description(&[("id", 23, 0), ("note", 25, 1)]),
            data_row(&[Some(b"1"), None]),
            data_row(&[Some(b"2"), Some(b"two")]),
            message(b'C', b"SELECT 2\0"),
            message(b'E', b"SERROR\0C42P01\0Mno such table\0\0"),
            message(b'Z', b"I"),
        ]
        .concat();
        let whole = all(&[&stream]).unwrap();
        assert_eq!(whole.len(), 6);
        for at in 0..=stream.len() {
            assert_eq!(all(&[&stream[..at], &stream[at..]]).unwrap(), whole, "split at {at}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(all(&bytes).unwrap(), whole);
    }

    #[test]
    fn a_huge_value_is_kept_up_to_the_bound() {
        let row = data_row(&[Some(b"1"), Some(&vec![b'x'; 2_000_000]), Some(b"3")]);
        let [Message::DataRow(row)] = &all(&[&row]).unwrap()[..] else { panic!() };
        assert_eq!(row.len(), 2);
        assert!(row[1].as_ref().unwrap().len() < KEPT);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8)) {
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            let _any = all(&pieces);
        }

        #[test]
        fn no_body_panics(tag in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = all(&[&message(tag, &body)]);
        }
    }
}
