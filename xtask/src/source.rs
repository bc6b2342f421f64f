//! One Rust file, measured: its tokens, its functions, and which parts of it are tests.
//!
//! Always: computed from the text alone. Never: an error; what cannot be understood is code outside
//! of tests, which is the stricter reading.

use crate::tokens::{Kind, Token, tokens};
use std::ops::Range;

/// A Rust file and what the rules ask about it.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// Relative to the repository's root, with `/`.
    pub(crate) path: &'a str,
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) functions: Vec<Function<'a>>,
    /// Token ranges that are compiled for tests only.
    tests: Vec<Range<usize>>,
}

/// A function with a body.
#[derive(Debug, Clone)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// From the `fn` to the closing brace.
    pub(crate) lines: Range<usize>,
    /// Its tokens, signature and braces included.
    pub(crate) span: Range<usize>,
    /// Whether an attribute such as `#[test]` makes it a test.
    pub(crate) is_test: bool,
}

impl Function<'_> {
    pub(crate) fn line_count(&self) -> usize {
        self.lines.end - self.lines.start
    }
}

impl<'a> Source<'a> {
    /// Measures a file. `in_tests` says that the whole file is compiled for tests only.
    pub(crate) fn new(path: &'a str, text: &'a str, in_tests: bool) -> Self {
        let tokens = tokens(text);
        let functions = functions(&tokens);
        let mut tests = test_spans(&tokens);
        tests.extend(functions.iter().filter(|f| f.is_test).map(|f| f.span.clone()));
        if in_tests {
            tests.push(0..tokens.len());
        }
        Self { path, tokens, functions, tests }
    }

    /// Whether the token at `at` is compiled for tests only.
    pub(crate) fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|span| span.contains(&at))
    }

    /// The code, comments left out, each token with its index.
    pub(crate) fn code(&self) -> Vec<(usize, Token<'a>)> {
        let all = self.tokens.iter().copied().enumerate();
        all.filter(|(_, t)| t.kind != Kind::Comment).collect()
    }

    /// The modules that this file declares in other files for tests only: the name, or the file
    /// that a `#[path = "..."]` gives.
    pub(crate) fn test_modules(&self) -> Vec<&'a str> {
        let code = self.code();
        let mut found = Vec::new();
        for (at, w) in code.windows(3).enumerate() {
            let declares = w[0].1.is("mod") && w[1].1.kind == Kind::Word && w[2].1.is(";");
            if declares && self.is_test(w[0].0) {
                found.push(path_attribute(&code[..at]).unwrap_or(w[1].1.text));
            }
        }
        found
    }
}

/// The file named by a `#[path = "..."]` among the attributes at the end of `before`.
fn path_attribute<'a>(before: &[(usize, Token<'a>)]) -> Option<&'a str> {
    let start = before.iter().rposition(|(_, t)| t.is(";") || t.is("{") || t.is("}"));
    let attributes = &before[start.map_or(0, |s| s + 1)..];
    let named = |w: &&[(usize, Token<'a>)]| w[0].1.is("path") && w[2].1.kind == Kind::Text;
    attributes.windows(3).find(named).map(|w| w[2].1.text)
}

/// Every function that has a body, nested ones too.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let code: Vec<_> = tokens.iter().enumerate().filter(|(_, t)| t.kind != Kind::Comment).collect();
    let mut found = Vec::new();
    for at in 0..code.len().saturating_sub(1) {
        let ((start, keyword), (_, name)) = (code[at], code[at + 1]);
        if !keyword.is("fn") || name.kind != Kind::Word {
            continue;
        }
        let Some(open) = body(&code, at) else {
            continue;
        };
        let close = closing(&code, open);
        let end = code[close];
        found.push(Function {
            name: name.text,
            lines: keyword.line..end.1.line_end + 1,
            span: start..end.0 + 1,
            is_test: has_test_attribute(&code, at),
        });
    }
    found
}

type Indexed<'t, 'a> = (usize, &'t Token<'a>);

/// The `{` of the body of the function whose `fn` is at `at`; none for a declaration.
fn body(code: &[Indexed<'_, '_>], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, (_, token)) in code[at..].iter().enumerate() {
        match token.text {
            _ if token.kind != Kind::Mark => {}
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "{" if depth == 0 => return Some(at + offset),
            ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The bracket that closes the one at `open`, or the last token.
fn closing(code: &[Indexed<'_, '_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, (_, token)) in code[open..].iter().enumerate() {
        match token.text {
            _ if token.kind != Kind::Mark => {}
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return open + offset;
                }
            }
            _ => {}
        }
    }
    code.len() - 1
}

/// Whether one of the attributes before the item at `at` ends its path with `test`
/// (`#[test]`, `#[tokio::test(...)]`).
fn has_test_attribute(code: &[Indexed<'_, '_>], at: usize) -> bool {
    let start = code[..at].iter().rposition(|(_, t)| t.is(";") || t.is("{") || t.is("}"));
    let before = &code[start.map_or(0, |s| s + 1)..at];
    before.windows(2).enumerate().any(|(i, w)| {
        let named = i > 0 && (before[i - 1].1.is("[") || before[i - 1].1.is(":"));
        w[0].1.is("test") && named && (w[1].1.is("]") || w[1].1.is("("))
    })
}

/// The items under `#[cfg(test)]`, and the rest of the file after `#![cfg(test)]`.
fn test_spans(tokens: &[Token<'_>]) -> Vec<Range<usize>> {
    let code: Vec<_> = tokens.iter().enumerate().filter(|(_, t)| t.kind != Kind::Comment).collect();
    let mut spans = Vec::new();
    for at in 0..code.len() {
        if !code[at].1.is("#") {
            continue;
        }
        let inner = code.get(at + 1).is_some_and(|(_, t)| t.is("!"));
        let open = at + 1 + usize::from(inner);
        if !code.get(open).is_some_and(|(_, t)| t.is("[")) {
            continue;
        }
        let close = closing(&code, open);
        if !is_cfg_test(&code[open + 1..close]) {
            continue;
        }
        let end = if inner { code.len() - 1 } else { item_end(&code, close + 1) };
        spans.push(code[at].0..code[end].0 + 1);
    }
    spans
}

/// `cfg(test)` or `cfg(all(test, ...))`; a `not` or an `any` leaves it ordinary code.
fn is_cfg_test(attribute: &[Indexed<'_, '_>]) -> bool {
    let has = |word: &str| attribute.iter().any(|(_, t)| t.is(word));
    attribute.first().is_some_and(|(_, t)| t.is("cfg")) && has("test") && !has("not") && !has("any")
}

/// The last token of the item that starts at `start`: its `;` or the brace that closes its body.
fn item_end(code: &[Indexed<'_, '_>], start: usize) -> usize {
    let mut at = start;
    while at < code.len() {
        let token = code[at].1;
        if token.is(";") || token.is(",") {
            return at;
        }
        if token.is("{") {
            return closing(code, at);
        }
        at = if token.is("(") || token.is("[") { closing(code, at) + 1 } else { at + 1 };
    }
    code.len() - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(text: &str) -> Vec<(&str, usize, bool)> {
        let source = Source::new("a.rs", text, false);
        source.functions.iter().map(|f| (f.name, f.line_count(), f.is_test)).collect()
    }

    #[test]
    fn a_function_is_measured_from_fn_to_its_closing_brace() {
        assert_eq!(measured("fn a() {\n}\n"), [("a", 2, false)]);
        assert_eq!(measured("fn a() { \"}\" ; '}' ; /* } */ }"), [("a", 1, false)]);
        assert_eq!(measured("fn a<'x>(b: [u8; 2]) -> &'x str {\n{}\n{}\n}"), [("a", 4, false)]);
        assert_eq!(measured("trait T { fn a(); fn b() {} }"), [("b", 1, false)]);
        assert_eq!(measured("type F = fn(u8) -> u8; fn g() {}"), [("g", 1, false)]);
    }

    #[test]
    fn nested_functions_are_measured_too() {
        assert_eq!(measured("fn a() {\nfn b() {}\n}"), [("a", 3, false), ("b", 1, false)]);
    }

    #[test]
    fn test_attributes_are_seen() {
        assert_eq!(measured("#[test]\nfn a() {}"), [("a", 1, true)]);
        assert_eq!(
            measured("#[tokio::test(start_paused = true)]\nasync fn a() {}"),
            [("a", 1, true)]
        );
        assert_eq!(measured("#[inline]\nfn test() {}"), [("test", 1, false)]);
    }

    fn check_test_words(text: &str, expected: &[&str]) {
        let source = Source::new("a.rs", text, false);
        let found = source.code().into_iter().filter(|(at, t)| {
            t.kind == Kind::Word && t.text.starts_with("x_") && source.is_test(*at)
        });
        let found: Vec<_> = found.map(|(_, t)| t.text).collect();
        assert_eq!(found, expected, "test code of {text:?}");
    }

    #[test]
    fn cfg_test_covers_its_item_and_nothing_else() {
        check_test_words("#[cfg(test)] mod t { x_a } x_b", &["x_a"]);
        check_test_words("#[cfg(test)] use x_a::{c}; x_b", &["x_a"]);
        check_test_words("#[cfg(test)] fn x_a(a: [u8; 3]) { x_b } x_c", &["x_a", "x_b"]);
        check_test_words("#[cfg(not(test))] mod t { x_a }", &[]);
        check_test_words("#[cfg(any(test, feature = \"y\"))] mod t { x_a }", &[]);
        check_test_words("#![cfg(test)] x_a", &["x_a"]);
        check_test_words("#[test] fn x_a() { x_b } fn x_c() {}", &["x_a", "x_b"]);
    }

    #[test]
    fn test_modules_in_other_files_are_named() {
        let source = Source::new("a.rs", "mod a; #[cfg(test)] mod tests; mod b {}", false);
        assert_eq!(source.test_modules(), ["tests"]);
        let text = "#[cfg(test)] #[path = \"a_tests.rs\"] mod tests; #[cfg(test)] mod b;";
        let source = Source::new("a.rs", text, false);
        assert_eq!(source.test_modules(), ["a_tests.rs", "b"]);
    }
}
