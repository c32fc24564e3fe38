//! A text as it was read, kept for as long as it may run or answers to it may come.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, TransactionStmtKind};

use super::actions;
use super::change;
use super::grammar;
use super::lexer::Lexer;
use super::rewrite::Rewritten;
use super::view::{Withhold, view, view_with};
use super::{Analysis, Belonging, LexerSettings, Statement, SyntaxError, Unparsed, belongings};
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
    unparsed: Option<Unparsed>,
    may_change_encoding: bool,
    /// Views that are not the text itself.
    without_secrets: Option<Box<str>>,
    without_literals: OnceLock<Option<Box<str>>>,
    /// What goes to the server in its place.
    sent: Option<Rewritten>,
    belongings: OnceLock<Vec<Belonging>>,
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
        let unparsed = found.as_ref().err().copied();
        let statements = match found {
            Ok(analysis) => analysis.statements,
            Err(reason) => vec![Statement {
                range: 0..text.len(),
                effects: vec![reason.effect()],
                uses: Vec::new(),
                outputs: None,
                secret: true,
                returns: true,
                kind: StatementKind::NotUnderstood,
                remaining: None,
                refers: false,
                leaves_utf8: false,
                reveals: false,
                looks_at_texts: false,
            }],
        };
        let mut effects = statements.iter().flat_map(|statement| &statement.effects);
        Self {
            text: text.into(),
            settings,
            unparsed,
            may_change_encoding: effects.any(may_change_encoding),
            statements,
            without_secrets,
            without_literals,
            sent: None,
            belongings: OnceLock::new(),
        }
    }

    /// A text of one statement that may be shown as it is.
    pub(super) fn of_one(text: &str, settings: LexerSettings, statement: Statement) -> Self {
        Self {
            text: text.into(),
            settings,
            unparsed: None,
            may_change_encoding: statement.effects.iter().any(may_change_encoding),
            statements: vec![statement],
            without_secrets: None,
            without_literals: OnceLock::new(),
            sent: None,
            belongings: OnceLock::new(),
        }
    }

    /// The same text, for which another goes to the server.
    pub fn sent_as(&self, mut sent: Rewritten) -> Self {
        let mut remaining = std::mem::take(&mut sent.statements).into_iter();
        let statements = self.statements.iter().map(|statement| {
            let remaining = remaining.next().flatten().map(Box::new);
            Statement { remaining, ..statement.clone() }
        });
        Self {
            text: self.text.clone(),
            settings: self.settings,
            statements: statements.collect(),
            unparsed: self.unparsed,
            may_change_encoding: self.may_change_encoding,
            without_secrets: self.without_secrets.clone(),
            without_literals: self.without_literals.clone(),
            sent: Some(sent),
            belongings: OnceLock::new(),
        }
    }

    /// What goes to the server in its place, where that is another text.
    pub fn sent(&self) -> Option<&Rewritten> {
        self.sent.as_ref()
    }

    /// The request view of what goes to the server in its place.
    pub fn view_of_sent(&self, withhold: Withhold) -> Option<Cow<'_, str>> {
        let sent = &self.sent.as_ref()?.text;
        let found = match withhold {
            Withhold::Secrets if !self.is_secret() => return Some(Cow::Borrowed(sent)),
            _ => Err(Unparsed::Unknown),
        };
        Some(view(sent, self.settings, found, Withhold::Literals))
    }

    /// Whether its request view is the text itself.
    pub(super) fn shows_its_text(&self) -> bool {
        self.without_secrets.is_none()
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
        self.unparsed.is_none()
    }

    /// Why the text is not understood, if so.
    pub fn unparsed(&self) -> Option<Unparsed> {
        self.unparsed
    }

    /// What the parser says against a text that is no SQL. It is parsed once more for this: ask
    /// only when somebody wants to know.
    pub fn syntax_error(&self) -> Option<SyntaxError> {
        let wrong = self.unparsed == Some(Unparsed::Syntax);
        wrong.then(|| grammar::mistake(&self.text, self.settings)).flatten()
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

    /// Whether it sets `client_encoding` to something else than UTF-8, as far as the text tells.
    pub fn leaves_utf8(&self) -> bool {
        self.statements.iter().any(|statement| statement.leaves_utf8)
    }

    /// Whether rows of any of its statements may hold a setting of an application's own.
    pub fn reveals(&self) -> bool {
        self.statements.iter().any(|statement| statement.reveals)
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

    /// The request view without the literals that may belong to columns which are not `clear`:
    /// without all of them where the text does not tell.
    pub fn view_for(&self, clear: impl Fn(&Belonging) -> bool) -> Cow<'_, str> {
        if self.unparsed.is_some() || self.is_secret() {
            return Cow::Borrowed(self.view(Withhold::Literals));
        }
        let belongings = self.belongings();
        view_with(&self.text, self.settings, |range| {
            let found = belongings.binary_search_by_key(&range.start, |belonging| belonging.at);
            !found.ok().and_then(|at| belongings.get(at)).is_some_and(&clear)
        })
    }

    /// The parameters whose values belong to `clear` columns, wherever they stand; by their numbers
    /// less one.
    pub fn clear_parameters(&self, clear: impl Fn(&Belonging) -> bool) -> BTreeSet<usize> {
        if self.unparsed.is_some() || self.is_secret() {
            return BTreeSet::new();
        }
        let belongings = self.belongings();
        let (mut all, mut withheld) = (BTreeSet::new(), BTreeSet::new());
        for token in Lexer::new(&self.text, self.settings) {
            let digits = self.text.get(token.start + 1..token.end).filter(|_| token.is_parameter());
            let Some(number) = digits.and_then(|digits| digits.parse::<usize>().ok()) else {
                continue;
            };
            let found = belongings.binary_search_by_key(&token.start, |belonging| belonging.at);
            let shown = found.ok().and_then(|at| belongings.get(at)).is_some_and(&clear);
            if shown {
                all.insert(number)
            } else {
                withheld.insert(number)
            };
        }
        let clear = all.difference(&withheld);
        clear.filter_map(|number| number.checked_sub(1)).collect()
    }

    fn belongings(&self) -> &[Belonging] {
        self.belongings.get_or_init(|| belongings(&self.text, self.settings))
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

/// Whether rows may come of a statement.
pub(super) fn returns(node: Option<&NodeEnum>) -> bool {
    match node {
        Some(NodeEnum::InsertStmt(insert)) => insert.returning_clause.is_some(),
        Some(NodeEnum::UpdateStmt(update)) => update.returning_clause.is_some(),
        Some(NodeEnum::DeleteStmt(delete)) => delete.returning_clause.is_some(),
        Some(NodeEnum::MergeStmt(merge)) => merge.returning_clause.is_some(),
        Some(NodeEnum::CopyStmt(copy)) => !copy.is_from,
        _ => true,
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
