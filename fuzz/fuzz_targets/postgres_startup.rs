//! The first packet of a connection, before anybody is proved.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis::decode::postgres::startup;

fuzz_target!(|data: &[u8]| {
    if let Some((length, packet)) = data.split_first_chunk::<4>() {
        if let Ok(length) = startup::packet_length(*length) {
            assert!(length <= startup::MAX_STARTUP);
        }
        let _any = startup::first_packet(packet);
    }
});
