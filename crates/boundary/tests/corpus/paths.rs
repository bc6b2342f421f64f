//! H15: paths that servers read in different ways, each beside a plain one.

use super::{Case, End, http};

/// What must not pass for another path.
const REFUSED: [(&str, &str); 24] = [
    ("H15 above the root", "/../denied"),
    ("H15 escaped dots above the root", "/%2e%2e/denied"),
    ("H15 escaped slash", "/a%2fdenied"),
    ("H15 escaped slash, upper case", "/a%2Fdenied"),
    ("H15 escaped backslash", "/a%5cdenied"),
    ("H15 backslash", "/a\\denied"),
    ("H15 double escaped dots", "/%252e%252e/denied"),
    ("H15 double escaped slash", "/a%252fdenied"),
    ("H15 triple escape", "/%25252e"),
    ("H15 two slashes first", "//denied"),
    ("H15 two slashes inside", "/a//denied"),
    ("H15 parameter on dots", "/a/..;/denied"),
    ("H15 parameter on a dot", "/.;x/denied"),
    ("H15 escaped dots with parameter", "/a/%2e%2e;x=1/denied"),
    ("H15 escaped NUL", "/denied%00.png"),
    ("H15 escaped line feed", "/a%0adenied"),
    ("H15 escaped carriage return", "/a%0d%0ax"),
    ("H15 overlong dot", "/%c0%ae%c0%ae/denied"),
    ("H15 overlong slash", "/a%c0%afdenied"),
    ("H15 not UTF-8", "/%ff"),
    ("H15 broken escape", "/%2"),
    ("H15 no escape", "/%zz"),
    ("H15 escaped delete", "/a%7f"),
    ("H15 scoped name twice", "/@a%2fb%2fdenied"),
];

/// What is read as the denied path, and judged as such.
const JUDGED: [(&str, &str); 8] = [
    ("H15 plain", "/denied"),
    ("H15 dots", "/a/../denied"),
    ("H15 dots, escaped", "/a/%2e%2e/denied"),
    ("H15 dots, half escaped", "/a/.%2E/denied"),
    ("H15 one dot", "/./denied"),
    ("H15 one dot, escaped", "/%2e/denied"),
    ("H15 letters, escaped", "/%64enied"),
    ("H15 dots at the end", "/denied/a/.."),
];

pub(crate) fn cases() -> Vec<Case> {
    let control = b"GET /a/../b%20c?d=%2f HTTP/1.1\r\nHost: ok.test\r\n\r\n";
    let of = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: ok.test\r\n\r\n");
    let refused = REFUSED.iter().map(|(name, path)| (name, path, 400));
    let judged = JUDGED.iter().map(|(name, path)| (name, path, 403));
    refused
        .chain(judged)
        .map(|(name, path, status)| http(name, of(path), End::Status(status), control))
        .collect()
}
