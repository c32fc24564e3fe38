//! What a client asks for.

use std::borrow::Cow;

use crate::policy::{Attributes, Command, Effect, Object};

use super::{Fields, Malformed, path};

/// A request, and the number that its answer will carry.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// None of `SSH_FXP_INIT`, which has a version in its place.
    pub id: Option<u32>,
    /// What is asked for.
    pub body: Body<'a>,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// The first packet.
    Init,
    /// Something is done with files that are named: a command.
    Named {
        /// The operation's name, as in OpenSSH's log.
        operation: &'static str,
        /// The file.
        first: &'a [u8],
        /// The other file, of operations that have two.
        second: Option<&'a [u8]>,
        /// Of `open`: its flags.
        flags: u32,
    },
    /// Something is done with a file that was opened: it belongs to the command that opened it.
    Open {
        /// The operation's name.
        operation: &'static str,
        /// The handle.
        handle: &'a [u8],
        /// The other handle, of operations that have two.
        second: Option<&'a [u8]>,
    },
    /// Where relative paths begin.
    Home,
    /// A question that is about no file.
    Question(&'static str),
    /// An extension that is not known; what it would do is not either.
    Unknown,
}

/// Flags of `open`. Source: draft-ietf-secsh-filexfer-02, section 6.3.
const READ: u32 = 1;
const WRITES: u32 = 2 | 4 | 8 | 16 | 32;

impl<'a> Request<'a> {
    /// Reads a packet as [`super::Packets`] gives it.
    ///
    /// # Errors
    /// When it is no request of version 3.
    pub fn read(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(packet);
        fields.number()?;
        let kind = fields.byte()?;
        let id = fields.number()?;
        if kind == 1 {
            // Extension pairs may follow the version.
            return Ok(Self { id: None, body: Body::Init });
        }
        let body = match kind {
            200 => extension(&mut fields)?,
            _ => plain(kind, &mut fields)?,
        };
        if !matches!(body, Body::Unknown) {
            fields.end()?;
        }
        Ok(Self { id: Some(id), body })
    }

    /// The command that the request is, when it is one. `home` is the folder that relative paths
    /// are relative to, where it is known.
    pub fn command(&self, home: Option<&str>) -> Option<Command> {
        let Body::Named { operation, first, second, flags } = self.body else { return None };
        // The one operation to which `~` means something.
        let elsewhere = operation == "expand-path" && first.starts_with(b"~");
        let home = home.filter(|_| !elsewhere);
        let file = |written: &[u8]| Object::new("file", [path(written, home)]);
        let mut effects = Vec::new();
        let mut add = |action: &'static str, written: &[u8]| {
            effects.push(Effect::on(action, file(written)));
        };
        match operation {
            "open" => {
                // With no flag at all it is still tried to be opened.
                if flags & READ != 0 || flags & WRITES == 0 {
                    add("sftp.read", first);
                }
                if flags & WRITES != 0 {
                    add("sftp.write", first);
                }
            }
            "opendir" => add("sftp.list", first),
            "remove" | "rmdir" => add("sftp.remove", first),
            "mkdir" | "setstat" | "lsetstat" | "fsetstat" => add("sftp.write", first),
            // The file gets another name, under which it could be read or written.
            "rename" | "posix-rename" => {
                add("sftp.read", first);
                add("sftp.remove", first);
                add("sftp.write", second.unwrap_or_default());
            }
            "symlink" | "hardlink" => {
                add("sftp.read", first);
                add("sftp.write", first);
                add("sftp.write", second.unwrap_or_default());
            }
            _ => add("sftp.stat", first),
        }
        if operation == "symlink" {
            effects.extend(beside_each_other(first, second.unwrap_or_default()));
        }
        effects.extend(below(operation, path(first, home), path(second.unwrap_or_default(), home)));
        for effect in &mut effects {
            effect.attributes.insert(Cow::Borrowed("operation"), operation.into());
        }
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut text = format!("{operation} {}", shown(first));
        if let Some(second) = second {
            text.push_str(" -> ");
            text.push_str(&shown(second));
        }
        let mut attributes = Attributes::new();
        if operation == "open" {
            let mode = match (flags & READ != 0, flags & WRITES != 0) {
                (_, false) => "read",
                (false, true) => "write",
                (true, true) => "read-write",
            };
            attributes.insert(Cow::Borrowed("mode"), mode.into());
        }
        Some(Command { form: Cow::Borrowed("sftp"), text, attributes, effects })
    }
}

/// A relative name in a symbolic link is relative to the folder of the link, whichever of the two
/// the link is.
fn beside_each_other(first: &[u8], second: &[u8]) -> Vec<Effect> {
    let folder = |of: &[u8]| {
        let whole = path(of, None)?;
        whole.rsplit_once('/').map(|(folder, _)| format!("{folder}/"))
    };
    let mut effects = Vec::new();
    for (name, link) in [(first, second), (second, first)] {
        if !name.starts_with(b"/") {
            let folder = folder(link);
            let file = Object::new("file", [path(name, folder.as_deref())]);
            effects.extend(["sftp.read", "sftp.write"].map(|a| Effect::on(a, file.clone())));
            let other = path(link, None);
            effects.extend(below("symlink", path(name, folder.as_deref()), other));
        }
    }
    effects
}

/// What an operation on a folder does to everything below it.
fn below(operation: &str, first: Option<String>, second: Option<String>) -> Vec<Effect> {
    let folder =
        |name: &str| if name.ends_with('/') { name.to_owned() } else { format!("{name}/") };
    let (first, second) = (first.map(|name| folder(&name)), second.map(|name| folder(&name)));
    let mut effects = Vec::new();
    // Of a name that is not known, the effect on itself says so.
    let mut add = |actions: &[&'static str], of: &Option<String>, other: &Option<String>| {
        let Some(of) = of else { return };
        let other = other.as_deref().unwrap_or("/");
        effects.extend(actions.iter().map(|action| {
            Effect::on_all_below(action, Object::named("file", of.clone()), other.to_owned())
        }));
    };
    match operation {
        "rename" | "posix-rename" => {
            add(&["sftp.read", "sftp.remove"], &first, &second);
            add(&["sftp.write"], &second, &first);
        }
        "symlink" | "hardlink" => {
            add(&["sftp.read", "sftp.write"], &first, &second);
            add(&["sftp.read", "sftp.write"], &second, &first);
        }
        "rmdir" => add(&["sftp.remove"], &first, &None),
        _ => {}
    }
    effects
}

fn plain<'a>(kind: u8, fields: &mut Fields<'a>) -> Result<Body<'a>, Malformed> {
    let named = |operation, first| Body::Named { operation, first, second: None, flags: 0 };
    let open = |operation, handle| Body::Open { operation, handle, second: None };
    Ok(match kind {
        3 => {
            let first = fields.string()?;
            let flags = fields.number()?;
            fields.attributes()?;
            Body::Named { operation: "open", first, second: None, flags }
        }
        4 => open("close", fields.string()?),
        5 => {
            let handle = fields.string()?;
            fields.long()?;
            fields.number()?;
            open("read", handle)
        }
        6 => {
            let handle = fields.string()?;
            fields.long()?;
            fields.string()?;
            open("write", handle)
        }
        7 => named("lstat", fields.string()?),
        8 => open("fstat", fields.string()?),
        9 => {
            let first = fields.string()?;
            fields.attributes()?;
            named("setstat", first)
        }
        10 => {
            let handle = fields.string()?;
            fields.attributes()?;
            open("fsetstat", handle)
        }
        11 => named("opendir", fields.string()?),
        12 => open("readdir", fields.string()?),
        13 => named("remove", fields.string()?),
        14 => {
            let first = fields.string()?;
            fields.attributes()?;
            named("mkdir", first)
        }
        15 => named("rmdir", fields.string()?),
        // The first question of every client, about no file yet.
        16 => match fields.string()? {
            b"" | b"." => Body::Home,
            path => named("realpath", path),
        },
        17 => named("stat", fields.string()?),
        18 => two("rename", fields)?,
        19 => named("readlink", fields.string()?),
        // OpenSSH has the two the other way round than the draft; who is who makes no difference
        // to what is decided, since both are read and written.
        20 => two("symlink", fields)?,
        _ => return Err(Malformed("a packet of unknown kind")),
    })
}

fn two<'a>(operation: &'static str, fields: &mut Fields<'a>) -> Result<Body<'a>, Malformed> {
    let first = fields.string()?;
    let second = Some(fields.string()?);
    Ok(Body::Named { operation, first, second, flags: 0 })
}

/// Source: OpenSSH, PROTOCOL, sections 4.3 to 4.11.
fn extension<'a>(fields: &mut Fields<'a>) -> Result<Body<'a>, Malformed> {
    let name = fields.string()?;
    let named = |operation, first| Body::Named { operation, first, second: None, flags: 0 };
    let open = |operation, handle| Body::Open { operation, handle, second: None };
    Ok(match name {
        b"posix-rename@openssh.com" => two("posix-rename", fields)?,
        b"hardlink@openssh.com" => two("hardlink", fields)?,
        b"statvfs@openssh.com" => named("statvfs", fields.string()?),
        b"fstatvfs@openssh.com" => open("fstatvfs", fields.string()?),
        b"fsync@openssh.com" => open("fsync", fields.string()?),
        b"lsetstat@openssh.com" => {
            let first = fields.string()?;
            fields.attributes()?;
            named("lsetstat", first)
        }
        b"limits@openssh.com" => Body::Question("limits"),
        b"expand-path@openssh.com" => named("expand-path", fields.string()?),
        b"copy-data" => {
            let handle = fields.string()?;
            fields.long()?;
            fields.long()?;
            let second = Some(fields.string()?);
            fields.long()?;
            Body::Open { operation: "copy-data", handle, second }
        }
        b"home-directory" => {
            fields.string()?;
            Body::Question("home-directory")
        }
        b"users-groups-by-id@openssh.com" => {
            fields.string()?;
            fields.string()?;
            Body::Question("users-groups-by-id")
        }
        _ => Body::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &[u8]) -> Vec<u8> {
        [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text].concat()
    }

    fn packet(kind: u8, fields: &[Vec<u8>]) -> Vec<u8> {
        string(&[vec![kind, 0, 0, 0, 7], fields.concat()].concat())
    }

    fn number(number: u32) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    fn effects(packet: &[u8], home: Option<&str>) -> Vec<String> {
        let command = Request::read(packet).unwrap().command(home).unwrap();
        let words = |e: &Effect| format!("{} {}", e.action, e.object.as_ref().unwrap());
        command.effects.iter().filter(|effect| effect.below().is_none()).map(words).collect()
    }

    fn all_below(packet: &[u8], home: Option<&str>) -> Vec<String> {
        let command = Request::read(packet).unwrap().command(home).unwrap();
        let words = |e: &Effect| {
            let other = e.below()?;
            Some(format!("{} {} {other}", e.action, e.object.as_ref().unwrap()))
        };
        command.effects.iter().filter_map(words).collect()
    }

    #[test]
    fn what_is_below_a_folder_goes_where_it_goes() {
        let rename = packet(18, &[string(b"/a"), string(b"/b/c")]);
        let moved =
            ["sftp.read file:/a/ /b/c/", "sftp.remove file:/a/ /b/c/", "sftp.write file:/b/c/ /a/"];
        assert_eq!(all_below(&rename, None), moved);
        assert_eq!(all_below(&packet(15, &[string(b"/a")]), None), ["sftp.remove file:/a/ /"]);
        // A link's own folder is what its relative target is relative to.
        let link = packet(20, &[string(b"secret"), string(b"/srv/link")]);
        let named = effects(&link, Some("/home/a"));
        assert!(named.contains(&"sftp.read file:/srv/secret".to_owned()), "{named:?}");
        let linked = all_below(&link, Some("/home/a"));
        assert!(
            linked.contains(&"sftp.read file:/srv/secret/ /srv/link/".to_owned()),
            "{linked:?}"
        );
        let up = packet(20, &[string(b"../secret"), string(b"/srv/link")]);
        assert!(effects(&up, None).contains(&"sftp.read file:?".to_owned()));
    }

    #[test]
    fn a_request_says_what_it_does_to_which_files() {
        let open = |flags| packet(3, &[string(b"/etc/passwd"), number(flags), number(0)]);
        assert_eq!(effects(&open(1), None), ["sftp.read file:/etc/passwd"]);
        assert_eq!(effects(&open(0), None), ["sftp.read file:/etc/passwd"]);
        assert_eq!(effects(&open(0x1a), None), ["sftp.write file:/etc/passwd"]);
        let both = ["sftp.read file:/etc/passwd", "sftp.write file:/etc/passwd"];
        assert_eq!(effects(&open(3), None), both);
        assert_eq!(effects(&packet(13, &[string(b"x")]), None), ["sftp.remove file:?"]);
        let there = ["sftp.remove file:/home/a/x"];
        assert_eq!(effects(&packet(15, &[string(b"x")]), Some("/home/a")), there);
        let rename = packet(18, &[string(b"/a"), string(b"/b")]);
        let moved = ["sftp.read file:/a", "sftp.remove file:/a", "sftp.write file:/b"];
        assert_eq!(effects(&rename, None), moved);
        let link = [string(b"hardlink@openssh.com"), string(b"/a"), string(b"/b")];
        let linked = ["sftp.read file:/a", "sftp.write file:/a", "sftp.write file:/b"];
        assert_eq!(effects(&packet(200, &link), None), linked);
    }

    #[test]
    fn what_follows_the_last_field_is_refused_and_what_is_not_known_is_told_so() {
        let mut long = packet(13, &[string(b"/x"), vec![0]]);
        assert!(Request::read(&long).is_err());
        long.truncate(12);
        assert!(Request::read(&long).is_err());
        assert!(Request::read(&packet(21, &[])).is_err());
        let unknown = packet(200, &[string(b"what@ever"), vec![1, 2, 3]]);
        assert!(matches!(Request::read(&unknown).unwrap().body, Body::Unknown));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(request) = Request::read(&bytes) {
                let _any = request.command(Some("/home"));
            }
            let _any = super::super::Response::read(&bytes);
        }
    }
}
