//! A dialect of tests: JSON-RPC on one path. It shows what a dialect takes, and that it takes
//! nothing outside of its file but a line in [`ALL`](super::ALL).

use serde_json::{Value, json};

use super::super::Refused;
use super::super::command::{self, Request};
use super::{Answer, Dialect, Meaning, Refusal, Run, Words};
use crate::policy::{Effect, Object};

/// `kind = "toy"`
pub(super) const NAME: &str = "toy";

/// What is known of it.
#[derive(Debug)]
pub(super) struct Toy;

impl Dialect for Toy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, request: &Request<'_>) -> Result<Meaning, Refused> {
        let mut meaning = Meaning::from(command::of(request)?);
        let call = request.json.as_ref().filter(|_| request.path.as_str() == "/rpc");
        let Some(call) = call else { return Ok(meaning) };
        let name = call.get("method").and_then(Value::as_str);
        let name = name.ok_or(Refused::bad("a call names its method"))?;
        meaning.command.effects.push(Effect::on("toy.call", Object::named("toy", name)));
        meaning.reply_to = call.get("id").cloned().unwrap_or_default();
        if name == "begin" {
            meaning.run = Run::Begins;
        }
        Ok(meaning)
    }

    fn run_of_answer(&self, answer: &[u8]) -> Option<String> {
        let answer: Value = serde_json::from_slice(answer).ok()?;
        Some(answer.get("result")?.as_str()?.to_owned())
    }

    fn refusal(&self, refusal: &Refusal<'_>) -> Option<Answer> {
        let error = json!({ "message": refusal.detail, "data": { "rules": refusal.rules } });
        let body = json!({ "id": refusal.reply_to, "error": error });
        let body = body.to_string().into_bytes();
        Some(Answer { status: 200, content_type: "application/json", body })
    }

    fn words(&self) -> Words {
        Words { actions: &["toy.call"], kinds: &["toy"], attributes: &[] }
    }
}
