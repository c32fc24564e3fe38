//! What values are made of, by the OID of their type: which hold texts and numbers that patterns are
//! looked for in, and which hold other values.
//!
//! Types of the server's own are known here; those of a database's own are read from its catalog.
//! A value of a type that is not known cannot be searched in the binary format, and becomes NULL.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::decode::postgres::frontend::Format;
use crate::decode::postgres::typed::{
    BinaryArray, Piece, binary_composite, binary_multirange, binary_range, numeric, put_composite,
    put_quoted, text_array, text_composite, text_ranges,
};
use crate::mask::{Masker, patterns_in_json};
use crate::protocol::postgres::upstream::Row;

/// How deep values may hold values. Deeper ones become NULL.
const MAX_DEPTH: usize = 16;
/// The first OID that is not of the system's own making (`FirstNormalObjectId`).
const FIRST_NORMAL: u32 = 16_384;

/// What values of a type are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text that may hold a mask.
    Text,
    /// A text that may not: an enum's label, an identifier, a search vector. In the binary format
    /// the text can be seen.
    Label,
    Json,
    Jsonb,
    /// `bytea`.
    Bytes,
    /// A 64-bit integer.
    Long,
    Numeric,
    Double,
    /// So many bytes, and 64-bit floating point numbers: geometry.
    Doubles(usize),
    /// Nothing that a pattern finds.
    Harmless,
    Domain(u32),
    Array {
        element: u32,
        delimiter: u8,
    },
    Range(u32),
    Multirange(u32),
    /// Fields of these types; none where they are not known.
    Composite(Box<[u32]>),
}

/// The types that are known.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Types {
    /// Those of the database's own; `None` where nobody knows what they are made of.
    own: HashMap<u32, Option<Kind>>,
}

/// A type as the catalog has it.
#[derive(Debug)]
pub(super) struct CatalogType {
    pub(super) oid: u32,
    pub(super) name: String,
    /// `typtype`
    pub(super) kind: char,
    /// `typcategory`
    pub(super) category: char,
    /// The type under a domain, of elements or of bounds; 0 for none.
    pub(super) of: u32,
    /// `typdelim` of the elements.
    pub(super) delimiter: u8,
    pub(super) fields: Box<[u32]>,
}

impl Types {
    /// With types of a database's own.
    pub(super) fn with(&self, read: Vec<CatalogType>) -> Self {
        let mut own = self.own.clone();
        own.extend(read.into_iter().map(|read| (read.oid, kind_of(&read))));
        Self { own }
    }

    /// Whether none of a database's own is known.
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// Whether a type is known, with all that its values are made of but what they name themselves.
    pub(in super::super) fn has(&self, oid: u32) -> bool {
        oid < FIRST_NORMAL || self.own.contains_key(&oid)
    }

    fn kind(&self, oid: u32) -> Option<Cow<'_, Kind>> {
        match self.own.get(&oid) {
            Some(kind) => kind.as_ref().map(Cow::Borrowed),
            None => built_in(oid).map(Cow::Owned),
        }
    }

    /// Whether values of a type never hold anything that a pattern finds.
    pub(super) fn is_harmless(&self, oid: u32) -> bool {
        let mut oid = oid;
        for _ in 0..MAX_DEPTH {
            match self.kind(oid).as_deref() {
                Some(Kind::Harmless) => return true,
                Some(
                    Kind::Domain(of)
                    | Kind::Array { element: of, .. }
                    | Kind::Range(of)
                    | Kind::Multirange(of),
                ) => oid = *of,
                _ => return false,
            }
        }
        false
    }
}

#[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
fn kind_of(read: &CatalogType) -> Option<Kind> {
    Some(match (read.kind, read.category) {
        ('d', _) => Kind::Domain(read.of),
        ('e', _) => Kind::Label,
        ('r', _) => Kind::Range(read.of),
        ('m', _) => Kind::Multirange(read.of),
        ('c', _) => Kind::Composite(read.fields.clone()),
        ('b', 'A') if read.of != 0 => Kind::Array { element: read.of, delimiter: read.delimiter },
        // Of an extension that makes a type of texts, as citext does.
        ('b', 'S') => Kind::Text,
        _ => match &*read.name {
            "hstore" | "ltree" | "lquery" | "ltxtquery" => Kind::Label,
            "vector" | "halfvec" | "sparsevec" => Kind::Harmless,
            "geometry" | "geography" | "box2d" | "box3d" | "cube" | "seg" => Kind::Harmless,
            _ => return None,
        },
    })
}

/// Types of the server's own, by their OIDs in `pg_type.dat`.
#[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
fn built_in(oid: u32) -> Option<Kind> {
    let array = |element| Some(Kind::Array { element, delimiter: b',' });
    if let Some((_, element)) = ARRAYS.iter().find(|(array, _)| *array == oid) {
        return array(*element);
    }
    Some(match oid {
        // name, text, xml, unknown, bpchar, varchar, refcursor, cstring
        19 | 25 | 142 | 705 | 1042 | 1043 | 1790 | 2275 => Kind::Text,
        114 => Kind::Json,
        3802 => Kind::Jsonb,
        17 => Kind::Bytes,
        20 => Kind::Long,
        1700 => Kind::Numeric,
        701 => Kind::Double,
        // point, lseg, box, line, circle; path, polygon
        600 | 601 | 603 | 628 | 718 => Kind::Doubles(0),
        602 => Kind::Doubles(5),
        604 => Kind::Doubles(4),
        // inet, cidr, tsvector, tsquery, jsonpath, aclitem, pg_node_tree
        650 | 869 | 3614 | 3615 | 4072 | 1033 | 194 => Kind::Label,
        // regproc and its like: numbers in the binary format
        24 | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191 => Kind::Label,
        // bool, char, int2, int4, oid, tid, xid, cid, int2vector, oidvector, float4, money, macaddr8,
        // macaddr, date, time, timestamp, timestamptz, interval, timetz, bit, varbit, uuid, void,
        // txid_snapshot, pg_lsn, pg_snapshot, xid8
        16
        | 18
        | 21
        | 22
        | 23
        | 26..=30
        | 700
        | 774
        | 790
        | 829
        | 1082
        | 1083
        | 1114
        | 1184
        | 1186
        | 1266
        | 1560
        | 1562
        | 2278
        | 2950
        | 2970
        | 3220
        | 5038
        | 5069 => Kind::Harmless,
        3904 => Kind::Range(23),
        3906 => Kind::Range(1700),
        3908 => Kind::Range(1114),
        3910 => Kind::Range(1184),
        3912 => Kind::Range(1082),
        3926 => Kind::Range(20),
        4451 => Kind::Multirange(23),
        4532 => Kind::Multirange(1700),
        4533 => Kind::Multirange(1114),
        4534 => Kind::Multirange(1184),
        4535 => Kind::Multirange(1082),
        4536 => Kind::Multirange(20),
        // pg_type, pg_attribute, pg_proc, pg_class, record
        71 | 75 | 81 | 83 | 2249 => Kind::Composite(Box::default()),
        1020 => Kind::Array { element: 603, delimiter: b';' },
        _ => return None,
    })
}

/// Arrays of the server's own with their elements; that of boxes is apart.
const ARRAYS: &[(u32, u32)] = &[
    (143, 142),
    (199, 114),
    (271, 5069),
    (629, 628),
    (651, 650),
    (719, 718),
    (775, 774),
    (791, 790),
    (1000, 16),
    (1001, 17),
    (1002, 18),
    (1003, 19),
    (1005, 21),
    (1006, 22),
    (1007, 23),
    (1008, 24),
    (1009, 25),
    (1010, 27),
    (1011, 28),
    (1012, 29),
    (1013, 30),
    (1014, 1042),
    (1015, 1043),
    (1016, 20),
    (1017, 600),
    (1018, 601),
    (1019, 602),
    (1021, 700),
    (1022, 701),
    (1027, 604),
    (1028, 26),
    (1034, 1033),
    (1040, 829),
    (1041, 869),
    (1115, 1114),
    (1182, 1082),
    (1183, 1083),
    (1185, 1184),
    (1187, 1186),
    (1231, 1700),
    (1263, 2275),
    (1270, 1266),
    (1561, 1560),
    (1563, 1562),
    (2201, 1790),
    (2207, 2202),
    (2208, 2203),
    (2209, 2204),
    (2210, 2205),
    (2211, 2206),
    (2287, 2249),
    (2949, 2970),
    (2951, 2950),
    (3221, 3220),
    (3643, 3614),
    (3645, 3615),
    (3735, 3734),
    (3770, 3769),
    (3807, 3802),
    (3905, 3904),
    (3907, 3906),
    (3909, 3908),
    (3911, 3910),
    (3913, 3912),
    (3927, 3926),
    (4073, 4072),
    (4090, 4089),
    (4097, 4096),
    (4192, 4191),
    (5039, 5038),
    (6150, 4451),
    (6151, 4532),
    (6152, 4533),
    (6153, 4534),
    (6155, 4535),
    (6157, 4536),
];

/// What comes of a value that is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Searched {
    Kept,
    Null,
    Instead(Vec<u8>),
}

/// Looks for what patterns find, value by value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'s> {
    pub(super) types: &'s Types,
    pub(super) masker: &'s Arc<Masker>,
    pub(super) format: Format,
    /// Whether types are guessed: then what cannot be read as one type may be another.
    guessed: bool,
}

impl<'s> Search<'s> {
    pub(super) fn new(types: &'s Types, masker: &'s Arc<Masker>, format: Format) -> Self {
        Self { types, masker, format, guessed: false }
    }

    /// In a value that is not NULL.
    pub(super) fn value(&self, oid: u32, value: &[u8]) -> Searched {
        self.look(oid, value, 0)
    }

    /// A value that is not what its type says, or of a type that is not known, in the binary format.
    fn unreadable(&self, value: &[u8]) -> Searched {
        if self.guessed { self.null_if(value) } else { Searched::Null }
    }

    fn look(&self, oid: u32, value: &[u8], depth: usize) -> Searched {
        if depth > MAX_DEPTH {
            return Searched::Null;
        }
        let Some(kind) = self.types.kind(oid) else {
            return match self.format {
                Format::Text => self.null_if(value),
                Format::Binary => self.unreadable(value),
            };
        };
        let binary = self.format == Format::Binary;
        match &*kind {
            Kind::Harmless => Searched::Kept,
            Kind::Text => match self.masker.mask(value) {
                None => Searched::Kept,
                Some(masked) => Searched::Instead(masked),
            },
            Kind::Label => self.null_if(value),
            Kind::Json => self.json(value, 0),
            Kind::Jsonb => self.json(value, usize::from(binary)),
            Kind::Bytes if binary => self.null_if(value),
            Kind::Bytes => self.null_if(&super::values::unhex(value)),
            Kind::Long | Kind::Numeric | Kind::Double | Kind::Doubles(_) => {
                self.number(&kind, value)
            }
            Kind::Domain(of) => self.look(*of, value, depth + 1),
            _ if self.types.is_harmless(oid) => Searched::Kept,
            Kind::Array { .. } if binary => self.binary_array(value, depth),
            Kind::Array { element, delimiter } => {
                self.text_array(*element, *delimiter, value, depth)
            }
            Kind::Range(of) | Kind::Multirange(of) => {
                let many = matches!(*kind, Kind::Multirange(_));
                self.ranges(*of, many, value, depth)
            }
            Kind::Composite(_) if binary => self.binary_composite(value, depth),
            Kind::Composite(fields) => self.text_composite(fields, value, depth),
        }
    }

    fn null_if(&self, text: &[u8]) -> Searched {
        if self.masker.mask(text).is_some() { Searched::Null } else { Searched::Kept }
    }

    /// A document behind so many bytes of a version.
    fn json(&self, value: &[u8], version: usize) -> Searched {
        let Some((version, document)) = value.split_at_checked(version) else {
            return Searched::Null;
        };
        match patterns_in_json(self.masker, document) {
            None => Searched::Kept,
            Some(masked) => Searched::Instead([version, &masked].concat()),
        }
    }

    fn number(&self, kind: &Kind, value: &[u8]) -> Searched {
        if self.format == Format::Text {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let double = || text.parse().ok().and_then(whole);
            let whole = if *kind == Kind::Double { double() } else { None };
            return match whole {
                Some(whole) => self.null_if(whole.as_bytes()),
                None => self.null_if(value),
            };
        }
        let text = match kind {
            Kind::Long => value.try_into().ok().map(|value| i64::from_be_bytes(value).to_string()),
            Kind::Numeric => numeric(value).ok(),
            Kind::Double => match value.try_into() {
                // What is no whole number is nothing that a pattern finds.
                Ok(value) => Some(whole(f64::from_be_bytes(value)).unwrap_or_default()),
                Err(_) => None,
            },
            Kind::Doubles(skipped) => value.get(*skipped..).map(|numbers| {
                let double = |eight: &[u8]| whole(f64::from_be_bytes(eight.try_into().ok()?));
                let whole: Vec<String> = numbers.chunks(8).filter_map(double).collect();
                whole.join(",")
            }),
            _ => None,
        };
        text.map_or_else(|| self.unreadable(value), |text| self.null_if(text.as_bytes()))
    }

    fn binary_array(&self, value: &[u8], depth: usize) -> Searched {
        let Ok(array) = BinaryArray::parse(value) else { return self.unreadable(value) };
        if self.types.is_harmless(array.element) {
            return Searched::Kept;
        }
        let mut changed = false;
        let elements: Vec<_> = array
            .elements
            .iter()
            .map(|element| self.part(array.element, *element, depth, &mut changed))
            .collect();
        match changed {
            false => Searched::Kept,
            true => array.with(&elements).map_or(Searched::Null, Searched::Instead),
        }
    }

    fn binary_composite(&self, value: &[u8], depth: usize) -> Searched {
        let Ok(fields) = binary_composite(value) else { return self.unreadable(value) };
        let mut changed = false;
        let fields: Vec<_> = fields
            .iter()
            .map(|(oid, field)| (*oid, self.part(*oid, *field, depth, &mut changed)))
            .collect();
        match changed {
            false => Searched::Kept,
            true => put_composite(&fields).map_or(Searched::Null, Searched::Instead),
        }
    }

    /// A value within another.
    fn part<'v>(
        &self,
        oid: u32,
        value: Option<&'v [u8]>,
        depth: usize,
        changed: &mut bool,
    ) -> Option<Cow<'v, [u8]>> {
        let value = value?;
        let searched = self.look(oid, value, depth + 1);
        *changed |= searched != Searched::Kept;
        match searched {
            Searched::Kept => Some(value.into()),
            Searched::Null => None,
            Searched::Instead(masked) => Some(masked.into()),
        }
    }

    fn text_array(&self, element: u32, delimiter: u8, value: &[u8], depth: usize) -> Searched {
        match text_array(value, delimiter) {
            None => self.null_if(value),
            Some(pieces) => self.text_pieces(&pieces, b"NULL", |_| Some(element), depth),
        }
    }

    fn text_composite(&self, fields: &[u32], value: &[u8], depth: usize) -> Searched {
        let Some(pieces) = text_composite(value) else { return self.null_if(value) };
        let count = pieces.iter().filter(|piece| matches!(piece, Piece::Element(..))).count();
        let known = fields.len() == count;
        let of = |at| fields.get(at).copied().filter(|_| known);
        self.text_pieces(&pieces, b"", of, depth)
    }

    fn text_pieces(
        &self,
        pieces: &[Piece<'_>],
        null: &[u8],
        type_of: impl Fn(usize) -> Option<u32>,
        depth: usize,
    ) -> Searched {
        let (mut out, mut at, mut changed) = (Vec::new(), 0, false);
        for piece in pieces {
            let (raw, value) = match piece {
                Piece::Around(raw) => {
                    out.extend_from_slice(raw);
                    continue;
                }
                Piece::Element(raw, value) => (raw, value),
            };
            let searched = match (value, type_of(at)) {
                (None, _) => Searched::Kept,
                (Some(value), Some(oid)) => self.look(oid, value, depth + 1),
                // Of which type it is nobody says.
                (Some(value), None) => self.null_if(value),
            };
            at += 1;
            changed |= searched != Searched::Kept;
            match searched {
                Searched::Kept => out.extend_from_slice(raw),
                Searched::Null => out.extend_from_slice(null),
                Searched::Instead(masked) => put_quoted(&masked, &mut out),
            }
        }
        if changed { Searched::Instead(out) } else { Searched::Kept }
    }

    /// A range with a bound that is masked would be another range: it becomes NULL.
    fn ranges(&self, of: u32, many: bool, value: &[u8], depth: usize) -> Searched {
        let bounds: Option<Vec<Cow<'_, [u8]>>> = match self.format {
            Format::Text => text_ranges(value),
            Format::Binary => {
                let bounds = if many { binary_multirange(value) } else { binary_range(value) };
                bounds.ok().map(|bounds| bounds.into_iter().map(Cow::Borrowed).collect())
            }
        };
        let kept = bounds.is_some_and(|bounds| {
            bounds.iter().all(|bound| self.look(of, bound, depth + 1) == Searched::Kept)
        });
        if kept { Searched::Kept } else { Searched::Null }
    }

    /// In a value of which the type is not known, in the binary format: as whatever it could be.
    pub(super) fn anything(self, value: &[u8]) -> Searched {
        Self { guessed: true, ..self }.guess(value)
    }

    fn guess(&self, value: &[u8]) -> Searched {
        let is_found = |oid| self.look(oid, value, 0) == Searched::Null;
        let numbers = match value.len() {
            8 => is_found(20) || is_found(701),
            _ => numeric(value).is_ok_and(|text| self.masker.mask(text.as_bytes()).is_some()),
        };
        let array = BinaryArray::parse(value).is_ok();
        let composite = binary_composite(value).is_ok();
        let within = (array && self.binary_array(value, 0) != Searched::Kept)
            || (composite && self.binary_composite(value, 0) != Searched::Kept);
        let mut bounds = binary_range(value).into_iter().chain(binary_multirange(value)).flatten();
        let bounded = bounds.any(|bound| {
            let long = bound.len() == 8 && self.look(20, bound, 1) != Searched::Kept;
            long || numeric(bound).is_ok_and(|text| self.masker.mask(text.as_bytes()).is_some())
        });
        if numbers || within || bounded { Searched::Null } else { self.null_if(value) }
    }
}

/// A whole number as it is written without an exponent.
fn whole(number: f64) -> Option<String> {
    const LEAST: f64 = 1e6;
    const MOST: f64 = 1e20;
    let number = number.abs();
    (number.fract() == 0.0 && (LEAST..MOST).contains(&number)).then(|| format!("{number:.0}"))
}

/// What is asked of the catalog: types of the database's own, but for rows of tables, and those that
/// are named with all that they are made of. Multiranges came with PostgreSQL 14.
pub(super) fn question(oids: &[u32]) -> String {
    let named: Vec<String> = oids.iter().map(u32::to_string).collect();
    let named = named.join(",");
    format!(
        "WITH RECURSIVE need(oid) AS (
  (SELECT t.oid FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
    WHERE t.oid >= {FIRST_NORMAL} AND (t.oid = ANY ('{{{named}}}'::pg_catalog.oid[])
      OR t.typtype IN ('d', 'e', 'r', 'm') OR (t.typtype = 'b' AND e.typtype IS DISTINCT FROM 'c')))
  UNION SELECT m.oid FROM need JOIN pg_catalog.pg_type t ON t.oid = need.oid
    CROSS JOIN LATERAL (
      SELECT t.typbasetype AS oid UNION ALL SELECT t.typelem
      UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
      UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) m
    WHERE m.oid >= {FIRST_NORMAL})
SELECT t.oid, t.typname, t.typtype, t.typcategory,
  CASE t.typtype WHEN 'd' THEN t.typbasetype WHEN 'b' THEN t.typelem
    ELSE coalesce((SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
      OR (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::pg_catalog.oid = t.oid LIMIT 1), 0) END,
  coalesce((SELECT e.typdelim FROM pg_catalog.pg_type e WHERE e.oid = t.typelem), ','),
  pg_catalog.array_to_string(ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a
    WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum), ' ')
FROM pg_catalog.pg_type t JOIN need ON need.oid = t.oid LIMIT {MOST_TYPES}"
    )
}

/// Reads a row of the answer.
pub(super) fn read(row: &Row) -> Option<CatalogType> {
    let text = |at: usize| row.get(at)?.as_deref();
    Some(CatalogType {
        oid: text(0)?.parse().ok()?,
        name: text(1)?.to_owned(),
        kind: text(2)?.chars().next()?,
        category: text(3)?.chars().next()?,
        of: text(4)?.parse().ok()?,
        delimiter: text(5)?.bytes().next()?,
        fields: text(6)?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?,
    })
}

/// More types than a database has that anybody works with.
const MOST_TYPES: usize = 100_000;

#[cfg(test)]
mod tests;
