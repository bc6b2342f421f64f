//! What others wrote and we are tested against: a model server and harnesses as guests; and what we
//! are only compared with, which no test needs: a proxy for `bench gate`, a sandbox for the bypass
//! corpus.
//!
//! Versions are pinned in `xtask/peers`; everything is installed under `target` once. The model
//! server wants a Node newer than Debian 12 has; when the host's is too old, a pinned one comes
//! with it. Tests find the folder of the server in `BEDPLATE_AIMOCK_DIR`, that of the harnesses in
//! `BEDPLATE_GUESTS_DIR` (programs in `node_modules`, Python's packages in `python`), and the right
//! `node` first in `PATH`. npm chooses the harnesses' programs for this platform from their
//! optional packages, so no script of a package runs here.

use super::process::{Job, run};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

const LOCK: &str = "package-lock.json";
const REQUIREMENTS: &str = "requirements.txt";
const PYTHON: &str = "python";

/// What the server says it needs.
const NODE_MIN: (u64, u64) = (20, 15);

/// Where Debian's programs stand.
pub(super) const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// One installation. The harnesses are large.
const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Installs everything under `target` that is not there, and says which variables tests get.
///
/// # Errors
/// When npm or pip fails, with the log.
pub(super) fn bring(root: &Path, target: &Path) -> Result<Vec<(OsString, OsString)>, String> {
    let own_node = !node_is_new();
    let aimock = Peer::new(root, target, "aimock");
    aimock.bring_node(own_node, own_node.then(|| bundled_node(&aimock.folder).join("node")))?;
    let guests = Peer::new(root, target, "guests");
    guests.bring_node(true, None)?;
    guests.bring_python()?;
    // Debian's programs first: wrappers that a developer has before them cost each call its time.
    let own_node = own_node.then(|| bundled_node(&aimock.folder));
    let folders = own_node.into_iter().chain(SYSTEM_FOLDERS.map(PathBuf::from));
    let inherited = env::var_os("PATH").unwrap_or_default();
    let folders = folders.chain(env::split_paths(&inherited));
    let path = env::join_paths(folders).map_err(|e| e.to_string())?;
    Ok(vec![
        ("BEDPLATE_AIMOCK_DIR".into(), aimock.folder.into()),
        ("BEDPLATE_GUESTS_DIR".into(), guests.folder.into()),
        ("PATH".into(), path),
    ])
}

/// Brings the proxy that `bench gate` measures beside us.
///
/// # Errors
/// When it does not install.
pub(crate) fn gate(root: &Path) -> Result<bool, String> {
    let target = super::build::target_directory(root)?;
    Peer::new(root, &target, "mitmproxy").bring_python()?;
    println!("installed: `bedplate bench gate` finds it");
    Ok(true)
}

/// The sandbox that the bypass corpus is compared with; the table says so when there is none.
fn sandbox(root: &Path, target: &Path) -> Result<(OsString, OsString), String> {
    let srt = Peer::new(root, target, "srt");
    srt.bring_node(false, None)?;
    Ok(("BEDPLATE_SRT_DIR".into(), srt.folder.into()))
}

/// The bypass corpus here and in what others use, printed side by side.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn bypass(root: &Path) -> Result<bool, String> {
    let target = super::build::target_directory(root)?;
    let mut command = crate::cargo(root);
    command.args(["test", "-p", "bedplate", "--test", "bypass", "side_by_side"]);
    command.args(["--", "--nocapture"]);
    match sandbox(root, &target) {
        Ok((name, folder)) => {
            command.env(name, folder);
        }
        Err(why) => println!("srt does not install here: {why}"),
    }
    let status = command.status().map_err(|error| format!("cannot start cargo: {error}"))?;
    Ok(status.success())
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

/// A folder of pins, and where they are installed.
struct Peer {
    source: PathBuf,
    folder: PathBuf,
}

impl Peer {
    fn new(root: &Path, target: &Path, name: &str) -> Self {
        Self {
            source: root.join("xtask/peers").join(name),
            folder: target.join("peers").join(name),
        }
    }

    /// Whether what is installed has these pins.
    fn has(&self, pins: &str) -> bool {
        let read = |folder: &Path| fs::read(folder.join(pins)).ok();
        read(&self.folder).is_some_and(|pins| Some(pins) == read(&self.source))
    }

    fn take(&self, file: &str) -> Result<(), String> {
        let copied = fs::copy(self.source.join(file), self.folder.join(file));
        copied.map(drop).map_err(|e| format!("cannot prepare {}: {e}", self.folder.display()))
    }

    /// npm writes `node_modules/.package-lock.json` last. Optional packages are those of one
    /// platform; `last` is a file of theirs that must be there.
    fn bring_node(&self, optional: bool, last: Option<PathBuf>) -> Result<(), String> {
        let whole = self.folder.join("node_modules/.package-lock.json").exists();
        if self.has(LOCK) && whole && last.is_none_or(|file| file.exists()) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(|e| e.to_string())?;
        self.take("package.json")?;
        self.take(LOCK)?;
        let mut command = Command::new("npm");
        command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        if !optional {
            command.arg("--omit=optional");
        }
        self.install("npm", command)
    }

    /// The pins are copied after pip is done: then all of it is there.
    fn bring_python(&self) -> Result<(), String> {
        if self.has(REQUIREMENTS) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(|e| e.to_string())?;
        let packages = self.folder.join(PYTHON);
        if packages.exists() {
            fs::remove_dir_all(&packages).map_err(|e| e.to_string())?;
        }
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--target"]);
        command.arg(&packages).arg("--requirement").arg(self.source.join(REQUIREMENTS));
        self.install("pip", command)?;
        self.take(REQUIREMENTS)
    }

    fn install(&self, with: &str, mut command: Command) -> Result<(), String> {
        command.current_dir(&self.folder);
        let log = Some(self.folder.join(format!("{with}.log")));
        let outcome = run(Job { command, log, limit: INSTALL_LIMIT })?;
        outcome.success().map_err(|why| format!("{with}: {why}\n{}", outcome.output))
    }
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

    #[test]
    fn what_is_installed_is_what_is_pinned() {
        let base = env::temp_dir().join(format!("xtask-peers-{}", std::process::id()));
        let peer = Peer::new(&base, &base.join("target"), "one");
        fs::create_dir_all(&peer.source).unwrap();
        fs::create_dir_all(&peer.folder).unwrap();
        assert!(!peer.has(LOCK));
        fs::write(peer.source.join(LOCK), "1").unwrap();
        assert!(!peer.has(LOCK));
        peer.take(LOCK).unwrap();
        assert!(peer.has(LOCK));
        fs::write(peer.source.join(LOCK), "2").unwrap();
        assert!(!peer.has(LOCK));
        fs::remove_dir_all(&base).unwrap();
    }
}
