//! What SQL does, by `decode::sql`: statements with their effects, the hostile cases, properties,
//! bounds, and the server's own opinion of its regression tests.

mod bounds;
mod cases;
mod properties;
mod regression;
mod statements;

use portcullis::decode::sql::{Analysis, LexerSettings, analyze};
use portcullis::policy::Effect;

fn analysed(sql: &str) -> Analysis {
    match analyze(sql, LexerSettings::default()) {
        Ok(analysis) => analysis,
        Err(reason) => panic!("{reason}: {sql}"),
    }
}

/// `action object (columns) attribute=value …`
fn line(effect: &Effect) -> String {
    let mut line = effect.action.to_string();
    if let Some(object) = &effect.object {
        line += &format!(" {object}");
    }
    if !effect.columns.is_empty() {
        let columns: Vec<&str> = effect.columns.iter().map(String::as_str).collect();
        line += &format!(" ({})", columns.join(", "));
    }
    for (name, value) in &effect.attributes {
        line += &format!(" {name}={value}");
    }
    line
}

fn lines(sql: &str) -> Vec<String> {
    analysed(sql).effects().map(line).collect()
}
