//! The root of a sandbox that stands on an image instead of the host.
//!
//! ```text
//!   /dev, /sys              clones of the base's
//!   top     a small tmpfs   every place where something will be mounted; the /etc we generate
//!   layers  read-only       the image's own, the newest first
//! ```
//!
//! One overlay without an upper, so nothing of it can be written. What always holds: each place
//! where init or a program's entry will mount something is a directory of ours, whatever the image
//! has there, so no link of an image can lead a mount astray. The overlay keeps its marks in
//! `user.*` attributes for root too: layers are unpacked by a process that may set no others.

use crate::SandboxError;
use crate::base;
use crate::mounts::{self, READ_ONLY};
use crate::spec::{Root, TRUST_INSIDE};
use rustix::fs::{CWD, OFlags};
use rustix::mount::MountAttrFlags;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

/// Where the root is put together, in init's copy of the base: an empty directory of it.
const PUT_AT: &str = "memory";
/// Bytes and files of the top.
const TOP_TMPFS: [&str; 3] = ["size=1m", "nr_inodes=1k", "mode=755"];
/// What is mounted over, or must be there, in every root.
const TOP_DIRS: [&str; 18] = [
    "dev",
    "etc",
    "etc/ssl",
    "etc/ssl/certs",
    "etc/pki",
    "etc/pki/tls",
    "etc/pki/tls/certs",
    "home",
    "home/agent",
    "memory",
    "mnt",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr",
    "var",
    "workspace",
];

/// Builds the root in init's own mount namespace, whose current directory is the base, and goes
/// there.
pub(crate) fn enter(root: &Root) -> Result<(), SandboxError> {
    let top = mounts::new_fs("tmpfs", &TOP_TMPFS, MountAttrFlags::empty())?;
    mounts::attach(&top, CWD, PUT_AT)?;
    fill(Path::new(PUT_AT)).map_err(|error| SandboxError::setup("filling the root", error))?;
    let merged = overlay(root)?;
    let [dev, sys] = [("dev", 0), ("sys", READ_ONLY)]
        .map(|(name, attributes)| mounts::clone_tree(CWD, name, attributes, true));
    mounts::attach(&merged, CWD, PUT_AT)?;
    rustix::process::chdir(PUT_AT)
        .map_err(|error| SandboxError::setup("entering the root", error))?;
    mounts::attach(&dev?, CWD, "dev")?;
    mounts::attach(&sys?, CWD, "sys")
}

/// What lies over the image, so that no layer of it decides what these are.
fn fill(top: &Path) -> io::Result<()> {
    for dir in TOP_DIRS {
        fs::create_dir(top.join(dir))?;
    }
    symlink("../tmp", top.join("var/tmp"))?;
    symlink("../run", top.join("var/run"))?;
    for file in TRUST_INSIDE {
        fs::write(top.join(file.trim_start_matches('/')), "")?;
    }
    base::etc_generated(&top.join("etc"))
}

/// The layers and the top as one detached mount. Layers are named by descriptor numbers relative
/// to /proc/self/fd: 127 of them fit into the page that the older mount call takes, where the newer
/// one takes no more than 256 bytes.
fn overlay(root: &Root) -> Result<OwnedFd, SandboxError> {
    let fail = |what: &str, error: &dyn ToString| {
        SandboxError::setup(&format!("mounting an image ({what})"), error.to_string())
    };
    let open = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(|error| fail(&path.display().to_string(), &error))
    };
    let tops = std::iter::once(Path::new(PUT_AT));
    let layers = tops.chain(root.layers.iter().map(std::path::PathBuf::as_path)).map(open);
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let back = open(Path::new("."))?;
    let names: Vec<String> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let options = format!("lowerdir={},userxattr", names.join(":"));
    let options = std::ffi::CString::new(options).expect("numbers and commas hold no NUL");
    // The old call resolves the names in the current directory, and mounts on a place.
    let place = open(Path::new("mnt"))?;
    rustix::process::chdir("/proc/self/fd").map_err(|error| fail("/proc", &error))?;
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::RDONLY;
    let target = place.as_raw_fd().to_string();
    rustix::mount::mount("overlay", target.as_str(), "overlay", flags, options.as_c_str())
        .map_err(|error| fail("its layers", &error))?;
    rustix::process::fchdir(&back).map_err(|error| fail("the base", &error))?;
    // Taken along as a clone, so that it can be put over the place its top is at.
    let merged = mounts::clone_tree(CWD, "mnt", READ_ONLY, false)?;
    rustix::mount::unmount("mnt", rustix::mount::UnmountFlags::DETACH)
        .map_err(|error| fail("taking it along", &error))?;
    Ok(merged)
}
