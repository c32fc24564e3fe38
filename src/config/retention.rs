//! `[[retention]]`: how long recordings are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use globset::GlobMatcher;

use super::access;
use super::model::Target;
use super::reader::{Field, Table};
use super::value;
use crate::names::TargetName;

/// One `[[retention]]`. A selector that is left out holds for everything.
#[derive(Debug, Clone)]
pub struct Retention {
    targets: Option<Vec<GlobMatcher>>,
    labels: Option<BTreeMap<String, String>>,
    groups: Option<Vec<String>>,
    keep: Duration,
}

pub(super) fn retention(
    top: &Table<'_>,
    targets: &BTreeMap<TargetName, Arc<Target>>,
) -> Vec<Retention> {
    top.tables("retention").into_iter().filter_map(|table| one(table, targets)).collect()
}

fn one(table: Table<'_>, all: &BTreeMap<TargetName, Arc<Target>>) -> Option<Retention> {
    let targets = table.read("targets", |f| f.some(|glob| access::target_glob(glob, all)));
    let labels = table.read("labels", |field| access::labels(field, all));
    let groups = table.read("groups", Field::texts);
    let keep = table.require("keep", value::span);
    table.finish();
    Some(Retention { targets, labels, groups, keep: keep? })
}

/// How long the sessions of a target by callers of these groups are kept: as long as the longest
/// of those that match says; for ever when none does. What a gateway recorded of itself has the
/// target `""`.
///
/// The labels are those that the target has now. Of a target that is no longer configured nobody
/// knows them, so what selects by labels may match it: it can make the time longer, and alone
/// makes it end never.
pub fn keep(
    retention: &[Retention],
    targets: &BTreeMap<TargetName, Arc<Target>>,
    target: &str,
    groups: &BTreeSet<String>,
) -> Option<Duration> {
    let known = target.parse::<TargetName>().ok().and_then(|name| targets.get(&name));
    let (mut longest, mut certain) = (None, false);
    for one in retention {
        let named = |globs: &Vec<GlobMatcher>| globs.iter().any(|glob| glob.is_match(target));
        let grouped = |names: &Vec<String>| {
            names.iter().any(|name| groups.contains(name) || name == "*" && !groups.is_empty())
        };
        let labelled = |labels: &BTreeMap<String, String>| {
            known.map(|known| labels.iter().all(|(k, v)| known.labels.get(k) == Some(v)))
        };
        let labelled = one.labels.as_ref().map_or(Some(true), labelled);
        let matches = one.targets.as_ref().is_none_or(named)
            && one.groups.as_ref().is_none_or(grouped)
            && labelled != Some(false);
        if matches {
            certain |= labelled.is_some();
            longest = longest.max(Some(one.keep));
        }
    }
    longest.filter(|_| certain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};

    fn config(text: &str) -> Config {
        let file = tempfile::NamedTempFile::new().unwrap();
        let target = |name: &str, env: &str| {
            format!(
                "[[target]]\nname = \"{name}\"\nprotocol = \"postgres\"\naddress = \"a:1\"\n\
                 database = \"d\"\nlabels = {{ env = \"{env}\" }}\n\
                 credential = {{ user = \"u\", password = {{ env = \"X\" }} }}\n"
            )
        };
        let whole = format!(
            "{}{}[[issuer]]\nname = \"i\"\nurl = \"http://127.0.0.1:1\"\naudiences = [\"p\"]\n{text}",
            target("orders", "prod"),
            target("web-1", "test"),
        );
        std::fs::write(file.path(), whole).unwrap();
        config::load(file.path()).unwrap()
    }

    #[test]
    fn of_those_that_match_the_longest_counts() {
        let config = config(
            "[[retention]]\ntargets = [\"*\"]\nkeep = \"30d\"\n\
             [[retention]]\nlabels = { env = \"prod\" }\nkeep = \"90d\"\n\
             [[retention]]\ntargets = [\"web-*\"]\ngroups = [\"dba\"]\nkeep = \"1d\"\n\
             [[retention]]\ngroups = [\"legal\"]\nkeep = \"365d\"\n",
        );
        let days = |target: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let keep = keep(&config.retention, &config.targets, target, &groups)?;
            Some(keep.as_secs() / 86_400)
        };
        assert_eq!(days("orders", &["dba"]), Some(90));
        assert_eq!(days("web-1", &["dba"]), Some(30));
        assert_eq!(days("web-1", &["dba", "legal"]), Some(365));
        // Its labels are not known any more: they might have been those.
        assert_eq!(days("gone", &["dba"]), Some(90));
        assert_eq!(days("", &[]), Some(90));
    }

    #[test]
    fn what_no_retention_names_for_certain_is_kept_for_ever() {
        let config = config(
            "[[retention]]\nlabels = { env = \"prod\" }\nkeep = \"90d\"\n\
             [[retention]]\ngroups = [\"*\"]\ntargets = [\"web-*\"]\nkeep = \"1d\"\n",
        );
        let days = |target: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            keep(&config.retention, &config.targets, target, &groups).map(|keep| keep.as_secs())
        };
        assert_eq!(days("gone", &["dba"]), None);
        assert_eq!(days("web-1", &[]), None);
        assert_eq!(days("web-1", &["x"]), Some(86_400));
    }
}
