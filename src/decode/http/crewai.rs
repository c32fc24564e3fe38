//! The API of a deployed CrewAI crew: `GET /inputs`, `POST /kickoff`, `GET /status/{id}`,
//! `POST /resume`. A run is known by the id that the answer to its kickoff gives.

use serde_json::Value;

/// The longest id of a run that is kept, in bytes.
const MAX_ID: usize = 200;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// It begins a run.
    Kickoff,
    /// It belongs to this run.
    Of(String),
    /// It belongs to none.
    Other,
}

/// Says which run a request belongs to.
pub fn call(method: &str, path: &str, body: Option<&Value>) -> Call {
    let of = |id: Option<&str>| id.and_then(known).map_or(Call::Other, Call::Of);
    match (method, path) {
        ("POST", "/kickoff") => Call::Kickoff,
        ("POST", "/resume") => {
            let field = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str);
            of(field("execution_id").or_else(|| field("kickoff_id")))
        }
        ("GET" | "HEAD", path) => of(path.strip_prefix("/status/")),
        _ => Call::Other,
    }
}

/// The run that an answer to a kickoff tells of.
pub fn begun(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    known(answer.get("kickoff_id")?.as_str()?)
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
        assert_eq!(call("POST", "/kickoff", None), Call::Kickoff);
        assert_eq!(call("GET", "/status/0d1f", None), Call::Of(id.to_owned()));
        let body = json!({ "execution_id": id, "task_id": "t" });
        assert_eq!(call("POST", "/resume", Some(&body)), Call::Of(id.to_owned()));
        for (method, path) in [
            ("GET", "/inputs"),
            ("GET", "/kickoff"),
            ("GET", "/status/"),
            ("GET", "/status/a/b"),
            ("POST", "/resume"),
        ] {
            assert_eq!(call(method, path, None), Call::Other, "{method} {path}");
        }
        assert_eq!(begun(br#"{"kickoff_id": "0d1f"}"#), Some(id.to_owned()));
        assert_eq!(begun(br#"{"kickoff_id": "a b"}"#), None);
        assert_eq!(begun(b"no"), None);
    }
}
