//! What the role of a target could do though no rule and no mask would let it.

use crate::config::PostgresTarget;
use crate::protocol::postgres::upstream::{Row, UpstreamError};

use super::{HardenError, ask};

/// What is asked: attributes, predefined roles, and what it owns or its owners let it use.
const QUESTION: &str = "SET search_path = '';
SELECT r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
    EXISTS (SELECT FROM pg_catalog.pg_database d
      WHERE d.datname = pg_catalog.current_database() AND pg_catalog.pg_has_role(d.datdba, 'USAGE'))
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user;
SELECT g.rolname FROM pg_catalog.pg_roles g
  WHERE g.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files',
    'pg_write_server_files', 'pg_execute_server_program') AND pg_catalog.pg_has_role(g.oid, 'MEMBER')
  ORDER BY 1;
SELECT c.oid::pg_catalog.regclass, pg_catalog.count(*) OVER () FROM pg_catalog.pg_class c
  WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND c.oid >= 16384
    AND pg_catalog.pg_has_role(c.relowner, 'USAGE') ORDER BY c.oid LIMIT 1";

/// What the role of a target's credential could do past rules and masks, in words for operators;
/// one line for each power.
pub async fn powers(target: &PostgresTarget, database: &str) -> Result<Vec<String>, HardenError> {
    let mut questions = ask(target, database).await?;
    let asked = questions.rows(QUESTION).await?;
    let [role, member, owned] = asked.as_slice() else {
        return Err(UpstreamError::Protocol("the catalog gave other results".to_owned()).into());
    };
    Ok(in_words(role.first(), member, owned.first()))
}

fn in_words(role: Option<&Row>, member: &[Row], owned: Option<&Row>) -> Vec<String> {
    let text = |row: &Row, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    // A role that is not there any more has no powers.
    let Some(role) = role else { return Vec::new() };
    let name = printable(&text(role, 0));
    let is = |at| text(role, at) == "t";
    if is(1) {
        return vec![format!(
            "the role {name} is a superuser: it reads every table, reads and writes the server's \
             files and runs programs there; {HARDEN}"
        )];
    }
    let mut powers = Vec::new();
    if let Some(owned) = owned {
        let (first, count) = (printable(&text(owned, 0)), text(owned, 1));
        powers.push(format!(
            "the role {name} owns {count} tables and views ({first} …): it could drop and alter \
             them, read their masked columns and give rights on them away; {HARDEN}"
        ));
    }
    for (at, what) in [
        (2, "passes by row security"),
        (3, "makes roles and changes them"),
        (4, "makes databases"),
        (5, "reads everything that is written, as a replica"),
        (6, "owns the database: it could drop schemas and make extensions"),
    ] {
        if is(at) {
            powers.push(format!("the role {name} {what}; {HARDEN}"));
        }
    }
    for member in member {
        powers.push(format!("the role {name} is a member of {}; {HARDEN}", text(member, 0)));
    }
    powers
}

const HARDEN: &str = "`portcullis policy harden` makes one that does not";

/// A foreign name on one line.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Row {
        values.iter().map(|value| Some((*value).to_owned())).collect()
    }

    #[test]
    fn a_role_of_no_powers_is_told_nothing_of() {
        let role = row(&["app", "f", "f", "f", "f", "f", "f"]);
        assert!(in_words(Some(&role), &[], None).is_empty());
    }

    #[test]
    fn each_power_is_told_once() {
        let role = row(&["app", "f", "t", "f", "f", "f", "t"]);
        let told = in_words(Some(&role), &[row(&["pg_read_all_data"])], Some(&row(&["a", "3"])));
        for (line, part) in
            told.iter().zip(["owns 3 tables", "row security", "database", "pg_read"])
        {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(told.len(), 4);
        let superuser = row(&["postgres", "t", "t", "t", "t", "t", "t"]);
        assert_eq!(in_words(Some(&superuser), &[], Some(&row(&["a", "3"]))).len(), 1);
    }
}
