//! Foreign text for pages: visible, bounded, never markup.

use crate::approval::visible;
use crate::database::Timestamp;

/// The longest line in a list, in characters.
const LINE: usize = 300;

/// A text in one line, shortened: for lists.
pub(super) fn line(text: &str) -> String {
    let (head, more) = cut(text, LINE);
    let mut shown = visible(head).text.replace(['\n', '\t'], " ");
    if more > 0 {
        shown.push('…');
    }
    shown
}

/// A text with its lines, up to so many characters, and what is left out.
pub(super) fn block(text: &str, most: usize) -> String {
    let (head, more) = cut(text, most);
    let mut shown = visible(head).text;
    if more > 0 {
        shown.push_str(&format!("… ({more} more characters)"));
    }
    shown
}

/// Bytes that should be text; those that are not are written as `\xNN`.
pub(super) fn bytes(bytes: &[u8], most: usize) -> String {
    let mut text = String::with_capacity(bytes.len().min(most * 4));
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    block(&text.replace("\r\n", "\n"), most)
}

fn cut(text: &str, most: usize) -> (&str, usize) {
    match text.char_indices().nth(most) {
        None => (text, 0),
        Some((end, _)) => text
            .split_at_checked(end)
            .map_or((text, 0), |(head, rest)| (head, rest.chars().count())),
    }
}

/// A time as `2026-11-20 10:00:00`, of UTC.
pub(super) fn time(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// The same with thousandths of a second.
pub(super) fn time_to_the_ms(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..23).unwrap_or(&text).replace('T', " ")
}

/// A length of time in the units that fit.
pub(super) fn duration(us: i64) -> String {
    let ms = us / 1000;
    match us {
        ..1000 => format!("{us} µs"),
        1000..1_000_000 => format!("{ms} ms"),
        1_000_000..60_000_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        60_000_000..3_600_000_000 => two((ms / 60_000, "min"), (ms / 1000 % 60, "s")),
        3_600_000_000..86_400_000_000 => two((ms / 3_600_000, "h"), (ms / 60_000 % 60, "min")),
        _ => two((ms / 86_400_000, "d"), (ms / 3_600_000 % 24, "h")),
    }
}

/// Two figures with their units; the second is left out when it is nothing.
fn two((large, unit): (i64, &str), (small, small_unit): (i64, &str)) -> String {
    match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    }
}

/// A number of bytes in one unit that fits, with a tenth where there are few.
pub(super) fn size(bytes: i64) -> String {
    let (unit, name) = match bytes {
        ..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1024, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576, "MiB"),
        _ => (1_073_741_824, "GiB"),
    };
    match (bytes / unit, bytes % unit * 10 / unit) {
        (whole @ ..10, tenth @ 1..) => format!("{whole}.{tenth} {name}"),
        (whole, _) => format!("{whole} {name}"),
    }
}

/// A number with its thousands apart.
pub(super) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

/// So many of something, which has an s for more than one.
pub(super) fn count(count: i64, what: &str) -> String {
    format!("{} {what}{}", number(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_shows_what_it_hides() {
        assert_eq!(line("select\n\t1"), "select  1");
        assert_eq!(line("a\u{202e}b\x1b[2J"), "a\\u{202e}b\\u{1b}[2J");
        assert_eq!(line(&"x".repeat(LINE + 5)).chars().count(), LINE + 1);
        assert_eq!(bytes(b"a\xffb\r\nc", 99), "a\\xffb\nc");
        assert!(block(&"y".repeat(50), 10).ends_with("yy… (40 more characters)"));
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [duration(12), duration(2_500_000), duration(90_000_000)],
            ["12 µs", "2.5 s", "1 min 30 s"]
        );
        assert_eq!([size(0), size(2048), size(5 << 30)], ["0 B", "2 KiB", "5 GiB"]);
        assert_eq!([size(1999), size(19_990)], ["1.9 KiB", "19 KiB"]);
        let day = 86_400_000_000;
        assert_eq!(
            [duration(day / 24), duration(day), duration(day + day / 2)],
            ["1 h", "1 d", "1 d 12 h"]
        );
        assert_eq!([count(1, "row"), count(0, "row")], ["1 row", "0 rows"]);
        assert_eq!([number(7), number(-1_234_567)], ["7", "-1\u{202f}234\u{202f}567"]);
    }
}
