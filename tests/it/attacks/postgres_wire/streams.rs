//! Random conversations, sent to PostgreSQL and through the gateway: the same answers or a refusal,
//! and never the effect of a statement that waits or a value that is masked.
//!
//! Both sides get the same messages. Where the gateway's side has an UPDATE that people must approve,
//! and nobody does, the server's side has one that fails when it runs; where the gateway's side has
//! values that are masked, the server's side has what masks put in their place.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{POLICY, WEB};
use crate::approval::ask_with;
use crate::support::client::Database;
use crate::support::gateway::{Gateway, Setup};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::{Random, amount};
use crate::support::talk::{bind, close, describe, parse, query, sync, told};
use crate::support::wire::{Wire, message, messages, strings};

const WORKERS: usize = 8;

/// Streams that the gateway once answered differently: seed and number.
const FOUND: &[(u64, usize)] = &[
    (9_538_466_181_640_194_508, 974),
    (21_904_412_225_717_928, 887),
    (21_904_412_225_717_928, 3_595),
    (10_342_527_584_018_178_557, 16_915),
    (10_342_527_584_018_178_557, 30_938),
    (9_834_183_278_901_838_573, 31_606),
    (9_834_183_278_901_838_573, 49_823),
    (9_834_183_278_901_838_573, 31_568),
    (9_834_183_278_901_838_573, 16_733),
    (9_834_183_278_901_838_573, 68_276),
];

/// What the gateway may end a session with, where the server would not: what could be read in two
/// ways, and what no server takes.
const REFUSALS: [&str; 3] =
    ["a Sync came among COPY data", "a message that is no COPY data", "a message ends too early"];

const SCHEMA: &str = "
    create table orders (id int primary key, status text);
    insert into orders values (1, 'new'), (2, 'new');
    create table customers (id int, email text, ssn text, note text);
    insert into customers values (1, '{secret}', '{secret}', 'n1'), (2, '{secret}', '{secret}', 'n2');
    create table empty_t (t int check (t < 100));
    create table parent (t int primary key);
    insert into parent values (1);
    create table child (t int references parent);
    create table ruled (t int);
    create rule also as on insert to ruled do also select 42 as x, 'ruled' as y";

/// What waits for people; `{hit}` is what tells the two sides apart.
const HELD: [&str; 4] = [
    "update orders set status = {hit} where id = 1",
    "update orders set status = {hit} where id = 2",
    "with u as (update orders set status = {hit} where id = 1 returning id) select * from u",
    "update orders set status = {hit} where id = 1; select 2",
];

const MASKED: [&str; 4] = [
    "select email from customers",
    "select id, ssn, note from customers order by id",
    "select lower(email) || '' as e from customers",
    "copy customers (id, email) to stdout",
];

const HARMLESS: [&str; 24] = [
    "select 1",
    "select n from generate_series(1, 3) n",
    "select 1; select 'two' as b",
    "select 1 / 0",
    "select 1; select 1 / 0; select 3",
    "not sql",
    "",
    ";",
    "select * from no_such_table",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "insert into empty_t values (7)",
    "insert into ruled values (1)",
    "insert into ruled values (1) returning t",
    "select $1::int",
    "copy (select n from generate_series(1, 2) n) to stdout",
    "set application_name = 'stream'",
    "set standard_conforming_strings = off",
    "deallocate all",
    "discard all",
    "begin; select 5",
];

const COPIES: [&str; 6] = [
    "copy empty_t from stdin",
    "copy child from stdin",
    "copy no_such_table from stdin",
    "copy empty_t from stdin; copy child from stdin",
    "copy empty_t from stdin; select 2",
    "copy empty_t (t) from stdin with (format csv)",
];

const DATA: [&str; 9] = ["1\n", "1\n2\n", "x\ty\n", "100\n", "2\n", "1", "\n", "\\.\n", ""];

/// A message for the gateway, and for the server.
#[derive(Clone)]
struct Sent {
    through: Vec<u8>,
    direct: Vec<u8>,
}

impl From<Vec<u8>> for Sent {
    fn from(bytes: Vec<u8>) -> Self {
        Self { through: bytes.clone(), direct: bytes }
    }
}

/// Messages in pieces that are sent one after the other.
struct Stream {
    pieces: Vec<Vec<Sent>>,
    /// The last message is cut, and nothing follows it.
    is_cut: bool,
}

fn one_of<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len())].clone()
}

fn name(random: &mut Random) -> String {
    let long = "n".repeat(63);
    let accents = "é".repeat(31);
    match random.below(12) {
        0..4 => String::new(),
        4..6 => "s".to_owned(),
        6 => "t".to_owned(),
        7 => long + "a",
        8 => long + "b",
        9 => long,
        10 => accents + "é",
        _ => accents + "è",
    }
}

fn sql(random: &mut Random) -> String {
    let quoted = |random: &mut Random| format!("\"{}\"", name(random));
    match random.below(20) {
        0 | 1 => one_of(random, &HELD).to_owned(),
        2..6 => one_of(random, &MASKED).to_owned(),
        6..8 => one_of(random, &COPIES).to_owned(),
        8 => {
            // One statement: the server's words about two are not what stands for a refusal.
            let what = if random.below(2) == 0 { one_of(random, &HELD[..3]) } else { "select 1" };
            format!("prepare {} as {what}", quoted(random))
        }
        9 => format!("execute {}", quoted(random)),
        10 => format!("deallocate {}", quoted(random)),
        11 => {
            let what = one_of(random, &["select email from customers", "select 1"]);
            format!("declare {} cursor for {what}", quoted(random))
        }
        12 => format!("fetch all from {}", quoted(random)),
        13 => format!("close {}", quoted(random)),
        _ => one_of(random, &HARMLESS).to_owned(),
    }
}

/// A message that holds SQL, for both sides.
fn of_sql(sql: &str, make: impl Fn(&str) -> Vec<u8>) -> Sent {
    // To prepare what waits, in SQL, waits itself.
    let prepares = sql.contains("{hit}") && sql.starts_with("prepare");
    // A name without letters is a syntax error on both sides.
    let direct = if prepares && !sql.starts_with("prepare \"\"") { HELD[0] } else { sql };
    let direct = make(&direct.replace("{hit}", "(1 / (id - id))::text"));
    Sent { through: make(&sql.replace("{hit}", "'hit'")), direct }
}

fn execute(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[strings(&[portal]), vec![0, 0, 0, rows]].concat())
}

fn data(random: &mut Random) -> Sent {
    message(b'd', one_of(random, &DATA).as_bytes()).into()
}

/// Any message.
fn any(random: &mut Random) -> Sent {
    let kind = one_of(random, b"SP");
    match random.below(16) {
        0..3 => of_sql(&sql(random), query),
        3 | 4 => {
            let name = name(random);
            of_sql(&sql(random), |sql| parse(&name, sql))
        }
        5 => bind(&name(random), &name(random), &[]).into(),
        6 => bind(&name(random), &name(random), &["1"]).into(),
        7 => describe(kind, &name(random)).into(),
        8 => execute(&name(random), one_of(random, &[0, 0, 1])).into(),
        9 => close(kind, &name(random)).into(),
        10 | 11 => sync().into(),
        12 => message(b'H', b"").into(),
        13 => data(random),
        14 => message(b'c', b"").into(),
        _ => message(b'f', b"given up\0").into(),
    }
}

/// Messages that belong together, as clients send them.
fn phrase(random: &mut Random, pieces: &mut Vec<Vec<Sent>>) {
    let mut piece = Vec::new();
    match random.below(8) {
        0..3 => {
            let (statement, portal) = (name(random), name(random));
            piece.push(of_sql(&sql(random), |sql| parse(&statement, sql)));
            piece.push(bind(&portal, &statement, &[]).into());
            if random.below(2) == 0 {
                piece.push(describe(b'P', &portal).into());
            }
            piece.push(execute(&portal, 0).into());
            if random.below(4) > 0 {
                piece.push(sync().into());
            }
        }
        3 | 4 => {
            let copy = one_of(random, &COPIES);
            if random.below(2) == 0 {
                piece.push(query(copy).into());
            } else {
                piece.push(parse("", copy).into());
                piece.push(bind("", "", &[]).into());
                piece.push(execute("", 0).into());
                piece.push(one_of(random, &[sync(), message(b'H', b"")]).into());
            }
            if random.below(4) > 0 {
                pieces.push(std::mem::take(&mut piece));
            }
            for _ in 0..random.below(3) {
                piece.push(data(random));
            }
            if random.below(5) == 0 {
                piece.push(sync().into());
            }
            piece.push(
                one_of(random, &[message(b'c', b""), message(b'c', b""), message(b'f', b"no\0")])
                    .into(),
            );
            if random.below(3) > 0 {
                piece.push(sync().into());
            }
        }
        5 => piece.push(of_sql(&sql(random), query)),
        _ => piece.push(any(random)),
    }
    pieces.push(piece);
}

fn stream(seed: u64, number: usize) -> Stream {
    let mut random = Random::numbered(seed, number);
    let random = &mut random;
    let mut phrases = Vec::new();
    for _ in 0..2 + random.below(7) {
        phrase(random, &mut phrases);
    }
    // Late, early, doubled, missing, and others between them.
    let noisy = random.below(3) > 0;
    let mut pieces: Vec<Vec<Sent>> = vec![Vec::new()];
    for piece in phrases {
        for sent in piece {
            let last = pieces.last_mut().unwrap();
            match if noisy { random.below(25) } else { 9 } {
                0 => {}
                1 => last.extend([sent.clone(), sent]),
                2 => last.extend([any(random), sent]),
                3 => {
                    let before = last.pop();
                    last.push(sent);
                    last.extend(before);
                }
                4 => pieces.push(vec![sent]),
                _ => last.push(sent),
            }
        }
        if random.below(2) == 0 {
            pieces.push(Vec::new());
        }
    }
    let is_cut = random.below(400) == 0;
    Stream { pieces, is_cut }
}

/// One of the two ways to the data.
#[derive(Clone)]
struct Side {
    address: SocketAddr,
    user: String,
    database: String,
    password: String,
}

impl Side {
    fn open(&self) -> Wire {
        let mut wire = Wire::connect(self.address);
        let parameters = strings(&["user", &self.user, "database", &self.database, ""]);
        let length = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes();
        wire.send(&[&length[..], &196_608_u32.to_be_bytes(), &parameters].concat());
        // A server that trusts asks for no password.
        if !self.password.is_empty() {
            wire.read_to(b'R');
            wire.send(&message(b'p', &strings(&[&self.password])));
        }
        wire.read_to(b'Z');
        wire.received.clear();
        wire
    }
}

const END: &str = "the end of the stream";

/// Sends a stream and what ends whatever it left behind. Gives what came; whether the connection
/// ended.
fn converse(wire: &mut Wire, pieces: &[Vec<u8>], is_cut: bool) -> (Vec<String>, bool) {
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len();
        if is_last && is_cut {
            wire.send(&piece[..piece.len() - piece.len().min(3)]);
            wire.finish();
            wire.read_to_end();
            break;
        }
        wire.send(piece);
        // Answers may come before the next piece goes, or not: both must do.
        if !is_last {
            wire.read_for(Duration::from_millis(2));
        }
    }
    if !is_cut {
        let end = format!("select '{END}'");
        let behind = [
            message(b'f', b"the end\0"),
            sync(),
            query("rollback"),
            query("discard all"),
            query(&end),
        ];
        wire.send(&behind.concat());
        wire.read_until(|received| {
            let mut behind = messages(received).skip_while(|came| {
                came[0] != b'D' || !came.windows(END.len()).any(|part| part == END.as_bytes())
            });
            behind.any(|came| came[0] == b'Z')
        });
    }
    let received = std::mem::take(&mut wire.received);
    assert!(!received.windows(6).any(|part| part == b"secret"), "a masked value came");
    let said: Vec<String> =
        messages(&received).filter(|came| !b"NSA".contains(&came[0])).map(told).collect();
    let ended = !said.iter().any(|line| line.contains(END));
    (said, ended)
}

/// The SQLSTATE of an error.
fn code(line: &str) -> Option<&str> {
    line.strip_prefix("E[")?.get(..5)
}

/// Whether the gateway's answer is what the server says, or a refusal in its place.
fn same(through: &str, direct: &str) -> bool {
    match (code(through), code(direct)) {
        // What waits is not approved; and what is not known may be anything that waits.
        // A syntax error is refused in the parser's words.
        (Some(code), Some(direct)) => {
            code == direct
                // Nobody is asked about what the server would not have run.
                || code == "42501" && (["22012", "XX000"].contains(&direct) || !through.contains("not approved"))
                || code == "42601" && through.contains("could not be understood")
                // What was refused made no portal; what fails while it runs leaves the one behind that
                // it ran by, and the server says that the transaction failed.
                || code == "34000" && direct == "25P02" && through.contains("portal \"\"")
        }
        // Rows that the statement did not ask for are masked whole.
        _ => through == direct || (through, direct) == ("D[NULL|[masked]]", "D[42|ruled]"),
    }
}

/// What is different, if anything; whether the gateway refused to go on.
fn compare(
    (through, ended): &(Vec<String>, bool),
    (direct, direct_ended): &(Vec<String>, bool),
    is_cut: bool,
) -> Result<bool, String> {
    // What runs something that is not known is refused at once; what follows goes other ways then.
    if let Some(at) = through.iter().position(|line| line.contains("could not be understood"))
        && !through[..at].iter().zip(direct).any(|(through, direct)| !same(through, direct))
        && direct.len() > at
    {
        return Ok(false);
    }
    let last = through.last().map_or("", String::as_str);
    // A COPY of a statement whose name is in doubt is not masked and does not come.
    let unmasked = last.contains("cannot be masked")
        && direct.get(through.len() - 1).is_some_and(|d| d == "H");
    let refused = *ended && (unmasked || REFUSALS.iter().any(|refusal| last.contains(refusal)));
    let mut compared = through.as_slice();
    if refused {
        compared = &through[..through.len() - 1];
        // The gateway's own end of a COPY, where the server would have ended the session.
        if compared.last().is_some_and(|line| code(line) == Some("57014")) {
            compared = &compared[..compared.len() - 1];
        }
        // An answer to what was not forwarded any more is not given.
        if compared.len() > direct.len() {
            return Err("more came than from the server".to_owned());
        }
    } else if is_cut {
        // A client that is gone is not answered to the end, on either side, and nobody is asked for it.
    } else if ended != direct_ended {
        return Err(format!("ended: {ended}, the server: {direct_ended}"));
    } else if compared.len() != direct.len() {
        return Err("another number of answers".to_owned());
    }
    match compared.iter().zip(direct).position(|(through, direct)| !same(through, direct)) {
        Some(at) => Err(format!("answer {at} is another")),
        None => Ok(refused && !direct_ended),
    }
}

/// Both ways, and what was found on them.
struct Both {
    through: Side,
    direct: Side,
    refused: AtomicUsize,
    not_approved: AtomicUsize,
    answers: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Both {
    fn run(&self, wires: &mut Option<(Wire, Wire)>, seed: u64, number: usize) {
        let Stream { pieces, is_cut } = stream(seed, number);
        let (mut through, mut direct) =
            wires.take().unwrap_or_else(|| (self.through.open(), self.direct.open()));
        let bytes = |of: fn(&Sent) -> &Vec<u8>| -> Vec<Vec<u8>> {
            pieces.iter().map(|piece| piece.iter().flat_map(of).copied().collect()).collect()
        };
        let from_server = converse(&mut direct, &bytes(|sent| &sent.direct), is_cut);
        let from_gateway = converse(&mut through, &bytes(|sent| &sent.through), is_cut);
        let waited = from_gateway.0.iter().filter(|line| line.contains("not approved")).count();
        self.not_approved.fetch_add(waited, Ordering::Relaxed);
        self.answers.fetch_add(from_gateway.0.len(), Ordering::Relaxed);
        match compare(&from_gateway, &from_server, is_cut) {
            Ok(refused) => drop(self.refused.fetch_add(refused.into(), Ordering::Relaxed)),
            Err(what) => {
                let shown: Vec<String> = pieces
                    .iter()
                    .map(|piece| {
                        piece
                            .iter()
                            .map(|sent| shown(&sent.through))
                            .collect::<Vec<_>>()
                            .join("\n  ")
                    })
                    .collect();
                self.failures.lock().unwrap().push(format!(
                    "seed {seed}, stream {number}: {what}\nsent\n  {}\nthrough {:#?}\ndirect {:#?}",
                    shown.join("\n  --\n  "),
                    from_gateway.0,
                    from_server.0
                ));
            }
        }
        if !from_gateway.1 && !from_server.1 {
            *wires = Some((through, direct));
        }
    }
}

/// A message of the client for people.
fn shown(sent: &[u8]) -> String {
    let body = String::from_utf8_lossy(&sent[5..]).replace('\0', "·");
    format!(
        "{} {}",
        sent[0] as char,
        body.replace(&"n".repeat(63), "n×63").replace(&"é".repeat(31), "é×31")
    )
}

/// Denies whatever waits, until told to stop; how many it denied.
fn deny_all(gateway: &Gateway, done: &AtomicBool) -> usize {
    let mut denied = 0;
    let token = gateway.issuer().token("anna");
    while !done.load(Ordering::Relaxed) {
        let (status, page) = ask_with(gateway, &token, "GET", "/approvals?state=pending", "");
        assert_eq!(status, 200, "{page}");
        for request in page["items"].as_array().unwrap() {
            let path = format!("/approvals/{}/deny", request["id"].as_str().unwrap());
            let (status, _) = ask_with(gateway, &token, "POST", &path, r#"{"comment": "no"}"#);
            denied += usize::from(status == 200);
        }
        thread::sleep(Duration::from_millis(2));
    }
    denied
}

#[test]
fn random_streams_get_the_servers_answers_or_a_refusal() {
    let hba = vec!["host all all 127.0.0.1/32 trust".to_owned()];
    let server = PostgresServer::start(&Options { hba, ..Options::default() });
    let (held, plain) = (Database::on(&server), Database::on(&server));
    for (database, secret) in [(&held, "secret"), (&plain, "[masked]")] {
        let schema = SCHEMA.replace("{secret}", secret);
        server.psql(&database.name, &format!("set role {}; {schema}", database.role));
    }
    let gateway = Gateway::start(&Setup {
        listen: WEB.to_owned(),
        // One agent asks here more often than any may.
        policy: format!("[approvals]\nper_minute = 20_000\n{POLICY}"),
        ..Setup::for_targets([held.target("orders")])
    });
    gateway.daemon().wait_for_log("state is read");
    let both = Both {
        through: Side {
            address: gateway.address(),
            user: "agent".to_owned(),
            database: "orders".to_owned(),
            password: gateway.issuer().token("agent"),
        },
        direct: Side {
            address: ([127, 0, 0, 1], server.port()).into(),
            user: plain.role.clone(),
            database: plain.name.clone(),
            password: String::new(),
        },
        refused: AtomicUsize::new(0),
        not_approved: AtomicUsize::new(0),
        answers: AtomicUsize::new(0),
        failures: Mutex::default(),
    };
    let count = amount("PORTCULLIS_STREAMS", 2_000);
    let seed = Random::seeded().next();
    let (next, done, began) = (AtomicUsize::new(0), AtomicBool::new(false), Instant::now());
    let denied = thread::scope(|scope| {
        let denier = scope.spawn(|| deny_all(&gateway, &done));
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut wires = None;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let many = both.failures.lock().unwrap().len() > 4;
                        if number >= FOUND.len() + count || many {
                            break;
                        }
                        let (seed, number) = match FOUND.get(number) {
                            Some(found) => *found,
                            None => (seed, number - FOUND.len()),
                        };
                        both.run(&mut wires, seed, number);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        let denied = denier.join().unwrap();
        ended.into_iter().for_each(|ended| ended.unwrap());
        denied
    });
    let (refused, answers) = (both.refused.into_inner(), both.answers.into_inner());
    let not_approved = both.not_approved.into_inner();
    println!(
        "{count} streams, {answers} answers, {not_approved} not approved, {refused} streams refused, {:?}",
        began.elapsed()
    );
    let failures = both.failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n\n"));
    assert!(refused * 5 < count.max(50), "too many streams are refused to say anything");
    // Of streams that were cut or refused not every answer came.
    assert!(denied >= not_approved, "{denied} were denied, {not_approved} not approved");
    let hit = "select count(*) from orders where status = 'hit'";
    assert_eq!(server.psql(&held.name, hit), "0", "what waited has run");
}
