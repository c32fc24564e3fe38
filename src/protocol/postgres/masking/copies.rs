//! The rows of a COPY to the client, masked field by field as they pass.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::catalog_snapshot::{Lineage, Shapes};
use super::rows::{Cell, Cells, Masking as Field};
use super::values::Holds;
use super::{Judgement, MasksNow, reports};
use crate::decode::postgres::backend::CopyOutResponse;
use crate::decode::postgres::copy::{
    CopyFormat, CopyPart, CopyRows, delimiter, ends, fields, put_field,
};
use crate::decode::postgres::frontend::Format;
use crate::decode::postgres::{COPY_OF_UNKNOWN, Malformed, TOO_LARGE_TO_MASK};
use crate::decode::sql::{Source, Statement, StatementKind};
use crate::mask::{Counts, Masked, REDACTED};

/// What is done with the rows of one COPY, and the row that is not whole yet.
#[derive(Debug)]
pub(in super::super) struct CopyMasks {
    rows: CopyRows,
    shown: Cells,
    /// Where storage is masked otherwise than what the client sees.
    stored: Option<Cells>,
}

impl CopyMasks {
    pub(super) fn new(rows: CopyRows, shown: Cells, stored: Option<Cells>) -> Self {
        Self { rows, shown, stored }
    }

    /// Takes the next data, and gives what rows are whole by now in a message of their own; none
    /// when no row is. Counts what is masked in what is stored.
    pub(in super::super) fn take(
        &mut self,
        data: &[u8],
        counts: &mut Counts,
    ) -> Result<Masked, Malformed> {
        self.rows.push(data)?;
        let mut shown = begun();
        let mut stored = self.stored.as_ref().map(|_| begun());
        let mut unseen = Counts::new();
        while let Some(part) = self.rows.next_part()? {
            let row = match part {
                CopyPart::Around(part) => {
                    shown.put_slice(&part);
                    stored.iter_mut().for_each(|stored| stored.put_slice(&part));
                    continue;
                }
                CopyPart::Row(row) => row,
            };
            match (&self.stored, &mut stored) {
                (Some(cells), Some(stored)) => {
                    self.write(&self.shown, &row, &mut shown, &mut unseen)?;
                    self.write(cells, &row, stored, counts)?;
                }
                _ => self.write(&self.shown, &row, &mut shown, counts)?,
            }
        }
        let shown = ended(shown)?;
        let stored = stored.map(ended).transpose()?.unwrap_or_else(|| shown.clone());
        Ok(Masked::by_value(shown, stored))
    }

    /// Says that the data are at their end.
    pub(in super::super) fn finish(&self) -> Result<(), Malformed> {
        self.rows.finish()
    }

    fn write(
        &self,
        cells: &Cells,
        row: &[u8],
        out: &mut BytesMut,
        counts: &mut Counts,
    ) -> Result<(), Malformed> {
        let format = self.rows.format();
        let fields = fields(format, row)?;
        if fields.len() != cells.cells.len() {
            // A table without columns has rows without fields, which lines cannot tell from one.
            let none = cells.cells.is_empty() && fields.iter().all(|field| field.raw.is_empty());
            if !none {
                return Err(Malformed("a COPY row has other columns than were told"));
            }
            out.put_slice(row);
            return Ok(());
        }
        let (before, behind) = ends(format, fields.len())?;
        out.put_slice(&before);
        for (at, (cell, field)) in cells.cells.iter().zip(fields).enumerate() {
            if at > 0 {
                out.put_slice(delimiter(format));
            }
            let masked = match &field.value {
                Some(value) => cells.masked(cell, value, counts),
                None => Field::Kept,
            };
            match masked {
                Field::Kept => out.put_slice(field.raw),
                Field::Null => put_field(format, None, out)?,
                Field::Instead(masked) => put_field(format, Some(&masked), out)?,
            }
        }
        out.put_slice(behind);
        Ok(())
    }
}

impl MasksNow {
    /// What is done with the rows of a COPY to the client; `None` where they are looked at message
    /// by message ([`MasksNow::copied`]), for nothing of them is masked for the client but what
    /// patterns find.
    pub(in super::super) fn copies(
        &self,
        response: &CopyOutResponse,
        source: Option<&Source>,
        judged: &Judgement,
    ) -> Result<Option<CopyMasks>, Malformed> {
        const UNKNOWN: Malformed = COPY_OF_UNKNOWN;
        let statement = source.and_then(Source::statement);
        let form = match statement.map(|statement| &statement.kind) {
            Some(StatementKind::CopyTo(form)) => *form,
            _ => None,
        };
        let (Some(form), Some(statement), Some(shapes)) = (form, statement, &self.shapes) else {
            let seen = self.acting(&judged.0.value).next().is_none();
            return if seen { Ok(None) } else { Err(UNKNOWN) };
        };
        if response.binary != (form.format == CopyFormat::Binary) {
            return Err(UNKNOWN);
        }
        let columns =
            self.copied_columns(statement, shapes).filter(|c| c.len() == response.columns);
        let format = if response.binary { Format::Binary } else { Format::Text };
        let mut both: [Vec<Cell>; 2] = [Vec::new(), Vec::new()];
        for at in 0..response.columns {
            let known = columns.as_ref().and_then(|columns| columns.get(at));
            let (holds, wholes) = match known {
                Some((type_oid, lineage)) => {
                    let holds = Holds::of(*type_oid, format, shapes.is_text(*type_oid));
                    let wholes =
                        lineage.filter(|l| !l.masked).map(|l| self.wholes(&l.masks, l.itself));
                    (holds, wholes.unwrap_or_default())
                }
                None => {
                    let masks = judged.0.output(at, response.columns);
                    // In lines every value is a text that patterns may find something in; of which
                    // type it is nobody knows, so one that is masked is NULL.
                    let text = !response.binary && masks.is_empty();
                    let holds = if text { Holds::Text } else { Holds::Other };
                    (holds, self.wholes(masks, false))
                }
            };
            for (cells, masked) in both.iter_mut().zip(wholes) {
                cells.push(Cell { holds, masked });
            }
        }
        let (shown, stored) = self.both_cells(both);
        if shown.is_plain() && stored.as_ref().is_none_or(Cells::is_plain) {
            return Ok(None);
        }
        let rows = CopyRows::new(form.format, form.header);
        Ok(Some(CopyMasks::new(rows, shown, stored)))
    }

    /// Types and lineages of what a COPY of a table gives; `None` where that is not known.
    fn copied_columns<'s>(
        &self,
        statement: &Statement,
        shapes: &'s Shapes,
    ) -> Option<Vec<(u32, Option<&'s Lineage>)>> {
        let copy = statement.effects.iter().find(|effect| effect.action == "sql.copy-to")?;
        let listed: Option<Vec<&str>> = statement
            .outputs
            .as_ref()
            .map(|outputs| outputs.iter().flatten().map(|used| &*used.column).collect());
        let copied = shapes.copied(copy.object.as_ref()?, listed.as_deref(), self.views_hold)?;
        Some(copied.into_iter().map(|(column, lineage)| (column.type_oid, lineage)).collect())
    }

    /// A message of COPY data in which no field is masked for the client, but what patterns find.
    /// Where masks are lifted for it nothing of the data is stored.
    pub(in super::super) fn copied(
        &self,
        message: &[u8],
        judged: &Judgement,
    ) -> Result<Option<Masked>, Malformed> {
        let [shown, stored] = self.plan.strictest(self.applied(&judged.0.value));
        if shown.is_some() {
            // The masks came while the data did.
            return Err(COPY_OF_UNKNOWN);
        }
        let payload = message.get(5..).unwrap_or_default();
        let maskers = self.plan.maskers();
        reports::for_both(message, |eyes| {
            let masked = match (eyes, stored) {
                (1, Some(_)) => Some(format!("{REDACTED}\n").into_bytes()),
                _ => maskers.get(eyes).copied().flatten().and_then(|m| m.mask(payload)),
            };
            masked.map(|masked| copy_data(&masked)).transpose()
        })
    }
}

fn copy_data(payload: &[u8]) -> Result<Bytes, Malformed> {
    let length = u32::try_from(payload.len() + 4).map_err(|_| TOO_LARGE_TO_MASK)?;
    let mut out = BytesMut::with_capacity(payload.len() + 5);
    out.put_u8(b'd');
    out.put_u32(length);
    out.put_slice(payload);
    Ok(out.freeze())
}

/// A `CopyData` message, its length left open.
fn begun() -> BytesMut {
    BytesMut::from(&b"d\0\0\0\0"[..])
}

fn ended(mut message: BytesMut) -> Result<Bytes, Malformed> {
    if message.len() <= 5 {
        return Ok(Bytes::new());
    }
    let length = u32::try_from(message.len() - 1).map_err(|_| TOO_LARGE_TO_MASK)?;
    if let Some(place) = message.get_mut(1..5) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(message.freeze())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::rows::Whole;
    use super::*;
    use crate::mask::{Action, HashKey, Masker, Pattern};

    fn cells(action: Action) -> Cells {
        let whole = Whole { action: Some(action), masks: Arc::from([Arc::from("pii")]) };
        let masked = |holds| Cell { holds, masked: Some(whole.clone()) };
        let key = HashKey::new([7; 32]);
        let patterns = vec![Pattern::built_in("email").unwrap()];
        Cells {
            cells: vec![
                Cell { holds: Holds::Text, masked: None },
                masked(Holds::Text),
                masked(Holds::Other),
            ],
            masker: Some(Arc::new(Masker::new(patterns, Action::Redact, key.clone()))),
            key: Some(key),
            types: Arc::default(),
        }
    }

    fn passed(format: CopyFormat, pieces: &[&[u8]]) -> (Vec<u8>, Counts) {
        let mut copy = CopyMasks::new(CopyRows::new(format, false), cells(Action::Redact), None);
        let (mut out, mut counts) = (Vec::new(), Counts::new());
        for piece in pieces {
            let masked = copy.take(piece, &mut counts).unwrap();
            out.extend_from_slice(masked.shown().get(5..).unwrap_or_default());
        }
        copy.finish().unwrap();
        (out, counts)
    }

    #[test]
    fn each_format_stays_what_it_is() {
        let (text, counts) = passed(CopyFormat::Text, &[b"to a@b.cc\t078\t5\nx\\ty\t\\N\t\\N\n"]);
        let expected = "to [email]\t[masked]\t\\N\nx\\ty\t\\N\t\\N\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        assert_eq!(counts, Counts::from([("patterns".into(), 1), ("pii".into(), 2)]));
        let (csv, _) = passed(CopyFormat::Csv, &[b"\"a, \"\"b\",\"0\n78\",5\n"]);
        assert_eq!(String::from_utf8(csv).unwrap(), "\"a, \"\"b\",[masked],\n");
    }

    #[test]
    fn what_is_shown_and_what_is_stored_are_two() {
        let none = || Cell { holds: Holds::Text, masked: None };
        let open = Cells {
            cells: vec![none(), none(), none()],
            masker: None,
            key: None,
            types: Arc::default(),
        };
        let rows = CopyRows::new(CopyFormat::Text, false);
        let mut copy = CopyMasks::new(rows, open, Some(cells(Action::Redact)));
        let masked = copy.take(b"a\tb\tc\n", &mut Counts::new()).unwrap();
        assert_eq!(&masked.shown()[5..], b"a\tb\tc\n");
        assert_eq!(&masked.stored()[5..], b"a\t[masked]\t\\N\n");
    }

    #[test]
    fn a_row_of_another_shape_is_refused() {
        let rows = CopyRows::new(CopyFormat::Text, false);
        let mut copy = CopyMasks::new(rows, cells(Action::Redact), None);
        assert!(copy.take(b"a\tb\n", &mut Counts::new()).is_err());
    }

    proptest! {
        #[test]
        fn no_cut_changes_what_comes_out(
            rows in prop::collection::vec(("[a@b.c]{0,8}", "[0-9\"]{0,4}"), 1..4),
            at in any::<prop::sample::Index>(),
        ) {
            for format in [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary] {
                let mut data = BytesMut::new();
                if format == CopyFormat::Binary {
                    data.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
                }
                for (first, second) in &rows {
                    let (before, behind) = ends(format, 3).unwrap();
                    data.put_slice(&before);
                    for (at, value) in [first, &format!("secret{second}"), second].into_iter().enumerate() {
                        if at > 0 {
                            data.put_slice(delimiter(format));
                        }
                        put_field(format, Some(value.as_bytes()), &mut data).unwrap();
                    }
                    data.put_slice(behind);
                }
                if format == CopyFormat::Binary {
                    data.put_i16(-1);
                }
                let whole = passed(format, &[&data]);
                let (first, second) = data.split_at(at.index(data.len() + 1));
                prop_assert_eq!(&passed(format, &[first, second]), &whole);
                let bytewise: Vec<&[u8]> = data.chunks(1).collect();
                prop_assert_eq!(&passed(format, &bytewise), &whole);
                prop_assert!(!whole.0.windows(6).any(|bytes| bytes == b"secret"));
            }
        }
    }
}
