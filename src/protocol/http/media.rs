//! Pictures, sound, video and fonts, by their first bytes: what a content type says of a body is not
//! believed where masks act.
//!
//! Source: WHATWG MIME Sniffing, sections 6 and 7.3; RFC 8081 for fonts; the formats' own pages.

/// How many bytes are needed to know every kind.
pub(super) const LONGEST_MARK: usize = 16;

/// First bytes of formats, and what follows at a later place.
const MARKS: &[(&[u8], usize, &[u8])] = &[
    (b"\x89PNG\r\n\x1a\n", 0, b""),
    (b"\xff\xd8\xff", 0, b""),
    (b"GIF87a", 0, b""),
    (b"GIF89a", 0, b""),
    (b"RIFF", 8, b"WEBP"),
    (b"RIFF", 8, b"WAVE"),
    (b"RIFF", 8, b"AVI "),
    (b"BM", 6, b"\0\0\0\0"),
    (b"\0\0\x01\0", 0, b""),
    (b"\0\0\x02\0", 0, b""),
    (b"II*\0", 0, b""),
    (b"MM\0*", 0, b""),
    (b"\xff\x0a", 0, b""),
    (b"\0\0\0\x0cJXL ", 0, b""),
    // AVIF, HEIF, MP4, M4A and QuickTime begin with a box.
    (b"\0", 4, b"ftyp"),
    (b"ID3", 0, b""),
    (b"\xff\xfb", 0, b""),
    (b"\xff\xf3", 0, b""),
    (b"\xff\xf2", 0, b""),
    (b"\xff\xf1", 0, b""),
    (b"\xff\xf9", 0, b""),
    (b"OggS\0", 0, b""),
    (b"fLaC", 0, b""),
    (b"FORM", 8, b"AIFF"),
    (b"MThd\0\0\0\x06", 0, b""),
    (b".snd\0", 0, b""),
    (b"\x1a\x45\xdf\xa3", 0, b""),
    (b"\0\0\x01\xba", 0, b""),
    (b"\0\0\x01\xb3", 0, b""),
    (b"wOFF", 0, b""),
    (b"wOF2", 0, b""),
    (b"OTTO\0", 0, b""),
    (b"\0\x01\0\0\0", 0, b""),
    (b"ttcf\0", 0, b""),
];

/// Whether a body begins as a picture, a sound, a video or a font.
pub(super) fn is_any(first: &[u8]) -> bool {
    MARKS.iter().any(|(begin, at, behind)| {
        let rest = first.get(*at..).unwrap_or_default();
        let letters = begin.iter().chain(*behind).all(|byte| matches!(byte, b' '..=b'~'));
        first.starts_with(begin) && rest.starts_with(behind) && (!letters || holds_control(first))
    })
}

/// Whether bytes are there that no text has: versions and lengths stand behind every mark that is letters
/// alone.
fn holds_control(first: &[u8]) -> bool {
    let first = first.get(..LONGEST_MARK).unwrap_or(first);
    first.iter().any(|byte| matches!(byte, 0..=8 | 14..=31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_and_text_is_none() {
        assert!(is_any(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"));
        assert!(is_any(b"RIFF\x24\0\0\0WEBPVP8 "));
        assert!(is_any(b"\0\0\0\x20ftypisom"));
        assert!(is_any(b"GIF89a\x01\0\x01\0\x80\0\0"));
        assert!(is_any(b"ID3\x04\0\0\0\0\x02\x01TSSE"));
        for text in
            [&b"ID3 alice@example.com"[..], b"GIF89a, 123-45-6789\r\n", b"RIFF...:WEBP,a@b.de\t"]
        {
            assert!(!is_any(text), "{text:?}");
        }
        for text in [&b""[..], b"{\"secret\": 1}", b"<svg", b"RIFF\x24\0\0\0", b"GIF", b"BM: x"] {
            assert!(!is_any(text), "{text:?}");
        }
    }
}
