//! Rust source as tokens with line numbers: enough to tell code from strings and comments.
//!
//! Always: every byte of the text belongs to one token or to the white space between tokens, so a
//! rule that looks at identifiers can never be fooled by a string or a comment. Never: a syntax
//! tree. The rules of tidy need words, braces and lines, and a file that does not parse yet must
//! still be measured.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword; a raw identifier keeps its `r#`.
    Word,
    /// A lifetime or a loop label.
    Lifetime,
    /// A string of any sort; the token's text is what stands between the quotes.
    Text,
    /// A character, byte or number.
    Value,
    /// One character of punctuation.
    Mark,
    /// A line or block comment, documentation included.
    Comment,
}

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// The line of its first byte, from 1.
    pub(crate) line: usize,
    /// The line of its last byte.
    pub(crate) line_end: usize,
}

impl Token<'_> {
    /// Whether this is the word or the punctuation `text`.
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// Cuts a text into tokens. An unterminated string or comment reaches to the end of the text.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut cutter = Cutter { text, at: 0, line: 1 };
    std::iter::from_fn(|| cutter.next()).collect()
}

struct Cutter<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Cutter<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_white();
        let rest = &self.text[self.at..];
        let first = rest.chars().next()?;
        let (kind, inner, len) = measure(rest, first);
        let line = self.line;
        self.line += rest[..len].matches('\n').count();
        self.at += len;
        Some(Token { kind, text: &rest[inner.0..inner.1], line, line_end: self.line })
    }

    fn skip_white(&mut self) {
        let rest = &self.text[self.at..];
        let len = rest.len() - rest.trim_start().len();
        self.line += rest[..len].matches('\n').count();
        self.at += len;
    }
}

/// The kind of the token at the start of `rest`, the part of it a reader sees, and its length.
fn measure(rest: &str, first: char) -> (Kind, (usize, usize), usize) {
    let whole = |kind, len: usize| (kind, (0, len), len);
    if rest.starts_with("//") {
        return whole(Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return whole(Kind::Comment, block_comment(rest));
    }
    if let Some((inner, len)) = text_literal(rest) {
        return (Kind::Text, inner, len);
    }
    match first {
        '\'' => quote(rest),
        'b' if rest.starts_with("b'") => {
            let (_, _, len) = quote(&rest[1..]);
            whole(Kind::Value, len + 1)
        }
        c if is_word_start(c) => whole(Kind::Word, word(rest)),
        c if c.is_ascii_digit() => whole(Kind::Value, number(rest)),
        c => whole(Kind::Mark, c.len_utf8()),
    }
}

fn is_word_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word(rest: &str) -> usize {
    let prefix = if rest.starts_with("r#") { 2 } else { 0 };
    let tail = &rest[prefix..];
    prefix + tail.find(|c| !is_word(c)).unwrap_or(tail.len())
}

/// `1`, `0xff_u8`, `1.5e3`, but only the `0` of `0..5` and the `1` of `1.max(2)`.
fn number(rest: &str) -> usize {
    let whole = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let Some(fraction) = rest[whole..].strip_prefix('.') else {
        return whole;
    };
    if !fraction.starts_with(|c: char| c.is_ascii_digit()) {
        return whole;
    }
    whole + 1 + fraction.find(|c| !is_word(c)).unwrap_or(fraction.len())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// A string with any prefix (`b`, `c`, `r`, `br`, `cr`) at the start of `rest`: its inside and its
/// whole length.
fn text_literal(rest: &str) -> Option<((usize, usize), usize)> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|p| {
        let Some(tail) = rest.strip_prefix(p) else {
            return false;
        };
        let raw = p.ends_with('r');
        let tail = if raw { tail.trim_start_matches('#') } else { tail };
        tail.starts_with('"')
    })?;
    let tail = &rest[prefix.len()..];
    let hashes = tail.find('"')?;
    let start = prefix.len() + hashes + 1;
    let inside = &rest[start..];
    if prefix.ends_with('r') {
        let close = format!("\"{}", "#".repeat(hashes));
        let end = inside.find(&close).unwrap_or(inside.len());
        return Some(((start, start + end), (start + end + close.len()).min(rest.len())));
    }
    let end = unescaped(inside, '"');
    Some(((start, start + end), (start + end + 1).min(rest.len())))
}

/// Where the first `close` without a backslash before it stands, or the end.
fn unescaped(inside: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == close => return at,
            _ => {}
        }
    }
    inside.len()
}

/// A character (`'a'`, `'\''`) or a lifetime (`'a`).
fn quote(rest: &str) -> (Kind, (usize, usize), usize) {
    let mut after = rest[1..].chars();
    let first = after.next();
    if first != Some('\\') && after.next() != Some('\'') {
        let len = 1 + word(&rest[1..]);
        return (Kind::Lifetime, (0, len), len);
    }
    let len = (1 + unescaped(&rest[1..], '\'') + 1).min(rest.len());
    (Kind::Value, (0, len), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(Kind, &str)]) {
        let found: Vec<_> = tokens(text).iter().map(|t| (t.kind, t.text)).collect();
        assert_eq!(found, expected, "tokens of {text:?}");
    }

    #[test]
    fn strings_of_every_sort_are_one_token() {
        check(r#""a\"b" c"#, &[(Kind::Text, r#"a\"b"#), (Kind::Word, "c")]);
        check(r###"r#"a"b"# c"###, &[(Kind::Text, "a\"b"), (Kind::Word, "c")]);
        check(r#"br"a\" b"#, &[(Kind::Text, "a\\"), (Kind::Word, "b")]);
        check(r#"c"x" b"y""#, &[(Kind::Text, "x"), (Kind::Text, "y")]);
        check(r#""ends \\" x"#, &[(Kind::Text, "ends \\\\"), (Kind::Word, "x")]);
        check("\"open", &[(Kind::Text, "open")]);
    }

    #[test]
    fn comments_hide_code_and_nest() {
        check("a // b {\nc", &[(Kind::Word, "a"), (Kind::Comment, "// b {"), (Kind::Word, "c")]);
        check("/* /* { */ } */ x", &[(Kind::Comment, "/* /* { */ } */"), (Kind::Word, "x")]);
        check("/* open", &[(Kind::Comment, "/* open")]);
    }

    #[test]
    fn characters_and_lifetimes_differ() {
        check("'{' 'a", &[(Kind::Value, "'{'"), (Kind::Lifetime, "'a")]);
        check(
            r"'\'' b'\\' x",
            &[(Kind::Value, r"'\''"), (Kind::Value, r"b'\\'"), (Kind::Word, "x")],
        );
        check("'é' 'static", &[(Kind::Value, "'é'"), (Kind::Lifetime, "'static")]);
        check("b'\"' y", &[(Kind::Value, "b'\"'"), (Kind::Word, "y")]);
    }

    #[test]
    fn numbers_stop_before_ranges_and_methods() {
        check(
            "0..5",
            &[(Kind::Value, "0"), (Kind::Mark, "."), (Kind::Mark, "."), (Kind::Value, "5")],
        );
        check("1.5e3", &[(Kind::Value, "1.5e3")]);
        check("1.max", &[(Kind::Value, "1"), (Kind::Mark, "."), (Kind::Word, "max")]);
    }

    #[test]
    fn raw_identifiers_are_words_and_lines_count() {
        check("r#fn r", &[(Kind::Word, "r#fn"), (Kind::Word, "r")]);
        let cut = tokens("a\n\"x\ny\"\nb");
        let lines: Vec<_> = cut.iter().map(|t| (t.line, t.line_end)).collect();
        assert_eq!(lines, [(1, 1), (2, 3), (4, 4)]);
    }
}
