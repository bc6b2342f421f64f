//! What the pages promise is there: invariants name tests, dependencies have a reason.

use super::graph::workspace_dependencies;
use super::{ARCHITECTURE, Finding};
use crate::source::Source;
use crate::tree::Tree;
use std::collections::BTreeMap;
use toml::Table;

/// Where tests may live.
const ROOTS: [&str; 3] = ["crates/", "xtask/", "tests/"];

pub(super) fn check(tree: &Tree, sources: &[Source<'_>]) -> Vec<Finding> {
    let by_path: BTreeMap<_, _> = sources.iter().map(|s| (s.path, s)).collect();
    let mut found = Vec::new();
    for (path, text) in
        tree.files().filter(|(path, _)| path.ends_with(".md") && !path.contains('/'))
    {
        for (line, named) in named_tests(text) {
            let wrong = missing(named, tree, &by_path);
            found.extend(wrong.map(|m| Finding::new("tests-named", path, line, m)));
        }
    }
    if let Some(page) = tree.text(ARCHITECTURE) {
        found.extend(check_invariants(page));
        found.extend(check_dependencies(page, tree.text("Cargo.toml").unwrap_or_default()));
    }
    found
}

/// Every test a page names after `test:` or `tests:`, with its line.
fn named_tests(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (start, mark) in text.match_indices("test:").chain(text.match_indices("tests:")) {
        let mut rest = &text[start + mark.len()..];
        while let Some((name, after)) = next_name(rest) {
            let at = text.len() - rest.len();
            found.push((text[..at].matches('\n').count() + 1, name));
            rest = after;
        }
    }
    found
}

/// The next name in a list such as `` `crates/a/tests/b.rs::c`, crates/d/tests/e.rs and ... ``.
fn next_name(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.trim_start_matches([' ', '\n', ',', ';']);
    let rest = rest.strip_prefix("and ").unwrap_or(rest).trim_start();
    let (name, after) = match rest.strip_prefix('`') {
        Some(quoted) => quoted.split_once('`')?,
        None => rest.split_at(rest.find([' ', '\n', ',', ';', ')', '|']).unwrap_or(rest.len())),
    };
    let name = name.trim_end_matches('.');
    ROOTS.iter().any(|root| name.starts_with(root)).then_some((name, after))
}

/// What is wrong with the name of a test: `path` or `path::function`.
fn missing(named: &str, tree: &Tree, sources: &BTreeMap<&str, &Source<'_>>) -> Option<String> {
    let (path, function) = named.split_once("::").unwrap_or((named, ""));
    if tree.text(path).is_none() {
        return Some(format!("{path} does not exist"));
    }
    let Some(source) = sources.get(path) else {
        return (!function.is_empty()).then(|| format!("{path} has no Rust functions"));
    };
    let name = function.rsplit("::").next().unwrap_or_default();
    let fits = |f: &crate::source::Function<'_>| f.is_test && (name.is_empty() || f.name == name);
    (!source.functions.iter().any(fits)).then(|| match name {
        "" => format!("{path} has no test"),
        _ => format!("{path} has no test named `{name}`"),
    })
}

/// Invariants are `**I1**`, `**I2**`, ... in order, and each names a test.
fn check_invariants(page: &str) -> Vec<Finding> {
    let of = |line, message| Finding::new("invariants", ARCHITECTURE, line, message);
    let heads = invariant_heads(page);
    if heads.is_empty() {
        return vec![of(0, "the page has no invariants (`**I1**` ...)".to_owned())];
    }
    let mut found = Vec::new();
    for (at, (start, number)) in heads.iter().enumerate() {
        let line = page[..*start].matches('\n').count() + 1;
        if *number != at + 1 {
            found.push(of(line, format!("I{number} stands where I{} should", at + 1)));
        }
        let end = heads.get(at + 1).map_or(page.len(), |(next, _)| *next);
        let text = &page[*start..end];
        let text = text.split("\n#").next().unwrap_or(text);
        if named_tests(text).is_empty() {
            found.push(of(line, format!("I{number} names no test (`test: path::name`)")));
        }
    }
    found
}

fn invariant_heads(page: &str) -> Vec<(usize, usize)> {
    let heads = page.match_indices("**I").filter_map(|(start, mark)| {
        let tail = &page[start + mark.len()..];
        let number = tail[..tail.find("**")?].trim_end_matches(['.', ':']).parse().ok()?;
        Some((start, number))
    });
    heads.collect()
}

/// Each dependency of others has a row `| name | reason |` under a heading about dependencies,
/// and each row a dependency.
fn check_dependencies(page: &str, manifest: &str) -> Vec<Finding> {
    let of = |line, message| Finding::new("dependencies", ARCHITECTURE, line, message);
    let Ok(root) = manifest.parse::<Table>() else {
        return Vec::new();
    };
    let others = workspace_dependencies(&root).filter(|(_, ours)| !ours).map(|(name, _)| name);
    let others: Vec<_> = others.collect();
    let rows = dependency_rows(page);
    let mut found = Vec::new();
    for name in &others {
        match rows.iter().find(|row| row.name == *name) {
            None => found.push(of(0, format!("`{name}` has no row in the table of dependencies"))),
            Some(row) if row.reason.is_empty() => {
                found.push(of(row.line, format!("`{name}` has no reason")));
            }
            Some(_) => {}
        }
    }
    for row in rows.iter().filter(|row| !others.contains(&row.name)) {
        found.push(of(row.line, format!("`{}` is not a dependency", row.name)));
    }
    found
}

struct Row<'a> {
    line: usize,
    name: &'a str,
    reason: &'a str,
}

/// The rows of the tables under a heading that speaks of dependencies. One row may name several,
/// separated by commas; the reason is the last cell.
fn dependency_rows(page: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut inside = false;
    let lines: Vec<_> = page.lines().collect();
    for (at, text) in lines.iter().enumerate() {
        if text.starts_with('#') {
            inside = text.to_lowercase().contains("dependencies");
        }
        let is_rule = |line: &str| {
            line.starts_with("|-") || line.starts_with("| -") || line.starts_with("|:")
        };
        let is_head = lines.get(at + 1).is_some_and(|next| is_rule(next));
        if !inside || !text.starts_with('|') || is_rule(text) || is_head {
            continue;
        }
        let cells: Vec<_> = text.trim().trim_matches('|').split('|').map(str::trim).collect();
        let reason = if cells.len() > 1 { cells[cells.len() - 1] } else { "" };
        let names = cells[0].split(',').map(|name| name.trim().trim_matches('`'));
        rows.extend(names.map(|name| Row { line: at + 1, name, reason }));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: (&str, &str) = ("crates/a/tests/b.rs", "#[test] fn c() {} fn helper() {}");
    const ROOT: (&str, &str) =
        ("Cargo.toml", "[workspace.dependencies]\nserde = \"1\"\na = { path = \"a\" }");
    const TABLE: &str =
        "\n## Dependencies\n\n| name | why |\n|---|---|\n| `serde` | values to text |\n";

    fn check_page(page: &str, expected: &[(&str, usize)]) {
        let script = ("crates/a/tests/d.py", "print()");
        let tree = Tree::from([TEST, script, ROOT, (ARCHITECTURE, page)]);
        let found = check(&tree, &tree.sources());
        let found: Vec<_> = found.iter().map(|f| (f.message.as_str(), f.line)).collect();
        assert_eq!(found, expected, "{page}");
    }

    fn check_invariant(text: &str, expected: &[(&str, usize)]) {
        check_page(&format!("{text}\n{TABLE}"), expected);
    }

    #[test]
    fn invariants_name_tests_that_exist() {
        check_invariant(
            "**I1** a (test: `crates/a/tests/b.rs::c`)\n**I2** b\ntest: crates/a/tests/d.py.",
            &[],
        );
        check_invariant(
            "**I1**: a; tests: `crates/a/tests/b.rs`, `crates/a/tests/b.rs::x::c`",
            &[],
        );
        let gone = "crates/a/tests/b.rs has no test named `d`";
        check_invariant(
            "a\n**I1** tests: `crates/a/tests/b.rs::c`, `crates/a/tests/b.rs::d`",
            &[(gone, 2)],
        );
        let helper = "crates/a/tests/b.rs has no test named `helper`";
        check_invariant("**I1** test: crates/a/tests/b.rs::helper", &[(helper, 1)]);
        check_invariant("**I1** test: crates/z.rs::c", &[("crates/z.rs does not exist", 1)]);
    }

    #[test]
    fn invariants_are_numbered_and_guarded() {
        check_invariant("none", &[("the page has no invariants (`**I1**` ...)", 0)]);
        check_invariant(
            "**I1** a\n## b\ntest: crates/a/tests/b.rs",
            &[("I1 names no test (`test: path::name`)", 1)],
        );
        let swapped = "**I2** test: crates/a/tests/b.rs";
        check_invariant(swapped, &[("I2 stands where I1 should", 1)]);
    }

    #[test]
    fn other_pages_name_tests_too() {
        let tree =
            Tree::from([TEST, ("THREAT_MODEL.md", "| x | test: `crates/a/tests/b.rs::gone` |")]);
        assert_eq!(check(&tree, &tree.sources()).len(), 1);
    }

    #[test]
    fn each_dependency_has_a_reason() {
        let good = "**I1** test: crates/a/tests/b.rs\n";
        check_page(&format!("{good}{TABLE}"), &[]);
        check_page(good, &[("`serde` has no row in the table of dependencies", 0)]);
        let mute = TABLE.replace("values to text", "");
        check_page(&format!("{good}{mute}"), &[("`serde` has no reason", 7)]);
        let stale = format!("{good}{TABLE}| `old` | why |\n");
        check_page(&stale, &[("`old` is not a dependency", 8)]);
    }
}
