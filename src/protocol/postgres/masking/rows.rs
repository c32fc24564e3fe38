//! Rows rewritten value by value.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use crate::decode::postgres::{Malformed, backend};
use crate::mask::{Action, Counts, HashKey, Masker, PATTERNS, count};

use super::types::{Searched, Types};
use super::values::Holds;

/// What is done with the columns of a result, for two pairs of eyes.
#[derive(Debug, Default)]
pub(in super::super) struct RowMasks {
    shown: Cells,
    /// Where storage is masked otherwise than what the client sees.
    stored: Option<Cells>,
    /// The server described no columns: rows that come all the same are hidden whole.
    undescribed: bool,
    /// For each column the masks that were applied before the server computed it, for counting;
    /// empty where there are none at all.
    noted: Vec<Arc<[Arc<str>]>>,
}

/// What is done with the columns of a result.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) cells: Vec<Cell>,
    pub(super) masker: Option<Arc<Masker>>,
    pub(super) key: Option<HashKey>,
    pub(super) types: Arc<Types>,
}

/// What is done with the values of one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) holds: Holds,
    pub(super) masked: Option<Whole>,
}

/// A column whose values are masked whole.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Whole {
    /// `None` where nothing may be seen of it: it may be made from a masked value.
    pub(super) action: Option<Action>,
    /// The masks that say so, for counting.
    pub(super) masks: Arc<[Arc<str>]>,
}

impl RowMasks {
    pub(super) fn new(shown: Cells, stored: Option<Cells>) -> Self {
        Self { shown, stored, undescribed: false, noted: Vec::new() }
    }

    /// For a result of which the server said that it has no columns. A rule of the target's can
    /// make rows of it.
    pub(in super::super) fn undescribed() -> Self {
        Self { undescribed: true, ..Self::default() }
    }

    /// The same, counting values that were masked at the source.
    pub(super) fn noting(self, noted: Vec<Arc<[Arc<str>]>>) -> Self {
        match noted.iter().all(|masks| masks.is_empty()) {
            true => self,
            false => Self { noted, ..self },
        }
    }

    /// Whether rows pass as they are.
    pub(in super::super) fn is_plain(&self) -> bool {
        !self.undescribed
            && self.shown.is_plain()
            && self.stored.as_ref().is_none_or(Cells::is_plain)
            && self.noted.is_empty()
    }

    fn note(&self, row: &[u8], counts: &mut Counts) -> Result<(), Malformed> {
        if self.noted.is_empty() {
            return Ok(());
        }
        for (masks, value) in self.noted.iter().zip(backend::data_row(row)?) {
            if value?.is_some() {
                masks.iter().for_each(|mask| count(counts, mask, 1));
            }
        }
        Ok(())
    }

    /// Whether the client sees what is stored.
    pub(in super::super) fn same(&self) -> bool {
        self.stored.is_none()
    }

    /// Writes a whole `DataRow` as the client may see it.
    pub(in super::super) fn show(
        &self,
        row: &[u8],
        out: &mut BytesMut,
        counts: &mut Counts,
    ) -> Result<(), Malformed> {
        if self.undescribed {
            return hide(row, out);
        }
        self.note(row, counts)?;
        self.shown.write(row, out, counts)
    }

    /// Writes a whole `DataRow` as it is stored.
    pub(in super::super) fn store(
        &self,
        row: &[u8],
        out: &mut BytesMut,
        counts: &mut Counts,
    ) -> Result<(), Malformed> {
        if self.undescribed {
            return hide(row, out);
        }
        self.note(row, counts)?;
        self.stored.as_ref().unwrap_or(&self.shown).write(row, out, counts)
    }
}

impl Cells {
    pub(super) fn is_plain(&self) -> bool {
        let searched = |cell: &Cell| self.masker.is_some() && !cell.holds.is_harmless(&self.types);
        self.cells.iter().all(|cell| cell.masked.is_none() && !searched(cell))
    }

    fn write(&self, row: &[u8], out: &mut BytesMut, counts: &mut Counts) -> Result<(), Malformed> {
        let values = backend::data_row(row)?;
        if values.left() != self.cells.len() {
            return Err(Malformed("a row has other columns than were described"));
        }
        let start = out.len();
        out.put_u8(b'D');
        out.put_u32(0);
        out.put_u16(u16::try_from(self.cells.len()).unwrap_or(u16::MAX));
        for (cell, value) in self.cells.iter().zip(values) {
            match value? {
                None => out.put_i32(-1),
                Some(value) => self.put(cell, value, out, counts)?,
            }
        }
        let length = out.len().saturating_sub(start + 1);
        let length = u32::try_from(length).map_err(|_| TOO_LARGE)?;
        if let Some(header) = out.get_mut(start + 1..start + 5) {
            header.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }

    fn put(
        &self,
        cell: &Cell,
        value: &[u8],
        out: &mut BytesMut,
        counts: &mut Counts,
    ) -> Result<(), Malformed> {
        let masked = self.masked(cell, value, counts);
        let value = match &masked {
            Masking::Kept => value,
            Masking::Null => {
                out.put_i32(-1);
                return Ok(());
            }
            Masking::Instead(masked) => masked,
        };
        out.put_i32(i32::try_from(value.len()).map_err(|_| TOO_LARGE)?);
        out.put_slice(value);
        Ok(())
    }

    /// What comes of a value that is not NULL.
    pub(super) fn masked(&self, cell: &Cell, value: &[u8], counts: &mut Counts) -> Masking {
        match (&cell.masked, &self.masker) {
            (Some(whole), _) => {
                for mask in whole.masks.iter() {
                    count(counts, mask, 1);
                }
                let masked = match (whole.action, &self.key) {
                    (Some(action), Some(key)) => cell.holds.masked(action, value, key),
                    _ => cell.holds.redacted(),
                };
                masked.map_or(Masking::Null, Masking::Instead)
            }
            (None, Some(masker)) => {
                let masking = match cell.holds.searched(value, masker, &self.types) {
                    Searched::Kept => return Masking::Kept,
                    Searched::Null => Masking::Null,
                    Searched::Instead(masked) => Masking::Instead(masked),
                };
                count(counts, PATTERNS, 1);
                masking
            }
            (None, None) => Masking::Kept,
        }
    }
}

/// What comes of a value.
#[derive(Debug, PartialEq)]
pub(super) enum Masking {
    Kept,
    Null,
    Instead(Vec<u8>),
}

const TOO_LARGE: Malformed = crate::decode::postgres::TOO_LARGE_TO_MASK;

/// Writes a row of which nothing is known as so many NULLs.
pub(in super::super) fn hide(row: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
    let columns = backend::data_row(row)?.left();
    out.put_u8(b'D');
    out.put_u32(u32::try_from(6 + 4 * columns).map_err(|_| TOO_LARGE)?);
    out.put_u16(u16::try_from(columns).map_err(|_| TOO_LARGE)?);
    (0..columns).for_each(|_| out.put_i32(-1));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message;

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        message(b'D', &body)
    }

    fn text(masked: Option<Option<Action>>) -> Cell {
        let masks = Arc::from([Arc::from("pii")]);
        Cell { holds: Holds::Text, masked: masked.map(|action| Whole { action, masks }) }
    }

    fn masks() -> RowMasks {
        let number = Cell { holds: Holds::Harmless, ..text(Some(Some(Action::Partial))) };
        let cells = vec![text(None), text(Some(Some(Action::Partial))), number, text(Some(None))];
        let key = Some(HashKey::new([7; 32]));
        RowMasks::new(Cells { cells, masker: None, key, types: Arc::default() }, None)
    }

    #[test]
    fn rows_stay_rows() {
        let mut out = BytesMut::new();
        let mut counts = Counts::new();
        let values: &[Option<&[u8]>] = &[Some(b"Alice"), Some(b"078-05-1120"), Some(b"1"), None];
        masks().show(&row(values), &mut out, &mut counts).unwrap();
        let shown: &[Option<&[u8]>] = &[Some(b"Alice"), Some(b"***-**-1120"), None, None];
        assert_eq!(out, row(shown));
        assert_eq!(counts, Counts::from([("pii".into(), 2)]));
    }

    #[test]
    fn a_row_of_another_shape_is_refused() {
        let (mut out, mut counts) = (BytesMut::new(), Counts::new());
        let short: &[Option<&[u8]>] = &[Some(b"Alice"), Some(b"078-05-1120")];
        assert!(masks().show(&row(short), &mut out, &mut counts).is_err());
        let whole = row(&[None; 4]);
        for cut in 5..whole.len() {
            assert!(masks().show(&message(b'D', &whole[5..cut]), &mut out, &mut counts).is_err());
        }
    }

    #[test]
    fn nothing_is_left_of_a_hidden_row() {
        let mut out = BytesMut::new();
        hide(&row(&[Some(b"Alice"), None]), &mut out).unwrap();
        assert_eq!(out, row(&[None, None]));
    }
}
