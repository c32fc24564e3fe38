//! A session by hand that says what it sends and what it gets in one line a message.
//!
//! ```ignore
//! let mut talk = Talk::open(gateway.address(), "agent", "orders", &token, &[]);
//! assert_eq!(talk.ask(&[query("select 1")]), ["T(1)", "D[1]", "C[SELECT 1]", "ZI"]);
//! ```

use std::net::SocketAddr;

use super::wire::{Wire, message, messages, strings};

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &strings(&[sql]))
}

/// Parse, with the types of parameters left open.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[strings(&[name, sql]), vec![0, 0]].concat())
}

/// Bind with text values, and formats of results.
pub fn bind_as(portal: &str, statement: &str, values: &[&str], formats: &[u8]) -> Vec<u8> {
    let count = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let mut body = [strings(&[portal, statement]), vec![0, 0]].concat();
    body.extend(count(values.len()));
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    body.extend(count(formats.len()));
    body.extend(formats.iter().flat_map(|format| [0, *format]));
    message(b'B', &body)
}

/// Bind with text values and text results.
pub fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    bind_as(portal, statement, values, &[])
}

/// Execute to the end.
pub fn execute(portal: &str) -> Vec<u8> {
    message(b'E', &[strings(&[portal]), vec![0; 4]].concat())
}

/// Parse, Bind and Execute without names.
pub fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", "", &[]), execute("")].concat()
}

/// Describe a statement (`S`) or portal (`P`).
pub fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind], strings(&[name])].concat())
}

/// Close a statement (`S`) or portal (`P`).
pub fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], strings(&[name])].concat())
}

/// Sync.
pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// One session.
pub struct Talk {
    wire: Wire,
    seen: usize,
}

impl Talk {
    /// Opens a session; `more` are further startup parameters.
    pub fn open(
        address: SocketAddr,
        user: &str,
        database: &str,
        password: &str,
        more: &[(&str, &str)],
    ) -> Self {
        let mut talk = Self { wire: Wire::connect(address), seen: 0 };
        let mut parameters = vec!["user", user, "database", database];
        parameters.extend(more.iter().flat_map(|(name, value)| [*name, *value]));
        parameters.push("");
        talk.startup(196_608, &strings(&parameters));
        talk.send(&message(b'p', &strings(&[password])));
        talk
    }

    /// A session of a role that a server trusts.
    pub fn trusted(address: SocketAddr, user: &str, database: &str) -> Self {
        let mut talk = Self { wire: Wire::connect(address), seen: 0 };
        let body = strings(&["user", user, "database", database, ""]);
        talk.startup(196_608, &body);
        let said = talk.until_ready(1);
        assert_eq!(said.last().map(String::as_str), Some("ZI"), "{said:?}");
        talk
    }

    /// The same, and waits until it is open.
    pub fn opened(address: SocketAddr, user: &str, database: &str, password: &str) -> Self {
        let mut talk = Self::open(address, user, database, password, &[]);
        let said = talk.until_ready(1);
        assert_eq!(said.last().map(String::as_str), Some("ZI"), "{said:?}");
        talk
    }

    /// A connection on which nothing was said yet.
    pub fn silent(address: SocketAddr) -> Self {
        Self { wire: Wire::connect(address), seen: 0 }
    }

    /// Sends a startup packet.
    pub fn startup(&mut self, version: u32, parameters: &[u8]) {
        let length = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes();
        self.send(&[&length[..], &version.to_be_bytes(), parameters].concat());
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wire.send(bytes);
    }

    /// Sends messages at once, and gives what comes up to the last `ReadyForQuery` that they ask
    /// for, or the end.
    pub fn ask(&mut self, sent: &[Vec<u8>]) -> Vec<String> {
        let bytes = sent.concat();
        self.send(&bytes);
        let ready = messages(&bytes).filter(|sent| b"QSF".contains(&sent[0])).count();
        self.until_ready(ready)
    }

    /// What comes up to a message of this tag that has not come yet, or the end.
    pub fn until_tag(&mut self, tag: u8) -> Vec<String> {
        self.wire.read_to(tag);
        self.news()
    }

    /// What comes up to so many `ReadyForQuery`s, or the end.
    pub fn until_ready(&mut self, count: usize) -> Vec<String> {
        let seen = self.seen;
        self.wire.read_until(|received| {
            messages(&received[seen..]).filter(|came| came[0] == b'Z').count() >= count
        });
        self.news()
    }

    /// What comes up to a message of this tag, or the end.
    pub fn until(&mut self, tag: u8) -> Vec<String> {
        let seen = self.seen;
        self.wire.read_until(|received| messages(&received[seen..]).any(|came| came[0] == tag));
        self.news()
    }

    /// What came since, and has not been told yet.
    fn news(&mut self) -> Vec<String> {
        let new = &self.wire.received[self.seen..];
        let said: Vec<String> = messages(new).map(told).collect();
        self.seen += messages(new).map(<[u8]>::len).sum::<usize>();
        said
    }

    /// What comes up to the end of the connection.
    pub fn until_end(&mut self) -> Vec<String> {
        self.wire.read_to_end();
        self.news()
    }

    /// Every byte that came.
    pub fn received(&self) -> &[u8] {
        &self.wire.received
    }
}

/// One message of the server in a few words.
pub fn told(message: &[u8]) -> String {
    let body = &message[5..];
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match message[0] {
        b'Z' => format!("Z{}", text(body)),
        b'C' => format!("C[{}]", text(body.strip_suffix(b"\0").unwrap())),
        b'T' => format!("T({})", u16::from_be_bytes([body[0], body[1]])),
        b'D' => format!("D[{}]", values(body).join("|")),
        b'd' => format!("d[{}]", text(body).trim_end()),
        b'S' => format!("S[{}]", text(body).trim_end_matches('\0').replace('\0', "=")),
        b'A' => format!("A[{}]", text(&body[4..]).trim_end_matches('\0').replace('\0', "=")),
        tag @ (b'E' | b'N') => {
            let field = |wanted: u8| {
                let mut fields = body.split(|byte| *byte == 0);
                fields.find(|field| field.first() == Some(&wanted)).map(|field| text(&field[1..]))
            };
            let hint = field(b'H').map(|hint| format!(" ({hint})")).unwrap_or_default();
            let detail = field(b'D').map(|detail| format!(" | {detail}")).unwrap_or_default();
            let (code, said) = (field(b'C').unwrap_or_default(), field(b'M').unwrap_or_default());
            format!("{}[{code}: {said}{detail}{hint}]", tag as char)
        }
        tag => (tag as char).to_string(),
    }
}

fn values(mut row: &[u8]) -> Vec<String> {
    row = &row[2..];
    let mut found = Vec::new();
    while let Some((length, rest)) = row.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let (value, rest) = rest.split_at(usize::try_from(length).unwrap_or(0));
        found.push(match length {
            -1 => "NULL".to_owned(),
            _ => String::from_utf8_lossy(value).into_owned(),
        });
        row = rest;
    }
    found
}
