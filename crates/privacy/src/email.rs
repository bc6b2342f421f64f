//! E-mail addresses, internationalised ones too.
//!
//! A part written in a script that has no spaces (Chinese, Japanese, Thai) cannot be told from the
//! sentence around it, so it ends where the script changes.

use crate::detect::Found;
use crate::kind::{Confidence, Kind};
use crate::marks::Context;
use crate::work;

/// Longest local part, in bytes (RFC 5321).
const LOCAL_BYTES_MAX: usize = 64;
/// Longest domain, in bytes.
const DOMAIN_BYTES_MAX: usize = 253;
/// Endings of files that stand behind `@2x` and the like.
const FILES: [&str; 8] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css"];

/// Adds the address around the `@` at `at`, if there is one.
pub(crate) fn find(text: &str, at: usize, context: &Context, found: &mut Found) {
    if context.not_email.binary_search(&at).is_ok() {
        return;
    }
    let Some(start) = local(&text[..at]) else { return };
    let Some(length) = domain(&text[at + 1..]) else { return };
    let (local, domain, rest) =
        (&text[start..at], &text[at + 1..at + 1 + length], &text[at + 1 + length..]);
    // `git@host:path` names a repository, not a person.
    let repository = local == "git" && rest.starts_with([':', '/']);
    let ending = domain.rsplit('.').next().unwrap_or_default();
    let picture = domain.starts_with(|c: char| c.is_ascii_digit())
        && FILES.iter().any(|file| ending.eq_ignore_ascii_case(file));
    if !repository && !picture && !rest.starts_with('@') {
        found.add(start, at + 1 + length, Kind::Email, Confidence::Certain);
    }
}

/// Written without spaces between the words.
pub(crate) fn is_continuous(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// A letter, a digit or a mark that belongs to a letter.
pub(crate) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || !c.is_ascii()
            && (c.is_alphanumeric()
                || matches!(c, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{dff}' | '\u{200c}' | '\u{200d}' | '\u{64b}'..='\u{65f}'))
}

/// Where the local part that ends the text starts.
fn local(before: &str) -> Option<usize> {
    let nearest = before.chars().next_back()?;
    let continuous = is_continuous(nearest);
    let belongs = |c: char| match c {
        '.' | '_' | '%' | '+' | '-' | '\'' => true,
        c => is_word(c) && (c.is_ascii() || is_continuous(c) == continuous),
    };
    let mut start = before.len();
    for (at, c) in before.char_indices().rev() {
        work::add(1);
        if !belongs(c) {
            break;
        }
        if before.len() - at > LOCAL_BYTES_MAX {
            return None;
        }
        start = at;
    }
    let trimmed = before[start..].trim_start_matches(['.', '%', '+', '-', '\'']);
    // `\nanna@` in escaped text: the letter belongs to the escape.
    let escape = before[..before.len() - trimmed.len()].ends_with('\\');
    let trimmed = match trimmed.as_bytes().first() {
        Some(b'n' | b't' | b'r') if escape && trimmed.len() > 1 => &trimmed[1..],
        _ => trimmed,
    };
    let whole = !trimmed.is_empty() && !nearest.is_ascii_punctuation() && !trimmed.contains("..");
    (whole || (nearest == '_' && trimmed.len() > 1) || (nearest == '+' && trimmed.len() > 1))
        .then_some(before.len() - trimmed.len())
}

/// How long the domain is that starts the text.
fn domain(after: &str) -> Option<usize> {
    let nearest = after.chars().next()?;
    let continuous = is_continuous(nearest);
    let (mut end, mut label, mut dots, mut good) = (0, 0, 0, None);
    for (at, c) in after.char_indices() {
        work::add(1);
        let in_script = c.is_ascii() || is_continuous(c) == continuous;
        if at > DOMAIN_BYTES_MAX {
            return None;
        }
        if is_word(c) && in_script {
            end = at + c.len_utf8();
            if dots > 0 && is_top(&after[label..end]) {
                good = Some(end);
            }
        } else if c == '.' && at > label {
            (dots, label) = (dots + 1, at + 1);
        } else if c != '-' || at == label {
            break;
        }
    }
    // The last label must be the top one, or the one before it with a full stop behind.
    good.filter(|good| *good == end)
}

/// Whether a label can be the last of a domain: two letters or more, or encoded as `xn--`.
fn is_top(label: &str) -> bool {
    let letters = label.chars().count();
    let encoded = label.len() > 4 && label.get(..4).is_some_and(|l| l.eq_ignore_ascii_case("xn--"));
    encoded || (letters >= 2 && label.len() <= 63 && !label.contains(|c: char| c.is_ascii_digit()))
}
