//! Where a page ended: opaque to clients, checked like any other input. A forged one shows only
//! rows that its owner may list anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::limits::QueryError;
use crate::database::rows::Timestamp;
use crate::names::SessionId;

const BAD: QueryError = QueryError::Bad("cursor: not one that this list gave");
/// Longer than any that is given out.
const MAX_CURSOR: usize = 128;

/// A cursor's content: `kind` and numbers, separated by dots.
pub(in crate::database) struct Place;

impl Place {
    pub(super) fn of_session(opened_at: Timestamp, id: SessionId) -> String {
        encode(&format!("s.{}.{id}", opened_at.0))
    }

    pub(super) fn session(cursor: &str) -> Result<(Timestamp, SessionId), QueryError> {
        let text = decode(cursor)?;
        let parts: Vec<_> = text.split('.').collect();
        match *parts {
            ["s", at, id] => Ok((time(at)?, id.parse().map_err(|_| BAD)?)),
            _ => Err(BAD),
        }
    }

    pub(super) fn of_command(at: Timestamp, session: SessionId, sequence: i64) -> String {
        encode(&format!("c.{}.{session}.{sequence}", at.0))
    }

    pub(super) fn command(cursor: &str) -> Result<(Timestamp, SessionId, i64), QueryError> {
        let text = decode(cursor)?;
        let parts: Vec<_> = text.split('.').collect();
        match *parts {
            ["c", at, session, sequence] => {
                let session = session.parse().map_err(|_| BAD)?;
                Ok((time(at)?, session, sequence.parse().map_err(|_| BAD)?))
            }
            _ => Err(BAD),
        }
    }

    pub(super) fn of_number(number: i64) -> String {
        encode(&format!("n.{number}"))
    }

    pub(super) fn number(cursor: &str) -> Result<i64, QueryError> {
        let text = decode(cursor)?;
        text.strip_prefix("n.").and_then(|number| number.parse().ok()).ok_or(BAD)
    }

    pub(in crate::database) fn of_id(id: Uuid) -> String {
        encode(&format!("i.{id}"))
    }

    pub(in crate::database) fn id(cursor: &str) -> Result<Uuid, QueryError> {
        let text = decode(cursor)?;
        text.strip_prefix("i.").and_then(|id| Uuid::try_parse(id).ok()).ok_or(BAD)
    }
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn decode(cursor: &str) -> Result<String, QueryError> {
    if cursor.len() > MAX_CURSOR {
        return Err(BAD);
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| BAD)?;
    String::from_utf8(bytes).map_err(|_| BAD)
}

fn time(text: &str) -> Result<Timestamp, QueryError> {
    let time = Timestamp(text.parse().map_err(|_| BAD)?);
    if time == time.storable() { Ok(time) } else { Err(BAD) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_taken_by_the_list_that_gave_it_and_by_no_other() {
        let (at, id) = (Timestamp(1_763_632_800_123_456), SessionId::generate());
        let (session, command, number) =
            (Place::of_session(at, id), Place::of_command(at, id, 7), Place::of_number(-3));
        assert_eq!(Place::session(&session).unwrap(), (at, id));
        assert_eq!(Place::command(&command).unwrap(), (at, id, 7));
        assert_eq!(Place::number(&number).unwrap(), -3);
        let hostile = [
            String::new(),
            "c".to_owned(),
            "=".repeat(200),
            encode("s.9223372036854775807.x"),
            encode(&format!("s.{}.{id}", i64::MAX)),
            encode("n.1; drop table commands"),
        ];
        for bad in hostile.iter().chain([&command, &number]) {
            assert!(Place::session(bad).is_err(), "{bad}");
        }
        for bad in hostile.iter().chain([&session, &number]) {
            assert!(Place::command(bad).is_err(), "{bad}");
        }
        for bad in hostile.iter().chain([&session, &command]) {
            assert!(Place::number(bad).is_err(), "{bad}");
        }
    }
}
