//! The settings of a startup message, decided and recorded like the SETs that they are.

use bytes::Bytes;

use crate::decode::postgres::command;
use crate::decode::sql::{LexerSettings, Reading, Withhold, analyze};
use crate::gate::{Asked, Fault, Gate, How, Plan, Ruling, SessionEnd};
use crate::policy::{CommandParts, Decision, Effect, Verdict};

use super::handshake::Turned;
use super::parameters::{Wanted, is_harmless};
use super::refusal::Refusal;

/// Lets the settings pass, or says why they do not. They are one command: the session opens with all
/// of them or not at all. Cancel safe.
pub(super) async fn decide(gate: &Gate, wanted: &Wanted) -> Result<(), Turned> {
    let settings: Vec<Setting<'_>> = wanted.settings.iter().map(Setting::new).collect();
    let whole: String = settings.iter().map(|setting| setting.reading.text()).collect();
    let admitted = gate
        .admit(Bytes::from(whole), |plan| refused(plan, gate, &settings))
        .await
        .map_err(|_| Turned::Away(Refusal::NotRecorded))?;
    let (_permitted, Some(decision)) = admitted else { return Ok(()) };
    let approve = decision.verdict() == Verdict::Approve;
    let reason = decision.reason().map(str::to_owned);
    gate.close(&SessionEnd::new(How::Policy, Fault::Client, "a startup parameter was refused"));
    gate.grant().give_back().await;
    Err(Turned::Away(Refusal::Setting { reason, approve, session: gate.session() }))
}

/// Decides them; gives the decision when they do not pass.
fn refused(plan: &mut Plan<'_>, gate: &Gate, settings: &[Setting<'_>]) -> Option<Decision> {
    // What is harmless is refused by a rule that says so, not by default.
    let decided: Vec<&Setting<'_>> = settings
        .iter()
        .filter(|setting| {
            !is_harmless(setting.name)
                || setting.effects().iter().any(|effects| {
                    plan.rules_refuse(CommandParts { effects: &[effects], ..setting.parts() })
                })
        })
        .collect();
    if decided.is_empty() {
        return None;
    }
    let text: String = decided.iter().map(|setting| setting.reading.text()).collect();
    let views = decided.iter().map(|setting| setting.reading.view(Withhold::Secrets));
    let view: String = views.collect();
    let masks = gate.masks();
    let view = masks.view(view.trim_end());
    let effects: Vec<&[Effect]> = decided.iter().flat_map(|setting| setting.effects()).collect();
    let attributes = command::startup(decided.len());
    let parts =
        CommandParts { form: FORM, text: &text, attributes: &attributes, effects: &effects };
    let asked = Asked {
        commands: &[parts],
        view: CommandParts { text: &view, ..parts },
        withheld: *view != *text.trim_end(),
        prepares: false,
        of: None,
        against: None,
        sent: None,
    };
    let whole = settings.iter().map(|setting| setting.reading.text().len()).sum();
    match plan.ask(0..whole, &asked).1 {
        Ruling::Passes => None,
        Ruling::Refused(decision) => Some(decision),
        // Nobody connects for as long as people take to decide.
        Ruling::Pending(held) => {
            plan.note("refused", "a startup parameter does not wait for people".to_owned());
            Some(plan.refuse(*held, &[]))
        }
    }
}

/// The form of the command.
const FORM: &str = "startup";

/// One setting, read as SQL.
struct Setting<'a> {
    name: &'a str,
    reading: Reading,
    attributes: crate::policy::Attributes,
}

impl<'a> Setting<'a> {
    fn new((name, value): &'a (String, String)) -> Self {
        let (quoted, literal) = (name.replace('"', "\"\""), value.replace('\'', "''"));
        let sql = format!("SET \"{quoted}\" = '{literal}';\n");
        let settings = LexerSettings::default();
        let reading = Reading::new(&sql, settings, analyze(&sql, settings));
        Self { name, reading, attributes: command::startup(1) }
    }

    fn effects(&self) -> Vec<&[Effect]> {
        let statements = self.reading.statements().iter();
        statements.map(|statement| statement.effects.as_slice()).collect()
    }

    fn parts(&self) -> CommandParts<'_> {
        let text = self.reading.text();
        CommandParts { form: FORM, text, attributes: &self.attributes, effects: &[] }
    }
}
