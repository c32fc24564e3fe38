//! The patterns that need no configuration. `docs/masks.md`, section "Patterns", says what each
//! covers; `tests/cases/patterns` holds them to it.

use std::borrow::Cow;
use std::ops::Range;

use super::{AHEAD, Candidate, Check, Partial};
use crate::mask::{contacts, numbers, scanner};

/// A pattern as it is written down here.
pub(super) struct BuiltIn {
    pub(super) name: &'static str,
    pub(super) regex: &'static str,
    /// What the check looks at after a match, as an expression; empty when that is one byte.
    ahead: &'static str,
    pub(super) longest: usize,
    pub(super) behind: usize,
    pub(super) first: fn(u8) -> bool,
    pub(super) inner: fn(u8) -> bool,
    pub(super) check: Check,
    pub(super) tail: Option<fn(u8) -> bool>,
    pub(super) partial: Partial,
    /// A match is digits, at least so many, and what separates them; none begins behind a digit.
    pub(super) digits: Option<usize>,
}

impl BuiltIn {
    /// The expression whose match may still change while the text goes on.
    pub(super) fn growing(&self) -> Cow<'static, str> {
        match self.ahead {
            "" => self.regex.into(),
            ahead => format!("(?:{})(?:{ahead})?", self.regex).into(),
        }
    }
}

const TOKEN: BuiltIn = BuiltIn {
    name: "",
    regex: "",
    ahead: "",
    longest: 0,
    behind: 2,
    first: |byte| byte.is_ascii_alphabetic(),
    inner: word,
    check: begins_word,
    tail: None,
    partial: Partial::Nothing,
    digits: None,
};

/// A number in a list of numbers is none of these: what follows tells, or the mask of it.
const NUMBER_AHEAD: &str = r"[ .-](?:\[[a-z-]{0,20}|[0-9])?";

pub(super) const BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: "credit-card",
        regex: r"[0-9]{4}[ .-][0-9]{4}[ .-][0-9]{4}[ .-][0-9]{4}(?:[ .-][0-9]{3})?|[0-9]{4}[ .-][0-9]{6}[ .-][0-9]{4,5}|[0-9]{14,19}",
        ahead: r"[0-9A-Za-z]{1,48}|[ .-]\[[a-z-]{0,20}|\.[0-9]{0,8}|[ -](?:[0-9]{4}[ -]){0,4}[0-9A-Za-z]{0,4}",
        longest: 23 + AHEAD,
        behind: super::BEHIND,
        first: |byte| byte.is_ascii_digit(),
        inner: |byte| byte.is_ascii_alphanumeric() || b" .-[".contains(&byte),
        check: numbers::credit_card,
        partial: Partial::LastFour,
        digits: Some(14),
        ..TOKEN
    },
    BuiltIn {
        name: "iban",
        regex: r"(?i)[A-Z]{2}[0-9]{2}(?:[ -][A-Z0-9]{4}){2,7}(?:[ -][A-Z0-9]{1,4})?|[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}",
        longest: 64,
        inner: |byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'-'),
        check: numbers::iban,
        partial: Partial::Ends,
        ..TOKEN
    },
    BuiltIn {
        name: "us-ssn",
        regex: r"[0-9]{3}[ .-]?[0-9]{2}[ .-]?[0-9]{4}",
        ahead: NUMBER_AHEAD,
        longest: 11 + AHEAD,
        behind: super::BEHIND,
        first: |byte| byte.is_ascii_digit(),
        inner: |byte| byte.is_ascii_digit() || is_number_ahead(byte),
        check: numbers::us_ssn,
        partial: Partial::LastFour,
        digits: Some(9),
        ..TOKEN
    },
    BuiltIn {
        name: "phone",
        regex: r"\+[1-9](?:[ ()./-]{0,2}[0-9]){6,14}|\([2-9][0-9]{2}\)[ .-]{0,2}[2-9][0-9]{2}[ .-][0-9]{4}|[0-9](?:[ ()./-]{0,2}[0-9]){6,14}",
        ahead: NUMBER_AHEAD,
        longest: 44 + AHEAD,
        behind: super::BEHIND,
        first: |byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'('),
        inner: |byte| byte.is_ascii_digit() || b"+()/".contains(&byte) || is_number_ahead(byte),
        check: contacts::phone,
        partial: Partial::LastFour,
        digits: Some(7),
        ..TOKEN
    },
    BuiltIn {
        name: "email",
        regex: r"[A-Za-z0-9._%+'\x80-\xff-]{1,128}@(?:[A-Za-z0-9\x80-\xff-]{1,63}\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z\x80-\xff]{2,24})",
        longest: 128 + 1 + 8 * 64 + 64,
        behind: 8,
        first: |byte| byte.is_ascii_alphanumeric() || byte > 0x7f || b"._%+'-".contains(&byte),
        inner: |byte| byte.is_ascii_alphanumeric() || byte > 0x7f || b"@._%+'-".contains(&byte),
        check: contacts::email,
        partial: Partial::Domain,
        ..TOKEN
    },
    BuiltIn {
        name: "jwt",
        regex: r"eyJ[A-Za-z0-9_-]{10,2000}\.",
        longest: 2004,
        tail: Some(|byte| word(byte) || byte == b'.'),
        inner: |byte| word(byte) || byte == b'.',
        check: |candidate| {
            let joined = candidate.before.last().is_some_and(|byte| matches!(byte, b'_' | b'-'));
            (!joined).then(|| begins_word(candidate)).flatten()
        },
        first: |byte| byte == b'e',
        ..TOKEN
    },
    BuiltIn {
        name: "private-key",
        // What old encrypted keys have before their own letters comes with the start.
        regex: r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:[ \t\r\n]|\\[nr]){1,4}(?:Proc-Type|DEK-Info): ?[A-Z0-9a-z,-]{1,80}){0,2}",
        longest: 300,
        first: |byte| byte == b'-',
        inner: |byte| {
            byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"-:,\\".contains(&byte)
        },
        tail: Some(|byte| {
            byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=\\:".contains(&byte)
        }),
        check: |candidate| Some(candidate.all()),
        ..TOKEN
    },
    BuiltIn {
        name: "url-password",
        regex: r#"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@'"<>]{0,128}:[^\s/@'"<>]{1,256}@"#,
        longest: 21 + 3 + 128 + 1 + 256 + 1,
        inner: |byte| !byte.is_ascii_whitespace() && !b"'\"<>".contains(&byte),
        check: |candidate| url_password(candidate.found),
        ..TOKEN
    },
    BuiltIn {
        name: "aws-access-key",
        regex: r"(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z2-7]{16}",
        longest: 20,
        first: |byte| byte == b'A',
        ..TOKEN
    },
    BuiltIn {
        name: "aws-secret-key",
        // Forty letters tell nothing by themselves: the name before them does.
        regex: r#"(?i:aws_?secret_?(?:access_?)?key(?:_?id)?|secret_?access_?key)(?:\\?["' \t]){0,4}[:=](?:\\?["' \t]){0,4}[A-Za-z0-9/+]{40}"#,
        longest: 128,
        first: |byte| b"aAsS".contains(&byte),
        inner: |byte| byte.is_ascii_alphanumeric() || b"_\"' \t\\:=/+".contains(&byte),
        check: aws_secret,
        ..TOKEN
    },
    BuiltIn {
        name: "google-api-key",
        regex: r"AIza[0-9A-Za-z_-]{35}|GOCSPX-[0-9A-Za-z_-]{20,40}|ya29\.[0-9A-Za-z_-]{20,512}",
        longest: 520,
        first: |byte| b"AGy".contains(&byte),
        inner: |byte| word(byte) || byte == b'.',
        ..TOKEN
    },
    BuiltIn {
        name: "github-token",
        regex: r"(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{22,255}",
        longest: 266,
        first: |byte| byte == b'g',
        ..TOKEN
    },
    BuiltIn {
        name: "gitlab-token",
        regex: r"gl(?:pat|dt|rt|ft|soat|ptt|cbt|imt|agent|oas|ffct|rtr)-[A-Za-z0-9_-]{20,64}",
        longest: 72,
        first: |byte| byte == b'g',
        ..TOKEN
    },
    BuiltIn {
        name: "slack-token",
        regex: r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xoxe\.xox[bp]-[A-Za-z0-9-]{10,250}|xapp-[0-9]-[A-Za-z0-9-]{10,250}|hooks\.slack\.com/services/T[A-Za-z0-9]{8,12}/B[A-Za-z0-9]{8,12}/[A-Za-z0-9]{20,32}",
        longest: 262,
        first: |byte| matches!(byte, b'x' | b'h'),
        inner: |byte| word(byte) || matches!(byte, b'.' | b'/'),
        ..TOKEN
    },
    BuiltIn {
        name: "stripe-key",
        regex: r"(?:(?:sk|rk)_(?:live|test)|whsec)_[0-9A-Za-z]{16,128}",
        longest: 136,
        first: |byte| matches!(byte, b's' | b'r' | b'w'),
        ..TOKEN
    },
    BuiltIn {
        name: "ai-api-key",
        regex: r"sk-[A-Za-z0-9_-]{20,200}|hf_[A-Za-z0-9]{30,60}|gsk_[A-Za-z0-9]{40,60}|xai-[A-Za-z0-9]{60,100}|r8_[A-Za-z0-9]{30,60}|pplx-[A-Za-z0-9]{40,60}|nvapi-[A-Za-z0-9_-]{50,90}|tvly-[A-Za-z0-9-]{20,60}|lsv2_(?:pt|sk)_[A-Za-z0-9_]{32,60}|csk-[a-z0-9]{40,60}",
        longest: 203,
        first: |byte| b"shgxrpntlc".contains(&byte),
        check: ai_key,
        ..TOKEN
    },
    BuiltIn {
        name: "service-token",
        regex: r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,250}|rubygems_[a-f0-9]{48}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{20,60}|SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}|SK[a-f0-9]{32}|do[opr]_v1_[a-f0-9]{64}|shp(?:at|ss|ca|pa)_[a-fA-F0-9]{32}|dapi[a-f0-9]{32}(?:-[0-9])?|hv[sb]\.[A-Za-z0-9_-]{24,200}|ATATT3x[A-Za-z0-9_=-]{100,250}|lin_api_[A-Za-z0-9]{32,48}|ntn_[A-Za-z0-9]{40,60}|PMAK-[a-f0-9]{24}-[a-f0-9]{34}|NRAK-[A-Z0-9]{27}|gl(?:c|sa)_[A-Za-z0-9_=]{32,200}|pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{31,63}[A-Za-z0-9_-]|sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{20,60}|sntry[su]_[A-Za-z0-9_=+/-]{40,250}|dp\.(?:pt|st|sa|ct)\.[A-Za-z0-9_.-]{39,59}[A-Za-z0-9_-]|HRKU-[A-Za-z0-9_-]{36,70}|AGE-SECRET-KEY-1[A-Z0-9]{58}",
        longest: 264,
        first: |byte| b"nprdSshAlPNgHs".contains(&byte),
        inner: |byte| word(byte) || b".=+/".contains(&byte),
        ..TOKEN
    },
];

fn is_number_ahead(byte: u8) -> bool {
    byte.is_ascii_lowercase() || b" .-[".contains(&byte)
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// A token that does not begin within a word.
fn begins_word(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    (!candidate.begins_in_word()).then(|| candidate.all())
}

/// A key of an AI service. Names in style sheets and paths begin as some do
/// (`sk-folding-cube-animation`): in small letters, with hardly a digit.
fn ai_key(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let digits = candidate.found.iter().filter(|byte| byte.is_ascii_digit()).count();
    let small = !candidate.found.iter().any(u8::is_ascii_uppercase);
    let named = candidate.found.starts_with(b"sk-") && small && digits < 3;
    (!named).then(|| begins_word(candidate)).flatten()
}

/// The forty letters of `aws_secret_access_key = …`.
fn aws_secret(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"/+".contains(byte);
    let secret = candidate.found.len().checked_sub(40)?..candidate.found.len();
    (!candidate.after.first().is_some_and(goes_on)).then_some(secret)
}

/// The password of `scheme://user:password@`, unless it is masked or stands for one.
fn url_password(found: &[u8]) -> Option<Range<usize>> {
    let authority = found.windows(3).position(|three| three == b"://")? + 3;
    let user = found.get(authority..)?.iter().position(|byte| *byte == b':')?;
    let password = authority + user + 1..found.len().checked_sub(1)?;
    let text = found.get(password.clone())?;
    let kept = scanner::is_mask(text) || is_placeholder(text) || is_port(text);
    (!kept).then_some(password)
}

/// `${PASSWORD}`, `$PASSWORD`, `{password}`, `%s`, `****`: what templates and masks have there.
#[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
fn is_placeholder(text: &[u8]) -> bool {
    let name = |text: &[u8]| {
        text.iter().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'0'..=b'9'))
    };
    match text {
        b"%s" | b"%v" => true,
        [b'$', b'{', .., b'}'] | [b'{', .., b'}'] => true,
        [b'$', rest @ ..] => !rest.is_empty() && name(rest),
        text => text.iter().all(|byte| *byte == b'*'),
    }
}

/// A port and what follows it in an address without a password: `8080?to=a`.
fn is_port(text: &[u8]) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=5).contains(&digits) && matches!(text.get(digits), Some(b'?' | b'#'))
}
