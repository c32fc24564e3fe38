//! The questions about a target's catalog.
//!
//! Everything is asked in one snapshot, but for the definitions of views, which the server makes
//! from the newest state. A few megabytes for a database of tens of thousands of tables.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;

use crate::decode::postgres::backend::Column;
use crate::policy::Glob;
use crate::protocol::postgres::hardening::{LEFT, MARK};
use crate::protocol::postgres::upstream::{Questions, Row, UpstreamError};

use super::catalog_snapshot::{ColumnMasks, Does, Read, TableColumn};
use super::expression::{KEYED, KEYED_FUNCTIONS};
use super::statistics::{TELLING, showing};

/// More relations than a database has that anybody works with.
const MOST_RELATIONS: usize = 1_000_000;
/// More views over masked columns than anybody makes.
const MOST_VIEWS: usize = 10_000;

/// How many functions `policy harden` makes of the names of [`KEYED_FUNCTIONS`].
const KEYED_OVERLOADS: usize = 4;

/// How the connection's session is set up: names in definitions are written in full. The question is
/// large and its rows few: compiling it would cost the server more than answering does.
pub(super) const SETTINGS: &str = "SET search_path = ''; SET standard_conforming_strings = on; \
    SET client_encoding = 'UTF8'; SET statement_timeout = '15s'; SET lock_timeout = '1s'; \
    SET jit = off; SET application_name = 'portcullis masks'";

/// The columns of views by their definitions: seldom asked for anew.
pub(super) type Described = HashMap<String, Option<Vec<Column>>>;

/// Reads what masks must know.
pub(super) async fn read(
    questions: &mut Questions,
    masks: &ColumnMasks,
    described: &mut Described,
) -> Result<Read, UpstreamError> {
    let mut results = questions.rows(&question(masks)).await?.into_iter();
    let mut next = || results.next().ok_or_else(|| bad("fewer results than questions"));
    let setting = rows(&next()?, |row| text(row, 0))?.pop();
    let path = rows(&next()?, |row| text(row, 0))?;
    next()?;
    let relations = rows(&next()?, relation)?;
    let mut read = Read { path_setting: setting, path, relations, ..Read::default() };
    read.functions = rows(&next()?, |row| {
        let body = row.get(2).cloned().flatten();
        let does = match (row.get(1).and_then(Option::as_deref), body) {
            (Some("known"), _) => Does::Known,
            // One that is stored as parsed has no text.
            (Some("code"), Some(body)) if !body.is_empty() => Does::Code(body),
            _ => Does::Anything,
        };
        Ok((text(row, 0)?, does))
    })?;
    read.texts = rows(&next()?, |row| number(row, 0))?;
    read.ruled = rows(&next()?, |row| number(row, 0))?;
    read.walled = rows(&next()?, |row| {
        let remark = row.get(2).cloned().flatten();
        let left = remark.and_then(|remark| remark.strip_prefix(LEFT)?.parse().ok());
        Ok((number(row, 0)?, number(row, 1)?, left))
    })?;
    let keyed: Option<usize> = rows(&next()?, |row| number(row, 0))?.pop();
    read.keyed = keyed == Some(KEYED_OVERLOADS);
    read.columns = rows(&next()?, column)?;
    read.inherits = rows(&next()?, |row| Ok((number(row, 0)?, number(row, 1)?)))?;
    read.generated = rows(&next()?, |row| Ok((number(row, 0)?, number(row, 1)?, number(row, 2)?)))?;
    let views = rows(&next()?, |row| Ok((number(row, 0)?, text(row, 1)?, text(row, 2)? == "m")))?;
    if read.relations.len() > MOST_RELATIONS || views.len() > MOST_VIEWS {
        return Err(bad("more tables or views than can be looked at"));
    }
    let mut kept = Described::new();
    for (view, definition, stored) in views {
        let columns = match described.remove(&definition) {
            Some(columns) => columns,
            None => questions.describe(definition.trim_end_matches(';')).await?,
        };
        kept.insert(definition.clone(), columns.clone());
        read.views.push((view, definition, columns));
        read.stored.extend(stored.then_some(view));
    }
    *described = kept;
    Ok(read)
}

/// One text, so that one snapshot answers it. The first OID that is not the system's own is 16384
/// (`FirstNormalObjectId`).
fn question(masks: &ColumnMasks) -> String {
    let mut named = String::from("false");
    for pattern in masks.patterns() {
        let mut parts = pattern.parts().map(like);
        let mut part = || parts.next().unwrap_or_else(|| "'%'".to_owned());
        let (schema, table, column) = (part(), part(), part());
        // Writing to a String does not fail.
        let _ = write!(
            named,
            " OR (n.nspname LIKE {schema} AND c.relname LIKE {table} AND a.attname LIKE {column})"
        );
    }
    for pattern in masks.tables() {
        let mut parts = pattern.parts().iter().map(like);
        let mut part = || parts.next().unwrap_or_else(|| "'%'".to_owned());
        let (schema, table) = (part(), part());
        let _ = write!(named, " OR (n.nspname LIKE {schema} AND c.relname LIKE {table})");
    }
    if masks.tables().next().is_some() {
        for telling in TELLING {
            let _ = write!(named, " OR c.relname LIKE '{telling}'");
        }
    }
    let showing: Vec<String> = showing().map(quoted).collect();
    let showing = showing.join(", ");
    let reach = format!(
        "WITH RECURSIVE edges(a, b) AS (
  SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
  UNION ALL SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits
  UNION ALL SELECT d.refobjid, r.ev_class
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.refclassid IN ('pg_catalog.pg_class'::pg_catalog.regclass,
                           'pg_catalog.pg_proc'::pg_catalog.regclass)
      AND d.refobjid <> r.ev_class),
reach(oid) AS (
  (SELECT c.oid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND (
      c.relname IN ({showing}) OR EXISTS (
        SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND ({named})))
  UNION ALL SELECT p.oid FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE {OPAQUE})
  UNION SELECT e.b FROM reach JOIN edges e ON e.a = reach.oid)"
    );
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_catalog.set_config('search_path', reset_val, true) FROM pg_catalog.pg_settings
  WHERE name = 'search_path';
SELECT pg_catalog.unnest(pg_catalog.current_schemas(true));
SELECT pg_catalog.set_config('search_path', '', true);
SELECT c.oid, n.nspname, c.relname, c.relkind IN ('v', 'm') FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') LIMIT {limit};
SELECT DISTINCT proname, 'known', NULL FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE NOT {OPAQUE}
  UNION ALL SELECT p.proname, CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN 'code' END, p.prosrc
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE {OPAQUE};
SELECT oid FROM pg_catalog.pg_type WHERE oid >= 16384 AND typcategory = 'S' AND typtype = 'b';
SELECT DISTINCT ev_class FROM pg_catalog.pg_rewrite WHERE ev_type <> '1' AND oid >= 16384;
SELECT c.oid, a.attnum, pg_catalog.col_description(c.oid, a.attnum) FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
  WHERE c.relkind = 'v' AND pg_catalog.obj_description(n.oid, 'pg_namespace') = {mark}
    AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')
    AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
    AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE');
SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = 'key'
  WHERE n.nspname = {keyed} AND p.proname IN ({functions}) AND p.prosecdef
    AND pg_catalog.obj_description(n.oid, 'pg_namespace') = {mark}
    AND p.proowner = n.nspowner AND k.relowner = n.nspowner
    AND NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')
    AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE')
    AND NOT pg_catalog.has_any_column_privilege(k.oid, 'SELECT, INSERT, UPDATE')
    AND NOT pg_catalog.has_table_privilege(k.oid, 'DELETE, TRUNCATE')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE');
{reach}, domains(oid, base, typmod) AS (
  SELECT t.oid, t.typbasetype, t.typtypmod FROM pg_catalog.pg_type t WHERE t.typtype = 'd'
  UNION ALL SELECT d.oid, t.typbasetype, t.typtypmod
    FROM domains d JOIN pg_catalog.pg_type t ON t.oid = d.base WHERE t.typtype = 'd')
SELECT a.attrelid, a.attnum, a.attname, t.oid, a.attgenerated <> '',
    pg_catalog.format_type(t.oid, coalesce(d.typmod, a.atttypmod)),
    CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN
      pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(l.collname) END,
    coalesce(pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'), true),
    EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid
      AND k.contype = 'p' AND NOT k.condeferrable AND a.attnum = ANY (k.conkey)) FROM reach
  JOIN pg_catalog.pg_attribute a ON a.attrelid = reach.oid
  LEFT JOIN (domains d JOIN pg_catalog.pg_type b ON b.oid = d.base AND b.typtype <> 'd')
    ON d.oid = a.atttypid
  JOIN pg_catalog.pg_type t ON t.oid = coalesce(d.base, a.atttypid)
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
  LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped;
{reach} SELECT i.inhrelid, i.inhparent FROM reach
  JOIN pg_catalog.pg_inherits i ON i.inhrelid = reach.oid;
{reach} SELECT a.attrelid, a.attnum, d.refobjsubid FROM reach
  JOIN pg_catalog.pg_attribute a ON a.attrelid = reach.oid AND a.attgenerated <> ''
  JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
  JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    AND d.refobjid = a.attrelid AND d.refobjsubid > 0 AND d.refobjsubid <> a.attnum
    AND (d.classid = d.refclassid AND d.objid = a.attrelid AND d.objsubid = a.attnum
      OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid);
{reach} SELECT c.oid, pg_catalog.pg_get_viewdef(c.oid), c.relkind FROM reach
  JOIN pg_catalog.pg_class c ON c.oid = reach.oid
  WHERE c.relkind IN ('v', 'm') AND c.oid >= 16384 LIMIT {views};
COMMIT",
        mark = quoted(MARK),
        keyed = quoted(KEYED),
        functions = KEYED_FUNCTIONS.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
        limit = MOST_RELATIONS + 1,
        views = MOST_VIEWS + 1,
    )
}

/// Functions of which it must be looked what they read: those of the database's own that are not C,
/// and those of extensions that take SQL, or tables, as text.
const OPAQUE: &str = "(p.oid >= 16384 AND (l.lanname NOT IN ('internal', 'c') \
    OR p.proname LIKE 'dblink%' OR p.proname LIKE 'crosstab%' OR p.proname LIKE 'connectby%' \
    OR p.proname LIKE 'xpath\\_table%' OR p.proname LIKE '%page%' OR p.proname LIKE 'heap%' \
    OR p.proname LIKE 'tuple\\_data%' OR p.proname LIKE 'http%'))";

/// A glob as a quoted pattern of LIKE.
pub(super) fn like(glob: &Glob) -> String {
    let mut pattern = String::new();
    for character in glob.as_str().chars() {
        match character {
            '*' => pattern.push('%'),
            '%' | '_' | '\\' => pattern.extend(['\\', character]),
            other => pattern.push(other),
        }
    }
    quoted(&pattern)
}

/// A text as a literal, with `standard_conforming_strings` on.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

fn relation(row: &Row) -> Result<(u32, String, String, bool), UpstreamError> {
    Ok((number(row, 0)?, text(row, 1)?, text(row, 2)?, text(row, 3)? == "t"))
}

fn column(row: &Row) -> Result<TableColumn, UpstreamError> {
    Ok(TableColumn {
        table: number(row, 0)?,
        number: number(row, 1)?,
        name: text(row, 2)?,
        type_oid: number(row, 3)?,
        generated: text(row, 4)? == "t",
        type_name: text(row, 5)?,
        collation: row.get(6).cloned().flatten(),
        readable: text(row, 7)? == "t",
        key: text(row, 8)? == "t",
    })
}

fn rows<T>(
    rows: &[Row],
    each: impl Fn(&Row) -> Result<T, UpstreamError>,
) -> Result<Vec<T>, UpstreamError> {
    rows.iter().map(each).collect()
}

fn text(row: &Row, at: usize) -> Result<String, UpstreamError> {
    row.get(at).cloned().flatten().ok_or_else(|| bad("a row of another shape"))
}

fn number<N: FromStr>(row: &Row, at: usize) -> Result<N, UpstreamError> {
    text(row, at)?.parse().map_err(|_| bad("a number that is none"))
}

fn bad(what: &str) -> UpstreamError {
    UpstreamError::Protocol(format!("the catalog gave {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_become_patterns_of_like() {
        assert_eq!(like(&Glob::new("a*_%\\'")), r"'a%\_\%\\'''");
    }
}
