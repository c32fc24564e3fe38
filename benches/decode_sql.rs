//! What analysing a statement costs: the first time, remembered, and its view without literals.
//!
//! `cargo bench --bench decode_sql` prints a table; figures are the best of several rounds.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark says what it finds"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use portcullis::decode::sql::{Analyzer, LexerSettings, Withhold, analyze, view};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(100);

/// Nanoseconds a call.
fn cost<T>(mut call: impl FnMut() -> T) -> f64 {
    let round = || {
        let (started, mut calls) = (Instant::now(), 0_u32);
        while started.elapsed() < ROUND {
            for _ in 0..16 {
                black_box(call());
            }
            calls += 16;
        }
        started.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    std::iter::repeat_with(round).take(ROUNDS).fold(f64::INFINITY, f64::min)
}

fn main() {
    let settings = LexerSettings::default();
    let report = format!(
        "SELECT c.name, {} FROM customers c {} WHERE c.id IN (SELECT customer_id FROM returns) \
         GROUP BY c.name ORDER BY 2",
        (0..12).map(|n| format!("sum(t{n}.total) AS t{n}")).collect::<Vec<_>>().join(", "),
        (0..12)
            .map(|n| format!("JOIN orders_{n} t{n} ON t{n}.customer_id = c.id"))
            .collect::<Vec<_>>()
            .join(" "),
    );
    let rows = format!("INSERT INTO t VALUES (1, 'a'){}", ", (2, 'b')".repeat(999));
    let statements = [
        ("SELECT 1", "SELECT 1"),
        ("by key", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711"),
        ("update", "UPDATE pgbench_accounts SET abalance = abalance + -12 WHERE aid = 4711"),
        (
            "insert",
            "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 2, 3, 4, CURRENT_TIMESTAMP)",
        ),
        ("13 joins", &report),
        ("1000 rows", &rows),
    ];
    println!(
        "{:<12} {:>8} {:>12} {:>12} {:>12}",
        "statement", "bytes", "first, us", "again, ns", "view, us"
    );
    for (name, sql) in statements {
        let analyzer = Analyzer::new(1 << 20);
        let found = analyze(sql, settings).unwrap();
        let first = cost(|| analyze(sql, settings));
        let again = cost(|| analyzer.read(sql, settings));
        let shown = cost(|| view(sql, settings, Ok(&found), Withhold::Literals));
        println!(
            "{name:<12} {:>8} {:>12.1} {again:>12.0} {:>12.2}",
            sql.len(),
            first / 1e3,
            shown / 1e3
        );
    }
}
