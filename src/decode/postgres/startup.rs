//! What a client may send first: a length, a code, and no tag.

use super::Malformed;
use super::body::Body;

/// The largest startup packet, in bytes: PostgreSQL's own bound (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
/// Source: PostgreSQL documentation, message formats, `CancelRequest`.
pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;

/// The longest cancel key that protocol 3.2 allows, in bytes.
const MAX_CANCEL_KEY: usize = 256;

/// The first packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum FirstPacket<'a> {
    /// The client asks whether TLS is spoken.
    SslRequest,
    /// The client asks whether GSSAPI encryption is spoken.
    GssEncRequest,
    /// The client wants a command of another connection cancelled.
    CancelRequest(CancelRequest),
    /// The client wants a session.
    Startup(Startup<'a>),
}

/// Names the connection whose command is to be cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelRequest {
    /// The process id from its `BackendKeyData`.
    pub process_id: u32,
    /// The key from the same message: 4 bytes, or up to 256 with protocol 3.2.
    pub key: Vec<u8>,
}

/// A startup message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup<'a> {
    /// The minor version of protocol 3 that the client wants.
    pub minor: u16,
    /// Names and values in the order they came.
    pub parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Startup<'a> {
    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }
}

/// The length of the first packet with its length field, from its first four bytes.
pub fn packet_length(bytes: [u8; 4]) -> Result<usize, Malformed> {
    match usize::try_from(u32::from_be_bytes(bytes)) {
        Ok(length) if (8..=MAX_STARTUP).contains(&length) => Ok(length),
        _ => Err(Malformed("a startup packet's length is impossible")),
    }
}

/// Reads a whole first packet, its length field left out.
pub fn first_packet(packet: &[u8]) -> Result<FirstPacket<'_>, Malformed> {
    let mut body = Body::new(packet);
    match body.u32()? {
        SSL_REQUEST => body.end().map(|()| FirstPacket::SslRequest),
        GSSENC_REQUEST => body.end().map(|()| FirstPacket::GssEncRequest),
        CANCEL_REQUEST => {
            let process_id = body.u32()?;
            let key = packet.get(8..).unwrap_or_default();
            if !(4..=MAX_CANCEL_KEY).contains(&key.len()) {
                return Err(Malformed("a cancel key's length is impossible"));
            }
            Ok(FirstPacket::CancelRequest(CancelRequest { process_id, key: key.to_vec() }))
        }
        version if version >> 16 == 3 => {
            let minor = u16::try_from(version & 0xFFFF).unwrap_or(u16::MAX);
            Ok(FirstPacket::Startup(Startup { minor, parameters: parameters(body)? }))
        }
        _ => Err(Malformed("the protocol version is not supported: 3.0 and 3.2 are")),
    }
}

fn parameters(mut body: Body<'_>) -> Result<Vec<(&str, &str)>, Malformed> {
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    loop {
        let name = body.string()?;
        if name.is_empty() {
            body.end()?;
            return Ok(parameters);
        }
        let value = body.string()?;
        if parameters.iter().any(|(n, _)| *n == name) {
            return Err(Malformed("a startup parameter is given twice"));
        }
        if parameters.len() == MAX_PARAMETERS {
            return Err(Malformed("too many startup parameters"));
        }
        parameters.push((name, value));
    }
}

/// More than any client sends, few enough that looking for doubles stays cheap.
const MAX_PARAMETERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), rest].concat()
    }

    #[test]
    fn each_kind_of_first_packet_is_told_apart() {
        assert_eq!(first_packet(&packet(SSL_REQUEST, b"")), Ok(FirstPacket::SslRequest));
        assert_eq!(first_packet(&packet(GSSENC_REQUEST, b"")), Ok(FirstPacket::GssEncRequest));
        let startup = packet(196_610, b"user\0a\0database\0orders\0\0");
        let FirstPacket::Startup(startup) = first_packet(&startup).unwrap() else { panic!() };
        assert_eq!((startup.minor, startup.parameter("database")), (2, Some("orders")));
        let cancel = packet(CANCEL_REQUEST, &[0, 0, 0, 9, 1, 2, 3, 4]);
        assert_eq!(
            first_packet(&cancel),
            Ok(FirstPacket::CancelRequest(CancelRequest { process_id: 9, key: vec![1, 2, 3, 4] }))
        );
    }

    #[test]
    fn what_is_not_exactly_one_packet_is_refused() {
        for bad in [
            packet(SSL_REQUEST, b"x"),
            packet(131_072, b""),
            packet(196_608, b"user\0a\0"),
            packet(196_608, b"user\0a\0\0extra"),
            packet(196_608, b"user\0a\0user\0b\0\0"),
            packet(196_608, b"user\0\xff\0\0"),
            packet(196_608, b"user\0a"),
            packet(CANCEL_REQUEST, &[0; 7]),
            packet(CANCEL_REQUEST, &[0; 300]),
            vec![0, 3],
        ] {
            assert!(first_packet(&bad).is_err(), "{bad:?}");
        }
        assert!(packet_length([0, 0, 0, 7]).is_err());
        assert!(packet_length([0, 1, 0, 1]).is_err());
        assert!(packet_length([255; 4]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), pick in 0usize..4) {
            let code = [SSL_REQUEST, CANCEL_REQUEST, 196_608, 196_610][pick];
            let _ = first_packet(&bytes);
            let _ = first_packet(&packet(code, &bytes));
        }
    }
}
