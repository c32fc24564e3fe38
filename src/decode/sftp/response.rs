//! What a server answers, as far as the gateway has to know.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Fields, Malformed};

/// An answer. Data, attributes and all names but the first are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response<'a> {
    /// The first packet: the version that is spoken from here on.
    Version(u32),
    /// How a request ended.
    Status {
        /// The request.
        id: u32,
        /// How.
        status: Status,
    },
    /// A file or folder is open.
    Handle {
        /// The request.
        id: u32,
        /// Its handle.
        handle: &'a [u8],
    },
    /// Names of files.
    Name {
        /// The request.
        id: u32,
        /// The one name, when there is one.
        single: Option<&'a [u8]>,
    },
    /// Data, attributes, the answer of an extension.
    Other {
        /// The request.
        id: u32,
    },
}

/// How a request ended. Source: draft-ietf-secsh-filexfer-02, section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// The answer to what may not be.
    pub const PERMISSION_DENIED: Self = Self(3);

    /// Whether that is no failure: done, or the end of a file.
    pub fn is_ok(self) -> bool {
        self.0 <= 1
    }

    /// The code's name.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "ok",
            1 => "end-of-file",
            2 => "no-such-file",
            3 => "permission-denied",
            4 => "failure",
            5 => "bad-message",
            6 => "no-connection",
            7 => "connection-lost",
            8 => "unsupported",
            _ => "other",
        }
    }
}

impl<'a> Response<'a> {
    /// Reads a packet as [`super::Packets`] gives it.
    ///
    /// # Errors
    /// When it is no answer of version 3.
    pub fn read(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(packet);
        fields.number()?;
        let kind = fields.byte()?;
        let id = fields.number()?;
        match kind {
            2 => Ok(Self::Version(id)),
            101 => Ok(Self::Status { id, status: Status(fields.number()?) }),
            102 => {
                let handle = fields.string()?;
                fields.end()?;
                Ok(Self::Handle { id, handle })
            }
            104 => {
                let single = match fields.number()? {
                    1 => Some(fields.string()?),
                    _ => None,
                };
                Ok(Self::Name { id, single })
            }
            103 | 105 | 201 => Ok(Self::Other { id }),
            _ => Err(Malformed("an answer of unknown kind")),
        }
    }

    /// The request that it answers; none of the version.
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Version(_) => None,
            Self::Status { id, .. }
            | Self::Handle { id, .. }
            | Self::Name { id, .. }
            | Self::Other { id } => Some(*id),
        }
    }
}

/// What an answer holds for people to read: each name, each message, and of what is not taken apart
/// all of it.
///
/// # Errors
/// When it is no such answer, or holds data.
pub fn texts(packet: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut fields = Fields(packet);
    fields.number()?;
    let kind = fields.byte()?;
    fields.number()?;
    let mut texts = Vec::new();
    match kind {
        // Older servers leave the message out.
        101 => {
            fields.number()?;
            while !fields.0.is_empty() {
                texts.push(fields.string()?);
            }
        }
        104 => {
            for _ in 0..fields.number()? {
                texts.push(fields.string()?);
                texts.push(fields.string()?);
                fields.attributes()?;
            }
            fields.end()?;
        }
        103 => return Err(Malformed("the data of a file are no text")),
        _ => texts.push(fields.0),
    }
    Ok(texts)
}

/// The packet that refuses a request.
pub fn permission_denied(id: u32, reason: &str) -> Bytes {
    status(id, Status::PERMISSION_DENIED.0, reason)
}

/// A packet that ends a request.
pub fn status(id: u32, code: u32, message: &str) -> Bytes {
    let text = message.get(..message.floor_char_boundary(MAX_MESSAGE)).unwrap_or_default();
    let text_length = u32::try_from(text.len()).unwrap_or(0);
    let mut packet = BytesMut::new();
    packet.put_u32(17 + text_length);
    packet.put_u8(101);
    packet.put_u32(id);
    packet.put_u32(code);
    packet.put_u32(text_length);
    packet.put_slice(text.as_bytes());
    // The language, which is not said.
    packet.put_u32(0);
    packet.freeze()
}

/// A rule's reason is a line or two.
const MAX_MESSAGE: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::sftp::Packets;

    #[test]
    fn every_name_and_message_is_a_text() {
        let refusal = permission_denied(9, "not here");
        assert_eq!(texts(&refusal).unwrap(), [&b"not here"[..], b""]);
        let mut names = b"\0\0\0\0\x68\0\0\0\x09\0\0\0\x02".to_vec();
        for name in ["a", "b"] {
            names.extend([0, 0, 0, 1]);
            names.extend(name.as_bytes());
            names.extend(b"\0\0\0\x04long\0\0\0\x04\0\0\x81\xa4");
        }
        assert_eq!(texts(&names).unwrap(), [&b"a"[..], b"long", b"b", b"long"]);
        names.push(0);
        assert!(texts(&names).is_err());
    }

    #[test]
    fn a_refusal_is_one_whole_packet_that_reads_back() {
        for reason in ["", "not here", &"é".repeat(5_000)] {
            let refusal = permission_denied(9, reason);
            let mut packets = Packets::default();
            packets.push(&refusal);
            let packet = packets.next_packet().unwrap().unwrap();
            let read = Response::read(&packet).unwrap();
            assert_eq!(read, Response::Status { id: 9, status: Status(3) });
            assert!(packets.is_empty());
        }
    }
}
