//! What a text becomes before it goes to the server.

mod properties;

use std::collections::HashMap;
use std::sync::Arc;

use portcullis::decode::sql::LexerSettings;
use portcullis::decode::sql::rewrite::{
    MaskedColumn, MaskedRelation, Refusal, Relations, Resolved, Shown, rewrite,
};

struct Known(HashMap<&'static str, Arc<MaskedRelation>>);

impl Relations for Known {
    fn relation(&self, schema: Option<&str>, name: &str) -> Resolved {
        if schema.is_some_and(|schema| schema != "public") {
            return Resolved::Clear;
        }
        match (self.0.get(name), name) {
            (Some(relation), _) => Resolved::Masked(Arc::clone(relation)),
            (None, "twice") => Resolved::Unclear,
            (None, _) => Resolved::Clear,
        }
    }

    fn is_opaque(&self, _: Option<&str>, name: &str) -> bool {
        name == "opaque"
    }
}

fn column(name: &str, shown: Shown) -> MaskedColumn {
    MaskedColumn {
        name: name.to_owned(),
        null: "NULL::pg_catalog.text".to_owned(),
        shown,
        readable: true,
        generated: false,
        key: name == "id",
        groupable: true,
    }
}

fn known() -> Known {
    let masked = || Shown::Masked("'[masked]'::pg_catalog.text".to_owned());
    let customers =
        [column("id", Shown::Clear), column("name", Shown::Clear), column("ssn", masked())];
    let hashed = [column("id", Shown::Clear), column("token", Shown::AtOutput)];
    let relation = |columns: &[MaskedColumn]| Arc::new(MaskedRelation::new(columns, true).unwrap());
    Known(HashMap::from([("customers", relation(&customers)), ("hashed", relation(&hashed))]))
}

fn sent(sql: &str) -> String {
    match rewrite(sql, LexerSettings::default(), &known()) {
        Ok(None) => "unchanged".to_owned(),
        Ok(Some(rewritten)) => rewritten.text,
        Err(Refusal(reason)) => format!("refused: {reason}"),
    }
}

const SUBQUERY: &str =
    r#"(SELECT "id", "name", '[masked]'::pg_catalog.text AS "ssn" FROM customers)"#;

#[test]
fn relations_are_replaced_wherever_they_are_read() {
    for (sql, with) in [
        ("SELECT * FROM customers", "SELECT * FROM {} \"customers\""),
        ("SELECT c.ssn FROM customers c (a, b)", "SELECT c.ssn FROM {} c (a, b)"),
        ("TABLE customers", "SELECT * FROM {} \"customers\""),
        (
            "WITH customers AS (SELECT * FROM customers) SELECT * FROM customers",
            "WITH customers AS (SELECT * FROM {} \"customers\") SELECT * FROM customers",
        ),
        ("SELECT 1 FROM orders WHERE EXISTS (SELECT FROM customers)", "{} \"customers\""),
        ("SELECT 1 UNION SELECT 2 FROM customers", "{} \"customers\""),
        ("DELETE FROM orders USING customers c WHERE c.id = orders.id", "{} c"),
        ("EXPLAIN SELECT * FROM customers JOIN orders USING (id)", "{} \"customers\" JOIN orders"),
        (
            "PREPARE p (int) AS SELECT * FROM customers WHERE id = $1",
            "{} \"customers\" WHERE id = $1",
        ),
        (
            "COPY customers (ssn, id) TO STDOUT (FORMAT csv)",
            "'[masked]'::pg_catalog.text AS \"ssn\", \"id\" FROM ONLY customers) TO STDOUT",
        ),
        ("CREATE TABLE t AS SELECT ssn FROM customers", "{} \"customers\""),
        ("INSERT INTO t SELECT ssn FROM customers", "{} \"customers\""),
        (
            "SELECT c.id, c.name FROM customers c GROUP BY c.id",
            "{} c GROUP BY c.id, \"c\".\"name\"",
        ),
        ("SELECT ctid FROM customers", "AS \"ssn\", \"ctid\" FROM customers) \"customers\""),
        (
            "SELECT public.customers.ssn FROM customers",
            "SELECT customers.ssn FROM {} \"customers\"",
        ),
        (
            "SELECT 1 FROM ONLY (customers) x, customers * y",
            "FROM ONLY (customers)) x, (SELECT \"id\", ",
        ),
        ("MERGE INTO t USING customers c ON c.id = t.id WHEN MATCHED THEN DELETE", "USING {} c"),
        (
            "UPDATE customers SET ssn = (SELECT ssn FROM customers c LIMIT 1) WHERE id = 1",
            "(SELECT ssn FROM {} c LIMIT 1)",
        ),
    ] {
        let expected = with.replace("{}", SUBQUERY);
        let found = sent(sql);
        assert!(found.contains(&expected), "{sql}\n{found}\n{expected}");
    }
}

#[test]
fn what_reads_nothing_masked_is_left_alone() {
    for sql in [
        "SELECT 1",
        "WITH customers AS (SELECT 1) SELECT * FROM customers",
        "SELECT * FROM other.customers",
        "INSERT INTO customers (ssn) VALUES ('x') RETURNING id",
        "UPDATE customers SET ssn = $1 WHERE id = 2",
        "UPDATE hashed SET id = 1 RETURNING *",
        "DELETE FROM customers c USING orders o WHERE c.id = o.id RETURNING *",
        "ALTER TABLE orders RENAME TO x",
        "SELECT opaque(1)",
        "SELECT * FROM opaque(1)",
        "SELECT token FROM hashed ORDER BY id",
        "SELECT id FROM hashed GROUP BY id",
    ] {
        assert_eq!(sent(sql), "unchanged", "{sql}");
    }
}

#[test]
fn what_cannot_be_masked_is_refused() {
    for sql in [
        "CREATE VIEW v AS SELECT ssn FROM customers",
        "CREATE MATERIALIZED VIEW v AS SELECT ssn FROM customers",
        "CREATE RULE r AS ON INSERT TO t DO ALSO SELECT ssn FROM customers",
        "CREATE RULE r AS ON UPDATE TO customers DO ALSO INSERT INTO t VALUES (old.ssn)",
        "ALTER TABLE customers RENAME TO x",
        "ALTER TABLE customers RENAME COLUMN ssn TO x",
        "ALTER TABLE customers SET SCHEMA x",
        "ALTER TABLE customers INHERIT t",
        "ALTER TABLE t ATTACH PARTITION customers FOR VALUES IN (1)",
        "UPDATE customers SET name = ssn",
        "UPDATE customers c SET name = c.ssn",
        "UPDATE customers SET name = 'x' WHERE ssn LIKE '7%'",
        "UPDATE customers SET name = customers::text",
        "DELETE FROM customers WHERE ssn = 'x'",
        "DELETE FROM customers WHERE id IN (SELECT 1 WHERE ssn > '5')",
        "INSERT INTO customers (id) VALUES (1) ON CONFLICT (ssn) DO NOTHING",
        "INSERT INTO customers (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET name = customers.ssn",
        "MERGE INTO customers c USING t ON c.ssn = t.x WHEN MATCHED THEN DELETE",
        "UPDATE customers SET id = 1 RETURNING ssn || ''",
        "SELECT * FROM twice",
        "SELECT upper(opaque(1))",
        "SELECT 1 WHERE opaque(1) = '7'",
        "SELECT 1 FROM opaque(1) f WHERE f = '7'",
        "INSERT INTO t SELECT opaque(1)",
        "SELECT ts_stat('select 1') || ''",
        "SELECT upper(token) FROM hashed",
        "SELECT DISTINCT token FROM hashed",
        "SELECT token x FROM hashed ORDER BY x",
        "SELECT token FROM hashed ORDER BY 1",
        "SELECT id FROM hashed WHERE token = 'x'",
        "SELECT * FROM (SELECT token FROM hashed) x",
        "DECLARE c CURSOR FOR SELECT token FROM hashed",
        "DECLARE c CURSOR FOR SELECT opaque(1)",
        "INSERT INTO t SELECT token FROM hashed",
        "UPDATE t SET a = token FROM hashed",
        "SELECT public.customers.ssn FROM customers, (SELECT 1) x (a), orders AS customers",
        "SELECT ctid, * FROM customers",
        "SELECT id FROM customers TABLESAMPLE system (1)",
        "ALTER TABLE customers ALTER COLUMN name TYPE text USING ssn",
        "ALTER TABLE customers ADD CHECK (ssn LIKE '7%')",
        "ALTER TABLE customers ADD COLUMN x text GENERATED ALWAYS AS (ssn || '') STORED",
        // Names that are found outside of the query that they stand in.
        "UPDATE customers SET name = (SELECT x FROM (SELECT ssn) s (x), customers LIMIT 1)",
        "UPDATE customers SET name = (WITH w (x) AS (SELECT ssn) SELECT x FROM w, customers)",
        "WITH customers AS (SELECT 1 AS x) UPDATE public.customers SET name = (SELECT ssn FROM customers)",
        "UPDATE customers SET name = (SELECT j.x FROM (customers CROSS JOIN t) j (x) WHERE ssn = 'x')",
    ] {
        assert!(sent(sql).starts_with("refused"), "{sql}\n{}", sent(sql));
    }
}

#[test]
fn what_a_write_returns_inside_a_query_is_masked() {
    let found =
        sent("WITH u AS (UPDATE customers SET id = 1 RETURNING ssn) SELECT ssn || '' FROM u");
    assert!(found.contains("RETURNING '[masked]'::pg_catalog.text AS \"ssn\")"), "{found}");
    let found = sent("UPDATE customers SET id = 1 RETURNING ssn x, customers.*");
    let list = r#"RETURNING '[masked]'::pg_catalog.text x, "customers"."id", "customers"."name", "#;
    assert!(found.contains(list), "{found}");
    let found = sent("WITH u AS (DELETE FROM customers c RETURNING *) SELECT * FROM u");
    assert!(
        found.contains(
            "RETURNING \"c\".\"id\", \"c\".\"name\", '[masked]'::pg_catalog.text AS \"ssn\")"
        ),
        "{found}"
    );
}

#[test]
fn positions_are_those_of_the_clients_text() {
    let sql = "SELECT é, missing FROM customers";
    let rewritten = rewrite(sql, LexerSettings::default(), &known()).unwrap().unwrap();
    let sent = rewritten.text.chars().position(|c| c == 'm').unwrap() + 1;
    assert_eq!(rewritten.position(sql, sent), Some(11));
}
