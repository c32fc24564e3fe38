//! Masks at the source on tables of many columns and many partitions.

use super::{Masked, run};
use crate::support::talk::{Talk, bind, bind_as, describe, execute, parse, query, sync};

/// PostgreSQL has 1,600 columns at most.
const COLUMNS: usize = 1_000;
const PARTITIONS: usize = 1_000;

const WIDE: &str = "
do $$ begin
  execute (select 'create table wide (id int primary key, ' || string_agg('c' || n || ' text', ', ') || ')'
    from generate_series(1, 999) n);
  execute (select 'insert into wide select g, ' || string_agg(quote_literal('v' || n || '-') || '|| g', ', ')
    || ' from generate_series(1, 3) g' from generate_series(1, 999) n);
end $$;
update wide set c7 = 'alice.secret', c500 = 'bob.secret', c999 = 'alice.secret';
create table parts (id int, note text, secret text) partition by range (id);
";

const MASKS: &str = "
[[mask]]
name = \"few\"
columns = [\"public.wide.c7\", \"public.wide.c500\", \"public.wide.c999\"]

[[mask]]
name = \"parts\"
columns = [\"public.parts.secret\"]
";

#[test]
fn a_thousand_columns_and_a_thousand_partitions_are_masked() {
    let masked = Masked::new(MASKS);
    let directly = |sql: &str| {
        let (succeeded, said) = run(&masked.database.client(), sql);
        assert!(succeeded, "{said}");
    };
    directly(WIDE);
    let partitions = |from: usize| {
        let made = format!(
            "do $$ begin for n in {from}..{} loop execute format('create table part_%s partition of parts for \
             values from (%s) to (%s)', n, n, n + 1); end loop; end $$",
            from + PARTITIONS / 4 - 1
        );
        directly(&made);
    };
    // Each partition takes a lock until its transaction ends.
    (0..PARTITIONS).step_by(PARTITIONS / 4).for_each(partitions);
    directly("insert into parts select n, 'n' || n, 'alice.secret' from generate_series(0, 999) n");

    let rows = masked.shows_nothing("select * from wide order by id");
    let lines: Vec<Vec<&str>> = rows.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!((lines.len(), lines[0].len()), (3, COLUMNS));
    assert_eq!((lines[2][7], lines[2][8], lines[2][500]), ("[masked]", "v8-3", "[masked]"));
    assert_eq!(masked.shows_nothing("select count(*) from wide where c7 like '%secret%'"), "0\n");
    assert_eq!(
        masked.shows_nothing("copy (select c998, c999 from wide where id = 2) to stdout"),
        "v998-2\t[masked]\n"
    );
    let ten = "select w.c7, x.c8, y.c500 from wide w join wide x using (id) join wide y using (id) where w.id = 1";
    assert_eq!(masked.shows_nothing(ten), "[masked]|v8-1|[masked]\n");

    assert_eq!(masked.shows_nothing("select count(*), min(secret) from parts"), "1000|[masked]\n");
    assert_eq!(masked.shows_nothing("select secret, note from part_77"), "[masked]|n77\n");
    assert_eq!(masked.shows_nothing("select note from parts where secret = 'alice.secret'"), "");
    assert_eq!(masked.shows_nothing("select secret from parts where id = 999"), "[masked]\n");

    let token = masked.gateway.issuer().token("agent");
    let mut talk = Talk::opened(masked.gateway.address(), "agent", "orders", &token);
    let all = "select * from wide where id = $1";
    talk.ask(&[parse("all", all), describe(b'S', "all"), sync()]);
    for id in ["1", "2", "3"] {
        let said = talk.ask(&[bind("", "all", &[id]), execute(""), sync()]).join(" ");
        assert!(said.contains("[masked]") && said.contains(&format!("v998-{id}")), "{said}");
        let said = talk.ask(&[bind_as("", "all", &[id], &[1]), execute(""), sync()]).join(" ");
        assert!(said.contains("[masked]") && said.contains(&format!("v998-{id}")), "{said}");
    }
    let said = talk.ask(&[query(
        "begin; declare c cursor for select c999, c1 from wide order by id; fetch 2 from c; commit",
    )]);
    assert!(said.join(" ").contains("D[[masked]|v1-1]"), "{said:?}");
    masked.finish(&["alice.secret", "bob.secret"]);
}
