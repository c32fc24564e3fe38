//! The SSH File Transfer Protocol, version 3, with OpenSSH's extensions.
//!
//! Source: draft-ietf-secsh-filexfer-02, and OpenSSH's PROTOCOL, section 4. A packet is cut out
//! whole ([`Packets`]) before anything in it is looked at, and every decoder insists that it used
//! the whole packet. [`Request::command`] says what a request would do: `sftp.read`, `sftp.write`,
//! `sftp.remove`, `sftp.list`, `sftp.stat` on objects `file:/path`.
//!
//! Limits: a name is taken as it is written. Which file that is, links on the target decide, so a
//! path with `..` in it, one that is relative to a folder that is not known, and one that is not
//! UTF-8 name no file for certain (`file:?`). That a link is made, a file is moved or linked is
//! told as reading and writing both names, so that nothing is reached under another name than the
//! one that rules know; links that are there already are the target's.

mod packets;
mod request;
mod response;

pub use packets::{MAX_PACKET, Packets};
pub use request::{Body, Request};
pub use response::{Response, Status, permission_denied, status, texts};

/// Bytes that are not what the protocol says they should be. Holds nothing of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The longest path that systems take.
const MAX_PATH: usize = 4_096;

/// The one name of the file that a path names for certain: absolute, without `.`, `..` and empty
/// parts. `home` is what relative paths are relative to, where it is known.
pub fn path(written: &[u8], home: Option<&str>) -> Option<String> {
    let written = std::str::from_utf8(written).ok()?;
    let mut whole = String::new();
    if !written.starts_with('/') {
        whole.push_str(home?);
        whole.push('/');
    }
    whole.push_str(written);
    if whole.len() > MAX_PATH || whole.contains(char::is_control) || !whole.starts_with('/') {
        return None;
    }
    let mut name = String::with_capacity(whole.len());
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => {
                name.push('/');
                name.push_str(part);
            }
        }
    }
    if name.is_empty() {
        name.push('/');
    }
    Some(name)
}

/// Fields, read one after the other.
#[derive(Debug, Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<4>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*first))
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        let (first, rest) = self.0.split_first_chunk::<8>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*first))
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| SHORT)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(string)
    }

    /// The attributes of a file (section 5); none of them matters to what is decided.
    fn attributes(&mut self) -> Result<(), Malformed> {
        const SIZE: u32 = 1;
        const UID_GID: u32 = 2;
        const PERMISSIONS: u32 = 4;
        const TIMES: u32 = 8;
        const EXTENDED: u32 = 0x8000_0000;
        let flags = self.number()?;
        if flags & !(SIZE | UID_GID | PERMISSIONS | TIMES | EXTENDED) != 0 {
            return Err(Malformed("attributes of an unknown kind"));
        }
        if flags & SIZE != 0 {
            self.long()?;
        }
        if flags & UID_GID != 0 {
            self.long()?;
        }
        if flags & PERMISSIONS != 0 {
            self.number()?;
        }
        if flags & TIMES != 0 {
            self.long()?;
        }
        if flags & EXTENDED != 0 {
            for _ in 0..self.number()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after a packet's last field")) }
    }
}

const SHORT: Malformed = Malformed("a packet is shorter than its fields");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_file_or_none_for_certain() {
        for (written, home, name) in [
            ("/etc/passwd", None, Some("/etc/passwd")),
            ("//etc/./passwd/", None, Some("/etc/passwd")),
            ("/", None, Some("/")),
            (".", Some("/home/a"), Some("/home/a")),
            ("x/y", Some("/home/a"), Some("/home/a/x/y")),
            ("x", None, None),
            ("", None, None),
            ("/a/../b", None, None),
            ("..", Some("/home/a"), None),
            ("/a\0b", None, None),
        ] {
            assert_eq!(path(written.as_bytes(), home).as_deref(), name, "{written:?}");
        }
        assert_eq!(path(b"/\xff", None), None);
        assert_eq!(path(&[b'/'; MAX_PATH + 1], None), None);
    }
}
