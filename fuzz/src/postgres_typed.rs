//! Values of Postgres types: nothing panics, and what is taken apart is put together again.

use std::borrow::Cow;

use portcullis::decode::postgres::typed::{
    BinaryArray, Piece, binary_composite, binary_multirange, binary_range, numeric, put_composite,
    text_array, text_composite, text_ranges,
};

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(value: &[u8]) {
    if let Ok(text) = numeric(value) {
        assert!(text.len() < 4096 + 2 * value.len());
    }
    let _any = (binary_range(value), binary_multirange(value), text_ranges(value));
    if let Ok(array) = BinaryArray::parse(value) {
        let same: Vec<_> = array.elements.iter().map(|e| e.map(Cow::Borrowed)).collect();
        let written = array.with(&same);
        let again = written.as_deref().map(BinaryArray::parse);
        assert!(matches!(again, Ok(Ok(again)) if again.elements == array.elements));
    }
    if let Ok(fields) = binary_composite(value) {
        let same: Vec<_> = fields.iter().map(|(oid, v)| (*oid, v.map(Cow::Borrowed))).collect();
        assert_eq!(put_composite(&same).as_deref(), Ok(value));
    }
    for pieces in [text_array(value, b','), text_composite(value)].into_iter().flatten() {
        let raw: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| match piece {
                Piece::Around(raw) | Piece::Element(raw, _) => raw.iter().copied(),
            })
            .collect();
        assert_eq!(raw, value);
    }
}
