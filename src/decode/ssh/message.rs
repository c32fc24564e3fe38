//! How channels stand in a recording: every `data` event of an SSH session holds one message of
//! RFC 4254, section 5 and 6, byte for byte as that document has it, with the client's number of
//! the channel. One message is the gateway's own, with a number of those that RFC 4250 leaves to
//! local use: input that was typed and not stored, of which it tells the length.

use bytes::{BufMut, Bytes};

/// Source: RFC 4254, section 9.
const DATA: u8 = 94;
const EXTENDED_DATA: u8 = 95;
const EOF: u8 = 96;
const REQUEST: u8 = 98;
/// Source: RFC 4250, section 4.1.2: 192 to 255 are local extensions.
const WITHHELD: u8 = 192;

/// A recorded message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Input or standard output.
    Data {
        /// The channel.
        channel: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// Standard error (code 1).
    Extended {
        /// The channel.
        channel: u32,
        /// What kind of data.
        code: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// No more data come this way.
    Eof {
        /// The channel.
        channel: u32,
    },
    /// A terminal was asked for.
    Pty {
        /// The channel.
        channel: u32,
        /// Its kind, as in the environment variable TERM.
        term: String,
        /// Its size in characters.
        size: Size,
    },
    /// The terminal's size changed.
    WindowChange {
        /// The channel.
        channel: u32,
        /// The size in characters.
        size: Size,
    },
    /// A signal was sent.
    Signal {
        /// The channel.
        channel: u32,
        /// The signal's name, without SIG.
        name: String,
    },
    /// Input that was not stored.
    Withheld {
        /// The channel.
        channel: u32,
        /// Its bytes.
        length: u32,
    },
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Its width.
    pub columns: u32,
    /// Its height.
    pub rows: u32,
}

/// The most that one message holds: with its head it is no longer than one event (64 KiB).
pub const MAX_DATA: usize = (64 << 10) - 16;

/// Makes messages of bytes that passed, each to be one event: input and output with no code,
/// standard error with code 1.
pub fn each_data(channel: u32, code: Option<u32>, bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut message = Vec::with_capacity(bytes.len().min(MAX_DATA) + 16);
    for piece in bytes.chunks(MAX_DATA) {
        message.clear();
        put_data(&mut message, channel, code, piece);
        each(&message);
    }
}

/// Writes bytes that passed, of which there are few.
pub fn put_data(out: &mut Vec<u8>, channel: u32, code: Option<u32>, bytes: &[u8]) {
    match code {
        None => head(out, DATA, channel),
        Some(code) => {
            head(out, EXTENDED_DATA, channel);
            out.put_u32(code);
        }
    }
    string(out, bytes);
}

/// Writes that no more data come.
pub fn put_eof(out: &mut Vec<u8>, channel: u32) {
    head(out, EOF, channel);
}

/// Writes that a terminal was asked for.
pub fn put_pty(out: &mut Vec<u8>, channel: u32, term: &str, size: Size) {
    request(out, channel, b"pty-req");
    string(out, term.as_bytes());
    put_size(out, size);
    string(out, b"");
}

/// Writes that a terminal's size changed.
pub fn put_window_change(out: &mut Vec<u8>, channel: u32, size: Size) {
    request(out, channel, b"window-change");
    put_size(out, size);
}

/// Writes that a signal was sent.
pub fn put_signal(out: &mut Vec<u8>, channel: u32, name: &str) {
    request(out, channel, b"signal");
    string(out, name.as_bytes());
}

/// Writes how much input was not stored.
pub fn put_withheld(out: &mut Vec<u8>, channel: u32, length: usize) {
    head(out, WITHHELD, channel);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn head(out: &mut Vec<u8>, number: u8, channel: u32) {
    out.put_u8(number);
    out.put_u32(channel);
}

fn request(out: &mut Vec<u8>, channel: u32, kind: &[u8]) {
    head(out, REQUEST, channel);
    string(out, kind);
    // Whether a reply was wanted is of no interest later.
    out.put_u8(0);
}

fn put_size(out: &mut Vec<u8>, size: Size) {
    out.put_u32(size.columns);
    out.put_u32(size.rows);
    out.put_u64(0);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    // A packet is some kilobytes; what would not fit is not written at all.
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    out.put_u32(length);
    if length > 0 {
        out.put_slice(bytes);
    }
}

impl Message {
    /// Reads one recorded event; none when it is no message of these.
    pub fn read(payload: &Bytes) -> Option<Self> {
        let mut rest = Rest(payload.clone());
        let number = rest.byte()?;
        let channel = rest.number()?;
        let message = match number {
            DATA => Self::Data { channel, bytes: rest.string()? },
            EXTENDED_DATA => {
                Self::Extended { channel, code: rest.number()?, bytes: rest.string()? }
            }
            EOF => Self::Eof { channel },
            WITHHELD => Self::Withheld { channel, length: rest.number()? },
            REQUEST => {
                let kind = rest.string()?;
                rest.byte()?;
                match &*kind {
                    b"pty-req" => {
                        let term = rest.text()?;
                        let size = rest.size()?;
                        rest.string()?;
                        Self::Pty { channel, term, size }
                    }
                    b"window-change" => Self::WindowChange { channel, size: rest.size()? },
                    b"signal" => Self::Signal { channel, name: rest.text()? },
                    _ => return None,
                }
            }
            _ => return None,
        };
        rest.0.is_empty().then_some(message)
    }

    /// The channel that it is about.
    pub fn channel(&self) -> u32 {
        match self {
            Self::Data { channel, .. }
            | Self::Extended { channel, .. }
            | Self::Eof { channel }
            | Self::Pty { channel, .. }
            | Self::WindowChange { channel, .. }
            | Self::Signal { channel, .. }
            | Self::Withheld { channel, .. } => *channel,
        }
    }
}

struct Rest(Bytes);

impl Rest {
    fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.string()?.into()).ok()
    }

    fn size(&mut self) -> Option<Size> {
        let size = Size { columns: self.number()?, rows: self.number()? };
        self.take(8).map(|_| size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(write: impl FnOnce(&mut Vec<u8>)) -> Message {
        let mut out = Vec::new();
        write(&mut out);
        Message::read(&out.into()).unwrap()
    }

    #[test]
    fn what_is_written_reads_back() {
        let size = Size { columns: 80, rows: 24 };
        let bytes = Bytes::from_static(b"ls\n");
        let messages = [
            (
                read(|out| put_data(out, 3, None, b"ls\n")),
                Message::Data { channel: 3, bytes: bytes.clone() },
            ),
            (
                read(|out| put_data(out, 3, Some(1), b"ls\n")),
                Message::Extended { channel: 3, code: 1, bytes },
            ),
            (read(|out| put_eof(out, 4)), Message::Eof { channel: 4 }),
            (
                read(|out| put_pty(out, 0, "xterm", size)),
                Message::Pty { channel: 0, term: "xterm".to_owned(), size },
            ),
            (
                read(|out| put_window_change(out, 0, size)),
                Message::WindowChange { channel: 0, size },
            ),
            (
                read(|out| put_signal(out, 0, "INT")),
                Message::Signal { channel: 0, name: "INT".to_owned() },
            ),
            (read(|out| put_withheld(out, 0, 9)), Message::Withheld { channel: 0, length: 9 }),
        ];
        for (read, wanted) in messages {
            assert_eq!(read, wanted);
        }
    }

    #[test]
    fn long_data_are_several_messages_none_longer_than_an_event() {
        let long: Vec<u8> = (0..=u8::MAX).cycle().take(200_000).collect();
        for code in [None, Some(1)] {
            let mut joined = Vec::new();
            each_data(5, code, &long, |message| {
                assert!(message.len() <= 64 << 10);
                match Message::read(&Bytes::copy_from_slice(message)).unwrap() {
                    Message::Data { channel: 5, bytes } if code.is_none() => joined.extend(bytes),
                    Message::Extended { channel: 5, code: 1, bytes } => joined.extend(bytes),
                    other => panic!("{other:?}"),
                }
            });
            assert_eq!(joined, long);
        }
        each_data(5, None, b"", |_| panic!("nothing is no message"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(message) = Message::read(&bytes.into()) {
                let _any = message.channel();
            }
        }
    }
}
