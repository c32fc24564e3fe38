//! The API of a deployed CrewAI crew: `GET /inputs`, `POST /kickoff`, `GET /status/{id}`,
//! `POST /resume`. A run is known by the id that the answer to its kickoff gives.

use serde_json::Value;

use super::super::Refused;
use super::super::command::{self, Request};
use super::{Dialect, Meaning, Run};

/// The longest id of a run that is kept, in bytes.
const MAX_ID: usize = 200;

/// `kind = "crewai"`
pub(super) const NAME: &str = "crewai";

/// What is known of it.
#[derive(Debug)]
pub(super) struct CrewAi;

impl Dialect for CrewAi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, request: &Request<'_>) -> Result<Meaning, Refused> {
        let run = run(request.method, request.path.as_str(), request.json.as_ref());
        Ok(Meaning { run, ..command::of(request)?.into() })
    }

    fn is_workflow(&self) -> bool {
        true
    }

    fn run_of_answer(&self, answer: &[u8]) -> Option<String> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        known(answer.get("kickoff_id")?.as_str()?)
    }
}

fn run(method: &str, path: &str, body: Option<&Value>) -> Run {
    let of = |id: Option<&str>| id.and_then(known).map_or(Run::None, Run::Of);
    match (method, path) {
        ("POST", "/kickoff") => Run::Begins,
        ("POST", "/resume") => {
            let field = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str);
            of(field("execution_id").or_else(|| field("kickoff_id")))
        }
        ("GET" | "HEAD", path) => of(path.strip_prefix("/status/")),
        _ => Run::None,
    }
}

fn known(id: &str) -> Option<String> {
    let fine = (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    fine.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_calls_of_one_run_are_known_by_path_and_body() {
        let id = "0d1f";
        assert_eq!(run("POST", "/kickoff", None), Run::Begins);
        assert_eq!(run("GET", "/status/0d1f", None), Run::Of(id.to_owned()));
        let body = json!({ "execution_id": id, "task_id": "t" });
        assert_eq!(run("POST", "/resume", Some(&body)), Run::Of(id.to_owned()));
        for (method, path) in [
            ("GET", "/inputs"),
            ("GET", "/kickoff"),
            ("GET", "/status/"),
            ("GET", "/status/a/b"),
            ("POST", "/resume"),
        ] {
            assert_eq!(run(method, path, None), Run::None, "{method} {path}");
        }
        assert_eq!(CrewAi.run_of_answer(br#"{"kickoff_id": "0d1f"}"#), Some(id.to_owned()));
        assert_eq!(CrewAi.run_of_answer(br#"{"kickoff_id": "a b"}"#), None);
        assert_eq!(CrewAi.run_of_answer(b"no"), None);
    }
}
