//! A text as it was read, kept for as long as it may run or answers to it may come.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, TransactionStmtKind};

use super::actions;
use super::change;
use super::view::{Withhold, view};
use super::{Analysis, LexerSettings, Statement, Unparsed};
use crate::decode::postgres::copy::CopyFormat;
use crate::policy::{Effect, Object};

/// What is shown of a text when it is not known where its literals begin and end.
const NOTHING: &str = "?";
/// `CURSOR_OPT_HOLD` of PostgreSQL's `parsenodes.h`.
const CURSOR_WITH_HOLD: i32 = 0x0020;

/// A text, how it was read, and what was found in it.
///
/// A text that is not understood has one statement, whose one effect says so and whose literals
/// are all secret: nobody who uses a reading needs a second way for such texts.
#[derive(Debug)]
pub struct Reading {
    text: Box<str>,
    settings: LexerSettings,
    statements: Vec<Statement>,
    understood: bool,
    may_change_encoding: bool,
    /// Views that are not the text itself.
    without_secrets: Option<Box<str>>,
    without_literals: OnceLock<Option<Box<str>>>,
}

impl Reading {
    /// What was found in a text.
    pub fn new(text: &str, settings: LexerSettings, found: Result<Analysis, Unparsed>) -> Self {
        let without_secrets = match found.as_ref().map_err(|reason| *reason) {
            Err(Unparsed::Settings) => Some(NOTHING.into()),
            found => other_than_text(view(text, settings, found, Withhold::Secrets)),
        };
        let without_literals = match found {
            Err(Unparsed::Settings) => OnceLock::from(Some(NOTHING.into())),
            _ => OnceLock::new(),
        };
        let understood = found.is_ok();
        let statements = match found {
            Ok(analysis) => analysis.statements,
            Err(reason) => vec![Statement {
                range: 0..text.len(),
                effects: vec![reason.effect()],
                uses: Vec::new(),
                outputs: None,
                secret: true,
                kind: StatementKind::NotUnderstood,
                refers: false,
            }],
        };
        let mut effects = statements.iter().flat_map(|statement| &statement.effects);
        Self {
            text: text.into(),
            settings,
            understood,
            may_change_encoding: effects.any(may_change_encoding),
            statements,
            without_secrets,
            without_literals,
        }
    }

    /// The text as it was sent. It may hold secrets: for deciding, never for keeping or showing.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How it was read.
    pub fn settings(&self) -> LexerSettings {
        self.settings
    }

    /// Its statements in the order in which they run; one when it is not understood.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Whether the text is understood.
    pub fn is_understood(&self) -> bool {
        self.understood
    }

    /// Whether any of its statements has literals that are secret whatever the rules say.
    pub fn is_secret(&self) -> bool {
        self.statements.iter().any(|statement| statement.secret)
    }

    /// Whether it could leave the session with another `client_encoding`, as far as it shows:
    /// functions of one's own are not looked into.
    pub fn may_change_encoding(&self) -> bool {
        self.may_change_encoding
    }

    /// Whether all that its statements run by name is made by statements before them.
    pub fn knows_its_names(&self) -> bool {
        let mut made = Vec::new();
        self.statements.iter().all(|statement| {
            let known = statement.references().all(|reference| made.contains(&reference));
            match &statement.kind {
                StatementKind::Prepare { name } => made.push(Reference::Statement(name)),
                StatementKind::Declare { name, .. } => made.push(Reference::Cursor(name)),
                _ => {}
            }
            known
        })
    }

    /// The request view.
    pub fn view(&self, withhold: Withhold) -> &str {
        let shown = match withhold {
            Withhold::Secrets => self.without_secrets.as_deref(),
            Withhold::Literals => self
                .without_literals
                .get_or_init(|| {
                    let all = Err(Unparsed::Unknown);
                    other_than_text(view(&self.text, self.settings, all, Withhold::Literals))
                })
                .as_deref(),
        };
        shown.unwrap_or(&self.text)
    }
}

fn other_than_text(view: Cow<'_, str>) -> Option<Box<str>> {
    match view {
        Cow::Borrowed(_) => None,
        Cow::Owned(view) => Some(view.into_boxed_str()),
    }
}

/// Two readings are the same when the same would happen.
impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.statements == other.statements
    }
}

/// One statement of a text that was read: what a reply, a prepared statement or a cursor is of.
#[derive(Debug, Clone)]
pub struct Source {
    reading: Arc<Reading>,
    at: usize,
}

impl Source {
    /// The statement at a place of the text. There is none in an empty text, and none behind the
    /// last one.
    pub fn new(reading: Arc<Reading>, at: usize) -> Self {
        Self { reading, at }
    }

    /// The text that it stands in, and what was found there.
    pub fn reading(&self) -> &Arc<Reading> {
        &self.reading
    }

    /// The statement.
    pub fn statement(&self) -> Option<&Statement> {
        self.reading.statements.get(self.at)
    }

    /// Its effects.
    pub fn effects(&self) -> &[Effect] {
        self.statement().map_or(&[], |statement| &statement.effects)
    }

    /// Whether both are the same statement of the same text.
    pub fn is(&self, other: &Self) -> bool {
        self.at == other.at && Arc::ptr_eq(&self.reading, &other.reading)
    }
}

/// How the rows of a COPY come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyOut {
    /// How they are written.
    pub format: CopyFormat,
    /// Whether a line of names comes first.
    pub header: bool,
}

/// What a statement is, as far as a session's state and the meaning of its results depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementKind {
    /// SELECT, VALUES or TABLE, also with common table expressions that write; not INTO.
    Select,
    /// INSERT, UPDATE, DELETE or MERGE, with or without RETURNING.
    Write,
    /// COPY … TO; how its rows come to the client, where that is by default options.
    CopyTo(Option<CopyOut>),
    /// COPY … FROM.
    CopyFrom,
    /// EXPLAIN, with or without ANALYZE.
    Explain,
    /// PREPARE; the effects are those of the statement within, too.
    Prepare {
        /// Its name, which prepared statements of the protocol share.
        name: String,
    },
    /// EXECUTE: its results are those of the prepared statement.
    Execute {
        /// Its name.
        name: String,
    },
    /// DEALLOCATE.
    Deallocate {
        /// One, or all.
        name: Option<String>,
    },
    /// DECLARE; the effects are those of the query within, too.
    Declare {
        /// Its name, which portals of the protocol share.
        name: String,
        /// It lives on when its transaction commits.
        hold: bool,
    },
    /// FETCH or MOVE: its results are those of the cursor's query.
    Fetch {
        /// The cursor.
        name: String,
    },
    /// CLOSE.
    Close {
        /// One, or all.
        name: Option<String>,
    },
    /// DISCARD ALL.
    DiscardAll,
    /// COMMIT, ROLLBACK or PREPARE TRANSACTION.
    EndTransaction,
    /// SAVEPOINT.
    Savepoint,
    /// ROLLBACK TO.
    RollbackToSavepoint,
    /// Anything else.
    Other,
    /// The text is not understood.
    NotUnderstood,
}

impl StatementKind {
    pub(super) fn of(node: Option<&NodeEnum>) -> Self {
        let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        match node {
            Some(NodeEnum::SelectStmt(select)) if select.into_clause.is_none() => Self::Select,
            Some(
                NodeEnum::InsertStmt(_)
                | NodeEnum::UpdateStmt(_)
                | NodeEnum::DeleteStmt(_)
                | NodeEnum::MergeStmt(_),
            ) => Self::Write,
            Some(NodeEnum::CopyStmt(copy)) if copy.is_from => Self::CopyFrom,
            Some(NodeEnum::CopyStmt(copy)) => Self::CopyTo(change::copy_out(copy)),
            Some(NodeEnum::ExplainStmt(_)) => Self::Explain,
            Some(NodeEnum::PrepareStmt(prepare)) => Self::Prepare { name: prepare.name.clone() },
            Some(NodeEnum::ExecuteStmt(execute)) => Self::Execute { name: execute.name.clone() },
            Some(NodeEnum::DeallocateStmt(gone)) => Self::Deallocate { name: some(&gone.name) },
            Some(NodeEnum::DeclareCursorStmt(cursor)) => Self::Declare {
                name: cursor.portalname.clone(),
                hold: cursor.options & CURSOR_WITH_HOLD != 0,
            },
            Some(NodeEnum::FetchStmt(fetch)) => Self::Fetch { name: fetch.portalname.clone() },
            Some(NodeEnum::ClosePortalStmt(close)) => Self::Close { name: some(&close.portalname) },
            Some(NodeEnum::DiscardStmt(discard)) => match discard.target() {
                pg::DiscardMode::DiscardAll => Self::DiscardAll,
                _ => Self::Other,
            },
            Some(NodeEnum::TransactionStmt(transaction)) => match transaction.kind() {
                TransactionStmtKind::TransStmtCommit
                | TransactionStmtKind::TransStmtRollback
                | TransactionStmtKind::TransStmtPrepare => Self::EndTransaction,
                TransactionStmtKind::TransStmtSavepoint => Self::Savepoint,
                TransactionStmtKind::TransStmtRollbackTo => Self::RollbackToSavepoint,
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// What a statement runs by name, wherever in it that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A prepared statement.
    Statement(&'a str),
    /// A cursor.
    Cursor(&'a str),
}

impl Statement {
    /// What it runs by name: nothing, for most.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        let effects = if self.refers { self.effects.as_slice() } else { &[] };
        effects.iter().filter_map(reference)
    }
}

pub(super) fn reference(effect: &Effect) -> Option<Reference<'_>> {
    let name = || effect.object.as_ref().and_then(Object::name).unwrap_or("");
    match &*effect.action {
        actions::EXECUTE => Some(Reference::Statement(name())),
        actions::FETCH => Some(Reference::Cursor(name())),
        _ => None,
    }
}

fn may_change_encoding(effect: &Effect) -> bool {
    let name = || effect.object.as_ref().and_then(Object::name);
    match &*effect.action {
        actions::SET | actions::RESET => matches!(name(), None | Some("client_encoding" | "names")),
        actions::DISCARD | actions::DO | actions::CALL | actions::DYNAMIC | actions::UNPARSED => {
            true
        }
        _ => false,
    }
}
