use super::producer::Producer;
use super::*;
use crate::clock::Moment;
use crate::decode::postgres::frame::message as frame;
use crate::decode::postgres::frontend::Bind;
use crate::decode::sql::analyze;
use crate::protocol::postgres::refusal::Objection;

fn query(sql: &str) -> Message<'_> {
    Message::Query { sql }
}

/// The text of the statement whose results come now.
fn producer(replies: &Replies) -> String {
    match replies.producer() {
        Producer::Nobody => "nobody".to_owned(),
        Producer::Unknown => "unknown".to_owned(),
        Producer::Statement(source, _) => {
            let range = source.statement().map_or(0..0, |statement| statement.range.clone());
            source.reading().text().get(range).unwrap().trim().to_owned()
        }
    }
}

/// The texts that a name may stand for.
fn texts(candidates: &Candidates) -> Vec<String> {
    let known = candidates.iter().map(|c| c.source.reading().text().to_owned());
    known.chain(candidates.unknown.then(|| "unknown".to_owned())).collect()
}

fn bind<'a>(portal: &'a str, statement: &'a str) -> Message<'a> {
    let (parameters, result_formats) = (Vec::new(), Vec::new());
    Message::Bind(Bind { portal, statement, parameters, result_formats })
}

const EXECUTE: Message<'static> = Message::Execute { portal: "", max_rows: 0 };

fn session() -> Replies {
    Replies::new(&[("standard_conforming_strings".to_owned(), "on".to_owned())])
}

/// Enters a message with its text as it is read.
fn enter(replies: &mut Replies, message: &Message<'_>, of: Sequence, refused: Option<Words>) {
    let reading = match message {
        Message::Query { sql } | Message::Parse { sql, .. } => Some(read(sql)),
        _ => None,
    };
    let candidates = match message {
        Message::Execute { portal, .. } => replies.portal_candidates(portal),
        _ => reading.as_ref().map(|reading| replies.named_in(reading)).unwrap_or_default(),
    };
    let bound = match message {
        Message::Bind(bind) => {
            let formats = bind.result_formats.clone();
            Some(Arc::new(Bound { formats, ..Bound::default() }))
        }
        _ => None,
    };
    let entered = Entered { of, refused, reading, bound, candidates, ..Entered::default() };
    replies.expect(message, Moment::now(), entered).unwrap();
}

fn read(sql: &str) -> Arc<Reading> {
    let settings = LexerSettings::default();
    Arc::new(Reading::new(sql, settings, analyze(sql, settings)))
}

/// Forwards messages; the nth is recorded as sequence n.
fn forward(replies: &mut Replies, messages: &[Message<'_>]) {
    for (of, message) in (0..).zip(messages) {
        enter(replies, message, of, None);
    }
}

/// Takes a message that must fit.
fn take(replies: &mut Replies, message: &[u8]) -> Answered {
    replies.fits_now(message).unwrap();
    replies.answer(message, message, Moment::now()).unwrap()
}

/// Gives what ended: sequence, status, error code.
fn answer(
    replies: &mut Replies,
    tag: u8,
    body: &[u8],
) -> Vec<(u64, Option<String>, Option<String>)> {
    let answered = take(replies, &frame(tag, body));
    let ended = answered.ended.into_iter();
    ended.map(|(of, o)| (of, o.status, o.error.map(|e| e.code))).collect()
}

fn parse(statement: &str) -> Message<'_> {
    Message::Parse { statement, sql: "select 1", parameter_types: Vec::new() }
}

const ERROR: &[u8] = b"C42P01\0Mno\0\0";

#[test]
fn a_query_ends_with_ready_for_query_and_its_rows_add_up() {
    let mut replies = session();
    forward(&mut replies, &[Message::Query { sql: "…" }]);
    assert!(answer(&mut replies, b'C', b"INSERT 0 2\0").is_empty());
    assert!(answer(&mut replies, b'C', b"SELECT 3\0").is_empty());
    let answered = take(&mut replies, &frame(b'Z', b"T"));
    assert_eq!(answered.of, Some(0));
    assert_eq!(answered.ended[0].1.rows, Some(5));
    assert!(replies.is_idle());
    assert!(!replies.is_at_rest());
}

#[test]
fn an_error_in_a_pipeline_skips_to_the_sync_and_no_further() {
    let mut replies = session();
    forward(
        &mut replies,
        &[parse("a"), bind("", "a"), EXECUTE, Message::Sync, Message::Query { sql: "…" }],
    );
    assert!(answer(&mut replies, b'1', b"").is_empty());
    let skipped = |of| (of, Some("SKIPPED".to_owned()), None);
    assert_eq!(
        answer(&mut replies, b'E', ERROR),
        [(1, None, Some("42P01".to_owned())), skipped(2)]
    );
    assert!(answer(&mut replies, b'Z', b"I").is_empty());
    assert!(answer(&mut replies, b'C', b"SELECT 1\0").is_empty());
    assert_eq!(answer(&mut replies, b'Z', b"I").len(), 1);
}

#[test]
fn what_is_sent_after_an_error_and_before_the_sync_is_owed_no_reply() {
    let mut replies = session();
    forward(&mut replies, &[parse("a")]);
    assert_eq!(answer(&mut replies, b'E', ERROR).len(), 1);
    forward(&mut replies, &[bind("", "a"), EXECUTE]);
    assert!(replies.is_idle());
    forward(&mut replies, &[Message::Sync, parse("b")]);
    answer(&mut replies, b'Z', b"I");
    answer(&mut replies, b'1', b"");
    assert_eq!(replies.basis(&bind("", "b")), Some(1));
    assert_eq!(replies.basis(&bind("", "a")), None, "a Parse that failed made no statement");
}

#[test]
fn a_failed_parse_replaces_nothing() {
    let mut replies = session();
    forward(&mut replies, &[parse("a"), Message::Sync]);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'Z', b"I");
    enter(&mut replies, &parse("a"), 7, None);
    assert_eq!(replies.basis(&bind("", "a")), Some(7), "the pending one is next");
    answer(&mut replies, b'E', ERROR);
    assert_eq!(replies.basis(&bind("", "a")), Some(0));
}

/// A session in which the server reads COPY data for an Execute.
fn copying() -> Replies {
    let mut replies = session();
    forward(&mut replies, &[parse_of("", "copy t from stdin"), bind("", ""), EXECUTE]);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'2', b"");
    assert_eq!(replies.course(&Message::Sync), Course::Wait, "it may not be a COPY yet");
    answer(&mut replies, b'G', b"\0\0\0");
    replies
}

#[test]
fn what_the_server_may_ignore_is_kept_back_until_it_says() {
    // The data end: a Sync before them was ignored, one behind them counts.
    let mut replies = copying();
    assert_eq!(replies.course(&Message::Sync), Course::Keep);
    replies.keep_sync();
    forward(&mut replies, &[Message::CopyData, Message::CopyDone]);
    assert_eq!(replies.course(&Message::Sync), Course::Forward);
    assert_eq!(replies.course(&query("select 1")), Course::Wait);
    forward(&mut replies, &[Message::Sync]);
    assert_eq!(answer(&mut replies, b'C', b"COPY 1\0").len(), 1);
    answer(&mut replies, b'Z', b"I");
    assert!(replies.is_idle() && !replies.owes_syncs());

    // It fails in the data: a Sync behind them counts.
    let mut replies = copying();
    forward(&mut replies, &[Message::CopyData]);
    replies.keep_sync();
    assert_eq!(replies.course(&query("select 1")), Course::Fail);
    replies.end_copy();
    assert_eq!(replies.course(&query("select 1")), Course::Wait);
    answer(&mut replies, b'E', ERROR);
    assert_eq!(replies.course(&query("select 1")), Course::Forward);
    assert_eq!(replies.take_owed_syncs(), 1);

    // A Sync among data: whether it counted is not known when the COPY fails.
    let mut replies = copying();
    forward(&mut replies, &[Message::CopyData]);
    replies.keep_sync();
    forward(&mut replies, &[Message::CopyData]);
    let error = frame(b'E', ERROR);
    assert_eq!(replies.fits_now(&error), Ok(()));
    let failed = replies.answer(&error, &error, Moment::now());
    assert_eq!(failed.map(drop), Err(Unfit::SyncAmongData));
}

#[test]
fn what_fits_nothing_that_is_owed_is_told() {
    let unfit = |replies: &Replies, tags: &[u8]| {
        for tag in tags {
            assert_eq!(replies.fits_now(&frame(*tag, b"")), Err(Unfit::Answer), "{}", *tag as char);
        }
    };
    unfit(&session(), b"123tTnCIsGHcZ");
    let mut replies = session();
    forward(&mut replies, &[query("select 1; select 2")]);
    unfit(&replies, b"123tnIsGHcZ");
    assert_eq!(replies.takes_data(b'D'), Err(Unfit::Answer));
    answer(&mut replies, b'T', b"\0\0");
    unfit(&replies, b"TGHcZ");
    assert_eq!((replies.takes_data(b'D'), replies.takes_data(b'd')), (Ok(()), Err(Unfit::Answer)));
    answer(&mut replies, b'C', b"SELECT 1\0");
    unfit(&replies, b"Z");
    answer(&mut replies, b'C', b"SELECT 1\0");
    unfit(&replies, b"CT");
    answer(&mut replies, b'Z', b"I");

    // An error that ends the session fits always, and nothing behind it does.
    let fatal = frame(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0");
    assert_eq!(replies.fits_now(&frame(b'E', ERROR)), Err(Unfit::Answer));
    take(&mut replies, &fatal);
    assert_eq!(replies.fits_now(&fatal), Err(Unfit::Answer));

    // A timeout within a step that no Sync ended.
    let mut replies = session();
    forward(&mut replies, &[parse("")]);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'E', ERROR);
    answer(&mut replies, b'Z', b"I");
    assert!(replies.is_idle());
}

#[test]
fn a_failed_commit_at_the_sync_leaves_the_queue_whole() {
    let mut replies = session();
    forward(&mut replies, &[parse(""), Message::Sync]);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'E', ERROR);
    assert!(!replies.is_idle());
    answer(&mut replies, b'Z', b"I");
    assert!(replies.is_idle());
}

#[test]
fn a_refused_command_answers_with_the_refusal_and_only_for_its_own_error() {
    let refusal = || Some(Objection::FunctionCall.to_words());
    let mut replies = session();
    enter(&mut replies, &Message::FunctionCall, 0, refusal());
    let cancelled = frame(b'E', b"C57014\0Mcancelled\0\0");
    assert!(take(&mut replies, &cancelled).instead.is_none());

    let mut replies = session();
    enter(&mut replies, &parse("a"), 0, refusal());
    let syntax = frame(b'E', b"C42601\0Mno\0\0");
    let answered = take(&mut replies, &syntax);
    assert!(answered.instead.is_some());
    // What is recorded is the refusal too.
    let codes: Vec<_> =
        answered.ended.iter().map(|(_, o)| o.error.as_ref().unwrap().code.clone()).collect();
    assert_eq!(codes, ["0A000"]);
    assert_eq!(replies.fits_now(&syntax), Err(Unfit::Answer), "one error, one answer");
}

#[test]
fn portals_end_with_their_transaction() {
    let mut replies = session();
    forward(&mut replies, &[parse(""), bind("p", ""), Message::Sync]);
    for (tag, body) in [(b'1', &b""[..]), (b'2', b""), (b'Z', b"T")] {
        answer(&mut replies, tag, body);
    }
    let execute = Message::Execute { portal: "p", max_rows: 5 };
    assert_eq!(replies.basis(&execute), Some(1));
    forward(&mut replies, &[Message::Sync]);
    answer(&mut replies, b'Z', b"I");
    assert_eq!(replies.basis(&execute), None);
}

fn parse_of<'a>(statement: &'a str, sql: &'a str) -> Message<'a> {
    Message::Parse { statement, sql, parameter_types: Vec::new() }
}

#[test]
fn results_are_those_of_the_statement_that_runs() {
    let mut replies = session();
    forward(&mut replies, &[query("select 1; select 2"), Message::Sync]);
    assert_eq!(producer(&replies), "select 1");
    answer(&mut replies, b'C', b"SELECT 1\0");
    assert_eq!(producer(&replies), "select 2");
    answer(&mut replies, b'C', b"SELECT 1\0");
    answer(&mut replies, b'Z', b"I");
    assert_eq!(producer(&replies), "unknown", "a commit may tell of anything");
    answer(&mut replies, b'Z', b"I");
    assert_eq!(producer(&replies), "nobody");
}

#[test]
fn results_of_execute_and_fetch_are_those_of_what_they_name() {
    let mut replies = session();
    let sql = "prepare p as select email from c; execute p; declare k cursor for table c; fetch k";
    forward(&mut replies, &[query(sql), query("execute p"), query("fetch k"), query("execute q")]);
    for (tag, expected) in [
        ("PREPARE", "prepare p as select email from c"),
        ("SELECT 1", "prepare p as select email from c"),
        ("DECLARE CURSOR", "declare k cursor for table c"),
        ("FETCH 1", "declare k cursor for table c"),
    ] {
        assert_eq!(producer(&replies), expected);
        answer(&mut replies, b'C', format!("{tag}\0").as_bytes());
    }
    answer(&mut replies, b'Z', b"I");
    assert_eq!(producer(&replies), "prepare p as select email from c");
    answer(&mut replies, b'C', b"SELECT 1\0");
    answer(&mut replies, b'Z', b"I");
    assert_eq!(producer(&replies), "unknown", "the cursor went with its transaction");
    answer(&mut replies, b'E', ERROR);
    answer(&mut replies, b'Z', b"I");
    assert_eq!(producer(&replies), "unknown");
}

#[test]
fn a_name_on_its_way_may_stand_for_all_that_it_may_become() {
    let mut replies = session();
    forward(&mut replies, &[parse_of("s", "select 1"), Message::Sync]);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'Z', b"I");
    forward(&mut replies, &[parse_of("s", "delete from t")]);
    assert_eq!(texts(&replies.statement_candidates("s")), ["delete from t"]);
    forward(&mut replies, &[Message::Sync]);
    assert_eq!(texts(&replies.statement_candidates("s")), ["delete from t", "select 1"]);
    answer(&mut replies, b'E', ERROR);
    answer(&mut replies, b'Z', b"I");
    assert_eq!(texts(&replies.statement_candidates("s")), ["select 1"]);
    assert!(replies.statement_candidates("other").is_empty());
}

#[test]
fn a_refused_parse_makes_nothing() {
    let mut replies = session();
    enter(&mut replies, &parse_of("", "drop table t"), 1, Some(Words::none()));
    assert!(replies.statement_candidates("").is_empty());
}

#[test]
fn a_portal_runs_its_statement_whatever_the_name_stands_for_later() {
    let mut replies = session();
    forward(&mut replies, &[parse_of("", "delete from t"), bind("p", ""), Message::Sync]);
    for (tag, body) in [(b'1', &b""[..]), (b'2', b""), (b'Z', b"T")] {
        answer(&mut replies, tag, body);
    }
    forward(
        &mut replies,
        &[parse_of("", "select 1"), Message::Execute { portal: "p", max_rows: 1 }],
    );
    assert_eq!(texts(&replies.portal_candidates("p")), ["delete from t"]);
    answer(&mut replies, b'1', b"");
    assert_eq!(producer(&replies), "delete from t");
    let Producer::Statement(_, Some(bound)) = replies.producer() else { panic!() };
    assert!(bound.formats.is_empty());
    answer(&mut replies, b's', b"");
    assert_eq!(texts(&replies.portal_candidates("p")), ["delete from t"]);
    // A portal that was bound in the same step as a Sync lives on in an open transaction.
    forward(&mut replies, &[bind("q", ""), Message::Sync]);
    assert_eq!(texts(&replies.portal_candidates("q")), ["select 1"]);
}

#[test]
fn a_portal_on_its_way_is_of_the_statement_as_it_was_at_its_bind() {
    let mut replies = session();
    forward(&mut replies, &[parse_of("", "delete from t"), Message::Sync]);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'Z', b"I");
    forward(&mut replies, &[bind("", ""), parse_of("", "select 1")]);
    assert_eq!(texts(&replies.portal_candidates("")), ["delete from t"]);
    forward(&mut replies, &[bind("", "")]);
    assert_eq!(texts(&replies.portal_candidates("")), ["select 1"]);
}

#[test]
fn cursors_live_as_long_as_the_server_lets_them() {
    let cursor = |replies: &Replies| texts(&replies.portal_candidates("c")).len();
    let run = |replies: &mut Replies, sql: &str, tag: &str, status: &[u8]| {
        forward(replies, &[query(sql)]);
        answer(replies, b'C', format!("{tag}\0").as_bytes());
        answer(replies, b'Z', status);
    };
    let mut replies = session();
    run(&mut replies, "begin", "BEGIN", b"T");
    run(&mut replies, "declare c cursor for select 1", "DECLARE CURSOR", b"T");
    run(&mut replies, "savepoint s", "SAVEPOINT", b"T");
    run(&mut replies, "rollback to s", "ROLLBACK", b"T");
    assert_eq!(cursor(&replies), 1, "it is older than the savepoint");
    run(&mut replies, "close c", "CLOSE CURSOR", b"T");
    run(&mut replies, "declare c cursor for select 1", "DECLARE CURSOR", b"T");
    run(&mut replies, "rollback to s", "ROLLBACK", b"T");
    assert_eq!(cursor(&replies), 0, "it is younger");
    run(&mut replies, "declare c cursor with hold for select 1", "DECLARE CURSOR", b"T");
    run(&mut replies, "commit", "COMMIT", b"I");
    assert_eq!(cursor(&replies), 1, "it is held");
    run(&mut replies, "rollback", "ROLLBACK", b"I");
    assert_eq!(cursor(&replies), 1);
    run(&mut replies, "discard all", "DISCARD ALL", b"I");
    assert_eq!(cursor(&replies), 0);
    run(&mut replies, "begin", "BEGIN", b"T");
    run(&mut replies, "declare c cursor with hold for select 1", "DECLARE CURSOR", b"T");
    run(&mut replies, "rollback", "ROLLBACK", b"I");
    assert_eq!(cursor(&replies), 0, "it never came to be held");
}

#[test]
fn what_was_forwarded_may_change_how_the_next_text_is_read() {
    let mut replies = session();
    assert!(replies.lexing().settled && replies.lexing().settings == LexerSettings::default());
    forward(&mut replies, &[parse_of("", "select f()")]);
    assert!(replies.lexing().settled, "a Parse runs nothing");
    forward(&mut replies, &[bind("", ""), EXECUTE]);
    assert!(!replies.lexing().settled && replies.lexing().encoding_settled);
    answer(&mut replies, b'1', b"");
    answer(&mut replies, b'2', b"");
    answer(&mut replies, b'C', b"SELECT 1\0");
    assert!(!replies.lexing().settled, "the server tells with ReadyForQuery");
    forward(&mut replies, &[Message::Sync, query("set names 'SJIS'")]);
    answer(&mut replies, b'S', b"standard_conforming_strings\0off\0");
    answer(&mut replies, b'Z', b"I");
    let lexing = replies.lexing();
    assert!(!lexing.settled && !lexing.encoding_settled);
    assert!(!lexing.settings.standard_conforming_strings);
    answer(&mut replies, b'C', b"SET\0");
    answer(&mut replies, b'Z', b"I");
    assert!(replies.lexing().settled && replies.lexing().encoding_settled);
    assert!(!Replies::new(&[]).lexing().settled, "a server that tells nothing is not known");
}

#[test]
fn a_question_of_the_gateways_own_stays_unseen_and_its_error_is_the_commands() {
    let mut replies = session();
    replies.expect_probe("");
    enter(&mut replies, &EXECUTE, 5, Some(Words::none()));
    let seen = take(&mut replies, &frame(b'T', b"\0\0"));
    assert!(seen.instead.is_some_and(|words| words.as_bytes().is_empty()));

    let mut replies = session();
    replies.expect_probe("");
    enter(&mut replies, &EXECUTE, 5, Some(Words::none()));
    let answered = take(&mut replies, &frame(b'E', b"C34000\0Mno\0\0"));
    assert!(answered.instead.is_none());
    assert_eq!(answered.ended[0].0, 5);
    assert_eq!(answered.ended[0].1.error.as_ref().unwrap().code, "34000");
}
