//! What an sftp client and server send: packets in pieces, requests as commands, answers.

use portcullis::decode::sftp::{MAX_PACKET, Packets, Request, Response};

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let Some((size, rest)) = data.split_first() else { return };
    let mut packets = Packets::default();
    for piece in rest.chunks(usize::from(*size).max(1)) {
        packets.push(piece);
        while let Ok(Some(packet)) = packets.next_packet() {
            assert!(packet.len() <= MAX_PACKET + 4);
            if let Ok(request) = Request::read(&packet) {
                let _any = request.command(None);
                let _any = request.command(Some("/home/agent"));
            }
            if let Ok(response) = Response::read(&packet) {
                let _any = response.id();
            }
        }
    }
}
