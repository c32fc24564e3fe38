//! One hash for everything that decides what callers may do.
//!
//! It is taken over the values as written, so comments, layout and the splitting into files do
//! not show in it, while a key that is added to the format later cannot be forgotten here. Two
//! ways to write one value (`"60s"`, `"1m"`) do differ. Secrets are in it by reference.

use blake3::Hasher;

use super::document::{Node, Value};

/// Changes when the way of hashing does.
const CONTEXT: &str = "portcullis policy hash 1";

/// What policy is made of, and whether the order of its tables means something.
const SECTIONS: &[(&str, bool)] = &[
    ("access", true),
    ("mask", false),
    ("pattern", false),
    ("policy", false),
    ("rows", false),
    ("rule", false),
    ("target", false),
];

/// 32 hexadecimal digits.
pub(super) fn policy(root: &Node) -> String {
    let mut hasher = Hasher::new_derive_key(CONTEXT);
    if let Value::Table(entries) = &root.value {
        for (name, ordered) in SECTIONS {
            match entries.get(*name).map(|(_, node)| &node.value) {
                Some(Value::List(tables)) => {
                    let mut digests: Vec<_> =
                        tables.iter().map(|table| *of(&table.value).as_bytes()).collect();
                    if !ordered {
                        digests.sort_unstable();
                    }
                    open(&mut hasher, b'l', name, digests.len());
                    for digest in &digests {
                        hasher.update(digest);
                    }
                }
                Some(value) => {
                    open(&mut hasher, b't', name, 1);
                    add(&mut hasher, value);
                }
                None => {}
            }
        }
    }
    hasher.finalize().to_hex().chars().take(32).collect()
}

fn of(value: &Value) -> blake3::Hash {
    let mut hasher = Hasher::new_derive_key(CONTEXT);
    add(&mut hasher, value);
    hasher.finalize()
}

/// Every value begins with what it is and how long, so no two trees write the same bytes.
fn add(hasher: &mut Hasher, value: &Value) {
    match value {
        Value::Text(text) => open(hasher, b's', text, 0),
        Value::Integer(number) => open(hasher, b'i', &format!("{number:?}"), 0),
        Value::Flag(flag) => open(hasher, b'b', if *flag { "true" } else { "false" }, 0),
        Value::Float(text) => open(hasher, b'f', text, 0),
        Value::Time(text) => open(hasher, b'd', text, 0),
        Value::List(items) => {
            open(hasher, b'[', "", items.len());
            items.iter().for_each(|item| add(hasher, &item.value));
        }
        Value::Table(entries) => {
            open(hasher, b'{', "", entries.len());
            for (key, (_, node)) in entries {
                open(hasher, b'k', key, 0);
                add(hasher, &node.value);
            }
        }
    }
}

fn open(hasher: &mut Hasher, kind: u8, text: &str, count: usize) {
    hasher.update(&[kind]);
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
    hasher.update(&(count as u64).to_le_bytes());
}
