//! What a role's rights are made from: everything of the database's own that has columns.

use std::str::FromStr;

use crate::protocol::postgres::upstream::{Questions, Row, UpstreamError};

/// More columns than a database has that anybody works with.
const MOST_COLUMNS: usize = 2_000_000;

/// PostgreSQL 15 has views that read with the rights of whom they answer.
const INVOKER_VIEWS: u32 = 150_000;

/// A database as its rights are concerned. Schemas of the system, and the role's own, are left out.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Catalog {
    /// Whether views can read with the rights of whom they answer.
    pub(super) invoker_views: bool,
    /// The schemas that names without one are looked for in, in order.
    pub(super) path: Vec<String>,
    pub(super) relations: Vec<Relation>,
    /// Whose rows are shown by whom: OIDs of views with what they read, of parents with children,
    /// of children with parents.
    pub(super) shown_by: Vec<(u32, u32)>,
    /// Schemas in which everybody may make things.
    pub(super) open_schemas: Vec<String>,
    /// Functions that run with their owner's rights for everybody, or reach other servers, as
    /// `regprocedure` writes them.
    pub(super) definers: Vec<String>,
    /// Rules on INSERT, UPDATE and DELETE whose actions give rows.
    pub(super) rules: Vec<Rule>,
    /// Triggers whose functions run with their owner's rights: relation, trigger, function.
    pub(super) triggers: Vec<(u32, String, String)>,
    /// Foreign servers: name, whether everybody is mapped to a user there, whether everybody may
    /// use it.
    pub(super) servers: Vec<(String, bool, bool)>,
    /// Foreign tables with their servers.
    pub(super) foreign: Vec<(u32, String)>,
}

/// A rule (`CREATE RULE`) whose action gives rows, read with the rights of the relation's owner.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) relation: u32,
    pub(super) name: String,
    /// The action of policy that it runs at.
    pub(super) at: &'static str,
}

/// A table, view, sequence or whatever else has columns.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Policies say which of its rows who sees.
    pub(super) row_security: bool,
    /// `PUBLIC` has rights on it, or on columns of it.
    pub(super) public: bool,
    pub(super) columns: Vec<Column>,
}

/// What a relation is, as far as rights differ.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Table,
    View,
    MaterializedView,
    Sequence,
    /// Its rows are another server's.
    Foreign,
}

/// A column.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) number: i16,
    pub(super) name: String,
    /// Its type as SQL writes it, with its schema; a domain's is the type under it, and under all
    /// domains between.
    pub(super) type_name: String,
    pub(super) type_oid: u32,
    /// Whether the type's values are texts.
    pub(super) text: bool,
}

/// Asked before the connection's search path is taken away.
const PATH: &str = "SELECT pg_catalog.current_setting('server_version_num');
SELECT pg_catalog.unnest(pg_catalog.current_schemas(false))";

/// What of the database is not the system's.
const OWN: &str = "n.nspname !~ '^pg_' \
    AND n.nspname NOT IN ('information_schema', 'portcullis_masks')";

impl Catalog {
    /// Reads it; `own` is the schema of the role's views. The connection loses its search path.
    pub(super) async fn read(questions: &mut Questions, own: &str) -> Result<Self, UpstreamError> {
        let mut asked = questions.rows(PATH).await?.into_iter();
        let version: u32 = one(asked.next().as_deref().and_then(<[Row]>::first), 0)?;
        let mut path: Vec<String> = all(asked.next(), |row| text(row, 0))?;
        path.retain(|schema| schema != own);

        let mut asked = questions.rows(&question()).await?.into_iter();
        let mut relations: Vec<Relation> = all(asked.next(), relation)?;
        relations.retain(|relation| relation.schema != own);
        let columns = asked.next().unwrap_or_default();
        if columns.len() > MOST_COLUMNS {
            return Err(bad("more columns than can be looked at"));
        }
        for row in &columns {
            let table: u32 = one(Some(row), 0)?;
            let at = relations.binary_search_by_key(&table, |relation| relation.oid);
            let Some(relation) = at.ok().and_then(|at| relations.get_mut(at)) else { continue };
            relation.columns.push(column(row)?);
        }
        Ok(Self {
            invoker_views: version >= INVOKER_VIEWS,
            path,
            relations,
            shown_by: all(asked.next(), |row| Ok((one(Some(row), 0)?, one(Some(row), 1)?)))?,
            open_schemas: all(asked.next(), |row| text(row, 0))?,
            definers: all(asked.next(), |row| text(row, 0))?,
            rules: all(asked.next(), rule)?,
            triggers: all(asked.next(), |row| {
                Ok((one(Some(row), 0)?, text(row, 1)?, text(row, 2)?))
            })?,
            servers: all(asked.next(), |row| {
                Ok((text(row, 0)?, text(row, 1)? == "t", text(row, 2)? == "t"))
            })?,
            foreign: all(asked.next(), |row| Ok((one(Some(row), 0)?, text(row, 1)?)))?,
        })
    }
}

/// One text, so that one snapshot answers it. Grantee 0 is `PUBLIC`; functions are everybody's
/// where nothing is said.
fn question() -> String {
    let public = |acl: &str, right: &str| {
        format!(
            "EXISTS (SELECT FROM pg_catalog.aclexplode({acl}) a \
             WHERE a.grantee = 0 AND a.privilege_type {right})"
        )
    };
    format!(
        "SET search_path = ''; SET statement_timeout = '15s'; SET lock_timeout = '5s';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relrowsecurity,
    {table} OR EXISTS (SELECT FROM pg_catalog.pg_attribute t WHERE t.attrelid = c.oid AND {column})
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') AND {OWN} ORDER BY c.oid;
WITH RECURSIVE under(domain, oid, typmod) AS (
    SELECT oid, typbasetype, typtypmod FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL SELECT u.domain, t.typbasetype, t.typtypmod FROM under u
      JOIN pg_catalog.pg_type t ON t.oid = u.oid AND t.typtype = 'd')
  SELECT c.oid, a.attnum, a.attname,
    CASE WHEN b.oid IS NULL THEN pg_catalog.format_type(a.atttypid, a.atttypmod)
      ELSE pg_catalog.format_type(b.oid, u.typmod) END,
    CASE WHEN b.oid IS NULL THEN t.typcategory ELSE b.typcategory END = 'S', coalesce(b.oid, t.oid)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN (under u JOIN pg_catalog.pg_type b ON b.oid = u.oid AND b.typtype <> 'd')
    ON u.domain = t.oid
  WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND {OWN} ORDER BY c.oid, a.attnum;
SELECT d.refobjid, r.ev_class FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class
  UNION SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
  UNION SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits;
SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE {OWN} AND {schema} ORDER BY 1;
SELECT p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE (p.prosecdef OR p.proname LIKE 'dblink%') AND {OWN} AND (p.proacl IS NULL OR {function})
  ORDER BY 1;
SELECT r.ev_class, r.rulename, r.ev_type FROM pg_catalog.pg_rewrite r
  WHERE r.ev_type <> '1' AND r.oid >= 16384
    AND pg_catalog.pg_get_ruledef(r.oid) ~* '\\m(select|returning|execute)\\M' ORDER BY r.oid;
SELECT g.tgrelid, g.tgname, p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_trigger g
  JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
  WHERE p.prosecdef AND NOT g.tgisinternal ORDER BY g.oid;
SELECT s.srvname,
    EXISTS (SELECT FROM pg_catalog.pg_user_mappings m WHERE m.srvid = s.oid AND m.umuser = 0),
    {server}
  FROM pg_catalog.pg_foreign_server s ORDER BY 1;
SELECT f.ftrelid, s.srvname FROM pg_catalog.pg_foreign_table f
  JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver ORDER BY 1;
COMMIT",
        table = public("c.relacl", "<> ''"),
        column = public("t.attacl", "<> ''"),
        schema = public("n.nspacl", "= 'CREATE'"),
        function = public("p.proacl", "= 'EXECUTE'"),
        server = public("s.srvacl", "= 'USAGE'"),
    )
}

fn relation(row: &Row) -> Result<Relation, UpstreamError> {
    Ok(Relation {
        oid: one(Some(row), 0)?,
        schema: text(row, 1)?,
        name: text(row, 2)?,
        kind: match &*text(row, 3)? {
            "v" => Kind::View,
            "m" => Kind::MaterializedView,
            "S" => Kind::Sequence,
            "f" => Kind::Foreign,
            _ => Kind::Table,
        },
        row_security: text(row, 4)? == "t",
        public: text(row, 5)? == "t",
        columns: Vec::new(),
    })
}

fn rule(row: &Row) -> Result<Rule, UpstreamError> {
    // CmdType of PostgreSQL's nodes.h, as pg_rewrite has it.
    let at = match &*text(row, 2)? {
        "2" => "sql.update",
        "3" => "sql.insert",
        "4" => "sql.delete",
        _ => return Err(bad("a rule on something unknown")),
    };
    Ok(Rule { relation: one(Some(row), 0)?, name: text(row, 1)?, at })
}

fn column(row: &Row) -> Result<Column, UpstreamError> {
    Ok(Column {
        number: one(Some(row), 1)?,
        name: text(row, 2)?,
        type_name: text(row, 3)?,
        text: text(row, 4)? == "t",
        type_oid: one(Some(row), 5)?,
    })
}

fn all<T>(
    rows: Option<Vec<Row>>,
    each: impl Fn(&Row) -> Result<T, UpstreamError>,
) -> Result<Vec<T>, UpstreamError> {
    rows.ok_or_else(|| bad("fewer results than questions"))?.iter().map(each).collect()
}

fn one<N: FromStr>(row: Option<&Row>, at: usize) -> Result<N, UpstreamError> {
    let row = row.ok_or_else(|| bad("no row"))?;
    text(row, at)?.parse().map_err(|_| bad("a number that is none"))
}

fn text(row: &Row, at: usize) -> Result<String, UpstreamError> {
    row.get(at).cloned().flatten().ok_or_else(|| bad("a row of another shape"))
}

fn bad(what: &str) -> UpstreamError {
    UpstreamError::Protocol(format!("the catalog gave {what}"))
}
