//! The framing of both directions, and what must hold of it however the bytes arrive.

use portcullis::decode::postgres::frame::{Side, Walker};

/// Walks the bytes at once and in pieces whose size the first byte gives: both ways the messages
/// are the same. `look` gets each whole one.
pub fn of_any_size(side: Side, data: &[u8], look: impl Fn(&[u8])) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = walk(side, bytes, bytes.len());
    let pieces = walk(side, bytes, usize::from(size) + 1);
    assert_eq!(whole, pieces);
    for message in &whole.messages {
        look(message);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Walked {
    messages: Vec<Vec<u8>>,
    refused: bool,
}

fn walk(side: Side, bytes: &[u8], size: usize) -> Walked {
    let mut walker = Walker::new(side);
    let (mut messages, mut message) = (Vec::new(), Vec::new());
    let mut buffer: Vec<u8> = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        buffer.extend(chunk);
        loop {
            match walker.next(&buffer) {
                Ok(Some(piece)) => {
                    assert!(piece.length > 0 && piece.length <= buffer.len());
                    message.extend(buffer.drain(..piece.length));
                    if piece.last {
                        messages.push(std::mem::take(&mut message));
                    }
                }
                Ok(None) => break,
                Err(_) => return Walked { messages, refused: true },
            }
        }
    }
    Walked { messages, refused: false }
}
