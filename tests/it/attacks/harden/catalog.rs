//! A catalog that cannot be read for a while.

use std::time::{Duration, Instant};

use crate::masking::{MASKS, Masked, SENTINELS};
use crate::support::client::Database;
use crate::support::postgres::wait;
use crate::support::talk::{Talk, query};

/// What was read counts as fresh for ten seconds; a session that changes the catalog ends that.
pub fn a_locked_table_does_not_stop_every_session() {
    let masked = Masked::new(MASKS);
    // It waits for nothing that is locked.
    let rows = "select id, email from people order by id limit 1";
    assert_eq!(masked.says(rows), "1|a***@example.com\n");

    // Somebody locks a table that a masked view reads, past the gateway.
    let Database { name, port, .. } = &masked.database;
    let mut locker = Talk::trusted(([127, 0, 0, 1], *port).into(), "postgres", name);
    locker.ask(&[query("begin; lock table customers in access exclusive mode")]);
    let asks = |wanted: &'static str| {
        let begun = Instant::now();
        let said = masked.says(rows);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(5) && said.contains(wanted), "{took:?}: {said}");
    };
    // What was read last serves.
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| asks("a***@example.com")))));
    // A session that changed the catalog makes it be read again: that fails, and at once for all.
    let changed = masked.says("create table mine (id int); drop table mine");
    assert!(!changed.contains("ERROR"), "{changed}");
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| asks("cannot be read")))));
    // Once it is there again, all goes on.
    locker.ask(&[query("rollback")]);
    wait("the catalog", || masked.says(rows) == "1|a***@example.com\n");
    masked.finish(SENTINELS);
}
