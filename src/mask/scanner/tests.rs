use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::mask::PatternMistake;

fn masker(names: &[&str], action: Action) -> Arc<Masker> {
    let patterns = names.iter().map(|name| Pattern::built_in(name).unwrap()).collect();
    Arc::new(Masker::new(patterns, action, HashKey::new([7; 32])))
}

/// Compiling the patterns takes longer than a test.
fn all(action: Action) -> Arc<Masker> {
    static ALL: LazyLock<[Arc<Masker>; 3]> = LazyLock::new(|| {
        let names: Vec<&str> = Pattern::names().collect();
        [Action::Redact, Action::Partial, Action::Hash].map(|action| masker(&names, action))
    });
    let [redact, partial, hash] = &*ALL;
    Arc::clone(match action {
        Action::Redact | Action::Null | Action::Tokenize | Action::Bucket(_) => redact,
        Action::Partial => partial,
        Action::Hash => hash,
    })
}

fn masked(masker: &Arc<Masker>, text: &str) -> String {
    let found = masker.mask(text.as_bytes());
    String::from_utf8(found.unwrap_or_else(|| text.into())).unwrap()
}

const CARD: &str = "4111 1111 1111 1111";

#[test]
fn secrets_are_found_where_they_stand() {
    let redact = all(Action::Redact);
    for (text, expected) in [
        ("pay 4111111111111111 now", "pay [credit-card] now"),
        ("4111-1111-1111-1111,5500005555555559", "[credit-card],[credit-card]"),
        ("amex 340000000000009.", "amex [credit-card]."),
        ("2024 4111111111111111 12", "2024 [credit-card] 12"),
        ("card4111111111111111x", "card[credit-card]x"),
        ("DE89 3704 0044 0532 0130 00 ok", "[iban] ok"),
        ("gb82WEST12345698765432", "[iban]"),
        ("ssn 078-05-1120", "ssn [us-ssn]"),
        ("078.05.1120, 078 05 1120", "[us-ssn], [us-ssn]"),
        ("SSN 901.02.0037, \"ssn\": \"078051120\"", "SSN [us-ssn], \"ssn\": \"[us-ssn]\""),
        ("3400-000000-00009 4111 1111 1111 1111 12/27", "[credit-card] [credit-card] 12/27"),
        ("o'neil+x@sub.example.co.uk 'a.b@c.de'", "[email] '[email]'"),
        ("homePhone=5551234567 tel. 030/123 4567", "homePhone=[phone] tel. [phone]"),
        (
            "{\"a\": \"x\\n4111111111111111\\nghp_0123456789abcdefghijABCDEFGHIJ012345\"}",
            "{\"a\": \"x\\n[credit-card]\\n[github-token]\"}",
        ),
        ("mail alice.secret@example.com!", "mail [email]!"),
        ("<müller@exämple.de>", "<[email]>"),
        ("call +49 (30) 1234-5678 or (415) 555-2671", "call [phone] or [phone]"),
        ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln;", "t=[jwt];"),
        ("postgres://app:hunter2@db/x", "postgres://app:[url-password]@db/x"),
        ("AKIAIOSFODNN7EXAMPLE", "[aws-access-key]"),
        ("+49 30 12345678 4111 1111 1111 1111.", "[phone] [credit-card]."),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "[github-token]"),
        ("glpat-abcdefghijklmnopqrst xoxb-123456789012-abc", "[gitlab-token] [slack-token]"),
        ("sk_live_0123456789abcdef sk-0123456789abcdefghijABCD", "[stripe-key] [ai-api-key]"),
        ("AIzaSyA0123456789abcdefghijklmnopqrstuv", "[google-api-key]"),
    ] {
        assert_eq!(masked(&redact, text), expected, "{text}");
    }
}

#[test]
fn what_only_looks_alike_is_left() {
    let redact = all(Action::Redact);
    for text in [
        "4111111111111112",
        "1234567890123456",
        "00004111111111111111",
        "0000000000000000",
        "DE00 3704 0044 0532 0130 00",
        "000-12-3456 666-12-3456 912-12-3456 123-00-4567 123-45-0000",
        "1078-05-1120",
        "2024-01-15 10:11:12",
        "user@localhost",
        "eyJhbGci",
        "https://example.com:8080/path",
        "AKIA and xAKIAIOSFODNN7EXAMPLE",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "0.4111111111111111 4111111111111111.5 14111111111111111",
        "4111-1111 1111-1111 4111111111111111ab0123456789abcdef",
        "550e8400-4111-1111-1111-111111111111",
        "4016 4012 3456 7890 4016 4012 3456 7890 1",
        "cpu 123 45 6789 10 415 555 2671 9",
        "user@1000.service logo@2x.png pkg@1.2.0-rc.one x@w.transpose()",
        "git@github.com:org/name.git",
        "sk-folding-cube-animation-delay",
        "postgres://${USER}:${PASSWORD}@db http://example.com:8080?to=a@b",
        "901-02-0037 ssn 000-12-3456 12-078-05-1120",
        "+1234567890 +0049301234567 1e+12345678 hotel 5551234567",
    ] {
        assert_eq!(masked(&redact, text), text);
    }
}

#[test]
fn a_private_key_is_masked_to_its_end_however_long() {
    let body = "MIIEowIBAAKCAQEA+/=\n".repeat(2000);
    for (start, newline) in [("", "\n"), ("RSA ", "\\n"), ("ENCRYPTED ", "\r\n")] {
        let text = format!(
            "a -----BEGIN {start}PRIVATE KEY-----{newline}{body}-----END {start}PRIVATE KEY----- b"
        );
        let masked = masked(&all(Action::Redact), &text);
        assert_eq!(masked, format!("a [private-key]-----END {start}PRIVATE KEY----- b"));
    }
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\nMIIE\n";
    assert_eq!(masked(&all(Action::Redact), old), "[private-key]");
}

#[test]
fn partial_leaves_a_harmless_part_and_hash_says_the_same_of_the_same() {
    let partial = all(Action::Partial);
    for (text, expected) in [
        (CARD, "**** **** **** 1111"),
        ("078-05-1120", "***-**-1120"),
        ("alice@example.com", "a***@example.com"),
        ("a@example.com", "***@example.com"),
        ("DE89370400440532013000", "DE89**************3000"),
        ("+4930123456", "+******3456"),
        ("AKIAIOSFODNN7EXAMPLE", "[aws-access-key]"),
    ] {
        assert_eq!(masked(&partial, text), expected);
        assert_eq!(masked(&partial, expected), expected);
    }
    let hash = all(Action::Hash);
    let (one, other) = (masked(&hash, "a@b.co"), masked(&hash, "b@b.co"));
    assert_eq!(one, masked(&hash, "a@b.co"));
    assert_ne!(one, other);
    assert!(is_mask(one.as_bytes()) && one.starts_with("[email:"), "{one}");
    let otherwise = Arc::new(Masker::new(
        vec![Pattern::built_in("email").unwrap()],
        Action::Hash,
        HashKey::new([8; 32]),
    ));
    assert_ne!(one, masked(&otherwise, "a@b.co"));
}

#[test]
fn a_pattern_of_ones_own_is_bounded_and_finds_across_chunks() {
    let own = Pattern::own("order-token", r"\btok_[0-9a-f]{32}\b").unwrap();
    let masker = Arc::new(Masker::new(vec![own], Action::Redact, HashKey::new([0; 32])));
    let token = format!("tok_{}", "0f".repeat(16));
    assert_eq!(
        masked(&masker, &format!("x {token} {token}0")),
        format!("x [order-token] {token}0")
    );
    assert_eq!(Pattern::own("p", "a+").unwrap_err(), PatternMistake::Unbounded);
    assert_eq!(Pattern::own("p", "a{0,2}").unwrap_err(), PatternMistake::Empty);
    assert!(matches!(Pattern::own("p", "(").unwrap_err(), PatternMistake::Expression(_)));
    assert_eq!(Pattern::built_in("ssn").unwrap_err(), PatternMistake::Unknown);
}

#[test]
fn a_prompt_is_not_held_back() {
    let mut scanner = all(Action::Redact).scanner();
    let mut out = Vec::new();
    scanner.push(b"user@host:~$ ", &mut out);
    assert_eq!(out, b"user@host:~$ ");
    scanner.push(b"4111", &mut out);
    assert_eq!(scanner.held(), 4);
}

#[test]
fn a_long_text_full_of_candidates_takes_time_in_proportion() {
    let redact = all(Action::Redact);
    for text in ["a@", "1", "1 ", "eyJ", "a@b.co ", "x://y:", "-----BEGIN ", "DE12"] {
        let name = text;
        let text = text.repeat(300_000 / text.len());
        let started = std::time::Instant::now();
        let mut scanner = redact.scanner();
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(8192) {
            scanner.push(chunk, &mut out);
            assert!(scanner.held() < 4096 + 8192);
        }
        scanner.finish(&mut out);
        assert!(started.elapsed().as_secs() < 60, "{name}");
    }
}

/// Texts in which secrets stand beside each other and beside what resembles them.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just(CARD.to_owned()),
        Just("4111111111111111".to_owned()),
        Just("alice@example.com".to_owned()),
        Just("078-05-1120".to_owned()),
        Just("DE89370400440532013000".to_owned()),
        Just("+49 30 12345678".to_owned()),
        Just("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln".to_owned()),
        Just("-----BEGIN PRIVATE KEY-----\nMIIEow\n-----END PRIVATE KEY-----".to_owned()),
        Just("https://u:pw@h.co/".to_owned()),
        Just("tok_0123abcd".to_owned()),
        Just("AKIAIOSFODNN7EXAMPLE".to_owned()),
        Just("3400-000000-00009".to_owned()),
        Just("078 05 1120".to_owned()),
        Just("415 555 2671".to_owned()),
        Just("phone: 5551234567".to_owned()),
        Just("ssn 078051120".to_owned()),
        Just("a@b.cc".to_owned()),
        "[ .-]",
        "[ -~]{0,6}",
        "[0-9 -]{0,12}",
        "[\\PC\n]{0,4}",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Numbers that patterns find, and some that they do not.
const NUMBERS: &[&str] = &[
    CARD,
    "4111111111111111",
    "3400-000000-00009",
    "078-05-1120",
    "078 05 1120",
    "DE89 3704 0044 0532 0130 00",
    "+49 30 12345678",
    "415 555 2671",
    "1234 5678",
    "0629",
    "4111 1111 1111 1112",
];

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Redact), Just(Action::Partial), Just(Action::Hash)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn numbers_beside_each_other_are_masked_however_they_are_cut(
        numbers in proptest::collection::vec(prop::sample::select(NUMBERS), 1..5),
        between in prop::sample::select(&[" ", "-", ".", "/", "  ", ", "][..]),
        cut in 1..25_usize,
    ) {
        let (masker, text) = (all(Action::Redact), numbers.join(between));
        let (mut scanner, mut out) = (masker.scanner(), Vec::new());
        for chunk in text.as_bytes().chunks(cut) {
            scanner.push(chunk, &mut out);
        }
        scanner.finish(&mut out);
        prop_assert_eq!(String::from_utf8_lossy(&out), masked(&masker, &text));
    }

    #[test]
    fn however_a_text_is_cut_the_same_comes_out(
        text in any_text(), cuts in proptest::collection::vec(1..20_usize, 1..12),
        action in any_action(),
    ) {
        let masker = all(action);
        let whole = masked(&masker, &text);
        let (mut scanner, mut out) = (masker.scanner(), Vec::new());
        let (mut rest, mut sizes) = (text.as_bytes(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(sizes.next().unwrap().min(rest.len()));
            scanner.push(chunk, &mut out);
            rest = more;
        }
        scanner.finish(&mut out);
        prop_assert_eq!(String::from_utf8_lossy(&out), whole);
    }

    #[test]
    fn masking_twice_is_masking_once(text in any_text(), hash in any::<bool>()) {
        let masker = all(if hash { Action::Hash } else { Action::Redact });
        let once = masked(&masker, &text);
        prop_assert_eq!(masked(&masker, &once), once.clone());
    }

    #[test]
    fn a_secret_between_separators_survives_no_cut(
        before in "[a-z]{0,5}[ ,;\n]", after in "[ ,;\n][a-z]{0,5}", cut in 1..40_usize,
    ) {
        for secret in ["4111111111111111", "alice@example.com", "078-05-1120", "AKIAIOSFODNN7EXAMPLE"] {
            let text = format!("{before}{secret}{after}");
            let (mut scanner, mut out) = (all(Action::Redact).scanner(), Vec::new());
            for chunk in text.as_bytes().chunks(cut) {
                scanner.push(chunk, &mut out);
                let so_far = String::from_utf8_lossy(&out).into_owned();
                prop_assert!(!so_far.contains(secret.split_at(8).0), "{so_far}");
            }
        }
    }
}
