//! A model server that others wrote, so that our dialects are not only tested against ourselves.
//!
//! Its version and digest are pinned in `xtask/peers/aimock`. It wants a Node newer than Debian 12
//! has; when the host's is too old, a pinned one comes with it. Tests find the folder that holds
//! `node_modules` in `BEDPLATE_AIMOCK_DIR`, and the right `node` first in `PATH`.

use super::process::{Job, run};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

const SOURCE: &str = "xtask/peers/aimock";
const LOCK: &str = "package-lock.json";

/// What the server says it needs.
const NODE_MIN: (u64, u64) = (20, 15);

const NPM_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Installs the server under `target` when it is not there, and says which variables tests get.
///
/// # Errors
/// When npm fails, with the log.
pub(super) fn bring(root: &Path, target: &Path) -> Result<Vec<(OsString, OsString)>, String> {
    let folder = target.join("peers/aimock");
    let own_node = !node_is_new();
    if !is_there(&root.join(SOURCE), &folder, own_node) {
        install(&root.join(SOURCE), &folder, own_node)?;
    }
    let mut path = env::var_os("PATH").unwrap_or_default();
    if own_node {
        let folders = [bundled_node(&folder)].into_iter().chain(env::split_paths(&path));
        path = env::join_paths(folders.collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    }
    Ok(vec![("BEDPLATE_AIMOCK_DIR".into(), folder.into()), ("PATH".into(), path)])
}

fn bundled_node(folder: &Path) -> PathBuf {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    folder.join(format!("node_modules/node-linux-{machine}/bin"))
}

fn node_is_new() -> bool {
    let said = Command::new("node").arg("--version").output();
    said.is_ok_and(|o| version(&String::from_utf8_lossy(&o.stdout)).is_some_and(|v| v >= NODE_MIN))
}

/// `v20.15.1` is 20 and 15.
fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim().strip_prefix('v')?.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// npm writes `node_modules/.package-lock.json` last.
fn is_there(source: &Path, folder: &Path, own_node: bool) -> bool {
    let same = fs::read(source.join(LOCK)).ok() == fs::read(folder.join(LOCK)).ok();
    let whole = folder.join("node_modules/.package-lock.json").exists();
    same && whole && (!own_node || bundled_node(folder).join("node").exists())
}

fn install(source: &Path, folder: &Path, own_node: bool) -> Result<(), String> {
    let io = |e| format!("cannot prepare {}: {e}", folder.display());
    fs::create_dir_all(folder).map_err(io)?;
    for file in ["package.json", LOCK] {
        fs::copy(source.join(file), folder.join(file)).map_err(io)?;
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    if !own_node {
        command.arg("--omit=optional");
    }
    let log = Some(folder.join("npm.log"));
    let outcome = run(Job { command, log, limit: NPM_LIMIT })?;
    outcome.success().map_err(|why| format!("npm ci: {why}\n{}", outcome.output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("v20.15.1\n"), Some((20, 15)));
        assert!(version("v22.3.0").unwrap() > NODE_MIN);
        assert!(version("v18.20.4").unwrap() < NODE_MIN);
        assert_eq!(version("20.1.0"), None);
    }
}
