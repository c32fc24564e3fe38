//! Texts that cost a parser its stack, its memory or its afternoon get an answer, and soon.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis::decode::sql::{LexerSettings, Unparsed, Withhold, analyze, view};

/// How long an answer may take here: a debug build, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(20);

/// Ways to nest and to repeat: before the middle, the middle, after it.
const SHAPES: &[(&str, &str, &str)] = &[
    ("(", "1", ")"),
    ("NOT ", "true", ""),
    ("", "true", " AND true"),
    ("", "true", " OR true"),
    ("", "1", "+1"),
    ("", "'a'", "||'a'"),
    ("- ", "1", ""),
    ("+ ", "1", ""),
    ("+", "1", ""),
    ("@", "1", ""),
    ("+/*", "1", "*/"),
    ("(SELECT ", "1", ")"),
    ("ARRAY[", "1", "]"),
    ("[", "1", "]"),
    ("f(", "1", ")"),
    ("/*", "", "*/ 1"),
    ("/**/", "1", ""),
    ("--\n", "1", ""),
    ("CASE WHEN true THEN ", "1", " END"),
    ("", "1", "::int"),
    ("", "a", ".a"),
    ("", "a", "[1]"),
    ("", "1", ",1"),
    ("U&'a',", "1", ""),
    ("U&\"a\",", "1", ""),
    ("", "'a'", "\n'a'"),
    ("", "'", "''"),
    ("$a", "$$", "$a"),
    ("$", "", "$"),
    ("", "1", " UNION SELECT 1"),
    ("", "1", " COLLATE \"C\""),
    ("", "1", " IS NULL"),
    ("", "1 FROM a", ",a"),
    ("", "1 FROM a", " JOIN a USING (a)"),
    ("", "1 FROM a", " CROSS JOIN a"),
    ("a,", "1 FROM a", ",a"),
    ("f(),", "1", ""),
    ("", "1; SELECT 1", ";SELECT 1"),
    ("a ", "", ""),
    ("\"", "a", "\""),
    ("E'\\", "'", "\\"),
    ("{", "", "}"),
    ("\u{e4}", "", "\u{1f980}"),
];

fn soon(sql: String) -> Result<usize, Unparsed> {
    let started = Instant::now();
    // As much stack as a thread of the runtime has.
    let small = thread::Builder::new().stack_size(2 << 20);
    let (answer, view) = small
        .spawn(move || {
            let settings = LexerSettings::default();
            let found = analyze(&sql, settings);
            let shown = view(&sql, settings, found.as_ref().map_err(|r| *r), Withhold::Literals);
            (found.map(|found| found.effects().count()), shown.len())
        })
        .unwrap()
        .join()
        .unwrap();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    assert!(view > 0);
    answer
}

#[test]
fn nesting_and_repetition_of_any_length_get_an_answer() {
    for (before, middle, after) in SHAPES {
        for times in [50, 1_000, 20_000] {
            let (head, tail) = (before.repeat(times), after.repeat(times));
            let _ = soon(format!("SELECT {head}{middle}{tail}"));
        }
    }
}

/// Up to some nesting a text is taken apart on the thread that asks, whatever nests there.
#[test]
fn what_is_taken_apart_where_it_is_asked_for_fits_a_small_stack() {
    for (before, middle, after) in SHAPES {
        for times in [5, 10, 15, 20, 25, 29, 30, 31, 40, 58, 60, 61] {
            let (head, tail) = (before.repeat(times), after.repeat(times));
            let _ = soon(format!("SELECT {head}{middle}{tail}"));
        }
    }
    for repeated in [" UNION SELECT 1, 2", " EXCEPT SELECT 1, a, b FROM a, b"] {
        for times in [10, 50, 60, 100, 500] {
            let _ = soon(format!("SELECT 1, 2{}", repeated.repeat(times)));
        }
    }
    let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; ";
    for times in [5, 20, 60, 200] {
        let _ = soon(format!("{}SELECT 1; {}", body.repeat(times), "END; ".repeat(times)));
    }
}

#[test]
fn what_is_nested_as_deep_as_postgresql_takes_it_is_understood() {
    for (times, shape) in [
        (12, ("(SELECT ", "1", ")")),
        // As deep as a parser without optimisation has stack for.
        (200, ("(SELECT ", "1", ")")),
        (1_000, ("(", "1", ")")),
        (700, ("f(", "1", ")")),
        (40, ("", "1", "||a")),
        (700, ("", "1", "||a")),
        (1_200, ("", "1", " UNION ALL SELECT 1, 2")),
        (600, ("", "1 FROM a", " JOIN a USING (a)")),
    ] {
        let (before, middle, after) = shape;
        let sql = format!("SELECT {}{middle}{}", before.repeat(times), after.repeat(times));
        assert!(soon(sql.clone()).is_ok(), "{sql}");
    }
    assert!(soon(format!("SELECT 1{}", " OR a = 1".repeat(5_000))).is_ok());
    assert!(soon(format!("SELECT $1 IN ($1{})", ",$1".repeat(65_534))).is_ok());
    assert!(soon(format!("SELECT '{}'", "x".repeat(10_000_000))).is_ok());
    assert!(soon(format!("SELECT 1 /*{}*/", "*".repeat(3_000))).is_ok());
    let rows = format!("INSERT INTO t VALUES (1, 'a'){}", ", (1, 'a')".repeat(10_000));
    assert!(soon(rows).is_ok());
}

#[test]
fn what_costs_too_much_is_refused_before_the_grammar_sees_it() {
    let long = "x".repeat(17 << 20);
    assert_eq!(soon(format!("SELECT '{long}'")), Err(Unparsed::TooLong));
    assert_eq!(soon(long), Err(Unparsed::TooLong));
    for (head, repeated, tail) in [
        ("SELECT 1", ",1", ""),
        ("SELECT ", "/*", ""),
        ("SELECT ", "+", "1"),
        ("SELECT ", "/**/", "1"),
    ] {
        let sql = format!("{head}{}{tail}", repeated.repeat(200_000));
        assert_eq!(soon(sql), Err(Unparsed::TooComplex), "{repeated}");
    }
    // The tree holds the query once for each column.
    let columns = format!("a{}", ",a".repeat(10_000));
    let query = format!("SELECT 1{}", ",1".repeat(10_000));
    for sql in [
        format!("UPDATE t SET ({columns}) = ({query})"),
        format!("UPDATE t SET b = 1, ({columns}) /* c */ = ({query})"),
        format!("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET ({columns}) = ({query})"),
    ] {
        assert_eq!(soon(sql), Err(Unparsed::TooComplex));
    }
    // What a walk would multiply.
    let names = |name: &str| -> String { (0..20_000).map(|n| format!("{name}{n},")).collect() };
    for sql in [
        format!("GRANT SELECT ON {} t TO {} r", names("t"), names("r")),
        format!("SELECT {} x FROM {} t", names("c"), names("t")),
        format!("SELECT {} x FROM {} t", names("a.c"), names("t")),
    ] {
        assert_eq!(soon(sql), Err(Unparsed::TooComplex));
    }
    let deep = format!("SELECT {}1{}", "(".repeat(15_000), ")".repeat(15_000));
    assert_eq!(soon(deep), Err(Unparsed::TooDeep));
    assert_eq!(soon(format!("SELECT 1{}", "+1".repeat(20_000))), Err(Unparsed::TooDeep));
}

/// Parsing is not to touch the process's standard error, which belongs to the log.
#[test]
fn standard_error_stays_where_it_is_while_threads_parse() {
    let link = Path::new("/proc/self/fd/2");
    if !link.exists() {
        return;
    }
    let before = link.read_link().unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = analyze("SELECT 1 + ; x", LexerSettings::default());
                }
            });
        }
        for _ in 0..20_000 {
            let now = link.read_link().unwrap();
            if now != before {
                stop.store(true, Ordering::Relaxed);
                panic!("standard error is {now:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}
