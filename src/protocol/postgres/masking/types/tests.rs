use super::*;
use crate::mask::{Action, HashKey, Pattern};

const CARD: i64 = 4_111_111_111_111_111;

fn masker() -> Arc<Masker> {
    let patterns = ["email", "credit-card"].map(|name| Pattern::built_in(name).unwrap());
    Arc::new(Masker::new(patterns.into(), Action::Redact, HashKey::new([7; 32])))
}

/// Types of a database's own: a domain of numeric, an enum, a composite of both, an array of that,
/// and a type of an extension that nobody knows.
fn types() -> Types {
    let read = |oid, kind, category, of, fields: &[u32]| CatalogType {
        oid,
        name: "own".to_owned(),
        kind,
        category,
        of,
        delimiter: b',',
        fields: fields.into(),
    };
    Types::default().with(vec![
        read(20_001, 'd', 'N', 1700, &[]),
        read(20_002, 'e', 'E', 0, &[]),
        read(20_003, 'c', 'C', 0, &[20_001, 25]),
        read(20_004, 'b', 'A', 20_003, &[]),
        read(20_005, 'b', 'U', 0, &[]),
    ])
}

fn searched(oid: u32, format: Format, value: &[u8]) -> Searched {
    let (types, masker) = (types(), masker());
    Search::new(&types, &masker, format).value(oid, value)
}

fn numeric_card() -> Vec<u8> {
    [4_u16, 3, 0, 0, 4111, 1111, 1111, 1111].iter().flat_map(|two| two.to_be_bytes()).collect()
}

fn array(element: u32, values: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [1, 0, element, u32::try_from(values.len()).unwrap(), 1] {
        out.extend(number.to_be_bytes());
    }
    for value in values {
        out.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        out.extend(*value);
    }
    out
}

#[test]
fn numbers_are_searched_in_both_formats() {
    for (oid, text, binary) in [
        (20, "4111111111111111", CARD.to_be_bytes().to_vec()),
        (1700, "4111111111111111", numeric_card()),
        (20_001, "4111111111111111", numeric_card()),
        (701, "4.111111111111111e+15", 4_111_111_111_111_111_f64.to_be_bytes().to_vec()),
    ] {
        assert_eq!(searched(oid, Format::Text, text.as_bytes()), Searched::Null, "{oid}");
        assert_eq!(searched(oid, Format::Binary, &binary), Searched::Null, "{oid}");
    }
    for (oid, text, binary) in [
        (20, "7", 7_i64.to_be_bytes().to_vec()),
        (701, "0.4111111111111111", 0.411_111_111_111_111_1_f64.to_be_bytes().to_vec()),
    ] {
        assert_eq!(searched(oid, Format::Text, text.as_bytes()), Searched::Kept, "{oid}");
        assert_eq!(searched(oid, Format::Binary, &binary), Searched::Kept, "{oid}");
    }
}

#[test]
fn of_arrays_and_rows_only_the_value_is_masked() {
    let seven = 7_i64.to_be_bytes();
    let masked = searched(1016, Format::Binary, &array(20, &[&CARD.to_be_bytes(), &seven]));
    let Searched::Instead(masked) = masked else { panic!("{masked:?}") };
    let parsed = BinaryArray::parse(&masked).unwrap();
    assert_eq!(parsed.elements, [None, Some(&seven[..])]);

    let text = |oid, value: &str| match searched(oid, Format::Text, value.as_bytes()) {
        Searched::Kept => value.to_owned(),
        Searched::Null => "NULL".to_owned(),
        Searched::Instead(masked) => String::from_utf8(masked).unwrap(),
    };
    assert_eq!(text(1016, "{4111111111111111,7}"), "{NULL,7}");
    assert_eq!(text(1009, "{a@b.cc,\"x y\"}"), "{\"[email]\",\"x y\"}");
    assert_eq!(text(20_003, "(4111111111111111,a@b.cc)"), "(,\"[email]\")");
    assert_eq!(text(20_004, "{\"(4111111111111111,x)\",\"(1,y)\"}"), "{\"(,x)\",\"(1,y)\"}");
    assert_eq!(text(3906, "[1,4111111111111111)"), "NULL");
    assert_eq!(text(3906, "[1,2)"), "[1,2)");
    assert_eq!(text(20_002, "a@b.cc"), "NULL", "an enum");
    assert_eq!(text(17, "\\x6140622e6363"), "NULL");
    assert_eq!(searched(17, Format::Binary, b"a@b.cc"), Searched::Null);
    assert_eq!(text(1022, "{0.4111111111111111,1}"), "{0.4111111111111111,1}");
    assert_eq!(
        text(3802, r#"{"a": "a@b.cc", "score": 0.6543798596614172, "n": 4111111111111111}"#),
        r#"{"a": "[email]", "score": 0.6543798596614172, "n": null}"#
    );
}

#[test]
fn fields_and_elements_of_binary_values_tell_their_own_types() {
    let card = numeric_card();
    let mut row = 2_u32.to_be_bytes().to_vec();
    for (oid, value) in [(20_001_u32, &card[..]), (25, b"a@b.cc")] {
        row.extend(oid.to_be_bytes());
        row.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        row.extend(value);
    }
    for oid in [2249, 20_003] {
        let Searched::Instead(masked) = searched(oid, Format::Binary, &row) else {
            panic!("{oid}")
        };
        let fields = binary_composite(&masked).unwrap();
        assert_eq!(fields, [(20_001, None), (25, Some(&b"[email]"[..]))]);
    }
    let rows = array(20_003, &[&row]);
    assert!(matches!(searched(20_004, Format::Binary, &rows), Searched::Instead(_)));
    let jsonb = searched(3802, Format::Binary, b"\x01[\"a@b.cc\", 1]");
    assert_eq!(jsonb, Searched::Instead(b"\x01[\"[email]\", 1]".to_vec()));
}

#[test]
fn what_is_not_known_in_the_binary_format_is_null() {
    for oid in [20_005, 30_000, 16_000] {
        assert_eq!(searched(oid, Format::Binary, &7_i64.to_be_bytes()), Searched::Null, "{oid}");
        assert_eq!(searched(oid, Format::Text, b"7"), Searched::Kept, "{oid}");
        assert_eq!(searched(oid, Format::Text, b"<a@b.cc>"), Searched::Null, "{oid}");
    }
    for (oid, malformed) in [(1016, &b"\0\0\0\x01"[..]), (1700, b"1"), (20, b"1"), (2249, b"x")] {
        assert_eq!(searched(oid, Format::Binary, malformed), Searched::Null, "{oid}");
    }
    let (types, masker) = (types(), masker());
    let search = Search::new(&types, &masker, Format::Binary);
    for found in [
        CARD.to_be_bytes().to_vec(),
        numeric_card(),
        b"to a@b.cc".to_vec(),
        array(20, &[&CARD.to_be_bytes()]),
        [&[2, 0, 0, 0, 8][..], &CARD.to_be_bytes(), &[0, 0, 0, 8], &[0; 8]].concat(),
    ] {
        assert_eq!(search.anything(&found), Searched::Null, "{found:?}");
    }
    for clean in [7_i64.to_be_bytes().to_vec(), b"text".to_vec(), array(20, &[&[0; 8]])] {
        assert_eq!(search.anything(&clean), Searched::Kept, "{clean:?}");
    }
}
