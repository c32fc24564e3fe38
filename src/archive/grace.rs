//! Retention that was shortened waits for a day before recordings go that the rules of before would
//! have kept: a number with a digit missing, or a rule for the wrong targets, is noticed by then.
//!
//! What was in force is noted in a file in `data_dir`. Who deletes by hand
//! (`portcullis recording prune`) has looked, and does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::files;

const FILE: &str = "retention";
/// Some hundred bytes for each set of groups on a target.
const MAX_FILE: usize = 64 << 20;

/// How long classes of recordings are kept, as it is in force.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InForce {
    /// What tells apart whether the rules are those of the last run.
    rules: Option<String>,
    /// Whether they are.
    #[serde(skip)]
    changed: bool,
    classes: BTreeMap<String, Kept>,
}

/// How long one class is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Seconds; for ever when there are none.
    keep: Option<u64>,
    /// A shorter time that is about to be in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shorter: Option<Shorter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Shorter {
    keep: u64,
    /// When it was first seen, in seconds since 1970.
    since: u64,
}

impl InForce {
    /// Reads what was noted.
    pub(super) fn read(data_dir: &Path) -> io::Result<Self> {
        match files::read(&data_dir.join(FILE), MAX_FILE) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Notes it, in the place of what was noted before.
    pub(super) fn write(&self, data_dir: &Path) -> io::Result<()> {
        let (file, new) = (data_dir.join(FILE), PathBuf::from(format!("{FILE}-new")));
        let new = data_dir.join(new);
        let mut options = fs::OpenOptions::new();
        let mut written = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        written.write_all(&serde_json::to_vec(self)?)?;
        written.sync_data()?;
        fs::rename(new, file)
    }

    /// Notes which rules are in force from now on.
    pub(super) fn under(&mut self, rules: &str) {
        self.changed = self.rules.as_deref().is_some_and(|before| before != rules);
        self.rules = Some(rules.to_owned());
    }

    /// How long a class is kept now, when the rules say `wanted`; for ever when there is none. A
    /// class that was not seen before is kept as the rules say, unless they are others by now: what
    /// they said of it before is not known then.
    pub(super) fn keep(
        &mut self,
        class: &Class<'_>,
        wanted: Option<Duration>,
        (now, grace): (SystemTime, Duration),
    ) -> Option<Duration> {
        let wanted = wanted.map(|keep| keep.as_secs());
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let kept = self
            .classes
            .entry(class.name())
            .or_insert_with(|| Kept { keep: wanted.filter(|_| !self.changed), shorter: None });
        let shorter = match (wanted, kept.keep) {
            (Some(wanted), Some(keep)) if wanted < keep => Some(wanted),
            (Some(wanted), None) => Some(wanted),
            _ => None,
        };
        match (shorter, &mut kept.shorter) {
            (None, _) => *kept = Kept { keep: wanted, shorter: None },
            // What is longer than what was announced is announced by it.
            (Some(wanted), Some(shorter)) if wanted >= shorter.keep => shorter.keep = wanted,
            (Some(wanted), _) => kept.shorter = Some(Shorter { keep: wanted, since: now }),
        }
        if let Some(Shorter { keep, since }) = kept.shorter
            && now >= since.saturating_add(grace.as_secs())
        {
            *kept = Kept { keep: Some(keep), shorter: None };
        }
        kept.keep.map(Duration::from_secs)
    }

    /// Whether something waits to be shorter.
    pub(super) fn waits(&self) -> bool {
        self.classes.values().any(|kept| kept.shorter.is_some())
    }

    /// Puts what the rules say in force at once.
    pub(super) fn at_once(&mut self, class: &Class<'_>, wanted: Option<Duration>) {
        let keep = wanted.map(|keep| keep.as_secs());
        self.classes.insert(class.name(), Kept { keep, shorter: None });
    }
}

/// Recordings that are kept equally long.
pub(super) struct Class<'a> {
    pub(super) target: &'a str,
    pub(super) groups: &'a BTreeSet<String>,
}

impl Class<'_> {
    fn name(&self) -> String {
        serde_json::json!([self.target, self.groups]).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    #[test]
    fn what_was_shortened_waits_for_a_day_and_what_was_lengthened_does_not() {
        let groups = BTreeSet::new();
        let class = Class { target: "orders", groups: &groups };
        let mut in_force = InForce::default();
        let mut keep = |days: Option<u64>, at: u64| {
            let wanted = days.map(|days| Duration::from_secs(days * DAY));
            let now = (UNIX_EPOCH + Duration::from_secs(at), Duration::from_secs(DAY));
            in_force.keep(&class, wanted, now).map(|keep| keep.as_secs() / DAY)
        };
        assert_eq!(keep(Some(30), 0), Some(30), "it is new");
        assert_eq!(keep(Some(90), 1), Some(90), "longer at once");
        assert_eq!(keep(Some(3), 2), Some(90), "shorter later");
        assert_eq!(keep(Some(3), 1 + DAY), Some(90));
        assert_eq!(keep(Some(3), 2 + DAY), Some(3));
        assert_eq!(keep(None, 3 + DAY), None, "for ever at once");
        assert_eq!(keep(Some(3), 4 + DAY), None, "a first rule is a shorter time too");
        // Shorter again begins anew, longer does not.
        assert_eq!(keep(Some(1), 5 + DAY), None);
        assert_eq!(keep(Some(2), 6 + DAY), None);
        assert_eq!(keep(Some(2), 4 + 2 * DAY), None);
        assert_eq!(keep(Some(2), 5 + 2 * DAY), Some(2));
        // Taken back in time.
        assert_eq!(keep(Some(1), 6 + 2 * DAY), Some(2));
        assert_eq!(keep(Some(2), 7 + 2 * DAY), Some(2));
        assert_eq!(keep(Some(1), 8 + 3 * DAY), Some(2));
    }

    #[test]
    fn a_class_that_was_not_seen_before_the_rules_changed_waits_too() {
        let groups = BTreeSet::new();
        let class = |target| Class { target, groups: &groups };
        let (second, now) = (Some(Duration::from_secs(1)), (UNIX_EPOCH, Duration::from_secs(DAY)));
        let mut in_force = InForce::default();
        in_force.under("some");
        assert_eq!(in_force.keep(&class("a"), second, now), second);
        in_force.under("some");
        assert_eq!(in_force.keep(&class("b"), second, now), second);
        in_force.under("others");
        assert_eq!(in_force.keep(&class("c"), second, now), None);
    }

    #[test]
    fn it_is_noted_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let groups = BTreeSet::from(["agents".to_owned()]);
        let mut in_force = InForce::read(folder.path()).unwrap();
        let class = Class { target: "orders", groups: &groups };
        in_force.keep(&class, None, (UNIX_EPOCH, Duration::from_secs(DAY)));
        in_force.keep(&class, Some(Duration::from_secs(1)), (UNIX_EPOCH, Duration::from_secs(DAY)));
        in_force.write(folder.path()).unwrap();
        assert_eq!(InForce::read(folder.path()).unwrap(), in_force);
        assert!(in_force.waits());
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(InForce::read(folder.path()).is_err());
    }
}
