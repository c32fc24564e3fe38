//! The SQL of a role. Names come from a foreign catalog: each is quoted, and what stands in a
//! comment stays on its line.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::decode::sql::rewrite::qualified_type;
use crate::mask::{Action, MaskPlan};
use crate::policy::TargetFacts;

use super::Role;
use super::catalog::{Catalog, Column, Kind, Relation};
use super::rights::{Because, Columns, Granted, Output, Rights};
use crate::protocol::postgres::masking::OfType;

/// What marks a schema as one that may be dropped and made anew.
pub(in super::super) const MARK: &str = "made by portcullis policy harden";

/// What a remark on a view's column begins with that says what is left of masked values.
pub(in super::super) const LEFT: &str = "masked by portcullis: ";

/// Takes away what a role that was there before may do, so far as whoever applies the script can,
/// and refuses to go on where something is left: the role is what the script says, and no more.
const OLD_RIGHTS: &str = r#"DO $harden$
DECLARE
  found record;
BEGIN
  FOR found IN
    SELECT DISTINCT pg_catalog.format('%s %s', kind, name) AS what FROM (
      SELECT 'SCHEMA', pg_catalog.quote_ident(nspname), nspacl FROM pg_catalog.pg_namespace
      UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        oid::pg_catalog.regclass::text, relacl FROM pg_catalog.pg_class
      UNION ALL SELECT 'TABLE', attrelid::pg_catalog.regclass::text, attacl FROM pg_catalog.pg_attribute
        WHERE attacl IS NOT NULL
      UNION ALL SELECT 'ROUTINE', oid::pg_catalog.regprocedure::text, proacl FROM pg_catalog.pg_proc
      UNION ALL SELECT 'TYPE', oid::pg_catalog.regtype::text, typacl FROM pg_catalog.pg_type
      UNION ALL SELECT 'LANGUAGE', pg_catalog.quote_ident(lanname), lanacl FROM pg_catalog.pg_language
      UNION ALL SELECT 'FOREIGN SERVER', pg_catalog.quote_ident(srvname), srvacl
        FROM pg_catalog.pg_foreign_server
      UNION ALL SELECT 'FOREIGN DATA WRAPPER', pg_catalog.quote_ident(fdwname), fdwacl
        FROM pg_catalog.pg_foreign_data_wrapper
      UNION ALL SELECT 'LARGE OBJECT', oid::text, lomacl FROM pg_catalog.pg_largeobject_metadata
      UNION ALL SELECT 'DATABASE', pg_catalog.quote_ident(datname), datacl
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    ) AS had(kind, name, acl)
    WHERE acl IS NOT NULL AND EXISTS (
      SELECT FROM pg_catalog.aclexplode(acl) a
      WHERE a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {said}))
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %I', found.what, {said});
  END LOOP;
  FOR found IN
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) AS what,
      d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AS other_database
    FROM pg_catalog.pg_shdepend d
    WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'a'
      AND d.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {said})
      AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()))
  LOOP
    IF found.other_database THEN
      RAISE NOTICE '% keeps its rights on %', {said}, found.what;
    ELSE
      RAISE EXCEPTION '% has rights on % that this script does not give', {said}, found.what
        USING HINT = 'Take them away as who gave them (REVOKE), or choose another name.';
    END IF;
  END LOOP;
  FOR found IN
    SELECT pg_catalog.split_part(setting, '=', 1) AS what
    FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS setting
    WHERE s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {said})
      AND setting !~ '^(search_path|statement_timeout)='
  LOOP
    RAISE NOTICE '% keeps its setting %', {said}, found.what;
  END LOOP;
END
$harden$;
"#;

/// Writes the script; it may be applied again and again.
pub(super) fn write(
    target: &TargetFacts,
    database: &str,
    masks: &MaskPlan,
    role: &Role,
    catalog: &Catalog,
    rights: &Rights<'_>,
) -> String {
    let mut script = Script(String::new());
    script.head(target, database, role);
    script.role(database, role, catalog);
    script.grants(role, catalog, rights);
    let keyed = rights.granted.iter().any(|granted| {
        granted.view.iter().flatten().any(|output| is_keyed(output, granted.relation))
    });
    if keyed {
        script.0.push_str(&keyed_functions(&role.name));
    }
    script.views(role, catalog, rights);
    script.line("COMMIT;");
    script.remarks(role, masks, catalog, rights);
    script.0
}

/// The SQL of the functions that mask with a key at the server, for a role that reads the tables itself.
pub fn functions(role: &str) -> String {
    let mut script = Script(String::new());
    script
        .remark("Functions with which the server computes what the masks hash and tokenize leave.");
    script.remark(&format!(
        "Apply them as a role that owns the tables; {role} may neither be that role nor a member of it."
    ));
    script.line("BEGIN;");
    script.0.push_str(&keyed_functions(role));
    script.line("COMMIT;");
    script.0
}

/// Functions for `hash` and `tokenize` that a role may call. Their key is made at the server when they
/// are made first, and only their owner reads it.
fn keyed_functions(role: &str) -> String {
    // A name may hold what stands for another.
    let mut script = String::new();
    let mut rest = include_str!("keyed.sql");
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        script.push_str(before);
        script.push_str(&match name {
            "mark" => literal(MARK),
            "role" => quoted(role),
            _ => literal(role),
        });
        rest = after;
    }
    script.push_str(rest);
    script
}

struct Script(String);

impl Script {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A remark, on one line whatever it holds.
    fn remark(&mut self, text: &str) {
        let shown: String =
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        self.line(&format!("-- {shown}"));
    }

    fn head(&mut self, target: &TargetFacts, database: &str, role: &Role) {
        self.remark(&format!(
            "The least that the gateway's role on {} needs, made from its rules and masks.",
            target.name
        ));
        self.remark(&format!(
            "Read it, then apply it in the database {} as a role that owns the tables. It may be \
             applied again, after a migration or with other rules.",
            quoted(database)
        ));
        self.remark(&format!("Give the role a password: \\password {}", role.name));
        self.line("BEGIN;");
    }

    /// The role itself. It is not made less than it is, but refused: who knows what uses it.
    fn role(&mut self, database: &str, role: &Role, catalog: &Catalog) {
        let (name, said) = (quoted(&role.name), literal(&role.name));
        let mark = literal(MARK);
        // Writing to a String does not fail.
        let _ = write!(
            self.0,
            "DO $harden$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {said}) THEN
    CREATE ROLE {name} LOGIN NOINHERIT;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = {said} AND (r.rolsuper
      OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
      OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid)
      OR EXISTS (SELECT FROM pg_catalog.pg_shdepend d WHERE d.deptype = 'o' AND d.refobjid = r.oid
        AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass))) THEN
    RAISE EXCEPTION '% is more than a role that was made for this: choose another name', {said};
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = {said}
      AND pg_catalog.obj_description(n.oid, 'pg_namespace') IS DISTINCT FROM {mark}) THEN
    RAISE EXCEPTION 'the schema % is somebody else''s: choose another name', {said};
  END IF;
END
$harden$;
DROP SCHEMA IF EXISTS {name} CASCADE;
CREATE SCHEMA {name};
COMMENT ON SCHEMA {name} IS {mark};
"
        );
        let path: Vec<String> =
            std::iter::once(&role.name).chain(&catalog.path).map(|name| quoted(name)).collect();
        let database = quoted(database);
        let timeout = literal(&role.statement_timeout);
        self.0.push_str(&OLD_RIGHTS.replace("{said}", &said));
        self.line(&format!("ALTER ROLE {name} SET statement_timeout = {timeout};"));
        let path = path.join(", ");
        self.line(&format!("ALTER ROLE {name} IN DATABASE {database} SET search_path = {path};"));
        self.line(&format!("GRANT CONNECT ON DATABASE {database} TO {name};"));
        self.line(&format!("GRANT USAGE ON SCHEMA {name} TO {name};"));
    }

    fn grants(&mut self, role: &Role, catalog: &Catalog, rights: &Rights<'_>) {
        let name = quoted(&role.name);
        let all: BTreeSet<&str> = catalog.relations.iter().map(|r| &*r.schema).collect();
        let used: BTreeSet<&str> = rights.granted.iter().map(|g| &*g.relation.schema).collect();
        for schema in all {
            let schema_name = quoted(schema);
            for of in ["ALL TABLES IN SCHEMA", "ALL SEQUENCES IN SCHEMA", "SCHEMA"] {
                self.line(&format!("REVOKE ALL ON {of} {schema_name} FROM {name};"));
            }
            if used.contains(schema) {
                self.line(&format!("GRANT USAGE ON SCHEMA {schema_name} TO {name};"));
            }
        }
        for granted in &rights.granted {
            let what = if granted.relation.kind == Kind::Sequence { "SEQUENCE " } else { "" };
            self.grant(&format!("{what}{}", full(granted.relation)), &name, &on_itself(granted));
        }
    }

    fn grant(&mut self, what: &str, role: &str, rights: &[String]) {
        if !rights.is_empty() {
            self.line(&format!("GRANT {} ON {what} TO {role};", rights.join(", ")));
        }
    }

    fn views(&mut self, role: &Role, catalog: &Catalog, rights: &Rights<'_>) {
        let name = quoted(&role.name);
        for granted in &rights.granted {
            let Some(outputs) = &granted.view else { continue };
            let view = format!("{name}.{}", quoted(&granted.relation.name));
            // With its reader's rights it shows what they could read anyway; row security holds.
            // What is made from a masked value it can only show with its owner's.
            let made = outputs.iter().any(|output| is_made_from_values(output, granted.relation));
            let invoker = catalog.invoker_views && !made;
            let with = if invoker { " WITH (security_invoker = true)" } else { "" };
            let rights = on_view(granted, outputs, invoker);
            let shown: Vec<String> =
                outputs.iter().map(|one| output(one, granted.relation)).collect();
            let (shown, table) = (shown.join(", "), full(granted.relation));
            self.line(&format!("CREATE VIEW {view}{with} AS SELECT {shown} FROM {table} t;"));
            for one in outputs {
                let Some(left) = left(one, granted.relation) else { continue };
                let (column, left) = (quoted(&one.column.name), literal(&format!("{LEFT}{left}")));
                self.line(&format!("COMMENT ON COLUMN {view}.{column} IS {left};"));
            }
            self.grant(&view, &name, &rights);
        }
    }

    /// What the script does not do, and somebody should look at.
    fn remarks(&mut self, role: &Role, masks: &MaskPlan, catalog: &Catalog, rights: &Rights<'_>) {
        self.line("");
        self.remark(&format!(
            "The role owns nothing: what alters or drops tables fails, approved or not. A caller \
             may SET statement_timeout unless a rule blocks sql.set on setting:statement_timeout. \
             Callers of {} share one role.",
            role.name
        ));
        for mask in masks.masks().iter().map(|applied| &applied.mask) {
            if !mask.unless_groups.is_empty() && !mask.columns.is_empty() {
                let groups = mask.unless_groups.join(", ");
                self.remark(&format!(
                    "Mask {} spares {groups}: with this role they see masked values, too. Give \
                     them a target with another credential.",
                    mask.name
                ));
            }
        }
        for granted in &rights.granted {
            if let Some(why) = granted.no_view {
                let table = full(granted.relation);
                self.remark(&format!("SELECT * FROM {table} fails; no view of it: {why}."));
            }
        }
        if let Some(granted) = rights.granted.iter().find(|granted| granted.view.is_some()) {
            self.remark(&format!(
                "Of tables with masked columns, COPY … FROM, MERGE and TRUNCATE need the schema: \
                 COPY {} (…) FROM …. Their names alone mean the views, which are for SELECT, \
                 INSERT, UPDATE and DELETE.",
                full(granted.relation)
            ));
        }
        for granted in &rights.granted {
            let table = full(granted.relation);
            for rule in &granted.ruled {
                self.remark(&format!(
                    "No {} on {table}: its rule {} gives rows, with the rights of the table's owner.",
                    rule.at.trim_start_matches("sql.").to_uppercase(),
                    quoted(&rule.name)
                ));
            }
            for (trigger, function) in &granted.triggers {
                self.remark(&format!(
                    "The trigger {} on {table} runs {function} with the rights of its owner: see \
                     that it shows and writes nothing that the role may not.",
                    quoted(trigger)
                ));
            }
        }
        for (relation, because) in &rights.refused {
            let table = full(relation);
            match because {
                Because::Rules => self.remark(&format!("Nothing of {table}: rules block it.")),
                Because::Shows(other) => self.remark(&format!(
                    "Nothing of {table}: it shows {}, which rules block.",
                    full(other)
                )),
                Because::Foreign(server) => self.remark(&format!(
                    "Nothing of {table}: its rows come from the server {}, and no mask tells what \
                     they are. Where they may be seen: GRANT SELECT ON {table} TO {};",
                    quoted(server),
                    quoted(&role.name)
                )),
            }
        }
        self.what_everybody_may(catalog, rights);
    }

    /// Rights of `PUBLIC` reach the role. They are others' too, so they are not taken away here.
    fn what_everybody_may(&mut self, catalog: &Catalog, rights: &Rights<'_>) {
        let refused = rights.refused.iter().map(|(relation, _)| *relation);
        let masked = rights.granted.iter().filter(|g| g.view.is_some() || g.no_view.is_some());
        let open: Vec<&Relation> =
            refused.chain(masked.map(|g| g.relation)).filter(|r| r.public).collect();
        let servers = catalog.servers.iter().filter(|(_, mapped, usable)| *mapped || *usable);
        let servers: Vec<_> = servers.collect();
        if open.is_empty()
            && servers.is_empty()
            && catalog.open_schemas.is_empty()
            && catalog.definers.is_empty()
        {
            return;
        }
        self.remark("");
        self.remark(
            "PUBLIC, and so this role, may also do this. Look who needs it, then take it away:",
        );
        for relation in open {
            self.remark(&format!("REVOKE ALL ON {} FROM PUBLIC;", full(relation)));
        }
        for (server, mapped, usable) in servers {
            let server = quoted(server);
            if *mapped {
                self.remark(&format!("DROP USER MAPPING FOR PUBLIC SERVER {server};"));
            }
            if *usable {
                self.remark(&format!("REVOKE USAGE ON FOREIGN SERVER {server} FROM PUBLIC;"));
            }
        }
        for schema in &catalog.open_schemas {
            self.remark(&format!("REVOKE CREATE ON SCHEMA {} FROM PUBLIC;", quoted(schema)));
        }
        for function in &catalog.definers {
            self.remark(&format!("REVOKE EXECUTE ON ROUTINE {function} FROM PUBLIC;"));
        }
    }
}

fn on_itself(granted: &Granted<'_>) -> Vec<String> {
    let whole = |right: &str, given: bool| given.then(|| right.to_owned());
    [
        on_columns("SELECT", &granted.select),
        on_columns("INSERT", &granted.insert),
        on_columns("UPDATE", &granted.update),
        whole("DELETE", granted.delete),
        whole("TRUNCATE", granted.truncate),
        whole("USAGE", granted.usage),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A view with its reader's rights lets through what they have on the table. Others write with
/// their owner's rights, so that the role gets on them what it has on the table, column by column;
/// but not by row security, which the owner may pass by.
fn on_view(granted: &Granted<'_>, outputs: &[Output<'_>], invoker: bool) -> Vec<String> {
    let mut rights = vec!["SELECT".to_owned()];
    if invoker {
        let writes = [
            ("INSERT", granted.insert != Columns::None),
            ("UPDATE", granted.update != Columns::None),
            ("DELETE", granted.delete),
        ];
        rights.extend(writes.iter().filter(|(_, given)| *given).map(|(r, _)| (*r).to_owned()));
    } else if !granted.relation.row_security {
        let plain = || outputs.iter().filter(|output| output.masked.is_none());
        let given = |columns: &Columns<'_>| match columns {
            Columns::None => Columns::None,
            Columns::All => Columns::Some(plain().map(|output| output.column).collect()),
            Columns::Some(columns) => Columns::Some(
                plain().map(|output| output.column).filter(|c| columns.contains(c)).collect(),
            ),
        };
        rights.extend(on_columns("INSERT", &given(&granted.insert)));
        rights.extend(on_columns("UPDATE", &given(&granted.update)));
        rights.extend(granted.delete.then(|| "DELETE".to_owned()));
    }
    rights
}

fn on_columns(right: &str, columns: &Columns<'_>) -> Option<String> {
    match columns {
        Columns::None => None,
        Columns::All => Some(right.to_owned()),
        Columns::Some(columns) if columns.is_empty() => None,
        Columns::Some(columns) => {
            let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
            Some(format!("{right} ({})", names.join(", ")))
        }
    }
}

/// Whether a view shows something that is made from a column's values. Not past row security.
fn is_made_from_values(output: &Output<'_>, relation: &Relation) -> bool {
    let made = |action| !matches!(action, Action::Null | Action::Redact);
    output.masked.is_some_and(made) && !relation.row_security
}

/// What a view leaves of a column's values; `None` where it shows them.
fn left(output: &Output<'_>, relation: &Relation) -> Option<Action> {
    match output.masked? {
        Action::Null => Some(Action::Null),
        action if is_made_from_values(output, relation) => Some(action),
        _ => Some(Action::Redact),
    }
}

fn output(output: &Output<'_>, relation: &Relation) -> String {
    let Column { name, type_name, type_oid, text, .. } = output.column;
    let (name, qualified) = (quoted(name), qualified_type(type_name));
    let of_type =
        OfType { oid: *type_oid, name: qualified.as_deref().unwrap_or(type_name), text: *text };
    let value = format!("t.{name}");
    let shown = match left(output, relation) {
        None => return value,
        Some(left) => of_type.seen(left, &value, true),
    };
    format!("{} AS {name}", shown.unwrap_or_else(|| of_type.redacted()))
}

/// Whether a view calls a function that masks with a key.
fn is_keyed(output: &Output<'_>, relation: &Relation) -> bool {
    is_made_from_values(output, relation) && output.masked.is_some_and(Action::is_keyed)
}

fn full(relation: &Relation) -> String {
    format!("{}.{}", quoted(&relation.schema), quoted(&relation.name))
}

/// A name as SQL takes any name.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal, with `standard_conforming_strings` on or off.
fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::catalog::Column;
    use super::*;
    use crate::decode::sql::{self, LexerSettings};
    use crate::names::Protocol;
    use crate::policy::{Policy, Verdict};

    #[test]
    fn hostile_names_stay_names() {
        let evil = "a\"; DROP TABLE x; --\nDROP TABLE y; $harden$";
        let column = |number, name: &str| Column {
            number,
            name: name.to_owned(),
            type_name: "text".to_owned(),
            type_oid: 25,
            text: true,
        };
        let relation = Relation {
            oid: 1,
            schema: evil.to_owned(),
            name: evil.to_owned(),
            row_security: true,
            public: true,
            columns: vec![column(1, evil), column(2, "email")],
            ..Relation::default()
        };
        let catalog = Catalog {
            path: vec![evil.to_owned()],
            relations: vec![relation],
            open_schemas: vec![evil.to_owned()],
            ..Catalog::default()
        };
        let facts = TargetFacts {
            name: "orders".parse().unwrap(),
            protocol: Protocol::Postgres,
            labels: BTreeMap::new(),
            default: Verdict::Allow,
        };
        let role = Role { name: "agents".to_owned(), statement_timeout: "60s".to_owned() };
        let masked = |_, number| (number == 2).then_some(Action::Redact);
        let policy = Policy::new(String::new());
        for invoker_views in [true, false] {
            let catalog = Catalog { invoker_views, ..catalog.clone() };
            let rights = Rights::new(&catalog, &facts, &policy, masked);
            let script = write(&facts, evil, &MaskPlan::default(), &role, &catalog, &rights);
            let analysis = sql::analyze(&script, LexerSettings::default()).unwrap();
            let effects = analysis.statements.iter().flat_map(|statement| &statement.effects);
            let dropped: Vec<String> = effects
                .filter(|effect| effect.action == "sql.drop")
                .filter_map(|effect| effect.object.as_ref().map(ToString::to_string))
                .collect();
            // The schema of the views, and what is in it.
            assert_eq!(dropped, ["schema:agents", "table:agents.?"], "{script}");
        }
    }
}
