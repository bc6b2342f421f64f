//! Mounts through the descriptor-based mount interface, with errors that name the step.
//!
//! Everything is cloned or made as a detached mount first, given its attributes there, and only
//! then put in place: nothing is ever visible with more rights than it should have.

use crate::SandboxError;
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// No set-uid programs, no devices.
pub(crate) const PLAIN: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// The same, read-only.
pub(crate) const READ_ONLY: u64 = PLAIN | libc::MOUNT_ATTR_RDONLY;
/// A device node: no set-uid, no programs.
pub(crate) const DEVICE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// A detached copy of what is mounted at `path`, below `dir` unless absolute.
pub(crate) fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &str,
    attributes: u64,
    recursive: bool,
) -> Result<OwnedFd, SandboxError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    let tree = rustix::mount::open_tree(dir, path, flags)
        .map_err(|error| SandboxError::setup(&format!("copying the mount at '{path}'"), error))?;
    if attributes != 0 {
        sys::mount_setattr(tree.as_fd(), attributes, recursive).map_err(|error| {
            SandboxError::setup(&format!("restricting the mount at '{path}'"), error)
        })?;
    }
    Ok(tree)
}

/// A new detached file system. An option without `=` is a flag.
pub(crate) fn new_fs(
    kind: &str,
    options: &[&str],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, SandboxError> {
    let wrap = |what: &str, error: rustix::io::Errno| {
        SandboxError::setup(&format!("mounting {kind} ({what})"), error)
    };
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| wrap("open", error))?;
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(context.as_fd(), key, value),
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), *option),
        }
        .map_err(|error| wrap(option, error))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(|error| wrap("create", error))?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|error| wrap("mount", error))
}

/// Puts a detached mount at `path`, below `dir` unless absolute; an empty path means `dir`.
pub(crate) fn attach(tree: &OwnedFd, dir: BorrowedFd<'_>, path: &str) -> Result<(), SandboxError> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(tree.as_fd(), "", dir, path, flags)
        .map_err(|error| SandboxError::setup(&format!("placing a mount at '{path}'"), error))
}

/// Makes the mount at `root` the root of this mount namespace and lets go of all else.
pub(crate) fn pivot_to(root: &OwnedFd) -> Result<(), SandboxError> {
    let wrap = |error| SandboxError::setup("changing the root", error);
    rustix::process::fchdir(root).map_err(wrap)?;
    rustix::process::pivot_root(".", ".").map_err(wrap)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(wrap)?;
    rustix::process::chdir("/").map_err(wrap)
}

/// Opens a path below `root` without following any symbolic link or leaving `root`.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &str,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = path.trim_start_matches('/');
    rustix::fs::openat2(
        root,
        if path.is_empty() { "." } else { path },
        flags | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// The current directory as a base for relative paths.
pub(crate) fn here() -> BorrowedFd<'static> {
    CWD
}
