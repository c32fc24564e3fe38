//! Cutting a stream into packets.

use bytes::{Buf, Bytes, BytesMut};

use super::Malformed;

/// The longest packet that OpenSSH takes, without its length field. Source: OpenSSH,
/// `SFTP_MAX_MSG_LENGTH`.
pub const MAX_PACKET: usize = 256 * 1024;

/// Collects pieces of any size and gives whole packets. Holds less than one packet and the last
/// piece.
#[derive(Debug, Default)]
pub struct Packets(BytesMut);

impl Packets {
    /// Takes in what came.
    pub fn push(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }

    /// The next whole packet, with its length field; none until more comes.
    ///
    /// # Errors
    /// When the length cannot be: nothing after it can be told apart any more.
    pub fn next_packet(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_PACKET {
            return Err(Malformed("a packet's length is out of bounds"));
        }
        if self.0.remaining() < length + 4 {
            return Ok(None);
        }
        Ok(Some(self.0.split_to(length + 4).freeze()))
    }

    /// Whether a packet has begun and not ended.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_packets(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8),
            size in 1usize..20,
        ) {
            let framed = |body: &Vec<u8>| {
                let length = u32::try_from(body.len()).unwrap();
                [&length.to_be_bytes()[..], body].concat()
            };
            let wanted: Vec<Vec<u8>> = bodies.iter().map(framed).collect();
            let mut packets = Packets::default();
            let mut found = Vec::new();
            for piece in wanted.concat().chunks(size) {
                packets.push(piece);
                while let Some(packet) = packets.next_packet().unwrap() {
                    found.push(packet.to_vec());
                }
            }
            prop_assert_eq!(found, wanted);
            prop_assert!(packets.is_empty());
        }
    }

    #[test]
    fn a_length_out_of_bounds_is_refused_before_anything_is_kept_for_it() {
        for head in [[0, 0, 0, 0], [0, 4, 0, 1], [0xff; 4]] {
            let mut packets = Packets::default();
            packets.push(&head);
            assert!(packets.next_packet().is_err());
        }
    }
}
