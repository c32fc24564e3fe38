//! The protocol by hand, byte for byte, for what no proper client would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// After this long without a byte, a connection counts as hanging.
pub const HANGING: Duration = Duration::from_secs(20);

/// What a client sends in a session, in the order in which it waits for answers.
#[derive(Clone)]
pub struct Session {
    pub startup: Vec<u8>,
    pub password: Vec<u8>,
    /// Everything behind the first `ReadyForQuery`, with `Terminate` at the end.
    pub script: Vec<u8>,
}

impl Session {
    /// A session that uses most messages there are.
    pub fn of_many_messages(user: &str, database: &str, password: &str) -> Self {
        let parameters = ["user", user, "database", database, "application_name", "wire", ""];
        let startup = [&196_608_u32.to_be_bytes()[..], &strings(&parameters)].concat();
        let length = u32::try_from(startup.len() + 4).unwrap().to_be_bytes();
        let startup = [&length[..], &startup].concat();
        let password = message(b'p', &strings(&[password]));
        Self { startup, password, script: script() }
    }
}

fn script() -> Vec<u8> {
    let one_text_parameter = [
        strings(&["portal", "named"]),
        vec![0, 1, 0, 0],
        vec![0, 1, 0, 0, 0, 3],
        b"abc".to_vec(),
        vec![0, 1, 0, 1],
    ];
    [
        message(b'Q', &strings(&["select 1 as a; select 'two' as b, null as c"])),
        message(b'Q', &strings(&[""])),
        message(b'Q', &strings(&["select 1 / 0"])),
        // An extended query of everything, and one that fails with others behind it.
        message(b'P', &[strings(&["named", "select $1::text || 'x' as d"]), vec![0, 0]].concat()),
        message(b'D', b"Snamed\0"),
        message(b'B', &one_text_parameter.concat()),
        message(b'D', b"Pportal\0"),
        message(b'E', &[strings(&["portal"]), vec![0, 0, 0, 1]].concat()),
        message(b'C', b"Pportal\0"),
        message(b'H', b""),
        message(b'S', b""),
        message(b'P', &[strings(&["", "not sql"]), vec![0, 0]].concat()),
        message(b'B', &[strings(&["", ""]), vec![0, 0, 0, 0, 0, 0]].concat()),
        message(b'E', &[strings(&[""]), vec![0, 0, 0, 0]].concat()),
        message(b'S', b""),
        // Copies both ways, and one that the client gives up.
        message(b'Q', &strings(&["create temp table wire (t text)"])),
        message(b'Q', &strings(&["copy wire from stdin"])),
        message(b'd', b"row one\nrow "),
        message(b'd', b"two\n"),
        message(b'c', b""),
        message(b'Q', &strings(&["copy wire from stdin"])),
        message(b'f', &strings(&["given up"])),
        message(b'Q', &strings(&["copy wire to stdout"])),
        message(b'Q', &strings(&["set time zone 'UTC'; listen wire; begin; select 1"])),
        message(b'X', b""),
    ]
    .concat()
}

/// A message: tag, length, body.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

/// Strings as the protocol writes them, each with a zero behind it.
pub fn strings(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect()
}

/// One connection, and what came over it.
pub struct Wire {
    socket: TcpStream,
    /// Everything received.
    pub received: Vec<u8>,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(HANGING)).unwrap();
        Self { socket, received: Vec::new() }
    }

    /// Sends bytes; that the other side has gone shows when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _gone = self.socket.write_all(bytes);
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        let _gone = self.socket.shutdown(std::net::Shutdown::Write);
    }

    /// Reads up to and with a message of this tag, or to the end. Panics when nothing comes.
    pub fn read_to(&mut self, tag: u8) {
        let start = self.received.len();
        let there = |received: &[u8]| messages(&received[start..]).any(|message| message[0] == tag);
        while !there(&self.received) && self.read_some() {}
    }

    /// Reads until what came is enough, or to the end. Panics when nothing comes.
    pub fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        while !enough(&self.received) && self.read_some() {}
    }

    /// Reads what comes within a time, if anything does.
    pub fn read_for(&mut self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 16 << 10];
        if let Ok(count) = self.socket.read(&mut buffer) {
            self.received.extend(&buffer[..count]);
        }
        self.socket.set_read_timeout(Some(HANGING)).unwrap();
    }

    /// Reads to the end. Panics when nothing comes, or no end.
    pub fn read_to_end(&mut self) {
        let started = Instant::now();
        while self.read_some() {
            assert!(started.elapsed() < 3 * HANGING, "the connection does not end");
        }
    }

    /// False at the end.
    fn read_some(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.socket.read(&mut buffer) {
            Ok(count) => {
                self.received.extend(&buffer[..count]);
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the connection hangs; {} bytes came before", self.received.len())
            }
            // A reset is an end, too.
            Err(_) => false,
        }
    }
}

/// The whole messages at the front of what a server sent.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length: [u8; 4] = bytes.get(1..5)?.try_into().unwrap();
        let (message, rest) = bytes.split_at_checked(u32::from_be_bytes(length) as usize + 1)?;
        bytes = rest;
        Some(message)
    })
}
