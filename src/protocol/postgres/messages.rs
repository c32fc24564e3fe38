//! The bytes of the messages that the gateway writes.

#[cfg(test)]
mod tests;
