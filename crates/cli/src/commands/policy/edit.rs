//! Writing rules into a manifest and `policy.cedar`, comments and order kept.
//!
//! What is written is checked first: a manifest or policy that would not load is never written.

use crate::error::{CliError, Failed, Result};
use policy::Suggestion;
use runtime::RuntimeError;
use runtime::config::{self, MANIFEST_FILE, POLICY_FILE};
use runtime::policy_sources;
use std::io::Write as _;
use std::path::Path;
use toml_edit::{Array, DocumentMut, Item, Table, Value};

/// A list of `[permissions]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Allow,
    Ask,
    Deny,
}

impl List {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// What is added for one suggestion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Addition {
    /// An entry of the list.
    Entry(String),
    /// A policy, where no entry says it.
    Cedar(String),
}

impl Addition {
    pub(super) fn of(suggestion: &Suggestion, list: List) -> Self {
        match (&suggestion.entry, &suggestion.cedar) {
            (Some(entry), _) => Self::Entry(entry.clone()),
            (None, Some(cedar)) if list == List::Ask => Self::Cedar(asked(cedar)),
            (None, cedar) => Self::Cedar(cedar.clone().unwrap_or_default()),
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Entry(text) | Self::Cedar(text) => text,
        }
    }
}

/// A permit that holds once a person approved.
fn asked(cedar: &str) -> String {
    match cedar.strip_suffix(" };") {
        Some(begin) => format!("{begin} && context.approved }};"),
        None => format!("{} when {{ context.approved }};", cedar.trim_end_matches(';')),
    }
}

/// Adds to the manifest in `dir` and the policy beside it. Says what was written, a line each.
///
/// # Errors
/// When a file cannot be read or written, or would not load; then nothing is written.
pub(super) fn write(dir: &Path, list: List, additions: &[Addition]) -> Result<Vec<String>> {
    let manifest_path = dir.join(MANIFEST_FILE);
    let policy_path = dir.join(POLICY_FILE);
    let old_manifest = config::read_text(&manifest_path)?;
    let old_policy =
        if policy_path.exists() { config::read_text(&policy_path)? } else { String::new() };
    let entries: Vec<&str> = additions
        .iter()
        .filter_map(|addition| match addition {
            Addition::Entry(entry) => Some(entry.as_str()),
            Addition::Cedar(_) => None,
        })
        .collect();
    let policies: Vec<&str> = additions
        .iter()
        .filter_map(|addition| match addition {
            Addition::Cedar(cedar) => Some(cedar.as_str()),
            Addition::Entry(_) => None,
        })
        .collect();
    let manifest = with_entries(&old_manifest, list, &entries)?;
    let policy = with_policies(&old_policy, &policies);
    check(dir, &manifest, &policy)?;
    let mut written = Vec::new();
    if manifest != old_manifest {
        replace(&manifest_path, &manifest)?;
        written.push(format!(
            "wrote {}: {} {}",
            manifest_path.display(),
            list.word(),
            entries.join(", ")
        ));
    }
    if policy != old_policy {
        replace(&policy_path, &policy)?;
        written.push(format!("wrote {}", policy_path.display()));
    }
    Ok(written)
}

/// The manifest with entries added to a list of `[permissions]`, which is made when it is absent.
fn with_entries(text: &str, list: List, entries: &[&str]) -> Result<String> {
    if entries.is_empty() {
        return Ok(text.to_owned());
    }
    let fail = |reason: String| -> Failed {
        CliError::Io { what: format!("cannot edit {MANIFEST_FILE}"), reason }.into()
    };
    let mut document: DocumentMut =
        text.parse().map_err(|e: toml_edit::TomlError| fail(e.to_string()))?;
    let permissions = document.entry("permissions").or_insert_with(|| Item::Table(Table::new()));
    let permissions = permissions
        .as_table_like_mut()
        .ok_or_else(|| fail("[permissions] is no table".to_owned()))?;
    let array = permissions
        .entry(list.word())
        .or_insert_with(|| Item::Value(Value::Array(Array::new())))
        .as_array_mut()
        .ok_or_else(|| fail(format!("permissions.{} is no list", list.word())))?;
    for entry in entries {
        let there = array.iter().any(|value| value.as_str() == Some(entry));
        if !there {
            array.push(*entry);
        }
    }
    if let Some(inline) = document["permissions"].as_inline_table_mut() {
        inline.fmt();
    }
    Ok(document.to_string())
}

fn with_policies(text: &str, policies: &[&str]) -> String {
    let mut all = text.to_owned();
    for policy in policies {
        if all.contains(policy) {
            continue;
        }
        if !all.is_empty() && !all.ends_with('\n') {
            all.push('\n');
        }
        all.push_str(policy);
        all.push('\n');
    }
    all
}

/// Whether what would be written loads and compiles.
fn check(dir: &Path, manifest: &str, policy: &str) -> Result<()> {
    types::manifest::parse(manifest).map_err(|error| RuntimeError::part(&error))?;
    // Schemas and instructions come from the project as it is; only its texts change.
    let mut project = config::load(dir, None)?;
    let new = types::manifest::parse(manifest).map_err(|error| RuntimeError::part(&error))?;
    project.manifest.permissions = new.permissions;
    let cedar = Some(policy).filter(|text| !text.is_empty());
    policy_sources::compile(&project.manifest, cedar, &[])?;
    Ok(())
}

/// Written beside and renamed, its permissions kept.
fn replace(path: &Path, text: &str) -> Result<()> {
    let fail = |error: std::io::Error| CliError::Io {
        what: format!("cannot write {}", path.display()),
        reason: error.to_string(),
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    let kept = std::fs::metadata(path).map(|meta| meta.permissions());
    let permissions = kept.unwrap_or_else(|_| std::os::unix::fs::PermissionsExt::from_mode(0o644));
    file.as_file().set_permissions(permissions).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_join_their_list_and_comments_stay() {
        let check = |text: &str, expected: &str| {
            let got = with_entries(text, List::Allow, &["shell", "GET a.test/*"]).expect("edits");
            assert_eq!(got, expected);
        };
        check(
            "schema = 1 # one\n",
            "schema = 1 # one\n\n[permissions]\nallow = [\"shell\", \"GET a.test/*\"]\n",
        );
        check(
            "[permissions]\nallow = [\"shell\"] # mine\n",
            "[permissions]\nallow = [\"shell\", \"GET a.test/*\"] # mine\n",
        );
        check(
            "permissions = { preset = \"observe\" }\n",
            "permissions = { preset = \"observe\", allow = [\"shell\", \"GET a.test/*\"] }\n",
        );
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let failed =
            with_entries("[permissions]\nallow = 1\n", List::Allow, &["x"]).expect_err("refused");
        assert_eq!((failed.failure.code.as_str(), failed.exit), ("BP-CLI-005", 2));
    }

    #[test]
    fn policies_are_added_once_and_can_be_asked() {
        let policy = "permit(principal, action, resource);";
        let once = with_policies("// mine", &[policy]);
        assert_eq!(once, format!("// mine\n{policy}\n"));
        assert_eq!(with_policies(&once, &[policy]), once);
        let check = |cedar: &str, expected: &str| assert_eq!(asked(cedar), expected);
        check(policy, "permit(principal, action, resource) when { context.approved };");
        check("permit(a) when { b };", "permit(a) when { b && context.approved };");
    }

    const MANIFEST: &str =
        "schema = 1\n[agent]\nname = \"a\"\ninstructions = \"x\"\nmodel = \"m\"\n";

    #[test]
    fn a_manifest_that_would_not_load_is_never_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(MANIFEST_FILE);
        std::fs::write(&path, MANIFEST).expect("written");
        let bad = [Addition::Entry("no such tool".to_owned())];
        let failed = write(dir.path(), List::Allow, &bad).expect_err("refused");
        assert_eq!(failed.exit, 2, "{}", failed.failure);
        assert_eq!(std::fs::read_to_string(&path).expect("there"), MANIFEST);
        let good = [Addition::Entry("shell".to_owned())];
        let said = write(dir.path(), List::Allow, &good).expect("writes");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(std::fs::read_to_string(&path).expect("there").contains("allow = [\"shell\"]"));
    }
}
