//! A command line for a remote shell, and what a recording has of channels.

use portcullis::decode::shell;
use portcullis::decode::ssh::message::Message;

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let command = shell::exec(data);
    assert!(!command.effects.is_empty());
    if let Some(words) = std::str::from_utf8(data).ok().and_then(shell::words) {
        // A simple line has nothing in it that a shell reads more into.
        let plain = |c: char| c.is_ascii_alphanumeric() || " _-./,:+@%=".contains(c);
        assert!(words.iter().all(|word| word.chars().all(plain)));
    }
    let _any = Message::read(&data.to_vec().into());
}
