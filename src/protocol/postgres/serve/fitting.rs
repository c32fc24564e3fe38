//! Which recorded run a statement is: the same text, with the same values as far as they are told.

use serde_json::Value;

use super::tape::{Run, Tape, trimmed};
use crate::decode::postgres::command;

/// Those of some runs that had these values, and whether they had them exactly or as far as is
/// recorded.
pub(super) fn fitting(tape: &Tape, runs: &[usize], values: &Value) -> (Vec<usize>, bool) {
    let of = |exactly: bool| -> Vec<usize> {
        let fit = |at: &&usize| tape.runs.get(**at).is_some_and(|run| fits(run, values, exactly));
        runs.iter().filter(fit).copied().collect()
    };
    let same = of(true);
    if same.is_empty() { (of(false), false) } else { (same, true) }
}

/// Whether a run had these values, exactly or as far as is recorded.
fn fits(run: &Run, values: &Value, exactly: bool) -> bool {
    let Some(bound) = &run.bound else {
        return run.refused.is_some() || values.as_array().is_some_and(Vec::is_empty);
    };
    if exactly {
        return !bound.withheld && bound.shown == *values;
    }
    let (Value::Array(shown), Value::Array(values)) = (&bound.shown, values) else { return false };
    bound.withheld
        && shown.len() == values.len()
        && shown.iter().zip(values).all(|(shown, value)| shown == value || hides(shown))
}

/// Whether a recorded value stands for others: `?`, or with something masked in it.
fn hides(shown: &Value) -> bool {
    shown.as_str().is_some_and(|text| text == "?" || text.contains("**") || text.contains('['))
}

/// The tag of a statement that begins, ends or divides a transaction or forgets prepared
/// statements, if it is nothing else: drivers do that by themselves.
pub(super) fn control_of(text: &str) -> Option<&'static str> {
    let read = command::of_text(text);
    let [effect] = read.effects.as_slice() else { return None };
    if effect.action != "sql.transaction" && effect.action != "sql.deallocate" {
        return None;
    }
    let first = trimmed(text).split_whitespace().next()?.to_ascii_uppercase();
    Some(match &*first {
        "DEALLOCATE" => "DEALLOCATE",
        "BEGIN" => "BEGIN",
        "START" => "START TRANSACTION",
        "COMMIT" | "END" => "COMMIT",
        "ROLLBACK" | "ABORT" => "ROLLBACK",
        "SAVEPOINT" => "SAVEPOINT",
        "RELEASE" => "RELEASE",
        _ => return None,
    })
}
