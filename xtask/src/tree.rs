//! The repository as values: every text file with its path. The rules are functions of this, so
//! each can be shown red on a tree of two lines.

use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

/// Larger files are data, not text that people keep tidy.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// Folders that hold no source of ours.
const SKIPPED: [&str; 4] = [".git", "node_modules", "target", "proptest-regressions"];

/// Every text file, by its path relative to the root, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the repository at `root`. Files that are not UTF-8 and symbolic links are left out.
    ///
    /// # Errors
    /// The first folder or file that cannot be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.add(root, "")?;
        Ok(tree)
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            let path = format!("{prefix}{name}");
            if kind.is_dir() && !is_skipped(&name) {
                self.add(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file()
                && entry.metadata()?.len() <= TEXT_BYTES_MAX
                && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
            {
                self.files.insert(path, text);
            }
        }
        Ok(())
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every file, by path.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Every Rust file, measured.
    pub(crate) fn sources(&self) -> Vec<Source<'_>> {
        let rust = || self.files().filter(|(path, _)| path.ends_with(".rs"));
        let declared: BTreeSet<String> = rust()
            .flat_map(|(path, text)| {
                let names = Source::new(path, text, false).test_modules();
                names.into_iter().map(move |name| module_base(path, name))
            })
            .collect();
        rust().map(|(path, text)| Source::new(path, text, in_tests(path, &declared))).collect()
    }
}

/// Whether a folder of this name holds no source of ours.
pub(crate) fn is_skipped(name: &str) -> bool {
    SKIPPED.contains(&name)
}

/// Where a module declared in the file at `path` lives, without `.rs` or `/mod.rs`. A name that is
/// a file counts from the folder of the one that declares it.
fn module_base(path: &str, name: &str) -> String {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(name) = name.strip_suffix(".rs") {
        return format!("{folder}/{name}");
    }
    match file {
        "lib.rs" | "main.rs" | "mod.rs" => format!("{folder}/{name}"),
        _ => format!("{}/{name}", path.trim_end_matches(".rs")),
    }
}

/// Whether a whole file is never part of what is shipped: tests, examples, benchmarks.
fn in_tests(path: &str, declared: &BTreeSet<String>) -> bool {
    is_test_path(path)
        || path.contains("/examples/")
        || path.contains("/benches/")
        || declared.iter().any(|base| {
            let rest = path.strip_prefix(base.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
}

/// Whether a file lies in a folder of tests.
pub(crate) fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/")
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Tree {
    fn from(files: [(&str, &str); N]) -> Self {
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        Self { files: files.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_declared_for_tests_is_all_test() {
        let tree = Tree::from([
            ("crates/a/src/lib.rs", "#[cfg(test)] mod probe; mod real;"),
            ("crates/a/src/probe.rs", "fn x() {}"),
            ("crates/a/src/real.rs", "#[cfg(test)] mod tests; fn x() {}"),
            ("crates/a/src/real/tests.rs", "fn x() {}"),
            ("crates/a/tests/b.rs", "fn x() {}"),
            ("crates/a/examples/c.rs", "fn x() {}"),
        ]);
        let found: Vec<_> = tree
            .sources()
            .iter()
            .map(|s| s.is_test(s.functions.first().map_or(0, |f| f.span.start)))
            .collect();
        // The example; lib.rs, which starts with the attribute; probe, real, real/tests, tests/b.
        assert_eq!(found, [true, true, true, false, true, true]);
    }
}
