//! Which crate may use which: the table below, the manifests, and the page that prints it.
//!
//! The table is the design: a crate may use what stands above it and is named in its row. The same
//! text stands in `ARCHITECTURE.md` between two markers, so that a reader and this check never
//! disagree.

use super::{ARCHITECTURE, Finding};
use crate::tree::Tree;
use std::collections::BTreeSet;
use toml::Table;

const BEGIN: &str = "<!-- crate-graph:begin -->";
const END: &str = "<!-- crate-graph:end -->";
const ROOT_MANIFEST: &str = "Cargo.toml";

/// A crate, and what it may use.
struct Row {
    name: &'static str,
    uses: &'static [&'static str],
    /// For a pure crate, all the dependencies of others it may have.
    pure: Option<&'static [&'static str]>,
}

const fn pure(
    name: &'static str,
    uses: &'static [&'static str],
    others: &'static [&'static str],
) -> Row {
    Row { name, uses, pure: Some(others) }
}

const fn hands(name: &'static str, uses: &'static [&'static str]) -> Row {
    Row { name, uses, pure: None }
}

/// From the ground up. A row may only name rows above it.
const CRATES: &[Row] = &[
    pure("types", &[], &["serde", "serde_json", "sha2", "strsim", "thiserror", "toml"]),
    pure("kernel", &["types"], &["serde", "serde_json", "thiserror"]),
    pure(
        "policy",
        &["types"],
        &[
            "cedar-policy",
            "miette",
            "serde",
            "serde_json",
            "stacker",
            "strsim",
            "thiserror",
            "toml",
        ],
    ),
    pure("ledger", &["types"], &["ed25519-dalek", "serde", "serde_json", "sha2", "thiserror"]),
    pure(
        "privacy",
        &["types"],
        &[
            "aho-corasick",
            "crc32fast",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "unicode-normalization",
            "zeroize",
        ],
    ),
    hands("store", &["types", "ledger"]),
    hands("sandbox", &["types"]),
    hands("image", &["types", "sandbox"]),
    hands("models", &["types"]),
    hands("boundary", &["types"]),
    hands("gate", &["types", "privacy", "models", "sandbox", "boundary"]),
    hands("tools", &["types", "sandbox", "gate"]),
    hands("vault", &["types"]),
    hands(
        "runtime",
        &[
            "types", "kernel", "policy", "ledger", "privacy", "store", "sandbox", "models", "gate",
            "tools", "vault", "image",
        ],
    ),
    hands("server", &["types", "kernel", "store", "runtime"]),
    hands(
        "cli",
        &[
            "types", "kernel", "policy", "ledger", "privacy", "store", "sandbox", "models", "gate",
            "tools", "vault", "image", "runtime", "server",
        ],
    ),
];

/// The crate a path belongs to, if it is under `crates/`.
pub(super) fn crate_of(path: &str) -> Option<&str> {
    path.strip_prefix("crates/")?.split('/').next()
}

pub(super) fn is_pure(name: &str) -> bool {
    CRATES.iter().any(|row| row.name == name && row.pure.is_some())
}

/// The block of the page, markers included.
fn block() -> String {
    let mut text = format!("{BEGIN}\n```text\n");
    for row in CRATES {
        let uses = if row.uses.is_empty() { "(nothing)".into() } else { row.uses.join(", ") };
        text += &format!("{:<8} -> {uses}\n", row.name);
    }
    text + "```\n" + END
}

/// Where the block stands in the page, markers included.
fn place(page: &str) -> Option<std::ops::Range<usize>> {
    let start = page.find(BEGIN)?;
    let end = page[start..].find(END)? + start + END.len();
    Some(start..end)
}

/// The page with the block of today; none when it has no markers or needs no change.
pub(super) fn rewritten(page: &str) -> Option<String> {
    let place = place(page)?;
    let fresh = format!("{}{}{}", &page[..place.start], block(), &page[place.end..]);
    (fresh != page).then_some(fresh)
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = check_page(tree);
    let root = tree.text(ROOT_MANIFEST).unwrap_or_default();
    let root = match root.parse::<Table>() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new("graph", ROOT_MANIFEST, 0, error.to_string())],
    };
    let shared = Shared::of(&root);
    for (path, text) in manifests(tree) {
        if let Some(name) = crate_of(path) {
            found.extend(check_manifest(path, name, text, &shared));
        }
    }
    found.extend(unused(tree, &root));
    found
}

/// The manifests of the workspace's members.
fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files().filter(|(path, _)| {
        let member = path.strip_suffix("/Cargo.toml");
        member.is_some_and(|m| m.matches('/').count() <= 1)
    })
}

/// What the workspace declares and no member takes.
fn unused(tree: &Tree, root: &Table) -> Vec<Finding> {
    let members: Vec<Table> = manifests(tree).filter_map(|(_, text)| text.parse().ok()).collect();
    let used: BTreeSet<_> = members.iter().flat_map(dependencies).map(|used| used.name).collect();
    let others = workspace_dependencies(root).filter(|(_, ours)| !ours);
    let unused = others.filter(|(name, _)| !used.contains(name));
    let of = |name| format!("`{name}` is declared, and nothing uses it");
    unused.map(|(name, _)| Finding::new("graph", ROOT_MANIFEST, 0, of(name))).collect()
}

fn check_page(tree: &Tree) -> Vec<Finding> {
    let of = |message: &str| vec![Finding::new("graph", ARCHITECTURE, 0, message)];
    let Some(page) = tree.text(ARCHITECTURE) else {
        return of("the page is missing");
    };
    if place(page).is_none() {
        return of(&format!("the page has no `{BEGIN}` ... `{END}` for the crate graph"));
    }
    match rewritten(page) {
        Some(_) => of("the crate graph is not the one that is checked: `cargo xtask tidy --fix`"),
        None => Vec::new(),
    }
}

/// What the workspace's manifest declares for all.
struct Shared {
    /// Our own crates among the dependencies.
    ours: BTreeSet<String>,
}

impl Shared {
    fn of(root: &Table) -> Self {
        let declared = workspace_dependencies(root);
        let ours = declared.filter(|(_, ours)| *ours).map(|(name, _)| name.to_owned());
        Self { ours: ours.collect() }
    }
}

/// Each name in `[workspace.dependencies]`, and whether it is a crate of ours.
pub(super) fn workspace_dependencies(root: &Table) -> impl Iterator<Item = (&str, bool)> {
    let table =
        root.get("workspace").and_then(|w| w.get("dependencies")).and_then(|d| d.as_table());
    let rows = table.into_iter().flatten();
    rows.map(|(name, value)| (name.as_str(), value.get("path").is_some()))
}

fn check_manifest(path: &str, name: &str, text: &str, shared: &Shared) -> Vec<Finding> {
    let of = |message: String| Finding::new("graph", path, 0, message);
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => return vec![of(error.to_string())],
    };
    let Some(at) = CRATES.iter().position(|row| row.name == name) else {
        return vec![of(format!("`{name}` is not in the crate graph of xtask"))];
    };
    let mut found = Vec::new();
    for used in dependencies(&table) {
        if !used.from_workspace {
            let name = used.name;
            found.push(of(format!("`{name}` must be declared in [workspace.dependencies]")));
        }
        found.extend(forbidden(at, &used, shared).map(of));
    }
    found
}

fn forbidden(at: usize, used: &Dependency<'_>, shared: &Shared) -> Option<String> {
    let (row, name) = (&CRATES[at], used.name);
    if !shared.ours.contains(name) {
        let listed = row.pure.is_none_or(|others| others.contains(&name));
        return (!listed && !used.for_tests)
            .then(|| format!("`{}` is pure: `{name}` is not among what it may use", row.name));
    }
    let below = CRATES[..at].iter().any(|row| row.name == name);
    let allowed = if used.for_tests { below } else { row.uses.contains(&name) };
    (!allowed).then(|| format!("`{}` may not use `{name}`", row.name))
}

/// One entry of a dependency table.
struct Dependency<'a> {
    name: &'a str,
    for_tests: bool,
    from_workspace: bool,
}

/// All dependencies of a manifest, those for one platform and for building too.
fn dependencies(manifest: &Table) -> Vec<Dependency<'_>> {
    let platforms = manifest.get("target").and_then(|t| t.as_table());
    let platforms = platforms.into_iter().flatten().filter_map(|(_, t)| t.as_table());
    let mut found = Vec::new();
    for table in std::iter::once(manifest).chain(platforms) {
        for key in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let rows = table.get(key).and_then(|d| d.as_table()).into_iter().flatten();
            found.extend(rows.map(|(name, value)| Dependency {
                name,
                for_tests: key == "dev-dependencies",
                from_workspace: value.get("workspace").is_some(),
            }));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "[workspace.dependencies]\ntypes = { path = \"a\" }\nstore = { path = \"b\" }\n\
        kernel = { path = \"c\" }\nserde = \"1\"\ntokio = \"1\"\n";

    fn check_manifest_of(name: &str, manifest: &str, expected: &[&str]) {
        let (path, page) = (format!("crates/{name}/Cargo.toml"), block());
        let tree = Tree::from([
            ("Cargo.toml", ROOT),
            (path.as_str(), manifest),
            ("xtask/Cargo.toml", "[dependencies]\nserde.workspace = true\ntokio.workspace = true"),
            (ARCHITECTURE, &page),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| f.message).collect();
        assert_eq!(found, expected, "{name}: {manifest}");
    }

    #[test]
    fn rows_name_only_rows_above_them() {
        for (at, row) in CRATES.iter().enumerate() {
            let above = |name| CRATES[..at].iter().any(|row| row.name == name);
            assert!(row.uses.iter().all(|name| above(*name)), "{}", row.name);
        }
    }

    #[test]
    fn policy_never_comes_near_secrets() {
        let policy = CRATES.iter().find(|row| row.name == "policy").unwrap();
        assert_eq!(policy.uses, ["types"]);
        // Its tests may use what stands above it, so what holds secrets stands below.
        let place = |name| CRATES.iter().position(|row| row.name == name).unwrap();
        assert!(place("policy") < place("vault"));
        let vault = "[dependencies]\nvault.workspace = true";
        let root = format!("{ROOT}vault = {{ path = \"d\" }}\n");
        let shared = Shared::of(&root.parse().unwrap());
        for manifest in
            [vault.to_owned(), vault.replace("dep", "dev-dep"), vault.replace("dep", "build-dep")]
        {
            let found = check_manifest("crates/policy/Cargo.toml", "policy", &manifest, &shared);
            let found: Vec<_> = found.into_iter().map(|f| f.message).collect();
            assert_eq!(found, ["`policy` may not use `vault`"], "{manifest}");
        }
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_refused() {
        let store = "[dependencies]\nstore.workspace = true";
        check_manifest_of("kernel", store, &["`kernel` may not use `store`"]);
        check_manifest_of("runtime", store, &[]);
        let platform = "[target.'cfg(unix)'.dependencies]\nstore.workspace = true";
        check_manifest_of("policy", platform, &["`policy` may not use `store`"]);
        let building = "[build-dependencies]\nstore = { workspace = true }";
        check_manifest_of("policy", building, &["`policy` may not use `store`"]);
    }

    #[test]
    fn tests_may_look_down_but_not_up() {
        let kernel = "[dev-dependencies]\nkernel.workspace = true";
        check_manifest_of("ledger", kernel, &[]);
        check_manifest_of("types", kernel, &["`types` may not use `kernel`"]);
    }

    #[test]
    fn pure_crates_have_an_allow_list() {
        let tokio = "[dependencies]\ntokio.workspace = true";
        let refused = "`kernel` is pure: `tokio` is not among what it may use";
        check_manifest_of("kernel", tokio, &[refused]);
        check_manifest_of("store", tokio, &[]);
        check_manifest_of("kernel", "[dev-dependencies]\ntokio.workspace = true", &[]);
    }

    #[test]
    fn a_new_crate_and_a_private_version_are_refused() {
        check_manifest_of("utils", "", &["`utils` is not in the crate graph of xtask"]);
        let private = "`serde` must be declared in [workspace.dependencies]";
        check_manifest_of("kernel", "[dependencies]\nserde = \"1\"", &[private]);
    }

    #[test]
    fn a_dependency_that_nothing_uses_is_refused() {
        let tree = Tree::from([("Cargo.toml", ROOT), (ARCHITECTURE, &block())]);
        let found: Vec<_> = check(&tree).into_iter().map(|f| f.message).collect();
        let of = |name| format!("`{name}` is declared, and nothing uses it");
        assert_eq!(found, [of("serde"), of("tokio")]);
    }

    fn check_page_of(page: &str, expected: usize) {
        let tree = Tree::from([(ARCHITECTURE, page)]);
        assert_eq!(check(&tree).len(), expected, "{page}");
    }

    #[test]
    fn the_page_prints_the_table() {
        check_page_of(&block(), 0);
        check_page_of(&block().replace("kernel", "kernal"), 1);
        check_page_of("no markers", 1);
        assert_eq!(check(&Tree::default()).len(), 1);
        let stale = format!("a\n{BEGIN}\nold\n{END}\nb");
        let fresh = rewritten(&stale).unwrap();
        assert_eq!(fresh, format!("a\n{}\nb", block()));
        assert_eq!(rewritten(&fresh), None);
    }
}
