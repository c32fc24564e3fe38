//! What an sftp client and server send: packets in pieces, requests as commands, answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::sftp::run(data));
