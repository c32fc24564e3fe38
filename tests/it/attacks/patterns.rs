//! Patterns: what they missed and what they hit wrongly.

mod corpus;

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;

use portcullis::mask::{Action, HashKey, Masker, Pattern};
use serde_json::json;

use crate::masking::{Masked, contains};
use crate::support::client::{Client, transcript};
use crate::support::gateway::told;
use crate::support::http::{Caller, Canned, gateway};
use crate::support::ssh::Site;

const EVERY_PATTERN: &str = r#"
[[mask]]
name = "found"
patterns = ["credit-card", "iban", "us-ssn", "phone", "email", "jwt", "private-key", "url-password",
    "aws-access-key", "aws-secret-key", "google-api-key", "github-token", "gitlab-token", "slack-token",
    "stripe-key", "ai-api-key", "service-token"]
"#;

const CARD: &str = "4111111111111111";
const EMAIL: &str = "alice.secret@example.com";

/// Types of the database's own that hold numbers and texts.
const TYPES: &str =
    "create domain card_number as numeric(19); create domain vip_card as card_number;
    create type mood as enum ('open', 'a@b.cc');
    create type payment as (id int, note text, card card_number);
    create type payments as range (subtype = numeric);";

/// A gateway that masks what every pattern finds, before a database with such types.
fn typed() -> Masked {
    let masked = Masked::new(EVERY_PATTERN);
    let (succeeded, said) = crate::masking::run(&masked.database.client(), TYPES);
    assert!(succeeded, "{said}");
    masked
}

/// What a value is to psql.
fn psql_shows(masked: &Masked, sql: &str) -> String {
    let mut psql = masked.gateway.client("orders").psql();
    psql.args(["--no-align", "--tuples-only", "-c", sql]);
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{sql}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn m17_a_number_is_found_in_both_formats_and_in_every_type() {
    let masked = typed();
    let (succeeded, said) = transcript(masked.gateway.client("orders").python("typed_patterns.py"));
    assert!(succeeded, "{said}");
    // The same values as text.
    for (value, shown) in [
        (format!("{CARD}::numeric"), ""),
        (format!("{CARD}::int8"), ""),
        (format!("{CARD}::vip_card"), ""),
        (format!("array[{CARD}, 7]::int8[]"), "{NULL,7}"),
        (format!("array[{CARD}, 7]::vip_card[]"), "{NULL,7}"),
        (format!("array[[7, {CARD}], [8, 9]]::numeric[]"), "{{7,NULL},{8,9}}"),
        (format!("row(7, '{CARD}', {CARD})::payment"), "(7,\"[credit-card]\",)"),
        (format!("array[row(7, 'x', {CARD})::payment]"), "{\"(7,x,)\"}"),
        (format!("payments(1, {CARD})"), ""),
        (format!("'{{\"n\": {CARD}, \"ok\": 1.5}}'::json"), "{\"n\": null, \"ok\": 1.5}"),
        ("'to a@b.cc'::bytea".to_owned(), ""),
        (format!("{CARD}::float8"), ""),
    ] {
        assert_eq!(psql_shows(&masked, &format!("select {value}")), shown, "{value}");
    }
    masked.finish(&[CARD, "a@b.cc"]);
}

#[test]
fn values_of_unknown_binary_types_are_null_and_copies_are_read_by_any_type() {
    let masked = typed();
    let client = masked.gateway.client("orders");
    // A type that no other session sees is of no known kind.
    let open = "begin; create domain hidden as numeric; create type hiding as (v hidden);";
    let said = masked.says(&format!("{open} select row({CARD})::hiding; rollback"));
    assert!(!said.contains(CARD), "{said}");
    for value in [
        format!("{CARD}::numeric"),
        format!("{CARD}::int8"),
        format!("array[{CARD}]::numeric[]"),
        format!("numrange(1, {CARD})"),
        format!("row({CARD}::numeric)"),
        format!("'to {EMAIL}'"),
    ] {
        let copied = copied(&client, &format!("select {value}, 7::int8, 'plain'"));
        assert!(contains(&copied, "plain"), "{value}");
        assert!(!contains(&copied, EMAIL), "{value}");
        for secret in [&4_111_111_111_111_111_i64.to_be_bytes()[..], &[0x10, 0x0f, 4, 0x57]] {
            assert!(!copied.windows(secret.len()).any(|window| window == secret), "{value}");
        }
    }
    masked.finish(&[CARD, EMAIL]);
}

/// What COPY in the binary format gives of a query.
fn copied(client: &Client, query: &str) -> Vec<u8> {
    let mut psql = client.psql();
    psql.args(["-c", &format!("copy ({query}) to stdout (format binary)")]);
    let output = psql.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    output.stdout
}

#[test]
fn m18_numbers_that_are_no_secrets_stay_as_they_are() {
    let (numbers, floats) = corpus::by_chance(20_000);
    assert_eq!(floats, 0, "of random doubles");
    // A number of 64 bits may be a card's: with its issuer, its length and its sum.
    assert!(numbers < 60, "{numbers} of 20,000 random numbers");
    let masked = typed();
    for (value, shown) in [
        ("0.6543798596614172::float8", "0.6543798596614172"),
        (
            "array[0.6543798596614172, 0.4111111111111111]",
            "{0.6543798596614172,0.4111111111111111}",
        ),
        ("'{\"score\":0.6543798596614172}'::jsonb", "{\"score\": 0.6543798596614172}"),
        (
            "'{\"score\":0.6543798596614172,\"to\":\"a@b.cc\"}'::jsonb",
            "{\"to\": \"[email]\", \"score\": 0.6543798596614172}",
        ),
        ("'4096 2024-01-15 10:11'", "4096 2024-01-15 10:11"),
    ] {
        assert_eq!(psql_shows(&masked, &format!("select {value}")), shown);
    }
    let site = Site::new(EVERY_PATTERN);
    let line = "export LC_ALL=C; ls -la --time-style=long-iso /usr/bin /etc; \
                cd /usr/bin && cksum [a-m]* 2>/dev/null; sha256sum [a-d]* 2>/dev/null; true";
    let direct = Command::new("sh").args(["-c", line]).output().unwrap();
    let through = site.run(line);
    assert!(through.stdout == direct.stdout, "{} bytes", through.stdout.len());
    site.finish();
}

#[test]
fn m19_patterns_find_what_they_claim_and_nothing_in_benign_text() {
    let (missed, hit) = corpus::measure();
    assert!(missed.is_empty(), "{} missed\n{}", missed.len(), missed.join("\n"));
    assert!(hit.is_empty(), "{} false\n{}", hit.len(), hit.join("\n"));
    assert!(corpus::benign().len() >= 10_000);
    // The inputs that were missed, as they were.
    let names = Pattern::names().map(|name| Pattern::built_in(name).unwrap()).collect();
    let masker = Arc::new(Masker::new(names, Action::Redact, HashKey::new([7; 32])));
    for (text, masked) in [
        ("SSN 901.02.0037", "SSN [us-ssn]"),
        ("ssn: 078051120", "ssn: [us-ssn]"),
        ("phone 415 555 2671, tel. 030 1234567", "phone [phone], tel. [phone]"),
        ("o'neil+x@sub.example.co.uk", "[email]"),
    ] {
        let found = masker.mask(text.as_bytes()).unwrap_or_default();
        assert_eq!(String::from_utf8(found).unwrap(), masked);
    }
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n-----END";
    let found = masker.mask(key.as_bytes()).unwrap();
    assert!(!contains(&found, "b3Blb"), "{}", String::from_utf8_lossy(&found));
}

#[test]
fn s04_output_that_is_not_text_passes_unchanged_or_the_change_is_told() {
    let site = Site::new(EVERY_PATTERN);
    let mut random = corpus::Random::new(4);
    let bytes: Vec<u8> = (0..20 << 17).flat_map(|_| random.next().to_le_bytes()).collect();
    let file = site.path("random");
    std::fs::write(&file, &bytes).unwrap();
    let output = site.run(&format!("cat {}", file.display()));
    assert!(output.status.success(), "{}", told(&output));
    assert!(output.stdout == bytes, "{} of {} bytes", output.stdout.len(), bytes.len());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing was changed");

    // A secret among bytes that are no text is masked, and the client is told of it.
    let output = site.run(&format!("printf '\\001\\376\\377%s\\200\\000%s' {EMAIL} {CARD}"));
    assert!(!contains(&output.stdout, EMAIL) && !contains(&output.stdout, CARD));
    assert!(contains(&output.stdout, "\u{1}"), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        words.contains("this output is not text, and masks replaced 2 values in it"),
        "{words}"
    );
    // Of text nothing is said.
    let output = site.run(&format!("echo grüße an {EMAIL}"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "grüße an [email]\n");
    assert!(output.stderr.is_empty(), "{output:?}");
    site.finish();
}

#[test]
fn text_in_binary_formats_does_not_hide_secrets() {
    let site = Site::new(EVERY_PATTERN);
    let archive =
        format!("d=$(mktemp -d); cd $d; printf 'to {EMAIL}\\n' > a; tar cf - a; rm -r $d");
    let output = site.run(&archive);
    assert!(!contains(&output.stdout, EMAIL) && contains(&output.stdout, "ustar"));
    assert!(contains(&output.stderr, "masks replaced 1 value in it"), "{output:?}");
    // UTF-16 is read without its zeros.
    let wide: String = EMAIL.chars().fold(String::new(), |mut out, c| {
        let _ = write!(out, "{c}\\000");
        out
    });
    let output = site.run(&format!("printf '{wide}'"));
    assert!(contains(&output.stdout, "[email]"), "{output:?}");
    site.finish();
}

/// An answer of events with these data.
fn events(data: &[String]) -> Vec<u8> {
    let body: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn h03_a_secret_over_several_events_of_a_model_is_masked() {
    let chat = |index: usize, delta: serde_json::Value| {
        json!({"id": "c", "object": "chat.completion.chunk",
            "choices": [{"index": index, "delta": delta, "finish_reason": null}]})
        .to_string()
    };
    let block = |index: usize, delta: serde_json::Value| {
        json!({"type": "content_block_delta", "index": index, "delta": delta}).to_string()
    };
    let streams: Vec<Vec<String>> = vec![
        // The row: an address over chunks, of two answers at once.
        vec![
            chat(0, json!({"role": "assistant", "content": "mail alice.sec"})),
            chat(1, json!({"content": "4111 1111 "})),
            chat(0, json!({"content": "ret@exam"})),
            chat(1, json!({"content": "1111 1111."})),
            chat(0, json!({"content": "ple.com"})),
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}).to_string(),
            "[DONE]".to_owned(),
        ],
        vec![
            chat(0, json!({"tool_calls": [{"index": 0, "function": {"name": "send", "arguments": ""}}]})),
            chat(0, json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"to\": \"alice.secret@"}}]})),
            chat(0, json!({"tool_calls": [{"index": 0, "function": {"arguments": "example.com\"}"}}]})),
            "[DONE]".to_owned(),
        ],
        vec![
            block(0, json!({"type": "text_delta", "text": "alice.secret@exa"})),
            json!({"type": "ping"}).to_string(),
            block(0, json!({"type": "text_delta", "text": "mple.com"})),
            json!({"type": "content_block_stop", "index": 0}).to_string(),
            block(1, json!({"type": "input_json_delta", "partial_json": "{\"card\": 41111111"})),
            block(1, json!({"type": "input_json_delta", "partial_json": "11111111}"})),
            json!({"type": "message_stop"}).to_string(),
        ],
        vec![
            json!({"type": "response.output_text.delta", "item_id": "m", "delta": "alice.secret@ex"}).to_string(),
            json!({"type": "response.output_text.delta", "item_id": "m", "delta": "ample.com"}).to_string(),
            json!({"type": "response.output_text.done", "item_id": "m", "text": EMAIL}).to_string(),
        ],
    ];
    for stream in streams {
        let server = Canned::answering(&events(&stream));
        let gateway = gateway(&format!("{}{EVERY_PATTERN}", server.target("crew", "")));
        let answer = Caller::of(&gateway).curl("/crew/v1/chat/completions", &[]);
        let text = answer.text();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.len(), stream.len(), "{text}");
        // As a client joins them, text by text.
        let mut joined: std::collections::BTreeMap<String, String> = Default::default();
        for event in &data {
            let Ok(event) = serde_json::from_str::<serde_json::Value>(event) else { continue };
            let (choice, delta) = (&event["choices"][0], &event["delta"]);
            for (name, piece) in [
                (format!("c{}", choice["index"]), &choice["delta"]["content"]),
                ("t".to_owned(), &choice["delta"]["tool_calls"][0]["function"]["arguments"]),
                (format!("b{}", event["index"]), &delta["text"]),
                (format!("j{}", event["index"]), &delta["partial_json"]),
                ("r".to_owned(), delta),
            ] {
                if let Some(piece) = piece.as_str() {
                    *joined.entry(name).or_default() += piece;
                }
            }
        }
        let all = joined.values().cloned().collect::<Vec<_>>().join("\n");
        assert!(all.contains("[email]"), "{text}");
        for secret in [EMAIL, "4111 1111 1111 1111", CARD, "example.com"] {
            assert!(!all.contains(secret) && !text.contains(secret), "{secret}: {text}");
        }
        if let Some(plain) = joined.get("c0") {
            assert_eq!(plain, "mail [email]");
            assert_eq!(joined["c1"], "[credit-card].");
        }
        assert!(gateway.stop().success());
        assert!(!contains(&gateway.all_contents(), "ret@exam"), "recorded");
    }
}
