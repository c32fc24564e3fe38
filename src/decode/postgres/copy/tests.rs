//! COPY data, read and written.

use proptest::prelude::*;

use super::*;

const FORMATS: [CopyFormat; 3] = [CopyFormat::Text, CopyFormat::Csv, CopyFormat::Binary];

type Values = Vec<Option<Vec<u8>>>;

/// As a server writes them.
fn written(format: CopyFormat, rows: &[Values]) -> Vec<u8> {
    let mut out = BytesMut::new();
    if format == CopyFormat::Binary {
        out.extend_from_slice(SIGNATURE);
        out.extend_from_slice(&[0; 8]);
    }
    for row in rows {
        let (before, behind) = ends(format, row.len()).unwrap();
        out.extend_from_slice(&before);
        for (at, value) in row.iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(delimiter(format));
            }
            put_field(format, value.as_deref(), &mut out).unwrap();
        }
        out.extend_from_slice(behind);
    }
    if format == CopyFormat::Binary {
        out.extend_from_slice(&(-1_i16).to_be_bytes());
    }
    out.to_vec()
}

fn parts(format: CopyFormat, pieces: &[&[u8]]) -> Result<Vec<CopyPart>, Malformed> {
    let (mut rows, mut parts) = (CopyRows::new(format, false), Vec::new());
    for piece in pieces {
        rows.push(piece)?;
        while let Some(part) = rows.next_part()? {
            parts.push(part);
        }
    }
    rows.finish()?;
    Ok(parts)
}

fn read(format: CopyFormat, parts: &[CopyPart]) -> Vec<Values> {
    let rows = parts.iter().filter_map(|part| match part {
        CopyPart::Row(row) => Some(row),
        CopyPart::Around(_) => None,
    });
    let values = |row: &Bytes| {
        let fields = fields(format, row).unwrap().into_iter();
        fields.map(|field| field.value.map(Cow::into_owned)).collect::<Values>()
    };
    rows.map(values).collect()
}

#[test]
fn a_server_s_own_lines_are_read() {
    let line = b"1\tA\\tb\\\\c\\n\\x41\\101\t\\N\t\n";
    let values = fields(CopyFormat::Text, line).unwrap();
    let values: Vec<_> = values.iter().map(|field| field.value.as_deref()).collect();
    let expected: [Option<&[u8]>; 4] = [Some(b"1"), Some(b"A\tb\\c\nAA"), None, Some(b"")];
    assert_eq!(values, expected);
    let line = b"1,\"a \"\"b\"\"\nc, d\",,\"\"\n";
    let values = fields(CopyFormat::Csv, line).unwrap();
    let values: Vec<_> = values.iter().map(|field| field.value.as_deref()).collect();
    let expected: [Option<&[u8]>; 4] = [Some(b"1"), Some(b"a \"b\"\nc, d"), None, Some(b"")];
    assert_eq!(values, expected);
}

#[test]
fn a_line_of_names_is_no_row() {
    let mut rows = CopyRows::new(CopyFormat::Csv, true);
    rows.push(b"id,\"na\nme\"\n1,x\n").unwrap();
    let names = Bytes::from_static(b"id,\"na\nme\"\n");
    assert_eq!(rows.next_part(), Ok(Some(CopyPart::Around(names))));
    assert_eq!(rows.next_part(), Ok(Some(CopyPart::Row(Bytes::from_static(b"1,x\n")))));
    assert_eq!(rows.next_part(), Ok(None));
}

#[test]
fn what_is_cut_off_is_no_end() {
    for format in FORMATS {
        let whole = written(format, &[vec![Some(b"a\"b\\".to_vec()), None]]);
        for cut in 1..whole.len() {
            assert!(parts(format, &[&whole[..cut]]).is_err(), "{format:?} {cut}");
        }
    }
    let behind = [&*written(CopyFormat::Binary, &[]), b"x"].concat();
    assert!(parts(CopyFormat::Binary, &[&behind]).is_err());
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_rows(
        format in prop::sample::select(&FORMATS[..]),
        rows in prop::collection::vec(
            prop::collection::vec(prop::option::of("[a\"\\\\,\t\n\rN.0x ]{0,6}"), 1..4), 0..4),
        at in any::<prop::sample::Index>(),
    ) {
        let rows: Vec<Values> = rows
            .into_iter()
            .map(|row| row.into_iter().map(|value| value.map(String::into_bytes)).collect())
            .collect();
        let bytes = written(format, &rows);
        let whole = parts(format, &[&bytes]).unwrap();
        prop_assert_eq!(read(format, &whole), rows);
        let (first, second) = bytes.split_at(at.index(bytes.len() + 1));
        prop_assert_eq!(&parts(format, &[first, second]).unwrap(), &whole);
        let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&parts(format, &bytewise).unwrap(), &whole);
    }

    #[test]
    fn no_bytes_panic(
        format in prop::sample::select(&FORMATS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let with_signature = [SIGNATURE, &[0; 8], &bytes].concat();
        for bytes in [&bytes, &with_signature] {
            for part in parts(format, &[bytes]).unwrap_or_default() {
                if let CopyPart::Row(row) = part {
                    let _ = fields(format, &row);
                }
            }
        }
    }
}
