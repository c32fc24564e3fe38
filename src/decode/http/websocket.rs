//! Frames of WebSocket (RFC 6455 section 5), without extensions.

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Whether it is the last of its message.
    pub last: bool,
    /// What it is.
    pub kind: FrameKind,
    /// What its payload is masked with; clients mask, servers do not.
    pub mask: Option<[u8; 4]>,
    /// How long the head is.
    pub head: usize,
    /// How long the payload is.
    pub payload: usize,
}

/// The kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// More of a message.
    Continuation,
    /// A message of text begins.
    Text,
    /// A message of bytes begins.
    Binary,
    /// The last frame of a side.
    Close,
    /// Asks whether the other side is there.
    Ping,
    /// Says that it is.
    Pong,
}

impl FrameKind {
    /// Whether it may stand between the frames of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn opcode(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// Why a connection ends: a status code of RFC 6455 section 7.4.1, and words for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// The code.
    pub code: u16,
    /// What is wrong.
    pub what: &'static str,
}

/// The longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// Reads the head of a frame; `None` while it is not there as a whole. `most` is the longest
/// payload that is taken.
pub fn head(bytes: &[u8], from_client: bool, most: usize) -> Result<Option<Frame>, Violation> {
    let broken = |what| Err(Violation { code: 1002, what });
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return broken("a frame uses an extension that was not agreed on");
    }
    let kind = match first & 0x0f {
        0 => FrameKind::Continuation,
        1 => FrameKind::Text,
        2 => FrameKind::Binary,
        8 => FrameKind::Close,
        9 => FrameKind::Ping,
        10 => FrameKind::Pong,
        _ => return broken("a frame is of unknown kind"),
    };
    let (last, masked) = (first & 0x80 != 0, second & 0x80 != 0);
    if masked != from_client {
        return broken("a frame is masked by the wrong side");
    }
    let (length, rest, extended) = match (second & 0x7f, rest) {
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest, 2),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
            (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest, 8)
        }
        (126 | 127, _) => return Ok(None),
        (length, rest) => (u64::from(length), rest, 0),
    };
    let shortest = match extended {
        2 => 126,
        8 => 1 << 16,
        _ => 0,
    };
    if length < shortest {
        return broken("a frame's length is not written in the shortest way");
    }
    let payload = usize::try_from(length).unwrap_or(usize::MAX);
    if kind.is_control() && (payload > MAX_CONTROL || !last) {
        return broken("a control frame is long or fragmented");
    }
    if payload > most {
        return Err(Violation { code: 1009, what: "a message is too large" });
    }
    let mask = match (masked, rest) {
        (false, _) => None,
        (true, [a, b, c, d, ..]) => Some([*a, *b, *c, *d]),
        (true, _) => return Ok(None),
    };
    let head = 2 + extended + if masked { 4 } else { 0 };
    Ok(Some(Frame { last, kind, mask, head, payload }))
}

/// Masks a payload, or unmasks it.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Writes a whole message, or a control frame, as one frame.
pub fn write(kind: FrameKind, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | kind.opcode());
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => out.push(masked | length),
        (_, Ok(length)) => {
            out.push(masked | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    let Some(mask) = mask else { return out.extend_from_slice(payload) };
    out.extend_from_slice(&mask);
    let from = out.len();
    out.extend_from_slice(payload);
    apply_mask(out.get_mut(from..).unwrap_or_default(), mask);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_side_may_send_is_refused() {
        for (bytes, client, code) in [
            (&[0xc1, 0x00][..], false, 1002),
            (&[0x83, 0x00], false, 1002),
            (&[0x81, 0x80, 0, 0, 0, 0], false, 1002),
            (&[0x81, 0x00], true, 1002),
            (&[0x09, 0x00], false, 1002),
            (&[0x89, 0x7e, 0x00, 0x7e], false, 1002),
            (&[0x81, 0x7e, 0x00, 0x10], false, 1002),
            (&[0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], false, 1002),
            (&[0x81, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0], false, 1009),
        ] {
            assert_eq!(head(bytes, client, 1 << 20).unwrap_err().code, code, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_that_was_written_is_read_the_same(
            size in prop_oneof![0usize..130, 65_530usize..65_540],
            mask in proptest::option::of(any::<[u8; 4]>()),
        ) {
            let payload: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut written = Vec::new();
            write(FrameKind::Binary, mask, &payload, &mut written);
            let frame = head(&written, mask.is_some(), 1 << 20).unwrap().unwrap();
            prop_assert_eq!((frame.kind, frame.payload, frame.mask), (FrameKind::Binary, size, mask));
            let mut read = written[frame.head..].to_vec();
            if let Some(mask) = frame.mask {
                apply_mask(&mut read, mask);
            }
            prop_assert_eq!(read, payload);
            for cut in 0..frame.head {
                prop_assert_eq!(head(&written[..cut], mask.is_some(), 1 << 20), Ok(None));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..20), client: bool) {
            let _ = head(&bytes, client, 1000);
        }
    }
}
