//! Package registries: whether a request installs or publishes, from its host and shape.

use super::Outline;
use crate::body::Collected;

const INSTALL: &str = "package install";
const PUBLISH: &str = "package publish";

/// Hosts that serve nothing but packages.
const REGISTRIES: [&str; 9] = [
    "crates.io",
    "files.pythonhosted.org",
    "index.crates.io",
    "pypi.org",
    "registry.npmjs.org",
    "registry.yarnpkg.com",
    "static.crates.io",
    "test.pypi.org",
    "upload.pypi.org",
];

/// The operation, or nothing.
pub(super) fn operation(outline: &Outline<'_>, body: &Collected) -> &'static str {
    let reads = matches!(outline.method, "GET" | "HEAD");
    let known = REGISTRIES.contains(&outline.host);
    match (known, reads) {
        // The registries' own pages for people are no packages, but reading them installs nothing
        // worse than a package would.
        (true, true) => INSTALL,
        (true, false) if is_npm_audit(outline.path) => INSTALL,
        (true, false) => PUBLISH,
        (false, true) if is_fetch(outline.path) => INSTALL,
        (false, false) if is_publish(outline, body) => PUBLISH,
        _ => "",
    }
}

/// What npm asks by POST while it installs.
fn is_npm_audit(path: &str) -> bool {
    path.starts_with("/-/npm/v1/security/")
}

fn is_fetch(path: &str) -> bool {
    let npm = path.contains("/-/") && path.ends_with(".tgz");
    let cargo = path.contains("/api/v1/crates/") && path.ends_with("/download");
    let python = [".whl", ".tar.gz"].iter().any(|end| path.ends_with(end))
        && (path.contains("/packages/") || path.contains("/simple/"));
    npm || cargo || python || path.contains("/simple/")
}

fn is_publish(outline: &Outline<'_>, body: &Collected) -> bool {
    let cargo = outline.method == "PUT" && outline.path.ends_with("/api/v1/crates/new");
    let python = outline.method == "POST" && outline.path.ends_with("/legacy/");
    let npm = outline.method == "PUT" && contains(&body.data, b"\"_attachments\"");
    cargo || python || npm
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}
