//! The first packet of a connection, before anybody is proved.

use portcullis::decode::postgres::startup;

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    if let Some((length, packet)) = data.split_first_chunk::<4>() {
        if let Ok(length) = startup::packet_length(*length) {
            assert!(length <= startup::MAX_STARTUP);
        }
        let _any = startup::first_packet(packet);
    }
}
