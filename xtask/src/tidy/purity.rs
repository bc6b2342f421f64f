//! The pure crates stay pure: no clock, no chance, no files, no sockets, no processes.

use super::{Finding, graph};
use crate::source::Source;
use crate::tokens::{Kind, Token};

/// What reaches outside. A path that starts with one of these may not be named.
const OUTSIDE: [&str; 17] = [
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::collections::hash_map::RandomState",
    "std::hash::RandomState",
    "getrandom",
    "libc",
    "rand",
    "rustix",
    "tokio",
];

/// What hides chance: the order of a hash table differs from process to process, so a fold over one
/// gives other bytes. Cedar's functions take hash sets, so `policy` may have them and sorts after.
const ORDERLESS: [&str; 2] = ["std::collections::HashMap", "std::collections::HashSet"];
const MAY_BE_ORDERLESS: &str = "policy";

/// What is only a value, although its module reaches outside.
const VALUES: [&str; 3] = ["std::net::IpAddr", "std::net::Ipv4Addr", "std::time::Duration"];

/// Names for the whole of `std`, behind which anything could hide.
const HIDING: [&str; 3] = ["std", "std::*", "std::self"];

pub(super) fn check(source: &Source<'_>) -> Vec<Finding> {
    let Some(name) = graph::crate_of(source.path) else {
        return Vec::new();
    };
    if !graph::is_pure(name) || !source.path.contains("/src/") {
        return Vec::new();
    }
    let hidden_chance = |p: &Path| name != MAY_BE_ORDERLESS && ORDERLESS.contains(&p.text.as_str());
    let outside = paths(source)
        .into_iter()
        .filter(|p| !source.is_test(p.at) && (is_outside(p) || hidden_chance(p)));
    outside
        .map(|p| {
            let message = format!("`{name}` is pure, `{}` is not: hand the value in", p.text);
            Finding::new("purity", source.path, p.line, message)
        })
        .collect()
}

fn is_outside(path: &Path) -> bool {
    let text = path.text.as_str();
    if HIDING.contains(&text) {
        return path.imported;
    }
    let within = |prefix: &&str| {
        let rest = text.strip_prefix(*prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let named = path.imported || text.contains("::");
    named && OUTSIDE.iter().any(within) && !VALUES.iter().any(within)
}

/// A path as written, its groups resolved: `use a::{b, c::d}` is `a::b` and `a::c::d`.
struct Path {
    text: String,
    line: usize,
    at: usize,
    imported: bool,
}

fn paths(source: &Source<'_>) -> Vec<Path> {
    let mut walk = Walk { code: source.code(), at: 0, found: Vec::new(), imported: false };
    while walk.at < walk.code.len() {
        walk.imported =
            walk.peek(0).is_some_and(|t| t.is("use") || t.is("crate") && walk.is_extern());
        if walk.imported {
            walk.at += 1;
        }
        walk.skip_colons();
        match walk.peek(0) {
            Some(token) if token.kind == Kind::Word => walk.path(""),
            Some(token) if token.is("{") && walk.imported => walk.group(""),
            _ => walk.at += 1,
        }
    }
    walk.found
}

struct Walk<'a> {
    code: Vec<(usize, Token<'a>)>,
    at: usize,
    found: Vec<Path>,
    imported: bool,
}

impl<'a> Walk<'a> {
    fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.code.get(self.at + ahead).map(|(_, t)| *t)
    }

    fn is_extern(&self) -> bool {
        self.at > 0 && self.code[self.at - 1].1.is("extern")
    }

    fn at_colons(&self) -> bool {
        let colon = |ahead| self.peek(ahead).is_some_and(|t: Token<'_>| t.is(":"));
        colon(0) && colon(1)
    }

    fn skip_colons(&mut self) {
        if self.at_colons() {
            self.at += 2;
        }
    }

    /// One path from here, with what is before it.
    fn path(&mut self, prefix: &str) {
        let (index, first) = self.code[self.at];
        let mut text = format!("{prefix}{}", first.text);
        self.at += 1;
        while self.at_colons() {
            let Some(next) = self.peek(2) else { break };
            self.at += 2;
            if next.is("{") && self.imported {
                return self.group(&format!("{text}::"));
            }
            if next.kind != Kind::Word && !next.is("*") {
                break;
            }
            text = format!("{text}::{}", next.text);
            self.at += 1;
        }
        self.found.push(Path { text, line: first.line, at: index, imported: self.imported });
    }

    /// `{a, b::c, d as e}` from its opening brace to behind its closing one.
    fn group(&mut self, prefix: &str) {
        self.at += 1;
        while let Some(token) = self.peek(0) {
            match token.kind {
                _ if token.is("}") => break,
                Kind::Word if token.text == "as" => self.at += 2,
                Kind::Word => self.path(prefix),
                _ if token.is("*") => self.path(prefix),
                _ => self.at += 1,
            }
        }
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_in(path: &str, text: &str, lines: &[usize]) {
        let found = check(&Source::new(path, text, false));
        let found: Vec<_> = found.iter().map(|f| f.line).collect();
        assert_eq!(found, lines, "{text}");
    }

    fn check_pure(text: &str, lines: &[usize]) {
        check_in("crates/kernel/src/fold.rs", text, lines);
    }

    #[test]
    fn every_way_to_name_the_outside_is_seen() {
        check_pure("fn a() { std::fs::read(b); }", &[1]);
        check_pure("fn a() { ::std::process::id(); }", &[1]);
        check_pure("use std::{fmt,\nfs};", &[2]);
        check_pure(
            "use std::{collections::{BTreeMap, self},\n time::{Duration,\n Instant}};",
            &[3],
        );
        check_pure("use std::time;", &[1]);
        check_pure("use std::io::{self, stdin as input};", &[1]);
        check_pure("use {std::fmt, std::net::TcpStream};", &[1]);
        check_pure("use tokio::sync::mpsc;", &[1]);
        check_pure("extern crate libc;", &[1]);
        check_pure("use std as s;", &[1]);
        check_pure("use std::*;", &[1]);
        check_pure("fn a() -> u8 { rand::random() }", &[1]);
    }

    #[test]
    fn values_words_and_tests_are_no_outside() {
        check_pure("use std::time::Duration; fn a(d: std::time::Duration) {}", &[]);
        check_pure("fn a(rand: u8) -> u8 { rand }", &[]);
        check_pure("// std::fs\nconst A: &str = \"std::fs::read\";", &[]);
        check_pure("#[cfg(test)] mod tests { use std::fs; }", &[]);
        check_pure("use std::fmt; impl fmt::Display for A {}", &[]);
    }

    #[test]
    fn hash_tables_have_no_order_and_no_place_in_a_fold() {
        check_pure("use std::collections::{BTreeMap,\n HashMap};", &[2]);
        check_in("crates/policy/src/a.rs", "use std::collections::HashSet;", &[]);
    }

    #[test]
    fn crates_with_hands_may_touch() {
        check_in("crates/store/src/lib.rs", "use std::fs;", &[]);
        check_in("crates/kernel/tests/a.rs", "use std::fs;", &[]);
    }
}
