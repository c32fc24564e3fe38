//! What masks and row filters of a target do to a caller, for those who look at the target.
//!
//! Where a mask with columns acts also depends on the server: whether it has the functions of `policy
//! harden --functions`, and what the gateway's role may read. That is said as far as a session made
//! the gateway read the target's catalog; nobody is asked for a look.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use serde::Serialize;

use super::{Preview, Rules};
use crate::config::Target;
use crate::database::Timestamp;
use crate::mask::{Applied, AppliedRows, Enforce, Masks, Viewer};
use crate::names::Protocol;
use crate::policy::Caller;

/// Where the columns that a mask names are masked, by a target's catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mode {
    /// The mask.
    pub mask: String,
    /// Before the server computes with them.
    pub source: bool,
    /// Why not, where they are masked at the output alone.
    pub because: Option<&'static str>,
    /// The gateway's role may read none of them.
    pub role: bool,
}

/// The modes of a target's masks, as its catalog was read last; of a mask that names no column there
/// is none.
#[derive(Debug, Clone)]
pub struct Held {
    /// One of each mask with columns that are there.
    pub modes: Vec<Mode>,
    /// When it was read.
    pub read_at: SystemTime,
}

/// Knows what was read of targets for their sessions.
pub trait HeldModes: fmt::Debug + Send + Sync {
    /// What is held of a target's own database for these masks. Asks nobody.
    fn held(&self, target: &Arc<Target>, masks: &Masks) -> Option<Held>;

    /// What goes to the server in the place of a caller's statement, its text, in a new session on the
    /// target's own database. The catalog is read as for a session. An error is for operators. Cancel safe.
    fn preview<'a>(
        &'a self,
        rules: &'a Rules,
        target: &'a Arc<Target>,
        of: (&'a Caller, &'a str),
    ) -> BoxFuture<'a, Result<Preview, String>>;
}

/// What masks and row filters of a target do to a caller.
#[derive(Debug, Serialize)]
pub struct Protection {
    /// Masks, in the order in which they are written.
    pub masks: Vec<MaskShown>,
    /// Row filters, in the order in which they are written.
    pub rows: Vec<RowsShown>,
    /// When the catalog was read that says where masks act; none where none is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_read_at: Option<Timestamp>,
}

/// A mask of a target.
#[derive(Debug, Serialize)]
pub struct MaskShown {
    /// Its name.
    pub name: String,
    /// What stands in a value's place, with its step: `partial`, `bucket month`.
    pub with: String,
    /// Columns of databases.
    pub columns: Vec<String>,
    /// Fields of JSON.
    pub fields: Vec<String>,
    /// Patterns.
    pub patterns: Vec<String>,
    /// Where it acts on the target, in words.
    pub acts: String,
    /// Whether the gateway's role may read none of its columns, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_cannot_read: Option<bool>,
    /// Whether the caller sees the values.
    pub lifted: bool,
    /// Groups that see the values.
    pub unless_groups: Vec<String>,
}

/// A row filter of a target.
#[derive(Debug, Serialize)]
pub struct RowsShown {
    /// Its name.
    pub name: String,
    /// The table as it is written.
    pub table: String,
    /// The condition as it is written.
    #[serde(rename = "where")]
    pub condition: String,
    /// Groups that it is for; none is everybody.
    pub groups: Vec<String>,
    /// Groups that it is not for.
    pub unless_groups: Vec<String>,
    /// Whether it is for the caller.
    pub acts: bool,
    /// What of the caller's the condition needs and is not there: the table cannot be used then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacking: Option<String>,
}

impl Rules {
    /// What masks and row filters of a target do to a caller.
    pub fn protection(
        &self,
        target: &Arc<Target>,
        caller: &Caller,
        known: &dyn HeldModes,
    ) -> Protection {
        let (masks, name) = (self.masks(), target.name.as_str());
        let columns = target.protocol() == Protocol::Postgres && masks.mask_columns(name);
        let held = columns.then(|| known.held(target, masks)).flatten();
        let shown = masks.of(name, &caller.groups);
        let shown = shown.iter().filter_map(|mask| mask_shown(mask, target, held.as_ref()));
        let viewer =
            Viewer { username: &caller.username, groups: &caller.groups, claims: &caller.claims };
        let rows = match target.protocol() {
            Protocol::Postgres => masks.rows_of(name, &viewer),
            Protocol::Ssh | Protocol::Http => Vec::new(),
        };
        Protection {
            masks: shown.collect(),
            rows: rows.iter().map(rows_shown).collect(),
            catalog_read_at: held.map(|held| held.read_at.into()),
        }
    }
}

/// A mask as it is on a target; `None` where it names nothing that the target's protocol has.
fn mask_shown(applied: &Applied, target: &Target, held: Option<&Held>) -> Option<MaskShown> {
    let mask = &applied.mask;
    let of = |wanted: Protocol, names: Vec<String>| match target.protocol() == wanted {
        true => names,
        false => Vec::new(),
    };
    let columns = mask.columns.iter().map(|column| column.as_str().to_owned()).collect();
    let columns = of(Protocol::Postgres, columns);
    let fields = mask.fields.iter().map(|field| field.as_str().to_owned()).collect();
    let fields = of(Protocol::Http, fields);
    let patterns: Vec<_> = mask.patterns.iter().map(|p| p.name().to_owned()).collect();
    if columns.is_empty() && fields.is_empty() && patterns.is_empty() {
        return None;
    }
    let mode = held.map(|held| held.modes.iter().find(|mode| *mode.mask == *mask.name));
    let acts = match (columns.is_empty(), patterns.is_empty()) {
        (true, _) => OUTPUT.to_owned(),
        (false, true) => columns_masked(applied, mode),
        (false, false) => {
            format!("columns {}; patterns {OUTPUT}", columns_masked(applied, mode))
        }
    };
    let role_cannot_read = mode.flatten().filter(|_| !columns.is_empty()).map(|mode| mode.role);
    Some(MaskShown {
        name: mask.name.to_string(),
        with: mask.with.to_string(),
        columns,
        fields,
        patterns,
        acts,
        role_cannot_read,
        lifted: applied.lifted,
        unless_groups: mask.unless_groups.clone(),
    })
}

const SOURCE: &str = "before the server computes";
const OUTPUT: &str = "on the output";

/// Where columns are masked, in words; `mode` is `Some(None)` where the catalog has none of them.
fn columns_masked(applied: &Applied, mode: Option<Option<&Mode>>) -> String {
    let (enforce, keyed) = (applied.mask.enforce, applied.mask.with.is_keyed());
    let Enforce::Source { or_output } = enforce else {
        return format!("{OUTPUT} only");
    };
    let missing = "the functions of policy harden --functions";
    let place = match mode {
        Some(None) => return "nowhere: the catalog has no such column".to_owned(),
        Some(Some(mode)) if !mode.source => {
            return format!("{OUTPUT}: the server lacks {missing}");
        }
        None if keyed => format!("{SOURCE}, where the server has {missing}, else {OUTPUT}"),
        None | Some(Some(_)) => SOURCE.to_owned(),
    };
    match or_output {
        true => format!("{place}; {OUTPUT} for statements where that cannot be proven"),
        false => place,
    }
}

fn rows_shown(applied: &AppliedRows) -> RowsShown {
    let filter = &applied.filter;
    RowsShown {
        name: filter.name.to_string(),
        table: filter.table.to_string(),
        condition: filter.text.to_string(),
        groups: filter.groups.clone(),
        unless_groups: filter.unless_groups.clone(),
        acts: applied.acts,
        lacking: applied.lacking(),
    }
}
