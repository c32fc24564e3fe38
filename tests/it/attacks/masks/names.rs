//! Rows that come by another way than the statement that was asked: rules of the target's, portals
//! and cursors by name, and names that code in the database gave to something else.

use super::refused;
use crate::masking::{MASKS, Masked, SENTINELS, contains, run as psql};
use crate::support::talk::{Talk, bind, close, describe, execute, parse, query, run, sync};

/// Functions of the owner's that open, close and prepare under the names of others.
const FUNCTIONS: &str = "
    create function open_cursor(c refcursor) returns refcursor language plpgsql as
        $$ begin open c for select lower(email) || ssn as x, name from customers; return c; end $$;
    create function swap_cursor(c refcursor) returns int language plpgsql as
        $$ begin close c; open c for select lower(email) as x from customers; return 1; end $$;
    create function swap_early(c refcursor) returns int stable language plpgsql as
        $$ begin close c; open c for select lower(email) as x from customers; return 1; end $$;
    create function swap(t text) returns int language plpgsql as
        $$ begin deallocate p; execute t; return 1; end $$;
    create function swap_and_fail(t text) returns int language plpgsql as
        $$ begin deallocate p; execute t; raise exception 'late'; end $$;
    create function swap_through(t text) returns int language sql as 'select swap(t)';
    create function fetch_one(c refcursor) returns text language plpgsql as
        $$ declare x text; begin fetch c into x; return upper(x); end $$";

const HARMLESS: &str = "select upper(name) as x from customers where id = 1";
const LOOT: &str = "prepare p as select lower(email) as x from customers where id = 1";

impl Masked {
    fn as_owner(&self, sql: &str) {
        let (succeeded, said) = psql(&self.database.client(), sql);
        assert!(succeeded, "{said}");
    }
}

#[track_caller]
fn shows_nothing(talk: &Talk, said: &[String]) {
    for sentinel in SENTINELS {
        assert!(!contains(talk.received(), sentinel), "{said:?}");
        let upper = sentinel.to_uppercase();
        assert!(!contains(talk.received(), &upper), "{said:?}");
    }
}

fn rows(said: &[String]) -> Vec<&String> {
    said.iter().filter(|line| line.starts_with("D[")).collect()
}

#[test]
fn what_a_rule_gives_beside_a_write_is_masked_however_it_is_computed() {
    let masked = Masked::new(MASKS);
    masked.as_owner(
        "create rule shows as on update to orders do also select email, lower(email) as e,
             substr(ssn, 1, 11) as s, ssn || card_number as n, c::text as whole, get_contact(1) as f
             from customers c;
         create table queue (t int);
         create rule shows as on insert to queue do instead select ssn || '' as x from customers;
         create table chained (t int);
         create rule chained as on insert to chained do also insert into queue values (1);
         create view seen as select id, note from orders;
         create rule through as on update to seen do instead
             update orders set note = new.note where id = old.id;
         create table parts (t int) partition by range (t);
         create table part partition of parts for values from (0) to (9);
         create rule shows as on delete to part do also select email || ssn as x from customers;
         create rule shows as on delete to parts do also select ssn || '' as x from customers",
    );
    let mut talk = masked.talk();
    for (sql, gives) in [
        ("update orders set note = 'x' where id = 1", true),
        ("update orders o set note = 'x' where id = 1 returning upper(note)", true),
        ("update seen set note = 'x' where id = 1", true),
        ("insert into queue values (1)", true),
        ("insert into chained values (1)", true),
        ("delete from parts", true),
        ("delete from part", true),
        ("prepare w as update orders set note = 'y' where id = 2; execute w", true),
        ("explain (analyze, verbose, costs off) update orders set note = '' where id = 1", true),
        // Not even PostgreSQL gives these.
        ("with u as (update orders set note = 'x' returning id) select * from u", false),
        ("do $$ begin update orders set note = 'x' where id = 1; end $$", false),
    ] {
        for messages in [[query(sql), Vec::new()], [run(sql), sync()]] {
            let simple = messages[1].is_empty();
            let said = talk.ask(&messages);
            shows_nothing(&talk, &said);
            assert!(!simple || !gives || !rows(&said).is_empty(), "{sql}\n{said:?}");
        }
    }
    // And one that the session makes itself, of what nobody looks into, at once and later.
    let made = "create rule more as on insert to vendors do also select get_contact(1) as x";
    for texts in
        [[made, "insert into vendors values (7)"], ["begin", "insert into vendors values (8)"]]
    {
        let said: Vec<String> = texts.iter().flat_map(|sql| talk.ask(&[query(sql)])).collect();
        shows_nothing(&talk, &said);
    }
    masked.finish(SENTINELS);
}

#[test]
fn a_portal_shows_what_its_statement_does_whoever_fetches_from_it() {
    let hashed = "[[mask]]\nname = \"cards\"\ncolumns = [\"*.card_number\"]\nwith = \"hash\"\n\
        [[mask]]\nname = \"more\"\ncolumns = [\"*.ssn\", \"*.email\"]\n";
    let output = format!("[policy]\nenforce = \"output\"\n{MASKS}");
    for policy in [MASKS, hashed, &output] {
        let masked = Masked::new(policy);
        masked.as_owner(FUNCTIONS);
        for (select, fetching) in [
            ("select card_number, email from customers", "fetch all from p"),
            ("select card_number from customers", "select fetch_one('p')"),
            ("select lower(email) || ssn, name from customers", "fetch all from p"),
            ("select c from customers c", "fetch all from p"),
            ("select card_number from customers", "fetch forward 2 in p"),
        ] {
            let mut talk = masked.talk();
            talk.ask(&[query("begin")]);
            talk.ask(&[parse("s", select), bind("p", "s", &[]), sync()]);
            let said = talk.ask(&[query(fetching)]);
            shows_nothing(&talk, &said);
            assert!(!rows(&said).is_empty() || refused(&said), "{select}\n{said:?}");
            let said = talk.ask(&[run(fetching), execute("p"), sync()]);
            shows_nothing(&talk, &said);
        }
        masked.finish(SENTINELS);
    }
}

#[test]
fn a_cursor_that_a_function_opened_shows_nothing_masked() {
    let masked = Masked::new(MASKS);
    masked.as_owner(FUNCTIONS);
    let mut talk = masked.talk();
    talk.ask(&[query("begin; select open_cursor('cc')")]);
    let said = talk.ask(&[query("fetch 1 from cc")]);
    assert!(refused(&said), "a name that is not known: {said:?}");
    talk.ask(&[query("rollback; begin; select open_cursor('cc')")]);
    let said = talk.ask(&[describe(b'P', "cc"), execute("cc"), sync()]);
    assert!(refused(&said), "{said:?}");
    talk.ask(&[query("rollback; begin; select open_cursor('cc')")]);
    let said = talk.ask(&[run("fetch all from cc"), sync()]);
    assert!(refused(&said), "{said:?}");
    shows_nothing(&talk, &said);
    // Where the rules let it pass, it is masked as far as nobody knows what it is.
    let masked = Masked::new(&format!("[policy]\nunparsed = \"allow\"\n{MASKS}"));
    masked.as_owner(FUNCTIONS);
    let mut talk = masked.talk();
    talk.ask(&[query("begin; select open_cursor('cc')")]);
    let said = talk.ask(&[query("fetch 1 from cc")]);
    assert_eq!(rows(&said), ["D[[masked]|Alice]"], "{said:?}");
    let said = talk.ask(&[describe(b'P', "cc"), execute("cc"), sync()]);
    assert!(!rows(&said).is_empty(), "{said:?}");
    shows_nothing(&talk, &said);
    masked.finish(SENTINELS);
}

#[test]
fn a_cursor_that_a_function_opened_anew_is_another() {
    let masked = Masked::new(MASKS);
    masked.as_owner(FUNCTIONS);
    for swapping in ["select swap_cursor('c')", "select swap_early('c')", "call_it"] {
        let swapping = match swapping {
            "call_it" => "do $$ begin perform swap_cursor('c'); end $$",
            other => other,
        };
        let mut talk = masked.talk();
        // SQL's own cursor.
        talk.ask(&[query(&format!("begin; declare c cursor for {HARMLESS}"))]);
        let swapped = talk.ask(&[query(swapping)]);
        let said = talk.ask(&[query("fetch all from c")]);
        shows_nothing(&talk, &said);
        assert!(!rows(&said).is_empty() || refused(&swapped), "{swapping}\n{said:?}");
        talk.ask(&[query("rollback")]);
        // The protocol's portal, described before, in steps and at once.
        let made = [parse("s", HARMLESS), bind("c", "s", &[]), describe(b'P', "c")];
        let fetched = [describe(b'P', "c"), execute("c"), sync()];
        talk.ask(&[query("begin"), made.concat(), sync()]);
        talk.ask(&[run(swapping), sync()]);
        let said = talk.ask(&fetched[1..]);
        shows_nothing(&talk, &said);
        talk.ask(&[query("rollback")]);
        talk.ask(&[close(b'S', "s"), sync()]);
        let said = talk.ask(&[query("begin"), made.concat(), run(swapping), fetched.concat()]);
        shows_nothing(&talk, &said);
        talk.ask(&[query("rollback")]);
    }
    // Planning is enough.
    let mut talk = masked.talk();
    talk.ask(&[query(&format!("begin; declare c cursor for {HARMLESS}"))]);
    let planned = parse("", "select 1 where swap_early('c') = 1");
    talk.ask(&[planned, bind("", "", &[]), sync()]);
    let said = talk.ask(&[query("fetch all from c")]);
    shows_nothing(&talk, &said);
    masked.finish(SENTINELS);
}

#[test]
fn a_statement_that_a_function_prepared_anew_is_another() {
    let masked = Masked::new(MASKS);
    masked.as_owner(FUNCTIONS);
    for function in ["swap", "swap_and_fail", "swap_through", "do"] {
        let swapping = match function {
            "do" => format!("do $$ begin deallocate p; execute '{LOOT}'; end $$"),
            function => format!("select {function}('{LOOT}')"),
        };
        for made in [
            query(&format!("prepare p as {HARMLESS}")),
            [parse("p", HARMLESS), describe(b'S', "p"), sync()].concat(),
        ] {
            let uses: [&[Vec<u8>]; 7] = [
                &[query("execute p")],
                &[run("execute p"), sync()],
                &[bind("", "p", &[]), execute(""), sync()],
                &[bind("c", "p", &[]), describe(b'P', "c"), execute("c"), sync()],
                &[query(
                    "begin; create temp table loot as execute p; select x from loot; rollback",
                )],
                &[query("explain (analyze, verbose, costs off) execute p")],
                &[query("begin"), bind("c", "p", &[]), sync(), query("fetch all from c; rollback")],
            ];
            for using in uses {
                let mut talk = masked.talk();
                let mut said = talk.ask(std::slice::from_ref(&made));
                said.extend(talk.ask(&[query(&swapping)]));
                said.extend(talk.ask(using));
                shows_nothing(&talk, &said);
                // All at once.
                let mut talk = masked.talk();
                let said = talk.ask(&[made.clone(), run(&swapping), sync(), using.concat()]);
                shows_nothing(&talk, &said);
                let mut talk = masked.talk();
                let said = talk.ask(&[made.clone(), query(&swapping), using.concat()]);
                shows_nothing(&talk, &said);
            }
        }
    }
    let mut talk = masked.talk();
    let text = format!("prepare p as {HARMLESS}; select swap('{LOOT}'); execute p");
    let said = talk.ask(&[query(&text)]);
    shows_nothing(&talk, &said);
    masked.finish(SENTINELS);
}

#[test]
fn names_that_nothing_could_have_changed_stay_known() {
    let masked = Masked::new(MASKS);
    masked.as_owner(FUNCTIONS);
    let mut talk = masked.talk();
    let all = "D[ALICE]".to_owned();
    talk.ask(&[query(&format!("prepare p as {HARMLESS}"))]);
    // Functions whose code is known, and those that read masked columns but prepare nothing.
    let said = talk.ask(&[query("select total(1), get_contact(1); execute p")]);
    assert!(said.contains(&all), "{said:?}");
    // In doubt, until it is made again.
    talk.ask(&[query(&format!("select swap('prepare p as {HARMLESS}')"))]);
    let said = talk.ask(&[query("execute p")]);
    assert!(said.contains(&"D[[masked]]".to_owned()), "{said:?}");
    let said = talk.ask(&[query(&format!("deallocate p; prepare p as {HARMLESS}; execute p"))]);
    assert!(said.contains(&"D[[masked]]".to_owned()) || said.contains(&all), "{said:?}");
    talk.ask(&[query(&format!("deallocate p; prepare p as {HARMLESS}"))]);
    let said = talk.ask(&[query("execute p")]);
    assert!(said.contains(&all), "{said:?}");
    // The unnamed statement is out of reach.
    talk.ask(&[parse("", HARMLESS), sync()]);
    talk.ask(&[parse("s", "select swap('select 1')"), bind("", "s", &[]), execute(""), sync()]);
    let said = talk.ask(&[bind("", "", &[]), execute(""), sync()]);
    assert!(said.contains(&all), "{said:?}");
    masked.finish(SENTINELS);
}

#[test]
fn locks_samples_and_plans_of_a_masked_table() {
    let masked = Masked::new(MASKS);
    for (sql, expected) in [
        (
            "select id, email, ssn from customers where id = 1 for update",
            "1|a***@example.com|[masked]",
        ),
        ("select ssn || '' from customers c where id = 1 for no key update of c", "[masked]"),
        (
            "select lower(email) from only customers where id = 1 for share skip locked",
            "a***@example.com",
        ),
        ("select upper(ssn) from customers where id = 1 for key share nowait", "[MASKED]"),
    ] {
        assert_eq!(masked.shows_nothing(sql).trim_end(), expected, "{sql}");
    }
    // The rows that are given are locked, and no others.
    let (mut one, mut other) = (masked.talk(), masked.talk());
    one.ask(&[query("begin; select ssn from customers where id = 1 for update")]);
    let said = other.ask(&[query("select id from customers order by id for update skip locked")]);
    assert_eq!(rows(&said), ["D[2]", "D[50]"], "{said:?}");
    drop(one);
    for sql in [
        "select id from customers tablesample system (100)",
        "select upper(ssn) from customers c tablesample bernoulli (100) repeatable (1) where id = 1",
        "select name from vendors, people tablesample system (100)",
        "explain analyze select ssn from customers tablesample system (100)",
        "begin; declare c cursor for select ssn from customers tablesample system (100)",
    ] {
        let said = masked.shows_nothing(sql);
        assert!(said.contains("a sample of a table with masked columns is taken"), "{sql}\n{said}");
    }
    for sql in [
        "explain (analyze, verbose, costs off) select * from customers where ssn > '0'",
        "explain (analyze, verbose) select ssn, count(*) from customers group by ssn order by max(email)",
        "explain (analyze, verbose, format json) select * from customers c join people p using (email)",
        "explain (analyze, verbose, buffers, wal, format xml) update orders set note = c.ssn from customers c where c.id = customer_id",
        "explain (verbose, generic_plan) select email from customers where id = $1",
        "explain (analyze, verbose) select * from v_upper where shout like 'A%'",
        "explain (analyze, verbose, settings) execute q",
        "set auto_explain.log_analyze = on",
    ] {
        masked.shows_nothing(sql);
    }
    let said = masked.shows_nothing("explain (analyze, verbose, costs off, timing off, summary off) select ssn, name from customers where id = 2");
    assert!(said.contains("masked") && !said.contains("ERROR"), "{said}");
    masked.finish(SENTINELS);
}
