//! Words that stand only where they are meant: `unsafe`, `unwrap`, `todo!`, `#[ignore]`, `sleep`.

use super::Finding;
use crate::source::Source;
use crate::tokens::{Kind, Token};

/// The one crate that talks to the kernel without a net.
const UNSAFE_CRATE: &str = "crates/sandbox/";

/// Macros that say "not yet".
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let code = source.code();
    let mut found = Vec::new();
    for (at, (index, token)) in code.iter().enumerate() {
        let before = at.checked_sub(1).map(|b| code[b].1);
        let after = code.get(at + 1).map(|(_, t)| *t);
        let complaint = match token.text {
            _ if token.kind != Kind::Word => None,
            "unsafe" => unsafe_word(source, *index),
            "unwrap" if !source.is_test(*index) => unwrapped(before, after),
            "ignore" => ignored(&code[..at]),
            "sleep" if source.is_test(*index) => slept(before, after),
            word if UNFINISHED.contains(&word) => unfinished(word, after),
            _ => None,
        };
        let finding = complaint.map(|(rule, m)| Finding::new(rule, source.path, token.line, m));
        found.extend(finding);
    }
    found.extend(ignored_examples(source));
    found
}

type Complaint = Option<(&'static str, String)>;

fn is(token: Option<Token<'_>>, text: &str) -> bool {
    token.is_some_and(|t| t.is(text))
}

fn unwrapped(before: Option<Token<'_>>, after: Option<Token<'_>>) -> Complaint {
    (is(before, ".") && is(after, "(")).then(|| {
        ("unwrap", "`unwrap` outside of tests: return the error, or `expect` the invariant".into())
    })
}

fn unfinished(word: &str, after: Option<Token<'_>>) -> Complaint {
    is(after, "!").then(|| ("unfinished", format!("`{word}!` is not for the main branch")))
}

fn slept(before: Option<Token<'_>>, after: Option<Token<'_>>) -> Complaint {
    let called = is(after, "(") && !is(before, ".") && !is(before, "fn");
    called.then(|| ("sleep", "a test that sleeps guesses: wait for the event, with a limit".into()))
}

/// `ignore` inside an attribute: the nearest bracket that is still open is a `#[`, or a
/// `cfg_attr(` in one.
fn ignored(before: &[(usize, Token<'_>)]) -> Complaint {
    let mut depth = 0_i32;
    for (at, (_, token)) in before.iter().enumerate().rev() {
        match token.text {
            _ if token.kind != Kind::Mark => {}
            ")" | "]" => depth += 1,
            "(" if depth == 0 => {
                let wrapped = at > 0 && before[at - 1].1.is("cfg_attr");
                if !wrapped {
                    return None;
                }
            }
            "[" if depth == 0 => {
                let attribute = at > 0 && before[at - 1].1.is("#");
                return attribute
                    .then(|| ("ignore", "no test is ignored: mend it or drop it".into()));
            }
            "(" | "[" => depth -= 1,
            "{" | "}" | ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Examples in documentation that are not compiled are ignored tests by another name.
fn ignored_examples(source: &Source<'_>) -> Vec<Finding> {
    let comments = source.tokens.iter().filter(|t| t.kind == Kind::Comment);
    let fenced = comments.filter(|t| {
        let text = t.text.trim_start_matches(['/', '!', ' ']);
        t.text.starts_with("//") && text.starts_with("```") && text.contains("ignore")
    });
    fenced
        .map(|t| {
            let message = "an example that is not compiled rots: make it run, or mark it `text`";
            Finding::new("ignore", source.path, t.line, message)
        })
        .collect()
}

fn unsafe_word(source: &Source<'_>, index: usize) -> Complaint {
    if !source.path.starts_with(UNSAFE_CRATE) {
        return Some(("unsafe", format!("`unsafe` only in {UNSAFE_CRATE}")));
    }
    let (before, after) = source.tokens.split_at(index);
    let reasoned = has_reason(before) || opens_with_reason(after);
    (!reasoned).then(|| ("unsafe", "say why it holds: `// SAFETY: ...` just before".into()))
}

/// Whether a comment between the start of the statement and the `unsafe` gives the reason.
fn has_reason(before: &[Token<'_>]) -> bool {
    let statement = before.iter().rev().take_while(|t| !(t.is(";") || t.is("{") || t.is("}")));
    let mut comments = statement.filter(|t| t.kind == Kind::Comment);
    comments.any(|t| t.text.contains("SAFETY:") || t.text.contains("# Safety"))
}

/// Whether the block that starts here gives its reason first.
fn opens_with_reason(block: &[Token<'_>]) -> bool {
    block.get(1).is_some_and(|t| t.is("{"))
        && block.get(2).is_some_and(|t| t.kind == Kind::Comment && t.text.contains("SAFETY:"))
}

#[cfg(test)]
mod tests {
    use super::super::rules_of;
    use super::*;

    fn check_at(path: &str, text: &str, rules: &[&'static str]) {
        let source = Source::new(path, text, path.contains("/tests/"));
        let found = check(&source);
        let found: Vec<_> = rules_of(&found).into_iter().map(|(_, _, rule)| rule).collect();
        assert_eq!(found, rules, "{path}: {text}");
    }

    fn check_lib(text: &str, rules: &[&'static str]) {
        check_at("crates/gate/src/lib.rs", text, rules);
    }

    #[test]
    fn unsafe_lives_in_sandbox_with_a_reason() {
        check_lib("// SAFETY: sure\nfn a() { unsafe { b() } }", &["unsafe"]);
        let sandbox = |text, rules| check_at("crates/sandbox/src/lib.rs", text, rules);
        sandbox("fn a() { unsafe { b() } }", &["unsafe"]);
        sandbox("fn a() {\n// SAFETY: b holds\nlet c = unsafe { b() }; }", &[]);
        sandbox(
            "fn a() {\n// SAFETY: b holds\nlet c = unsafe { b() };\nunsafe { d() } }",
            &["unsafe"],
        );
        sandbox("fn a() { match b { 0 => unsafe {\n// SAFETY: c holds\nc() } } }", &[]);
        sandbox("/// # Safety\n/// Call once.\n#[cold]\nunsafe fn a() {}", &[]);
        sandbox("fn a() { let s = \"unsafe\"; }", &[]);
    }

    #[test]
    fn unwrap_is_for_tests() {
        check_lib("fn a() { b().unwrap(); }", &["unwrap"]);
        check_lib("fn a() { b().unwrap_or(1); }", &[]);
        check_lib("#[cfg(test)] mod t { fn a() { b().unwrap(); } }", &[]);
        check_lib("// b().unwrap()\nfn a() { \".unwrap()\" }", &[]);
    }

    #[test]
    fn unfinished_work_stays_out() {
        check_lib("fn a() { todo!() }", &["unfinished"]);
        check_lib("fn a() { unimplemented!(\"b\") }", &["unfinished"]);
        check_lib("#[test] fn a() { dbg!(b); }", &["unfinished"]);
        check_lib("fn todo() {}", &[]);
    }

    #[test]
    fn no_test_is_ignored() {
        check_lib("#[test] #[ignore] fn a() {}", &["ignore"]);
        check_lib("#[test] #[ignore = \"slow\"] fn a() {}", &["ignore"]);
        check_lib("#[cfg_attr(target_os = \"linux\", ignore)] fn a() {}", &["ignore"]);
        check_lib("/// ```ignore\n/// a\n/// ```\nfn a() {}", &["ignore"]);
        check_lib("#[serde(skip, ignore)] fn ignore() { ignore[0]; }", &[]);
    }

    #[test]
    fn tests_do_not_sleep() {
        let test = |text, rules| check_at("crates/gate/tests/a.rs", text, rules);
        test("fn a() { std::thread::sleep(b); }", &["sleep"]);
        test("async fn a() { tokio::time::sleep(b).await; }", &["sleep"]);
        test("use std::thread::sleep; fn a() { sleep(b); }", &["sleep"]);
        test("fn a() { run(\"sleep 30\"); }", &[]);
        check_lib("async fn a() { tokio::time::sleep(b).await; }", &[]);
    }
}
