//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! Always: each rule is a function from the tree (and its measured Rust files) to findings, and has
//! a sample in its tests that it refuses. Never: a warning. What tidy reports fails; an exception
//! is an entry in `xtask/tidy-allow.toml` with its reason, and an entry that excuses nothing fails
//! too. `--fix` rewrites only the block of the crate graph in `ARCHITECTURE.md`.

mod allow;
mod architecture;
mod codes;
mod graph;
mod purity;
mod size;
mod words;

use crate::tree::Tree;
use std::path::Path;
use std::{fmt, fs, io};

/// The page that holds the crate graph, the invariants and the reasons of the dependencies.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// One place that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 when the finding is about the whole file.
    line: usize,
    rule: &'static str,
    message: String,
}

impl Finding {
    fn new(rule: &'static str, path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, rule, message } = self;
        match line {
            0 => write!(f, "{path}: {message} [{rule}]"),
            line => write!(f, "{path}:{line}: {message} [{rule}]"),
        }
    }
}

/// Checks the repository at `root`; with `fix`, first rewrites what can be derived.
///
/// # Errors
/// When the tree cannot be read or the fixed page cannot be written.
pub(crate) fn run(root: &Path, fix: bool) -> io::Result<Vec<Finding>> {
    let mut tree = Tree::read(root)?;
    if fix && let Some(page) = tree.text(ARCHITECTURE).and_then(graph::rewritten) {
        fs::write(root.join(ARCHITECTURE), page)?;
        tree = Tree::read(root)?;
    }
    Ok(findings(&tree))
}

/// Everything that breaks a rule, in the order of the paths.
fn findings(tree: &Tree) -> Vec<Finding> {
    let sources = tree.sources();
    let mut found = Vec::new();
    found.extend(graph::check(tree));
    found.extend(architecture::check(tree, &sources));
    found.extend(codes::check(tree, &sources));
    for source in &sources {
        found.extend(purity::check(source));
        found.extend(size::check(source, tree.text(source.path).unwrap_or_default()));
        found.extend(words::check(source));
    }
    let mut found = allow::apply(tree, found);
    found.sort();
    found
}

/// What each rule's tests share: the messages for a small tree.
#[cfg(test)]
fn rules_of(found: &[Finding]) -> Vec<(&str, usize, &'static str)> {
    found.iter().map(|f| (f.path.as_str(), f.line, f.rule)).collect()
}
