//! The root file system every sandbox starts from, built once by the spawner.
//!
//! A small tmpfs in the spawner's own mount namespace: the host's `/usr` bound read-only, a
//! generated `/etc`, a minimal `/dev`, empty directories for the rest. Sandboxes get private
//! copies of these mounts; the tmpfs itself is read-only to them. Nothing of the host's `/etc`
//! is here but an allow-list, copied.

use crate::SandboxError;
use crate::mounts::{self, DEVICE, READ_ONLY};
use crate::spec::TRUST_INSIDE;
use crate::sys;
use crate::weaken::{Weaken, Weakened};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Where the base is mounted, in the spawner's namespace only. Nothing of sysfs is used there:
/// cgroups are reached through descriptors opened before.
pub(crate) const BASE_AT: &str = "/sys";
/// Bytes and files of the base's tmpfs.
const BASE_TMPFS: [&str; 3] = ["size=64m", "nr_inodes=32k", "mode=755"];
/// Entries and bytes of one host directory copied into `/etc`.
const ETC_ENTRIES_MAX: usize = 8192;
const ETC_BYTES_MAX: u64 = 16 << 20;

const ROOT_DIRS: [&str; 16] = [
    "usr",
    "etc",
    "dev",
    "dev/pts",
    "dev/shm",
    "proc",
    "sys",
    "tmp",
    "run",
    "home",
    "home/agent",
    "workspace",
    "mnt",
    "memory",
    "var",
    "root",
];
/// Bound or linked as the host has them.
const SYSTEM_DIRS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What is copied from the host's `/etc`, if it is there. Entries that end in `*` are prefixes.
const ETC_ALLOWED: [&str; 24] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "fonts",
    "inputrc",
    "java-*",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "pki",
    "protocols",
    "python3*",
    "services",
    "ssl",
    "terminfo",
    "timezone",
    "gai.conf",
    "debian_version",
];
/// Never copied, at any depth: keys.
const ETC_NEVER: [&str; 2] = ["private", "nssdb"];

const PASSWD: &str = "root:x:0:0:root:/root:/usr/sbin/nologin\n\
                      agent:x:1000:1000:agent:/home/agent:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
                        networks: files\nprotocols: files\nservices: files\n";
const RESOLV: &str = "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n";

/// Makes this mount namespace private and builds the base in it, at [`BASE_AT`].
pub(crate) fn build(weakened: &Weakened) -> Result<(), SandboxError> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| SandboxError::setup("making mounts private", error))?;
    let tmpfs = mounts::new_fs("tmpfs", &BASE_TMPFS, MountAttrFlags::empty())?;
    mounts::attach(&tmpfs, mounts::here(), BASE_AT)?;
    let base = Path::new(BASE_AT);
    populate(base).map_err(|error| SandboxError::setup("filling the root", error))?;
    bind_system(base, weakened)?;
    for device in DEVICES {
        let tree = mounts::clone_tree(mounts::here(), &format!("/dev/{device}"), DEVICE, false)?;
        mounts::attach(&tree, mounts::here(), &format!("{BASE_AT}/dev/{device}"))?;
    }
    sys::mount_setattr(tmpfs.as_fd(), READ_ONLY, false)
        .map_err(|error| SandboxError::setup("closing the root", error))
}

fn populate(base: &Path) -> io::Result<()> {
    for dir in ROOT_DIRS {
        fs::create_dir(base.join(dir))?;
    }
    fs::set_permissions(base.join("root"), fs::Permissions::from_mode(0o700))?;
    symlink("../tmp", base.join("var/tmp"))?;
    symlink("../run", base.join("var/run"))?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, base.join("dev").join(name))?;
    }
    for device in DEVICES {
        fs::write(base.join("dev").join(device), "")?;
    }
    // What masks a denied path: nobody can read them, and binds of them stay empty.
    fs::create_dir(base.join("sys/.denied"))?;
    fs::set_permissions(base.join("sys/.denied"), fs::Permissions::from_mode(0o000))?;
    fs::write(base.join("sys/.denied-file"), "")?;
    fs::set_permissions(base.join("sys/.denied-file"), fs::Permissions::from_mode(0o000))?;
    etc(&base.join("etc"))
}

/// What is the same in every sandbox's `/etc`, whatever its root: identity and names.
pub(crate) fn etc_generated(etc: &Path) -> io::Result<()> {
    for (name, text) in [
        ("passwd", PASSWD),
        ("group", GROUP),
        ("nsswitch.conf", NSSWITCH),
        ("resolv.conf", RESOLV),
        ("host.conf", "multi on\n"),
    ] {
        fs::write(etc.join(name), text)?;
    }
    for name in ["hostname", "hosts", "machine-id"] {
        symlink(format!("../run/bedplate/{name}"), etc.join(name))?;
    }
    symlink("/proc/self/mounts", etc.join("mtab"))
}

fn etc(etc: &Path) -> io::Result<()> {
    etc_generated(etc)?;
    for (name, text) in [("os-release", "ID=linux\nNAME=Linux\n"), ("shells", "/bin/sh\n")] {
        fs::write(etc.join(name), text)?;
    }
    let mut budget = Budget::default();
    let Ok(entries) = fs::read_dir("/etc") else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let allowed = ETC_ALLOWED.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *allowed == name,
        });
        if allowed {
            copy_entry(&entry.path(), &etc.join(name), &mut budget)?;
        }
    }
    // Where each program's own certificates are put over it.
    let trust = etc.join(TRUST_INSIDE[0].trim_start_matches("/etc/"));
    if !trust.is_file() || trust.is_symlink() {
        fs::create_dir_all(trust.parent().expect("it has a directory"))?;
        let _ = fs::remove_file(&trust);
        fs::write(trust, "")?;
    }
    Ok(())
}

#[derive(Default)]
struct Budget {
    entries: usize,
    bytes: u64,
}

/// Copies a file, link or directory. What cannot be read by us is left out, as is what would not
/// fit: the allow-list is a convenience, never a promise.
fn copy_entry(from: &Path, to: &Path, budget: &mut Budget) -> io::Result<()> {
    budget.entries += 1;
    let Ok(meta) = fs::symlink_metadata(from) else {
        return Ok(());
    };
    if budget.entries > ETC_ENTRIES_MAX {
        return Ok(());
    }
    if meta.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    if meta.is_dir() {
        let Ok(entries) = fs::read_dir(from) else {
            return Ok(());
        };
        fs::create_dir(to)?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !ETC_NEVER.iter().any(|never| name == *never) {
                copy_entry(&entry.path(), &to.join(name), budget)?;
            }
        }
        return Ok(());
    }
    if meta.is_file() && meta.mode_is_public() && budget.bytes + meta.len() <= ETC_BYTES_MAX {
        budget.bytes += meta.len();
        if let Ok(bytes) = fs::read(from) {
            fs::write(to, bytes)?;
        }
    }
    Ok(())
}

trait Public {
    fn mode_is_public(&self) -> bool;
}

impl Public for fs::Metadata {
    /// Only what every user of the host may read is fit for a sandbox.
    fn mode_is_public(&self) -> bool {
        self.permissions().mode() & 0o004 != 0
    }
}

fn bind_system(base: &Path, weakened: &Weakened) -> Result<(), SandboxError> {
    let attributes = if weakened.lacks(Weaken::ReadOnly) { 0 } else { READ_ONLY };
    let bind = |name: &str| {
        let tree = mounts::clone_tree(mounts::here(), &format!("/{name}"), attributes, true)?;
        mounts::attach(&tree, mounts::here(), &format!("{BASE_AT}/{name}"))
    };
    bind("usr")?;
    for name in SYSTEM_DIRS {
        let host = Path::new("/").join(name);
        let Ok(meta) = fs::symlink_metadata(&host) else {
            continue;
        };
        let wrap = |error: io::Error| SandboxError::setup(&format!("linking /{name}"), error);
        if meta.is_symlink() {
            let target = fs::read_link(&host).map_err(wrap)?;
            symlink(target, base.join(name)).map_err(wrap)?;
        } else if meta.is_dir() {
            fs::create_dir(base.join(name)).map_err(wrap)?;
            bind(name)?;
        }
    }
    Ok(())
}
