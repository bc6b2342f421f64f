//! What the tests need from Debian, in one list, each with its reason.
//!
//! Root gets what is missing; anybody else is told the exact command, and nothing is tested.

use super::process::{Job, run};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

/// A program, the Debian package that brings it, and why the tests want it.
struct Need {
    program: &'static str,
    package: &'static str,
    reason: &'static str,
}

const NEEDS: [Need; 14] = [
    Need {
        program: "cc",
        package: "gcc",
        reason: "SQLite and the cryptography are compiled from C",
    },
    Need {
        program: "bwrap",
        package: "bubblewrap",
        reason: "a sandbox of others, to compare with",
    },
    Need { program: "strace", package: "strace", reason: "looks at our system calls from outside" },
    Need { program: "python3", package: "python3", reason: "agents run it in their sandbox" },
    Need { program: "git", package: "git", reason: "agents run it in their sandbox" },
    Need { program: "node", package: "nodejs", reason: "runs a model server that others wrote" },
    Need { program: "npm", package: "npm", reason: "brings that server, and harnesses as guests" },
    Need { program: "pip3", package: "python3-pip", reason: "brings LangGraph, a guest too" },
    Need { program: "curl", package: "curl", reason: "agents run it in their sandbox" },
    Need { program: "openssl", package: "openssl", reason: "makes an example's certificates" },
    Need { program: "busybox", package: "busybox-static", reason: "what images of tests hold" },
    Need {
        program: "docker-registry",
        package: "docker-registry",
        reason: "a registry that others wrote, to pull images from",
    },
    Need { program: "kill", package: "procps", reason: "ends processes to see what survives" },
    Need { program: "setpriv", package: "util-linux", reason: "becomes an ordinary user" },
];

/// One apt-get command.
const APT_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Whether this process belongs to root.
pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Sees to it that every program is there.
///
/// # Errors
/// What is missing, and the command that brings it.
pub(super) fn bring() -> Result<(), String> {
    let missing = missing(&path_folders());
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    println!("== packages\n{}", describe(&missing));
    if !is_root() {
        return Err(format!("missing: run `sudo apt-get install -y {}`", packages.join(" ")));
    }
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    match self::missing(&path_folders()) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("still missing after apt-get:\n{}", describe(&left))),
    }
}

fn describe(needs: &[&Need]) -> String {
    let lines = needs.iter().map(|n| format!("{} ({}): {}", n.program, n.package, n.reason));
    lines.collect::<Vec<_>>().join("\n")
}

fn path_folders() -> Vec<std::path::PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect()
}

fn missing(folders: &[impl AsRef<Path>]) -> Vec<&'static Need> {
    let runs = |file: &Path| {
        fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    let there = |program| folders.iter().any(|folder| runs(&folder.as_ref().join(program)));
    NEEDS.iter().filter(|need| !there(need.program)).collect()
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let outcome = run(Job { command, log: None, limit: APT_LIMIT })?;
    outcome.success().map_err(|why| format!("apt-get {}: {why}", arguments.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_path_is_missing() {
        assert_eq!(missing(&["/nonexistent"]).len(), NEEDS.len());
        let here = missing(&["/bin", "/usr/bin"]);
        assert!(here.iter().all(|need| need.program != "setpriv"), "essential on Debian");
    }

    #[test]
    fn every_need_says_why() {
        assert!(NEEDS.iter().all(|need| need.reason.len() > 10));
        assert!(describe(&[&NEEDS[1]]).starts_with("bwrap (bubblewrap): "));
    }
}
