//! The SQL of a role. Names come from a foreign catalog: each is quoted, and what stands in a
//! comment stays on its line.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::mask::{Action, MaskPlan, REDACTED};
use crate::policy::TargetFacts;

use super::Role;
use super::catalog::{Catalog, Kind, Relation};
use super::rights::{Because, Columns, Granted, Output, Rights};

/// What marks a schema as one that may be dropped and made anew.
const MARK: &str = "made by portcullis policy harden";

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
    script.views(role, catalog, rights);
    script.line("COMMIT;");
    script.remarks(role, masks, catalog, rights);
    script.0
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
            let with = if catalog.invoker_views { " WITH (security_invoker = true)" } else { "" };
            let outputs: Vec<String> = outputs.iter().map(output).collect();
            let (outputs, table) = (outputs.join(", "), full(granted.relation));
            self.line(&format!("CREATE VIEW {view}{with} AS SELECT {outputs} FROM {table} t;"));
            self.grant(&view, &name, &on_view(granted, catalog));
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
        for (relation, because) in &rights.refused {
            let table = full(relation);
            match because {
                Because::Rules => self.remark(&format!("Nothing of {table}: rules block it.")),
                Because::Shows(other) => self.remark(&format!(
                    "Nothing of {table}: it shows {}, which rules block.",
                    full(other)
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
        if open.is_empty() && catalog.open_schemas.is_empty() && catalog.definers.is_empty() {
            return;
        }
        self.remark("");
        self.remark(
            "PUBLIC, and so this role, may also do this. Look who needs it, then take it away:",
        );
        for relation in open {
            self.remark(&format!("REVOKE ALL ON {} FROM PUBLIC;", full(relation)));
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

/// A view with its reader's rights lets through what they have on the table. Others are for
/// reading, for they write with their owner's.
fn on_view(granted: &Granted<'_>, catalog: &Catalog) -> Vec<String> {
    let mut rights = vec!["SELECT".to_owned()];
    if catalog.invoker_views {
        let writes = [
            ("INSERT", granted.insert != Columns::None),
            ("UPDATE", granted.update != Columns::None),
            ("DELETE", granted.delete),
        ];
        rights.extend(writes.iter().filter(|(_, given)| *given).map(|(r, _)| (*r).to_owned()));
    }
    rights
}

fn on_columns(right: &str, columns: &Columns<'_>) -> Option<String> {
    match columns {
        Columns::None => None,
        Columns::All => Some(right.to_owned()),
        Columns::Some(columns) => {
            let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
            Some(format!("{right} ({})", names.join(", ")))
        }
    }
}

fn output(output: &Output<'_>) -> String {
    let (name, type_name) = (quoted(&output.column.name), &output.column.type_name);
    match output.masked {
        None => format!("t.{name}"),
        Some(action) if output.column.text && action != Action::Null => {
            format!("{}::{type_name} AS {name}", literal(REDACTED))
        }
        Some(_) => format!("NULL::{type_name} AS {name}"),
    }
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
