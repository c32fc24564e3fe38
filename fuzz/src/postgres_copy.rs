//! COPY data in each format: rows are the same however the bytes arrive, and their fields are read.

use portcullis::decode::postgres::copy::{CopyFormat, CopyPart, CopyRows, fields};

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let [how, size, bytes @ ..] = data else { return };
    let format = match how & 3 {
        0 => CopyFormat::Text,
        1 => CopyFormat::Csv,
        _ => CopyFormat::Binary,
    };
    let header = how & 4 != 0;
    let whole = cut(format, header, bytes, bytes.len());
    assert_eq!(whole, cut(format, header, bytes, usize::from(*size) + 1));
    for part in whole {
        if let CopyPart::Row(row) = part {
            let _any = fields(format, &row);
        }
    }
}

fn cut(format: CopyFormat, header: bool, bytes: &[u8], size: usize) -> Vec<CopyPart> {
    let (mut rows, mut parts) = (CopyRows::new(format, header), Vec::new());
    for piece in bytes.chunks(size.max(1)) {
        if rows.push(piece).is_err() {
            break;
        }
        while let Ok(Some(part)) = rows.next_part() {
            parts.push(part);
        }
    }
    parts
}
