//! Tokens and keys by their shapes, and credentials by the word before them.
//!
//! A shape that has a checksum counts only when it is right. One without counts when its random
//! part has the entropy of one; placeholders such as `sk-xxxxxxxx` have not.

use crate::detect::Found;
use crate::kind::{Confidence, Kind};
use crate::marks::{Mark, Marked};
use crate::work;

/// Longest token that is read, in bytes; a longer run is no token but is reported up to here.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest first or last line of one in PEM, in bytes.
const HEAD_BYTES_MAX: usize = 64;
/// Longest private key, in bytes.
const PEM_BYTES_MAX: usize = 16 << 10;
/// Most places in one run of characters where a JWT is looked for.
const JWT_TRIES_MAX: usize = 8;
/// Most bytes between a keyword and its separator, and between that and the value.
const GAP_BYTES_MAX: usize = 40;
/// Longest credential that a keyword announces, in bytes.
const VALUE_BYTES_MAX: usize = 512;
const VALUE_BYTES_MIN: usize = 8;

/// Adds the tokens whose prefixes and keywords are marked.
pub(crate) fn find(text: &str, marked: &Marked, found: &mut Found) {
    let last_lines = marked.all.iter().filter(|(mark, ..)| *mark == Mark::PemEnd);
    let mut last_lines = last_lines.map(|(_, _, end)| *end).peekable();
    let (mut pem_end, mut jwts) = (0, Jwts::default());
    for (mark, start, end) in &marked.all {
        let token = match mark {
            Mark::Token(Kind::PrivateKey) if *start < pem_end => None,
            Mark::Token(Kind::PrivateKey) => {
                while last_lines.next_if(|line| line <= end).is_some() {}
                let key = private_key(text, *start, last_lines.peek().copied());
                key.map(|end| (Kind::PrivateKey, *start, end))
            }
            Mark::Token(Kind::Jwt) if may_start(text.as_bytes(), *start, Kind::Jwt) => {
                jwts.end(text, *start).map(|end| (Kind::Jwt, *start, end))
            }
            Mark::Token(Kind::Jwt) => None,
            Mark::Token(kind) => token(text, *kind, *start, *end),
            Mark::Keyword => credential(text, *end),
            Mark::Url => password_in_url(text, *end),
            Mark::Context(_) | Mark::Version | Mark::PemEnd => None,
        };
        let Some((kind, start, end)) = token else { continue };
        if kind == Kind::PrivateKey {
            pem_end = end;
        }
        let sure = if kind == Kind::Credential { Confidence::Likely } else { Confidence::Certain };
        found.add(start, end, kind, sure);
    }
}

type Token = Option<(Kind, usize, usize)>;

/// The token whose prefix is `text[start..end]`.
fn token(text: &str, kind: Kind, start: usize, end: usize) -> Token {
    let bytes = text.as_bytes();
    if !may_start(bytes, start, kind) {
        return None;
    }
    let (prefix, rest) = (&text[start..end], &bytes[end..bytes.len().min(end + TOKEN_BYTES_MAX)]);
    let length = match kind {
        Kind::AwsKey => exactly(rest, 16, |b| b.is_ascii_uppercase() || b.is_ascii_digit())
            .filter(|_| prefix.bytes().all(|b| b.is_ascii_uppercase())),
        Kind::GithubToken if prefix == "github_pat_" => {
            exactly(rest, 82, |b| b.is_ascii_alphanumeric() || b == b'_')
        }
        Kind::GithubToken | Kind::NpmToken => checked(rest),
        Kind::GitlabToken => at_least(rest, 20, is_name),
        Kind::SlackToken if prefix.ends_with('/') => {
            at_least(rest, 24, |b| is_name(b) || b == b'/')
        }
        Kind::SlackToken => at_least(rest, 20, |b| b.is_ascii_alphanumeric() || b == b'-'),
        Kind::StripeKey => at_least(rest, 16, |b| b.is_ascii_alphanumeric()),
        Kind::AnthropicKey => at_least(rest, 24, is_name),
        Kind::OpenaiKey => at_least(rest, 20, is_name),
        Kind::GoogleKey => exactly(rest, 35, is_name).filter(|_| prefix == "AIza"),
        Kind::PypiToken => at_least(rest, 50, is_name),
        _ => other(prefix, rest),
    };
    let length = length?;
    let body = &text[end..end + length];
    let common = matches!(kind, Kind::OpenaiKey | Kind::OtherToken);
    (random(body.as_bytes()) && !(common && is_words(body))).then_some((kind, start, end + length))
}

/// Words with dashes between have the entropy of a token, but few digits and no long part in which
/// both cases are mixed.
fn is_words(body: &str) -> bool {
    let digits = body.bytes().filter(u8::is_ascii_digit).count();
    let mixed = |part: &str| {
        part.len() >= 16
            && part.bytes().any(|b| b.is_ascii_lowercase())
            && part.bytes().any(|b| b.is_ascii_uppercase())
    };
    is_word_like(body) || (digits < 2 && !body.split(['-', '_']).any(mixed))
}

fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')
}

/// Whether a token may start here. Prefixes that are parts of words (`task-`) need a boundary;
/// the letter of an escape such as `\n` is one.
fn may_start(bytes: &[u8], start: usize, kind: Kind) -> bool {
    let Some(before) = start.checked_sub(1).map(|at| bytes[at]) else { return true };
    if !before.is_ascii_alphanumeric() {
        return !(matches!(before, b'-' | b'_')
            && matches!(kind, Kind::OpenaiKey | Kind::OtherToken));
    }
    let escape = start >= 2 && bytes[start - 2] == b'\\' && matches!(before, b'n' | b't' | b'r');
    let percent = start >= 3 && bytes[start - 3] == b'%' && before.is_ascii_hexdigit();
    let distinct = !matches!(kind, Kind::OpenaiKey | Kind::OtherToken | Kind::Jwt | Kind::AwsKey);
    escape || percent || distinct
}

/// A run of exactly so many bytes.
fn exactly(rest: &[u8], length: usize, fits: impl Fn(u8) -> bool) -> Option<usize> {
    let run = rest.iter().take(length + 1).take_while(|b| fits(**b)).count();
    (run == length).then_some(run)
}

/// A run of so many bytes or more, without dashes at its end.
fn at_least(rest: &[u8], length: usize, fits: impl Fn(u8) -> bool) -> Option<usize> {
    let mut run = rest.iter().take_while(|b| fits(**b)).count();
    while run > 0 && matches!(rest[run - 1], b'-' | b'_' | b'/') {
        run -= 1;
    }
    (run >= length).then_some(run)
}

/// 30 random letters and digits and 6 of their CRC-32: GitHub's and npm's shape.
fn checked(rest: &[u8]) -> Option<usize> {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let length = exactly(rest, 36, |b| b.is_ascii_alphanumeric())?;
    let mut crc = crc32fast::hash(&rest[..30]) as usize;
    let right = rest[30..36].iter().rev().all(|b| {
        let digit = BASE62[crc % 62];
        crc /= 62;
        digit == *b
    });
    right.then_some(length)
}

fn other(prefix: &str, rest: &[u8]) -> Option<usize> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let alphanumeric = |b: u8| b.is_ascii_alphanumeric();
    match prefix.to_ascii_lowercase().as_str() {
        "sg." => at_least(rest, 60, |b| is_name(b) || b == b'.').filter(|n| *n <= 80),
        "dop_v1_" | "doo_v1_" => exactly(rest, 64, hex),
        "dapi" => exactly(rest, 32, hex),
        "shpat_" | "shpss_" => exactly(rest, 32, |b| b.is_ascii_hexdigit()),
        "hf_" => exactly(rest, 34, alphanumeric),
        "key-" => exactly(rest, 32, hex),
        "pul-" => exactly(rest, 40, hex),
        "sbp_" => exactly(rest, 40, hex),
        "r8_" => exactly(rest, 37, alphanumeric),
        "hvs." => at_least(rest, 24, is_name),
        "rubygems_" => exactly(rest, 48, hex),
        "age-secret-key-1" => exactly(rest, 58, alphanumeric),
        _ => at_least(rest, 26, is_name),
    }
}

/// Whether bytes have the entropy of something drawn at random, for their length.
pub(crate) fn random(bytes: &[u8]) -> bool {
    let needed = match bytes.len() {
        0..12 => 2.6,
        12..24 => 3.0,
        _ => 3.3,
    };
    let hex = bytes.iter().all(u8::is_ascii_hexdigit);
    entropy(bytes) >= if hex { needed - 0.4 } else { needed }
}

/// Bits a byte, after Shannon, of the first bytes.
fn entropy(bytes: &[u8]) -> f64 {
    let bytes = &bytes[..bytes.len().min(256)];
    let mut counts = [0_u16; 256];
    bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
    let total = bytes.len() as f64;
    let bits = counts.iter().filter(|c| **c > 0).map(|c| {
        let share = f64::from(*c) / total;
        -share * share.log2()
    });
    bits.sum()
}

/// The end of the private key that starts here. `last_line` is behind the next `-----END `; a key
/// that is cut off goes as far as it reads as base64 and line ends, escaped ones too.
fn private_key(text: &str, start: usize, last_line: Option<usize>) -> Option<usize> {
    let pem = &text.as_bytes()[start..];
    let label = std::str::from_utf8(pem.get(..HEAD_BYTES_MAX).unwrap_or(pem));
    let label = label.unwrap_or_default();
    let head = label.find("PRIVATE KEY")?;
    let head_end = head + label[head..].find("-----")? + 5;
    if let Some(line) = last_line.filter(|line| *line <= start + PEM_BYTES_MAX) {
        let rest = &text.as_bytes()[line..];
        let rest = rest.iter().take(HEAD_BYTES_MAX);
        let name = rest.clone().take_while(|b| b.is_ascii_uppercase() || **b == b' ').count();
        let dashes = rest.skip(name).take(5).take_while(|b| **b == b'-').count();
        return Some(line + name + dashes);
    }
    let body = pem[head_end..].iter().take(PEM_BYTES_MAX).take_while(|b| {
        b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n' | b'\r' | b'\\' | b' ')
    });
    let length = body.count();
    work::add(length);
    (length >= 16).then_some(start + head_end + length)
}

/// Looks for JWTs in runs of their characters, a few times a run, so that a run of nothing but
/// their beginnings is not read again for each.
#[derive(Default)]
struct Jwts {
    run_end: usize,
    tries: usize,
}

impl Jwts {
    /// The end of the JWT that starts here, if its header can be read.
    fn end(&mut self, text: &str, start: usize) -> Option<usize> {
        if start >= self.run_end {
            let run = text.as_bytes()[start..].iter().take(TOKEN_BYTES_MAX);
            let length = run.take_while(|b| is_name(**b) || **b == b'.').count();
            work::add(length);
            (self.run_end, self.tries) = (start + length, 0);
        }
        self.tries += 1;
        if self.tries > JWT_TRIES_MAX {
            return None;
        }
        work::add(self.run_end - start);
        let token = text[start..self.run_end].trim_end_matches('.');
        let mut parts = token.split('.');
        let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let readable = crate::decode::base64(header.as_bytes())?;
        let object = serde_json::from_str::<serde_json::Value>(&readable).ok()?;
        let whole = object.get("alg").is_some() && payload.len() >= 2 && signature.len() >= 8;
        whole.then_some(start + token.len())
    }
}

/// The credential behind a keyword that ends at `end`.
fn credential(text: &str, end: usize) -> Token {
    let bytes = text.as_bytes();
    let after = |at: usize, max: usize, fits: &dyn Fn(u8) -> bool| {
        at + bytes[at..].iter().take(max).take_while(|b| fits(**b)).count()
    };
    let quote = |b: u8| matches!(b, b'"' | b'\'' | b'`' | b'\\' | b']' | b')');
    let space = |b: u8| matches!(b, b' ' | b'\t');
    let named = after(end, GAP_BYTES_MAX, &is_name);
    let named = after(after(named, 3, &quote), 4, &space);
    let separated = separator(text, named).or_else(|| {
        // `Bearer VALUE` has no separator but the space.
        let bearer = text[..end].to_ascii_lowercase_tail(6) == "bearer" && named > end;
        bearer.then_some(named)
    })?;
    let mut start =
        after(after(separated, 4, &space), 3, &|b| matches!(b, b'"' | b'\'' | b'`' | b'\\'));
    for scheme in ["Bearer ", "bearer ", "Basic ", "basic ", "token ", "Token "] {
        if text[start..].starts_with(scheme) {
            start += scheme.len();
        }
    }
    let value = |b: u8| {
        b.is_ascii_graphic()
            && !matches!(b, b'"' | b'\'' | b'`' | b'<' | b'>' | b',' | b';' | b'\\' | b'|')
    };
    let mut stop = after(start, VALUE_BYTES_MAX, &value);
    work::add(stop - end);
    while stop > start && matches!(bytes[stop - 1], b'.' | b')' | b']' | b'}' | b'&' | b':') {
        stop -= 1;
    }
    let stop = start + before_next_field(&bytes[start..stop]);
    is_credential(&text[start..stop]).then_some((Kind::Credential, start, stop))
}

/// How much of a value stands before `&name=`, the next field of a query.
fn before_next_field(value: &[u8]) -> usize {
    let next = value.iter().enumerate().find(|(at, b)| {
        let rest = &value[at + 1..];
        let name = rest.iter().take_while(|b| is_name(**b)).count();
        **b == b'&' && rest.get(name) == Some(&b'=')
    });
    next.map_or(value.len(), |(at, _)| at)
}

/// The end of the separator at `at`: `=`, `:`, `:=`, `=>`, a full-width colon, or ` is `.
fn separator(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let known = [":=", "=>", "==", "=", ":", "：", "is ", "ist ", "est ", "es ", "är ", "to "];
    known.iter().find(|s| rest.starts_with(**s)).map(|s| at + s.len())
}

trait Tail {
    fn to_ascii_lowercase_tail(&self, bytes: usize) -> String;
}

impl Tail for str {
    fn to_ascii_lowercase_tail(&self, bytes: usize) -> String {
        let tail = self.get(self.len().saturating_sub(bytes)..).unwrap_or_default();
        tail.to_ascii_lowercase()
    }
}

/// Whether what stands behind a keyword is a value and neither code nor a placeholder.
fn is_credential(value: &str) -> bool {
    const PLACEHOLDERS: [&str; 15] = [
        "example",
        "changeme",
        "change_me",
        "your",
        "xxxx",
        "****",
        "placeholder",
        "redacted",
        "${",
        "{{",
        "$(",
        "process.",
        "environ",
        "getenv",
        "pseudonym",
    ];
    let bytes = value.as_bytes();
    let has = |fits: fn(&u8) -> bool| bytes.iter().any(fits);
    let mixed = || has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    let special = || has(|b| b.is_ascii_punctuation() && !matches!(b, b'_' | b'.' | b'-' | b'/'));
    let strong = bytes.len() >= VALUE_BYTES_MIN
        && has(u8::is_ascii_alphabetic)
        && (has(u8::is_ascii_digit) || (mixed() && (special() || bytes.len() >= 20)));
    if !strong || !random(bytes) || is_word_like(value) {
        return false;
    }
    let lower = value.to_ascii_lowercase();
    let code = has(|b| matches!(b, b'(' | b'[' | b'{'))
        || value.starts_with(['/', '$', '%', '<'])
        || ["::", "://", "->"].iter().any(|sign| value.contains(sign));
    !code && !PLACEHOLDERS.iter().any(|word| lower.contains(word))
}

/// Words joined by dots, dashes or underscores, with at most a short number each: `token_v2`,
/// `config.auth2.token`, a version, a date.
fn is_word_like(value: &str) -> bool {
    value.split(['_', '.', '-', '/', ':']).all(|part| {
        let letters = part.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (head, rest) = part.split_at(letters);
        let plain = head.bytes().skip(1).all(|b| b.is_ascii_lowercase())
            || head.bytes().all(|b| b.is_ascii_uppercase());
        plain && rest.len() <= 4 && rest.bytes().all(|b| b.is_ascii_digit())
    }) && value.contains(['_', '.', '-', '/', ':'])
}

/// The end of the user's part in `scheme://user:password@host`, whose `://` ends at `end`.
fn user_in_url(bytes: &[u8], end: usize) -> Option<usize> {
    let authority = bytes[end..].iter().take(VALUE_BYTES_MAX);
    let outside = |b: &u8| {
        b.is_ascii_whitespace() || matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>')
    };
    let authority = &bytes[end..end + authority.take_while(|b| !outside(b)).count()];
    work::add(authority.len());
    authority.iter().rposition(|b| *b == b'@').map(|at| end + at)
}

/// The password in a URL whose `://` ends at `end`.
fn password_in_url(text: &str, end: usize) -> Token {
    let at = user_in_url(text.as_bytes(), end)?;
    let colon = text.as_bytes()[end..at].iter().position(|b| *b == b':')?;
    let password = text.get(end + colon + 1..at)?;
    let hollow =
        password.len() < 3 || password.starts_with(['$', '{', '<', '*']) || password.contains("${");
    (!hollow).then_some((Kind::Credential, end + colon + 1, at))
}

/// Where the `@` of a URL's credentials stands, so that no address is seen around it.
pub(crate) fn url_at_signs(text: &str, marked: &Marked) -> Vec<usize> {
    let urls = marked.all.iter().filter(|(mark, ..)| *mark == Mark::Url);
    urls.filter_map(|(_, _, end)| user_in_url(text.as_bytes(), *end)).collect()
}
