//! A request's path in the one form in which it is judged, and in the form in which it is sent.
//!
//! Both say the same: dots are resolved in both, and what servers are known to read in different
//! ways (encoded slashes, empty segments, double encoding) is refused. Nothing is guessed.

/// A path that can be read in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Decoded once.
    pub(crate) decoded: String,
    /// As it is sent.
    pub(crate) raw: String,
}

/// Reads a path without its query. Errors say why it is refused.
pub(crate) fn read(raw: &str) -> Result<Path, &'static str> {
    let Some(rest) = raw.strip_prefix('/') else { return Err("it does not begin with a slash") };
    let segments: Vec<&str> = rest.split('/').collect();
    let last = segments.len() - 1;
    let mut kept: Vec<(&str, String)> = Vec::with_capacity(segments.len());
    for (at, &segment) in segments.iter().enumerate() {
        if let Some((scope, name)) = scoped(segment) {
            // npm asks for `@scope/name` in this one way; the slash is judged as a slash.
            kept.push((segment, format!("{scope}/{name}")));
            continue;
        }
        let decoded = decode(segment)?;
        match decoded.as_str() {
            "" if at < last => return Err("it has an empty segment"),
            "." | ".." => {
                if decoded == ".." && kept.pop().is_none() {
                    return Err("it leads above its root");
                }
                if at == last {
                    kept.push(("", String::new()));
                }
            }
            dots if is_dots_with_parameters(dots) => {
                return Err("it has parameters on a dot segment");
            }
            _ => kept.push((segment, decoded)),
        }
    }
    let mut path = Path { decoded: String::new(), raw: String::new() };
    for (raw, decoded) in kept {
        path.raw += "/";
        path.raw += raw;
        path.decoded += "/";
        path.decoded += &decoded;
    }
    Ok(path)
}

/// The parts of `@scope%2fname`, each a plain word.
fn scoped(segment: &str) -> Option<(&str, &str)> {
    let (scope, name) = segment.split_once("%2f").or_else(|| segment.split_once("%2F"))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let word =
        |text: &str| text.bytes().all(plain) && text.bytes().any(|b| b.is_ascii_alphanumeric());
    (word(scope.strip_prefix('@')?) && word(name)).then_some((scope, name))
}

fn is_dots_with_parameters(segment: &str) -> bool {
    segment.split_once(';').is_some_and(|(before, _)| before == "." || before == "..")
}

fn decode(segment: &str) -> Result<String, &'static str> {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let byte = hex_pair(bytes.get(at + 1..at + 3)).ok_or("it has a broken escape")?;
                check_escaped(byte, &bytes[at + 3..])?;
                decoded.push(byte);
                at += 3;
            }
            b'\\' => return Err("it has a backslash"),
            byte @ 0x21..=0x7e if byte != b'#' && byte != b'?' => {
                decoded.push(byte);
                at += 1;
            }
            _ => return Err("it has a character that must be escaped"),
        }
    }
    String::from_utf8(decoded).map_err(|_| "it is not UTF-8")
}

/// Refuses escapes that hide structure.
fn check_escaped(byte: u8, rest: &[u8]) -> Result<(), &'static str> {
    match byte {
        b'/' => Err("it has an escaped slash"),
        b'\\' => Err("it has an escaped backslash"),
        0..=0x1f | 0x7f => Err("it has an escaped control character"),
        b'%' if hex_pair(rest.get(..2)).is_some() => Err("it is escaped twice"),
        _ => Ok(()),
    }
}

/// The byte of two hexadecimal digits.
pub(crate) fn hex_pair(digits: Option<&[u8]>) -> Option<u8> {
    let [high, low] = digits? else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_reading_for_each_path() {
        for (raw, decoded, sent) in [
            ("/", "/", "/"),
            ("/v1/items/7", "/v1/items/7", "/v1/items/7"),
            ("/v1/", "/v1/", "/v1/"),
            ("/a%20b", "/a b", "/a%20b"),
            ("/a/../b", "/b", "/b"),
            ("/a/%2e%2E/b", "/b", "/b"),
            ("/a/.%2e", "/", "/"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/.", "/a/", "/a/"),
            ("/...", "/...", "/..."),
            ("/50%25", "/50%", "/50%25"),
            ("/b%C3%BCcher", "/bücher", "/b%C3%BCcher"),
            ("/a;x=1", "/a;x=1", "/a;x=1"),
            ("/@types%2fnode", "/@types/node", "/@types%2fnode"),
        ] {
            let expected = Path { decoded: decoded.into(), raw: sent.into() };
            assert_eq!(read(raw), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_servers_read_in_two_ways_is_refused() {
        for raw in [
            "",
            "*",
            "a",
            "/..",
            "/a/../..",
            "/a%2fb",
            "/@a%2f..",
            "/@a%2fb%2fc",
            "/@%2fa",
            "/@a%2f%2e%2e",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/%252e%252e/b",
            "/%252fb",
            "//",
            "//a",
            "/a//b",
            "/..;/a",
            "/.;x/a",
            "/%2e%2e;/a",
            "/%c0%ae%c0%ae/a",
            "/%ff",
            "/%",
            "/%2",
            "/%zz",
            "/a b",
            "/a#b",
            "/ü",
        ] {
            assert!(read(raw).is_err(), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn a_path_that_is_sent_reads_as_itself(raw in "/[a-z.%/;2ef]{0,24}") {
            if let Ok(path) = read(&raw) {
                let dots = path.decoded.split('/').any(|s| s == "." || s == "..");
                prop_assert!(!dots);
                prop_assert_eq!(read(&path.raw).unwrap(), path);
            }
        }
    }
}
