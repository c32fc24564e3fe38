//! Masks that keep something of a value for whoever computes with it: `hash`, `tokenize` and `bucket`.

use std::collections::BTreeSet;
use std::fs;

use portcullis::mask::{Action, HashKey, whole_value};

use crate::support::client::{Client, transcript};
use crate::support::gateway::{Gateway, Setup, Target, portcullis, told};
use crate::support::postgres::{Options, PostgresServer};
use crate::support::random::Random;
use crate::support::talk::{Talk, query};

const READER: &str = "reader";

const SCHEMA: &str = "
create table people (id int primary key, ssn text, email varchar(60), account bigint, small int2,
  number int4, device uuid, note jsonb, photo bytea, salary numeric(12, 2), height float8, born date,
  seen timestamptz, visited timestamp, code char(8));
create table payments (id int, ssn text, account bigint, device uuid, amount int);
insert into people values
  (1, '078-05-1120', 'alice.secret@example.com', 4111111111111111, 12345, 1234567,
    'c0ffee00-1111-4222-8333-444444444444', '{\"pin\": \"1970\"}', 'alice.secret', 51234.56, 1.78,
    '1970-05-06', '2024-05-06 07:08:09+00', '2024-05-06 07:08:09', 'AB12'),
  (2, '219-09-9999', 'bob.secret@example.com', 5500005555555559, -12345, -1234567,
    'c0ffee00-1111-4222-8333-555555555555', '7', 'bob.secret', -999.99, -1.6,
    '1980-12-31', '2024-12-31 23:59:59+00', '2024-12-31 23:59:59', 'CD34'),
  (3, null, null, null, null, null, null, null, null, null, null, null, null, null, null);
insert into payments select 1, ssn, account, device, 10 from people where id < 3
  union all select 2, ssn, account, device, 5 from people where id = 1;
create table edges (id int, n2 int2, n4 int4, n8 bigint, tiny numeric(2, 1), n numeric, f4 float4, f8 float8,
  d date, t timestamp, z timestamptz, words text);
insert into edges values
  (1, -32768, -2147483648, -9223372036854775808, -9.9, 'NaN', 'NaN', 'NaN', 'infinity', 'infinity',
    'infinity', ''),
  (2, 32767, 2147483647, 9223372036854775807, 9.9, 'Infinity', 'Infinity', 'Infinity', '-infinity',
    '-infinity', '-infinity', 'z'),
  (3, 0, 0, 0, 0, '-Infinity', 1e-45, 5e-324, '4713-01-01 BC', '4713-01-01 BC', '4713-01-01 BC', '7'),
  (4, 9, 9, 9, 9, 1e1000, 3.4e38, 1.7e308, '5874897-01-01', '294276-01-01', '294276-01-01', 'Zoë Müller'),
  (5, -1, -1, -1, -1, 1e-1000, -1e-45, -5e-324, '0001-01-01', '0001-01-01', '0001-01-01',
    repeat('long', 300)),
  (6, 1, 1, 1, 1, 1, 1, 1, '1999-12-31', '1999-12-31', '1999-12-31', E'tab\\t\\\\ \\' end');
create table wide (n int4);
insert into wide select generate_series(-3000, 3000);
";

const MASKS: &str = r#"
[[mask]]
name = "hashed"
columns = ["*.ssn", "people.note", "people.photo"]
with = "hash"

[[mask]]
name = "tokens"
columns = ["people.email", "*.account", "people.small", "people.number", "*.device", "people.code", "edges.n2", "edges.n4", "edges.n8", "edges.words", "wide.n"]
with = "tokenize"

[[mask]]
name = "thousands"
columns = ["people.salary", "people.height", "edges.tiny", "edges.n", "edges.f4", "edges.f8"]
with = "bucket"
step = 1000

[[mask]]
name = "months"
columns = ["people.born", "people.seen", "people.visited", "edges.d", "edges.t", "edges.z"]
with = "bucket"
step = "month"
"#;

const SECRETS: &[&str] = &[
    "078-05-1120",
    "219-09-9999",
    "alice.secret",
    "bob.secret",
    "411111111111",
    "550000555555",
    "1234567",
    "12345,",
    "c0ffee00",
    "51234.56",
    "999.99",
    "1970-05-06",
    "1980-12-31",
    "07:08:09",
    "AB12",
    "\"pin\"",
];

/// A database of `owner`, and a gateway before it that comes as `reader`.
struct Analytics {
    server: PostgresServer,
    gateway: Gateway,
}

impl Analytics {
    fn new(masks: &str) -> Self {
        let server = PostgresServer::start(&Options {
            hba: vec!["host all all 127.0.0.1/32 trust".to_owned()],
            setup: format!("create role owner login createrole; create role {READER} login"),
            ..Options::default()
        });
        server.superuser_psql("create database analytics owner owner");
        let analytics = |user: &str, lines: &str| Target {
            name: user.replace('_', "-"),
            port: server.port(),
            database: "analytics".to_owned(),
            user: user.to_owned(),
            password: "unused".to_owned(),
            lines: format!("tls = \"disable\"\n{lines}"),
        };
        let gateway = Gateway::start(&Setup {
            policy: masks.to_owned(),
            ..Setup::for_targets([
                analytics(READER, ""),
                analytics("owner", ""),
                analytics("portcullis_owner", ""),
            ])
        });
        let analytics = Self { server, gateway };
        analytics.as_owner(&format!(
            "{SCHEMA} grant select, insert on all tables in schema public to {READER}"
        ));
        analytics
    }

    fn as_owner(&self, sql: &str) {
        let mut psql = Client::new(self.server.port(), "analytics", "owner", "").psql();
        psql.args(["-v", "ON_ERROR_STOP=1", "-c", sql]);
        let (succeeded, said) = transcript(psql);
        assert!(succeeded, "{said}");
    }

    /// What `policy harden` prints.
    fn script(&self, arguments: &[&str]) -> String {
        let file = self.gateway.configuration();
        let file = ["--config", file.to_str().unwrap()];
        let printed = portcullis(&[&["policy", "harden"], arguments, &file].concat());
        assert!(printed.status.success(), "{}", told(&printed));
        String::from_utf8(printed.stdout).unwrap()
    }

    /// Applies it as the owner.
    fn apply(&self, arguments: &[&str]) -> String {
        let script = self.script(arguments);
        self.as_owner(&script);
        script
    }

    /// What the server says to the owner who applies it in vain.
    fn refuses(&self, arguments: &[&str]) -> String {
        let mut psql = Client::new(self.server.port(), "analytics", "owner", "").psql();
        psql.args(["-v", "ON_ERROR_STOP=1", "-c", &self.script(arguments)]);
        let (succeeded, said) = transcript(psql);
        assert!(!succeeded, "{said}");
        said
    }

    fn with_functions(masks: &str) -> Self {
        let analytics = Self::new(masks);
        analytics.apply(&[READER, "--functions"]);
        analytics
    }

    fn talk(&self, target: &str) -> Talk {
        let token = self.gateway.issuer().token("agent");
        Talk::opened(self.gateway.address(), "agent", target, &token)
    }

    /// What psql prints, without secrets in it.
    #[track_caller]
    fn says(&self, target: &str, sql: &str) -> String {
        let mut psql = self.gateway.client(target).psql();
        psql.args(["-v", "ON_ERROR_STOP=0", "-At", "-c", sql]);
        let said = transcript(psql).1;
        for secret in SECRETS {
            assert!(!said.contains(secret), "{sql}\n{said}");
        }
        said.trim_end().to_owned()
    }

    /// The same, of a statement that runs.
    #[track_caller]
    fn answers(&self, target: &str, sql: &str) -> String {
        let said = self.says(target, sql);
        assert!(!said.contains("ERROR"), "{sql}\n{said}");
        said
    }
}

fn form(text: &str) -> String {
    let class = |c: char| match c {
        '0'..='9' => '9',
        'a'..='z' => 'a',
        'A'..='Z' => 'A',
        other => other,
    };
    text.chars().map(class).collect()
}

#[test]
fn what_masks_keep_can_be_computed_with_at_the_server() {
    let analytics = Analytics::with_functions(MASKS);
    let answers = |sql: &str| analytics.answers(READER, sql);
    let joined = "select p.id, count(*), sum(amount) from people p join payments y using";
    for key in ["ssn", "account", "device"] {
        assert_eq!(
            answers(&format!("{joined} ({key}) group by p.id order by 1")),
            "1|2|15\n2|1|10",
            "{key}"
        );
    }
    assert_eq!(answers("select count(distinct ssn), count(ssn) from payments"), "2|3");
    let hash = answers("select ssn from people where id = 1");
    assert!(hash.starts_with("[masked:") && hash.len() == 33, "{hash}");
    assert_eq!(answers(&format!("select id from people where ssn = '{hash}'")), "1");
    assert_eq!(answers("select id from people where ssn like '0%'"), "");
    assert_eq!(
        answers("select jsonb_typeof(note), length(photo) from people where id = 1"),
        "string|33"
    );

    let row =
        answers("select email, account, small, number, device, code from people where id = 1");
    let parts: Vec<&str> = row.split('|').collect();
    assert_eq!(form(parts[0]), "aaaaa.aaaaaa@aaaaaaa.aaa", "{row}");
    assert_eq!((parts[1].len(), parts[2].len(), parts[3].len()), (16, 5, 7), "{row}");
    assert_eq!(form(parts[5].trim_end()), "AA99", "{row}");
    let negative = answers("select small, number from people where id = 2");
    let of_one: Vec<&str> = negative.split('|').collect();
    assert_eq!(of_one, [format!("-{}", parts[2]), format!("-{}", parts[3])], "{negative}");

    let row = "select salary, height, born, seen at time zone 'UTC', visited from people";
    assert_eq!(
        answers(&format!("{row} where id = 1")),
        "51000.00|0|1970-05-01|2024-05-01 00:00:00|2024-05-01 00:00:00"
    );
    assert_eq!(
        answers(&format!("{row} where id = 2")),
        "0.00|0|1980-12-01|2024-12-01 00:00:00|2024-12-01 00:00:00"
    );
    // A zone of the session's tells nothing of the time.
    for zone in ["Asia/Tokyo", "XXX-3:07", "XXX+100"] {
        let said = answers(&format!(
            "set timezone = '{zone}'; select seen at time zone 'UTC' from people where id = 2"
        ));
        assert!(said.ends_with("2024-12-01 00:00:00"), "{zone}: {said}");
    }
    let nothing = answers("select * from people where id = 3");
    assert_eq!(nothing, "3||||||||||||||");
    analytics.answers(READER, "select * from people");
    assert!(analytics.gateway.stop().success());
    analytics.gateway.verify_all();
}

#[test]
fn no_value_makes_a_mask_fail() {
    let analytics = Analytics::with_functions(MASKS);
    for off in [
        "",
        "set standard_conforming_strings = off; ",
        "set bytea_output = escape; ",
        "set datestyle = sql; ",
    ] {
        let said = analytics.answers(READER, &format!("{off}select * from edges"));
        assert_eq!(said.lines().filter(|line| line.contains('|')).count(), 6, "{said}");
        assert!(!said.contains("long") && !said.contains("Zoë"), "{said}");
    }
    // Each column is masked in a condition, too.
    for column in ["n2", "n4", "n8", "tiny", "n", "f4", "f8", "d", "t", "z", "words"] {
        let counted = analytics
            .answers(READER, &format!("select count(*) from edges where {column} is not null"));
        assert!(counted.parse::<u32>().unwrap() <= 6, "{counted}");
    }
}

#[test]
fn different_numbers_have_different_tokens_of_as_many_digits() {
    let analytics = Analytics::with_functions(MASKS);
    let answered = analytics.answers(READER, "select count(*), count(distinct n) from wide");
    assert_eq!(answered, "6001|6001");
    let digits = "select length(abs(n)::text) as digits, count(*) from wide group by 1 order by 1";
    assert_eq!(analytics.answers(READER, digits), "1|19\n2|180\n3|1800\n4|4002");
}

#[test]
fn the_functions_are_the_gateways_to_call_and_their_key_is_nobodys() {
    let analytics = Analytics::with_functions(MASKS);
    analytics.as_owner("analyze portcullis_masks.key");
    for sql in [
        "select portcullis_masks.mask_hash('078')",
        "select id from people where ssn = portcullis_masks.mask_hash('078')",
        "select portcullis_masks.mask_tokenize(4::bigint, 9)",
        "set search_path = portcullis_masks; select mask_hash('078')",
        "select U&\"mask\\005fhash\"('078')",
        "select \"portcullis_masks\".\"mask_tokenize\"('a'::text)",
        "select * from portcullis_masks.mask_hash('078')",
        "prepare p as select portcullis_masks.mask_hash($1); execute p('078')",
        "create index on payments (portcullis_masks.mask_hash(ssn))",
        "select x.a from (select ('a'::text).mask_hash as a) x",
        "explain analyze select portcullis_masks.mask_hash('078')",
        "copy (select portcullis_masks.mask_hash('078')) to stdout",
        "insert into payments (ssn) values (portcullis_masks.mask_hash('078')) returning ssn",
        "select * from portcullis_masks.key",
        "select encode(inner_pad, 'hex') from portcullis_masks.key",
        "copy portcullis_masks.key to stdout",
        "select most_common_vals from pg_stats where schemaname = 'portcullis_masks'",
    ] {
        let said = analytics.says(READER, sql);
        let shown = said.lines().any(|line| line.contains("masked:") || line.contains("\\x"));
        assert!(!shown && (said.contains("ERROR") || sql.contains("pg_stats")), "{sql}\n{said}");
    }
}

/// What a client is told that asks for more than the values without the functions.
const MAKES_THEM: &str = "makes them with `portcullis policy harden TARGET --functions`";

#[test]
fn without_the_functions_keyed_masks_hold_at_the_output_alone() {
    let analytics = Analytics::new(MASKS);
    let answers = |sql: &str| analytics.answers(READER, sql);
    assert!(answers("select ssn from people where id = 1").starts_with("[masked:"));
    let email = answers("select email from people where id = 1");
    assert_eq!(form(&email), "aaaaa.aaaaaa@aaaaaaa.aaa");
    assert_eq!(answers("select number, device from people where id = 1"), "|");
    for sql in [
        "select count(*) from people join payments using (ssn)",
        "select id from people where email like 'a%'",
        "select count(distinct account) from people",
    ] {
        let said = analytics.says(READER, sql);
        assert!(said.contains("ERROR") && said.contains(MAKES_THEM), "{sql}\n{said}");
    }
    // What needs no key is computed there.
    assert_eq!(answers("select id from people where born = '1970-05-01'"), "1");

    // Functions that the role owns, or whose key it can read, count for nothing.
    let refused = analytics.refuses(&["owner", "--functions"]);
    assert!(refused.contains("could read their key"), "{refused}");
    analytics.apply(&[READER, "--functions"]);
    analytics.as_owner(&format!("grant select on portcullis_masks.key to {READER}"));
    let said = analytics.says(READER, "select count(*) from people join payments using (ssn)");
    assert!(said.contains("ERROR") && said.contains(MAKES_THEM), "{said}");
}

#[test]
fn views_of_the_hardened_role_show_the_same_as_statements_that_go_up() {
    let analytics = Analytics::with_functions(MASKS);
    let script = analytics.apply(&["owner"]);
    let again = analytics.apply(&["owner"]);
    assert_eq!(script, again, "the schema of the functions is no part of what a role gets");
    let row = "select ssn, email, account, small, number, device, note, photo, salary, height, born, seen, \
               visited, code from people order by id";
    let going_up = analytics.answers(READER, row);
    let mut psql = Client::new(analytics.server.port(), "analytics", "portcullis_owner", "").psql();
    psql.args(["-At", "-c", row]);
    assert_eq!(transcript(psql).1.trim_end(), going_up, "the server alone");
    assert_eq!(analytics.answers("portcullis-owner", row), going_up, "through the gateway");
    // What they show can be computed with.
    let counted =
        "select count(*), max(upper(email)) ~ '@' from people p join payments using (ssn)";
    assert_eq!(analytics.answers("portcullis-owner", counted), "3|t");
    let edges = "select * from edges order by id";
    assert_eq!(analytics.answers("portcullis-owner", edges), analytics.answers(READER, edges));
}

#[test]
fn the_gateways_tokens_are_those_of_the_server_with_the_same_key() {
    let analytics = Analytics::with_functions(MASKS);
    let key = [7; 32];
    let pad = |with: u8| {
        let padded = key.iter().chain(&[0; 32]).map(|byte| format!("{:02x}", byte ^ with));
        padded.collect::<String>()
    };
    analytics.as_owner(&format!(
        "update portcullis_masks.key set inner_pad = '\\x{}', outer_pad = '\\x{}'",
        pad(0x36),
        pad(0x5c)
    ));
    let mut random = Random::seeded();
    let letters: Vec<char> = "abzABZ0189 -@.,\\'\"\t~éß漢😀".chars().collect();
    let mut texts: Vec<String> = (0..300)
        .map(|_| {
            let length = random.below(90);
            (0..length).map(|_| letters[random.below(letters.len())]).collect()
        })
        .collect();
    texts.push("x9".repeat(500));
    texts.push("é".repeat(1_000));
    let mut psql = Client::new(analytics.server.port(), "analytics", "owner", "").psql();
    let rows: Vec<String> = texts
        .iter()
        .map(|text| {
            format!("({}, portcullis_masks.mask_tokenize('{}'))", 1, text.replace('\'', "''"))
        })
        .collect();
    let file = std::env::temp_dir().join(format!("portcullis-tokens-{}.sql", std::process::id()));
    fs::write(
        &file,
        format!(
            "select encode(convert_to(t, 'UTF8'), 'hex') from (values {}) v(n, t)",
            rows.join(",\n")
        ),
    )
    .unwrap();
    psql.args(["-At", "-f", file.to_str().unwrap()]);
    let (succeeded, said) = transcript(psql);
    fs::remove_file(file).unwrap();
    assert!(succeeded, "{said}");
    let (mut seen, mut plain) = (BTreeSet::new(), BTreeSet::new());
    for (text, token) in texts.iter().zip(said.lines()) {
        let ours = whole_value(Action::Tokenize, text.as_bytes(), &HashKey::new(key)).unwrap();
        let hex: String = ours.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, token, "{text:?}");
        if text.is_ascii() {
            seen.insert(ours);
            plain.insert(text);
        }
    }
    assert_eq!(seen.len(), plain.len());
}

#[test]
fn a_prepared_statement_and_binary_results_are_masked_alike() {
    let analytics = Analytics::with_functions(MASKS);
    let mut talk = analytics.talk(READER);
    let said = talk.ask(&[query(
        "prepare p as select email from people where id = $1; execute p(1); execute p(1)",
    )]);
    let rows: Vec<&String> = said.iter().filter(|line| line.starts_with("D[")).collect();
    assert!(rows.len() == 2 && rows[0] == rows[1], "{said:?}");
}

#[test]
fn what_goes_up_and_where_masks_hold_is_told_beforehand() {
    let analytics = Analytics::new(MASKS);
    let file = analytics.gateway.configuration();
    let file = file.to_str().unwrap();
    let explained = |sql: &str| {
        let start = ["policy", "explain", "--config", file, "--target", READER, "--online", sql];
        let said = portcullis(&start);
        assert!(said.status.success(), "{}", told(&said));
        told(&said)
    };
    let notes = || told(&portcullis(&["check", "--online", "--config", file]));
    assert!(explained("select born from people").contains("sent as\n  select born from (SELECT"));
    assert!(explained("select 1").contains("sent as it is"));
    let joined = "select count(*) from people join payments using (ssn)";
    assert!(explained(joined).contains("not sent: hashed, tokens, thousands, months (columns"));
    assert!(notes().contains(
        "mask hashed on reader: its columns are masked at the output only (the server lacks the functions \
         of policy harden --functions)"
    ));
    analytics.apply(&[READER, "--functions"]);
    assert!(explained(joined).contains("portcullis_masks.mask_hash("));
    let told = notes();
    assert!(
        told.contains("mask hashed on reader: its columns are masked at the source\n"),
        "{told}"
    );
    analytics.apply(&["owner"]);
    let told = notes();
    assert!(told.contains("mask hashed on portcullis-owner: its columns are masked at the source, and the target's role may not read them"), "{told}");
}
