//! Giving up rights: identity, capabilities, system calls, Landlock, resource limits.
//!
//! Each function restricts the calling process and reports the step that failed; none is ever
//! skipped because a kernel lacks it.

use crate::SandboxError;
use crate::seccomp::{self, Profile};
use crate::sys;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};
use std::os::fd::OwnedFd;
use std::path::Path;
use types::manifest::Limits;

/// Landlock ABIs below this cannot rename between directories, and are refused.
pub(crate) const LANDLOCK_ABI_MIN: u32 = 2;
/// From this ABI on Landlock sees truncation.
pub(crate) const LANDLOCK_ABI_TRUNCATE: u32 = 3;
/// Open files per process.
const OPEN_FILES_MAX: u64 = 65_536;
/// Bytes a process may lock in memory.
const LOCKED_BYTES_MAX: u64 = 8 << 20;

/// Takes on one uid and gid for all purposes.
pub(crate) fn become_id(id: u32) -> Result<(), SandboxError> {
    let wrap = |error| SandboxError::setup("changing identity", error);
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(wrap)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(wrap)
}

/// Opens a /proc to write id maps through later.
pub(crate) fn open_proc() -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc", flags, Mode::empty())
        .map_err(|error| SandboxError::setup("opening /proc", error))
}

/// Maps one id of the user namespace just entered to a uid and a gid of its parent.
pub(crate) fn map_ids(proc: &OwnedFd, inside: u32, uid: u32, gid: u32) -> Result<(), SandboxError> {
    // Without "deny", an ordinary user may not map groups at all: else it could drop a group that
    // forbids something.
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{inside} {uid} 1")),
        ("gid_map", format!("{inside} {gid} 1")),
    ] {
        let path = format!("self/{file}");
        rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::io::write(file, text.as_bytes()))
            .map_err(|error| SandboxError::UserNamespaces {
                why: format!("writing {file}: {error}"),
            })?;
    }
    Ok(())
}

/// Installs the sandbox's system call filter.
pub(crate) fn install_filter() -> Result<(), SandboxError> {
    sys::install_filter(&seccomp::filter(Profile::Sandbox))
        .map_err(|error| SandboxError::Seccomp { why: error.to_string() })
}

/// Resource limits of one process inside.
pub(crate) fn set_rlimits(limits: &Limits, watched: bool) -> Result<(), SandboxError> {
    let mut list = vec![
        (Resource::Core, 0),
        (Resource::Nproc, u64::from(limits.processes)),
        (Resource::Nofile, OPEN_FILES_MAX),
        (Resource::Fsize, limits.disk_bytes),
        (Resource::Memlock, LOCKED_BYTES_MAX),
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
    ];
    if watched {
        list.push((Resource::Data, limits.memory_bytes));
    }
    for (resource, value) in list {
        let now = rustix::process::getrlimit(resource);
        let value = now.maximum.map_or(value, |max| max.min(value));
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        rustix::process::setrlimit(resource, limit)
            .map_err(|error| SandboxError::setup("resource limits", error))?;
    }
    Ok(())
}

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Read, list and execute.
    Read,
    /// Read and write files that exist; devices too.
    Use,
    /// Anything.
    Write,
    /// Anything but reading and executing.
    WriteOnly,
    /// Anything, and character devices too: without the capability for others, the kernel makes
    /// only the one that marks what an overlay hides.
    Unpack,
}

/// A Landlock rule set under construction. What is not granted is denied.
#[derive(Debug)]
pub(crate) struct Fence {
    ruleset: RulesetCreated,
    abi: ABI,
}

fn landlock_error(error: impl ToString) -> SandboxError {
    SandboxError::Landlock { why: error.to_string() }
}

impl Fence {
    /// An empty set that denies every file access and reaching processes outside by signal or
    /// abstract socket, as far as ABI `number` knows these.
    pub(crate) fn new(number: u32) -> Result<Self, SandboxError> {
        let abi = match number {
            0..LANDLOCK_ABI_MIN => {
                return Err(landlock_error(format!(
                    "the kernel has ABI {number}, and {LANDLOCK_ABI_MIN} is needed"
                )));
            }
            2 => ABI::V2,
            3 => ABI::V3,
            4 => ABI::V4,
            5 => ABI::V5,
            _ => ABI::V6,
        };
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))
            .map_err(landlock_error)?;
        if abi >= ABI::V6 {
            ruleset =
                ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(landlock_error)?;
        }
        let ruleset = ruleset.create().map_err(landlock_error)?;
        Ok(Self { ruleset, abi })
    }

    fn rights(&self, grant: Grant, is_dir: bool) -> BitFlags<AccessFs> {
        let read = AccessFs::from_read(self.abi);
        let all = AccessFs::from_all(self.abi);
        let mut use_ = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile;
        if self.abi >= ABI::V3 {
            use_ |= AccessFs::Truncate;
        }
        if self.abi >= ABI::V5 {
            use_ |= AccessFs::IoctlDev;
        }
        let device =
            if self.abi >= ABI::V5 { BitFlags::from(AccessFs::IoctlDev) } else { BitFlags::EMPTY };
        let made = AccessFs::MakeBlock | AccessFs::MakeChar;
        let rights = match grant {
            Grant::Read => read,
            Grant::Use => use_,
            Grant::Write => all & !device & !made,
            Grant::WriteOnly => all & !read & !device & !made,
            Grant::Unpack => all & !device & !AccessFs::MakeBlock,
        };
        if is_dir { rights } else { rights & AccessFs::from_file(self.abi) }
    }

    /// Grants something below `path`. A path that is not there grants nothing.
    pub(crate) fn allow(self, path: &Path, grant: Grant) -> Result<Self, SandboxError> {
        let Ok(meta) = std::fs::metadata(path) else {
            return Ok(self);
        };
        let rights = self.rights(grant, meta.is_dir());
        let fd = PathFd::new(path).map_err(landlock_error)?;
        let ruleset =
            self.ruleset.add_rule(PathBeneath::new(fd, rights)).map_err(landlock_error)?;
        Ok(Self { ruleset, abi: self.abi })
    }

    /// Puts the set in force on this process and all it will start.
    pub(crate) fn close(self) -> Result<(), SandboxError> {
        let status = self.ruleset.restrict_self().map_err(landlock_error)?;
        if status.ruleset == landlock::RulesetStatus::FullyEnforced {
            Ok(())
        } else {
            Err(landlock_error("the rules were not put in force fully"))
        }
    }
}
