//! Messages that a client sends once its session runs.

use super::Malformed;
use super::body::Body;
use super::frame;

/// A whole message of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// Run the statements of a text.
    Query {
        /// The SQL.
        sql: &'a str,
    },
    /// Make a prepared statement.
    Parse {
        /// Its name; empty for the unnamed one.
        statement: &'a str,
        /// The SQL.
        sql: &'a str,
        /// Types of parameters that the client fixes; 0 leaves one open.
        parameter_types: Vec<u32>,
    },
    /// Make a portal from a prepared statement and values.
    Bind(Bind<'a>),
    /// Ask what a statement or portal takes and gives.
    Describe(Named<'a>),
    /// Run a portal.
    Execute {
        /// Its name; empty for the unnamed one.
        portal: &'a str,
        /// How many rows at most; 0 for all.
        max_rows: u32,
    },
    /// Drop a statement or portal.
    Close(Named<'a>),
    /// End a pipeline's step: what failed before is over after it.
    Sync,
    /// Send what is ready.
    Flush,
    /// The obsolete way to call a function (libpq's fast path). Its body is not read.
    FunctionCall,
    /// Data of a COPY.
    CopyData,
    /// The end of a COPY's data.
    CopyDone,
    /// The client gives a COPY up, and says why.
    CopyFail,
    /// The client leaves.
    Terminate,
}

/// A statement or a portal by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    /// A prepared statement.
    Statement(&'a str),
    /// A portal.
    Portal(&'a str),
}

/// The contents of a Bind message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal to make; empty for the unnamed one.
    pub portal: &'a str,
    /// The statement to make it from.
    pub statement: &'a str,
    /// Each value with its format; `None` for NULL.
    pub parameters: Vec<Parameter<'a>>,
    /// Formats of the result's columns, as the client listed them.
    pub result_formats: Vec<Format>,
}

/// A bound value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Text or binary.
    pub format: Format,
    /// The value's bytes, or NULL.
    pub value: Option<&'a [u8]>,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As text.
    Text,
    /// In the type's binary form.
    Binary,
}

impl Format {
    pub(super) fn from_code(code: u16) -> Result<Self, Malformed> {
        match code {
            0 => Ok(Self::Text),
            1 => Ok(Self::Binary),
            _ => Err(Malformed("a format code is neither text nor binary")),
        }
    }
}

/// Reads one whole message, from its tag to its end.
pub fn message(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let tag = bytes.first().copied().unwrap_or(0);
    let mut body = Body::new(frame::body(bytes));
    let message = match tag {
        b'Q' => Message::Query { sql: body.string()? },
        b'P' => parse(&mut body)?,
        b'B' => Message::Bind(bind(&mut body)?),
        b'D' => Message::Describe(named(&mut body)?),
        b'E' => Message::Execute { portal: body.string()?, max_rows: body.u32()? },
        b'C' => Message::Close(named(&mut body)?),
        b'S' => Message::Sync,
        b'H' => Message::Flush,
        b'd' => return Ok(Message::CopyData),
        b'c' => Message::CopyDone,
        b'f' => {
            body.bytes_to_nul()?;
            Message::CopyFail
        }
        b'X' => Message::Terminate,
        b'F' => return Ok(Message::FunctionCall),
        b'p' => return Err(Malformed("a password message came after authentication")),
        _ => return Err(Malformed("a message is of unknown kind")),
    };
    body.end()?;
    Ok(message)
}

/// Reads the password message of the startup phase.
pub fn password(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.first() != Some(&b'p') {
        return Err(Malformed("a password message was expected"));
    }
    let mut body = Body::new(frame::body(bytes));
    let password = body.string()?;
    body.end()?;
    Ok(password)
}

fn parse<'a>(body: &mut Body<'a>) -> Result<Message<'a>, Malformed> {
    let (statement, sql) = (body.string()?, body.string()?);
    let count = body.u16()?;
    let parameter_types = (0..count).map(|_| body.u32()).collect::<Result<_, _>>()?;
    Ok(Message::Parse { statement, sql, parameter_types })
}

fn bind<'a>(body: &mut Body<'a>) -> Result<Bind<'a>, Malformed> {
    let (portal, statement) = (body.string()?, body.string()?);
    let formats = formats(body)?;
    let count = usize::from(body.u16()?);
    if formats.len() > 1 && formats.len() != count {
        return Err(Malformed("a Bind message has as many formats as neither one nor all values"));
    }
    let mut parameters = Vec::new();
    for index in 0..count {
        let one_for_all = if formats.len() == 1 { formats.first() } else { None };
        let format = *one_for_all.or_else(|| formats.get(index)).unwrap_or(&Format::Text);
        let value = match body.i32()? {
            -1 => None,
            length => {
                let length = usize::try_from(length)
                    .map_err(|_| Malformed("a value's length is impossible"))?;
                Some(body.take(length)?)
            }
        };
        parameters.push(Parameter { format, value });
    }
    Ok(Bind { portal, statement, parameters, result_formats: self::formats(body)? })
}

fn formats(body: &mut Body<'_>) -> Result<Vec<Format>, Malformed> {
    let count = body.u16()?;
    (0..count).map(|_| body.u16().and_then(Format::from_code)).collect()
}

fn named<'a>(body: &mut Body<'a>) -> Result<Named<'a>, Malformed> {
    match body.u8()? {
        b'S' => Ok(Named::Statement(body.string()?)),
        b'P' => Ok(Named::Portal(body.string()?)),
        _ => Err(Malformed("neither a statement nor a portal is named")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::postgres::frame::message as frame;
    use proptest::prelude::*;

    #[test]
    fn one_query_message_never_holds_two_queries() {
        assert_eq!(message(&frame(b'Q', b"select 1\0")), Ok(Message::Query { sql: "select 1" }));
        assert!(message(&frame(b'Q', b"select 1\0drop table x\0")).is_err());
        assert!(message(&frame(b'Q', b"select 1")).is_err());
        assert!(message(&frame(b'Q', b"select '\xff'\0")).is_err());
    }

    #[test]
    fn a_bind_message_is_read_with_its_formats() {
        let body = [
            &b"p\0s\0"[..],
            &[0, 1, 0, 1],                                 // one format for all: binary
            &[0, 2, 0, 0, 0, 2, 1, 2, 255, 255, 255, 255], // two values, the second NULL
            &[0, 2, 0, 0, 0, 1],                           // results: text, binary
        ]
        .concat();
        let binary = |value| Parameter { format: Format::Binary, value };
        assert_eq!(
            message(&frame(b'B', &body)),
            Ok(Message::Bind(Bind {
                portal: "p",
                statement: "s",
                parameters: vec![binary(Some(&[1, 2])), binary(None)],
                result_formats: vec![Format::Text, Format::Binary],
            }))
        );
        for cut in 0..body.len() {
            assert!(message(&frame(b'B', &body[..cut])).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn unknown_and_unsupported_messages_are_refused() {
        for tag in 0..=255u8 {
            let known = b"QPBDECSHFdcfX".contains(&tag);
            let sample: &[u8] = match tag {
                b'Q' | b'f' => b"\0",
                b'P' => b"\0\0\0\0",
                b'B' => b"\0\0\0\0\0\0\0\0",
                b'D' | b'C' => b"S\0",
                b'E' => b"\0\0\0\0\0",
                _ => b"",
            };
            assert_eq!(message(&frame(tag, sample)).is_ok(), known, "{}", tag as char);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(tag in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = message(&frame(tag, &body));
            let _ = message(&body);
            let _ = password(&frame(b'p', &body));
        }
    }
}
