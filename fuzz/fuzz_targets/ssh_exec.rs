//! A command line for a remote shell, and what a recording has of channels.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| portcullis_fuzz::ssh_exec::run(data));
