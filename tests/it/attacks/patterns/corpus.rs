//! The built-in patterns held to `tests/cases/patterns`: what each claims to find in every context, and
//! text of real shapes in which nothing is a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis::mask::{Action, HashKey, Masker, Pattern};

const SECRETS: &str = include_str!("../../../cases/patterns/secrets.tsv");
const CONTEXTS: &str = include_str!("../../../cases/patterns/contexts.txt");
const BENIGN: &str = include_str!("../../../cases/patterns/benign.txt");

/// How often each secret and each benign line is made.
const SECRETS_MADE: usize = 2;
const LINES_MADE: usize = 90;

fn masker(names: impl Iterator<Item = &'static str>) -> Arc<Masker> {
    let patterns = names.map(|name| Pattern::built_in(name).unwrap()).collect();
    Arc::new(Masker::new(patterns, Action::Redact, HashKey::new([7; 32])))
}

/// Numbers that are the same in every run (xorshift64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % end
    }

    fn of(&mut self, letters: &str, count: usize) -> String {
        let letters = letters.as_bytes();
        (0..count).map(|_| char::from(letters[self.below(letters.len())])).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a random number is as good as its neighbour")]
    pub fn float(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const DIGITS: &str = "0123456789";
const HEX: &str = "0123456789abcdef";
const WORD: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A template with its `⟨…⟩` filled in.
fn expanded(template: &str, random: &mut Random) -> String {
    let mut out = String::new();
    let mut parts = template.split('⟨');
    out += parts.next().unwrap();
    for part in parts {
        let (code, rest) = part.split_once('⟩').unwrap();
        let count = code.get(1..).and_then(|count| count.parse().ok()).unwrap_or(1);
        let made = match code.chars().next().unwrap() {
            'd' => random.of(DIGITS, count),
            'h' => random.of(HEX, count),
            'H' => random.of(HEX, count).to_uppercase(),
            'w' => random.of(WORD, count),
            'u' => random.of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", count),
            'a' => random.of("abcdefghijklmnopqrstuvwxyz", count),
            'b' => random.of(&format!("{WORD}+/"), count),
            'f' => random.float().to_string(),
            'e' => format!("{:e}", random.float() / 1e3),
            'n' => {
                let digits = 1 + random.below(count);
                random.of("123456789", 1) + &random.of(DIGITS, digits - 1)
            }
            'q' => random.next().to_string(),
            'm' => format!("{:02}", 1 + random.below(12)),
            'c' => format!("{:02}:{:02}", random.below(24), random.below(60)),
            't' => format!(
                "2024-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
                1 + random.below(12),
                1 + random.below(28),
                random.below(24),
                random.below(60),
                random.below(60),
                random.below(1_000_000)
            ),
            'U' => [8, 4, 4, 4, 12].map(|count| random.of(HEX, count)).join("-"),
            's' => {
                let area = 1 + random.below(665);
                format!("{area:03}-{:02}-{:04}", 1 + random.below(99), 1 + random.below(9999))
            }
            'L' => luhn(&out).to_string(),
            other => panic!("⟨{other}⟩"),
        };
        out += &made;
        out += rest;
    }
    out
}

/// The digit that makes Luhn's sum.
fn luhn(digits: &str) -> u32 {
    let digits = digits.bytes().rev().map(|byte| u32::from(byte - b'0')).enumerate();
    let double = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits.map(|(at, digit)| if at % 2 == 0 { double(digit) } else { digit }).sum();
    (10 - sum % 10) % 10
}

/// A secret in its text, and what stands there when it is masked.
struct Case {
    pattern: &'static str,
    secret: String,
    text: String,
    masked: String,
}

fn cases() -> Vec<Case> {
    let mut random = Random::new(1);
    let mut cases = Vec::new();
    for row in SECRETS.lines() {
        let (pattern, template) = row.split_once('\t').unwrap();
        let many = if template.contains('⟨') { SECRETS_MADE } else { 1 };
        for context in CONTEXTS.lines() {
            for _ in 0..many {
                let whole = expanded(template, &mut random);
                let parts: Vec<&str> = whole.split('|').collect();
                let (secret, masked) = match parts.as_slice() {
                    [before, secret, after] => (*secret, format!("{before}[{pattern}]{after}")),
                    _ => (&*whole, format!("[{pattern}]")),
                };
                let text = context.replace("{}", &whole.replace('|', ""));
                let masked = context.replace("{}", &masked);
                cases.push(Case { pattern, secret: secret.to_owned(), text, masked });
            }
        }
    }
    cases
}

/// Lines of real shapes in which nothing is a secret.
pub fn benign() -> Vec<String> {
    let mut random = Random::new(2);
    let lines = BENIGN.lines().flat_map(|line| std::iter::repeat_n(line, LINES_MADE));
    lines.map(|line| expanded(line, &mut random)).collect()
}

fn masked(masker: &Arc<Masker>, text: &str) -> String {
    let masked = masker.mask(text.as_bytes());
    String::from_utf8(masked.unwrap_or_else(|| text.into())).unwrap()
}

/// Prints recall and false positives by pattern, and gives what was missed and what was hit.
pub fn measure() -> (Vec<String>, Vec<String>) {
    let all = masker(Pattern::names());
    let each: BTreeMap<&str, Arc<Masker>> =
        Pattern::names().map(|name| (name, masker(std::iter::once(name)))).collect();
    let (mut missed, mut hit) = (Vec::new(), Vec::new());
    let mut secrets: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for Case { pattern, secret, text, masked: expected } in cases() {
        let (count, found) = secrets.entry(pattern).or_default();
        *count += 1;
        let seen = masked(&each[pattern], &text);
        // A token takes the full stop behind it along.
        let fits = seen == expected || (pattern == "jwt" && seen == expected.replace("].", "]"));
        match fits && !masked(&all, &text).contains(&secret) {
            true => *found += 1,
            false => missed.push(format!("{pattern}: {text}\n    {seen}")),
        }
    }
    let lines = benign();
    let found: Vec<&String> =
        lines.iter().filter(|line| all.mask(line.as_bytes()).is_some()).collect();
    println!("{:<16} {:>8} {:>8} {:>10}", "pattern", "secrets", "recall", "false of");
    println!("{:<16} {:>8} {:>8} {:>10}", "", "", "", lines.len());
    for name in Pattern::names() {
        let one = &each[name];
        let hits = found.iter().filter(|line| one.mask(line.as_bytes()).is_some());
        let hits: Vec<String> =
            hits.map(|line| format!("{name}: {line}\n    {}", masked(one, line))).collect();
        let (count, found) = secrets.get(name).copied().unwrap_or_default();
        let recall = (found * 1000)
            .checked_div(count)
            .map_or("-".to_owned(), |permille| format!("{}.{} %", permille / 10, permille % 10));
        println!("{name:<16} {count:>8} {recall:>8} {:>10}", hits.len());
        hit.extend(hits);
    }
    (missed, hit)
}

/// How many of so many random 64-bit numbers are taken for something, and of random floating numbers.
pub fn by_chance(count: usize) -> (usize, usize) {
    let (all, mut random) = (masker(Pattern::names()), Random::new(3));
    let numbers = (0..count).filter(|_| {
        let number = random.next() >> 1;
        all.mask(number.to_string().as_bytes()).is_some()
    });
    let numbers = numbers.count();
    let floats = (0..count).filter(|_| all.mask(random.float().to_string().as_bytes()).is_some());
    (numbers, floats.count())
}
