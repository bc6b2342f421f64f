//! The words of the sandbox contract: what the owner asks and what it is told.
//!
//! All of it is plain data that travels in frames between owner and spawner. Paths inside the
//! sandbox are text; host paths must be UTF-8 too, and are refused otherwise.

use crate::SandboxError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use types::manifest::{Limits, LimitsStrength};

/// Where the workspace is seen.
pub const WORKSPACE: &str = "/workspace";
/// Where what outlives the run is seen, when the agent has such memory.
pub const MEMORY: &str = "/memory";
/// The agent's home directory inside: private scratch, not part of the workspace.
pub const HOME_INSIDE: &str = "/home/agent";
/// `PATH` inside, unless the caller gives another.
pub const PATH_INSIDE: &str = "/usr/local/bin:/usr/bin:/bin";
/// The agent's user and group id inside.
pub const AGENT_ID: u32 = 1000;
/// As root, the host uid and gid that [`AGENT_ID`] maps to: just above the range systemd gives to
/// containers, so that no account and no container has it.
pub const HOST_ID_AS_ROOT: u32 = 0x7000_0000;
/// Bytes of `/tmp`, `/dev/shm` and the agent's home together, unless the caller says otherwise.
pub const SCRATCH_BYTES_DEFAULT: u64 = 512 << 20;
/// Bytes of output kept of one exec, unless the caller says otherwise.
pub const OUTPUT_BYTES_DEFAULT: u64 = 1 << 20;
/// Entries one path rule list may have.
pub const RULES_MAX: usize = 256;
/// Layers one overlay may stack.
pub const STACK_MAX: usize = 60;

/// A live sandbox, unique within its spawner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SandboxId(pub u64);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A writable view: immutable layers and one upper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Immutable layers, the newest first; at least one.
    pub lowers: Vec<PathBuf>,
    /// Where changes go.
    pub upper: PathBuf,
    /// Overlayfs's own directory, on the same file system as `upper`.
    pub work: PathBuf,
    /// Bytes by which the layers have grown since the import; counts against the disk limit.
    pub grown_bytes: u64,
}

/// What outlives the run, at [`MEMORY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryTree {
    /// Its view, which has an upper also when nothing may be written.
    pub overlay: Overlay,
    /// Whether programs may write to it.
    pub writable: bool,
}

/// The trees that programs of a sandbox work on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trees {
    /// At [`WORKSPACE`].
    pub workspace: Overlay,
    /// At [`MEMORY`]; without it that directory is empty.
    pub memory: Option<MemoryTree>,
}

impl From<Overlay> for Trees {
    fn from(workspace: Overlay) -> Self {
        Self { workspace, memory: None }
    }
}

impl Trees {
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        self.memory.as_ref().map_or(Ok(()), |tree| tree.overlay.check())?;
        self.workspace.check()
    }

    /// The directories that are written to.
    pub(crate) fn uppers(&self) -> impl Iterator<Item = &PathBuf> {
        let memory = self.memory.iter().map(|tree| &tree.overlay.upper);
        std::iter::once(&self.workspace.upper).chain(memory)
    }

    /// Bytes by which their layers have grown.
    pub(crate) fn grown_bytes(&self) -> u64 {
        let memory = self.memory.as_ref().map_or(0, |tree| tree.overlay.grown_bytes);
        self.workspace.grown_bytes.saturating_add(memory)
    }
}

/// A host path seen in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host; must exist.
    pub host: PathBuf,
    /// Inside: under `/mnt`, `/memory`, or an existing path of the same kind.
    pub path: String,
    /// Read-only unless set.
    pub writable: bool,
}

/// Path rules. Absolute paths inside the sandbox. `None` means the whole workspace and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsRules {
    /// Only these prefixes of workspace and memory may be read.
    pub read: Option<Vec<String>>,
    /// Only these prefixes of workspace and memory may be written.
    pub write: Option<Vec<String>>,
    /// Existing paths that may not be read (nor written).
    pub deny_read: Vec<String>,
    /// Existing paths that may not be written.
    pub deny_write: Vec<String>,
    /// Host paths to show.
    pub mounts: Vec<Mount>,
}

impl FsRules {
    /// Whether the rules ask for anything at all.
    #[must_use]
    pub fn is_trivial(&self) -> bool {
        *self == Self::default()
    }
}

/// Layers an image may have.
pub const IMAGE_LAYERS_MAX: usize = 127;
/// Variables an image may set.
pub const IMAGE_VARIABLES_MAX: usize = 256;
/// Bytes of all of them.
pub const IMAGE_VARIABLES_BYTES_MAX: usize = 32 << 10;

/// The file system of an image, in place of the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Its unpacked layers, the newest first; at least one. Nobody changes them meanwhile.
    pub layers: Vec<PathBuf>,
    /// Variables that every program gets unless its caller says otherwise.
    pub env: Vec<(String, String)>,
}

impl Root {
    fn check(&self) -> Result<(), SandboxError> {
        let too_many = |what: &str, max: usize| {
            Err(SandboxError::TooMany { what: what.to_owned(), max: max as u64 })
        };
        if self.layers.is_empty() {
            return Err(SandboxError::invalid("an image needs at least one layer"));
        }
        if self.layers.len() > IMAGE_LAYERS_MAX {
            return too_many("the number of layers of an image", IMAGE_LAYERS_MAX);
        }
        if self.layers.iter().any(|path| !path.is_absolute() || path.to_str().is_none()) {
            return Err(SandboxError::invalid("a layer of an image is no absolute UTF-8 path"));
        }
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.env.len() > IMAGE_VARIABLES_MAX {
            return too_many("the number of variables of an image", IMAGE_VARIABLES_MAX);
        }
        if bytes > IMAGE_VARIABLES_BYTES_MAX {
            return too_many("the bytes of an image's variables", IMAGE_VARIABLES_BYTES_MAX);
        }
        Ok(())
    }
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSpec {
    /// Host name inside: `[a-z0-9-]{1,63}`.
    pub name: String,
    /// The workspace, and memory when there is any.
    pub trees: Trees,
    /// The image that it stands on; without one, the host's `/usr`.
    pub root: Option<Root>,
    /// Limits over all processes inside.
    pub limits: Limits,
    /// Whether watched limits are acceptable.
    pub limits_strength: LimitsStrength,
    /// Bytes of `/tmp`, `/dev/shm` and the agent's home together.
    pub scratch_bytes: u64,
    /// Path rules.
    pub rules: FsRules,
}

impl CreateSpec {
    /// A sandbox over this workspace with default limits and no path rules.
    #[must_use]
    pub fn new(trees: impl Into<Trees>) -> Self {
        Self {
            name: "bedplate".to_owned(),
            trees: trees.into(),
            root: None,
            limits: Limits::default(),
            limits_strength: LimitsStrength::Any,
            scratch_bytes: SCRATCH_BYTES_DEFAULT,
            rules: FsRules::default(),
        }
    }

    /// Checks what can be checked without the system.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`], [`SandboxError::TooMany`] or [`SandboxError::Rule`].
    pub fn check(&self) -> Result<(), SandboxError> {
        let name = self.name.as_bytes();
        let label = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        if name.is_empty() || name.len() > 63 || !name.iter().all(label) {
            return Err(SandboxError::invalid(format!(
                "'{}' is no host name: 1 to 63 of a-z, 0-9 and -",
                self.name
            )));
        }
        if self.limits.memory_bytes < MEMORY_BYTES_MIN || self.limits.processes == 0 {
            return Err(SandboxError::invalid(
                "a sandbox needs at least 8 MiB of memory and one process",
            ));
        }
        self.trees.check()?;
        self.root.as_ref().map_or(Ok(()), Root::check)?;
        self.rules.check()
    }
}

/// The least memory a sandbox can be given, bytes.
pub const MEMORY_BYTES_MIN: u64 = 8 << 20;

impl Overlay {
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        if self.lowers.is_empty() {
            return Err(SandboxError::invalid("a workspace needs at least one layer"));
        }
        if self.lowers.len() > STACK_MAX {
            return Err(SandboxError::TooMany {
                what: "the number of layers of a workspace".to_owned(),
                max: STACK_MAX as u64,
            });
        }
        let mut all = self.lowers.iter().chain([&self.upper, &self.work]);
        match all.find(|path| !path.is_absolute() || path.to_str().is_none()) {
            Some(path) => Err(SandboxError::invalid(format!(
                "'{}' is not an absolute UTF-8 path",
                path.display()
            ))),
            None => Ok(()),
        }
    }
}

impl FsRules {
    fn check(&self) -> Result<(), SandboxError> {
        let lists = [self.read.as_deref(), self.write.as_deref()];
        let prefixes = lists.into_iter().flatten().flatten();
        let denied = self.deny_read.iter().chain(&self.deny_write);
        let mut count = self.mounts.len();
        for path in prefixes.chain(denied) {
            count += 1;
            if tree_of(path).is_none() || !is_normal(path) {
                return Err(SandboxError::Rule {
                    path: path.clone(),
                    why: "only normalised paths under /workspace and /memory can be ruled"
                        .to_owned(),
                });
            }
        }
        if let Some(path) = self.deny_read.iter().find(|path| *path == WORKSPACE) {
            return Err(SandboxError::Rule {
                path: path.clone(),
                why: "the workspace as a whole is denied with an empty `read` list".to_owned(),
            });
        }
        for mount in &self.mounts {
            if !mount.host.is_absolute() || mount.host.to_str().is_none() || !is_normal(&mount.path)
            {
                return Err(SandboxError::Rule {
                    path: mount.path.clone(),
                    why: "both sides of a mount are absolute, normalised UTF-8 paths".to_owned(),
                });
            }
        }
        if count > RULES_MAX {
            return Err(SandboxError::TooMany {
                what: "the number of path rules".to_owned(),
                max: RULES_MAX as u64,
            });
        }
        Ok(())
    }
}

/// The tree that a path inside belongs to: [`WORKSPACE`] or [`MEMORY`].
pub(crate) fn tree_of(path: &str) -> Option<&'static str> {
    [WORKSPACE, MEMORY].into_iter().find(|tree| {
        path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether a path is absolute and has no `.`, `..`, empty part or NUL.
#[must_use]
pub fn is_normal(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains('\0')
        && (path == "/" || path[1..].split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// What limits are enforced by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// cgroup v2.
    KernelV2,
    /// cgroup v1 controllers.
    KernelV1,
    /// rlimits, a process count per user namespace, sized tmpfs, and sampling; CPU is not limited.
    Watched,
}

/// What containment a sandbox has: for the log and `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// `process`.
    pub driver: String,
    /// How limits are enforced.
    pub limits: Strength,
    /// Landlock's ABI.
    pub landlock_abi: u32,
    /// Host uid of the processes inside.
    pub host_uid: u32,
    /// Whether whole directories of a layer can be renamed in place (root's overlay only).
    pub redirect_dir: bool,
}

/// A built sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// What contains it.
    pub facts: Facts,
}

/// What a program reads on standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stdin {
    /// End of file at once.
    #[default]
    Null,
    /// These bytes, then end of file. A program that does not read them is no error.
    Bytes(Vec<u8>),
    /// A pipe the caller writes to: [`crate::Running::take_stdin`].
    Pipe,
}

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments. Without `/` the program is searched in `PATH`.
    pub argv: Vec<String>,
    /// Variables, beside `PATH`, `HOME`, `LANG`, `USER` (which these replace).
    pub env: Vec<(String, String)>,
    /// Working directory, [`WORKSPACE`] when absent.
    pub cwd: Option<String>,
    /// Milliseconds after which everything inside is killed.
    pub timeout_ms: Option<u64>,
    /// Standard input.
    pub stdin: Stdin,
    /// Bytes of standard output and error kept together; the rest is counted and dropped.
    /// 0 is [`OUTPUT_BYTES_DEFAULT`].
    pub output_bytes_max: u64,
    /// The trees to use from now on, when they are others than before.
    pub trees: Option<Trees>,
    /// A file of certificates on the host that programs see where they look for the system's.
    pub trust: Option<PathBuf>,
}

/// Where programs look for the certificates they trust; the first is always there inside.
pub const TRUST_INSIDE: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

impl ExecSpec {
    /// A program with its arguments, and defaults for the rest.
    #[must_use]
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// `/bin/sh -c COMMAND`.
    #[must_use]
    pub fn shell(command: &str) -> Self {
        Self::new(["/bin/sh", "-c", command])
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It returned this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Ended {
    /// As a shell counts: the code, or 128 and the signal.
    #[must_use]
    pub const fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A limit that made us, or the kernel, end a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitHit {
    /// Memory.
    Memory,
    /// The workspace's growth.
    Disk,
    /// Processes: a fork was refused. The program may have gone on.
    Processes,
}

/// How an exec ended. Everything it started is gone when this is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecExit {
    /// How the main process ended.
    pub ended: Ended,
    /// Whether its time was up.
    pub timed_out: bool,
    /// The limit that was hit, if any.
    pub limit: Option<LimitHit>,
    /// Milliseconds from start to end.
    pub took_ms: u64,
}

/// An operation on files inside, under the same confinement as a program.
/// Relative paths start at [`WORKSPACE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FileOp {
    /// Reads a regular file.
    Read {
        /// Which.
        path: String,
        /// First line wanted, from 1; 0 and 1 mean the beginning.
        offset_line: u64,
        /// How many lines; 0 means all.
        limit_lines: u64,
        /// Bytes at most; longer output is cut and `truncated` set.
        max_bytes: u64,
    },
    /// Replaces or creates a regular file, and the directories above it.
    Write {
        /// Which.
        path: String,
        /// Content. Travels beside the frame.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// Replaces text in a UTF-8 file.
    Edit {
        /// Which.
        path: String,
        /// What to find, not empty.
        old: String,
        /// What to put there.
        new: String,
        /// How often `old` must occur.
        expected_count: u64,
    },
    /// What is there.
    Stat {
        /// Which; a last symbolic link is not followed.
        path: String,
    },
    /// The entries of a directory, sorted.
    List {
        /// Which.
        path: String,
        /// Entries at most.
        max_entries: u64,
    },
    /// Files under the workspace that match a glob, sorted.
    Glob {
        /// Relative to the workspace; `**` crosses directories.
        pattern: String,
        /// Entries at most.
        max_entries: u64,
    },
}

impl FileOp {
    /// The path it names.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Read { path, .. }
            | Self::Write { path, .. }
            | Self::Edit { path, .. }
            | Self::Stat { path }
            | Self::List { path, .. } => path,
            Self::Glob { pattern, .. } => pattern,
        }
    }
}

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Other,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Relative to what was listed; as asked, for `Stat`.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
}

/// The answer to a [`FileOp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum FileResult {
    /// Content.
    Read {
        /// What was read. Travels beside the frame.
        #[serde(skip)]
        bytes: Vec<u8>,
        /// Number of the first line returned, from 1.
        first_line: u64,
        /// Lines returned.
        lines: u64,
        /// Lines of the whole file.
        total_lines: u64,
        /// Bytes of the whole file.
        size: u64,
        /// Whether lines or bytes that were asked for are missing.
        truncated: bool,
    },
    /// Written.
    Written {
        /// Bytes.
        size: u64,
        /// Whether the file is new.
        created: bool,
    },
    /// Edited.
    Edited {
        /// Places changed.
        count: u64,
    },
    /// One entry.
    Stat(FileStat),
    /// Entries.
    List {
        /// Sorted by path.
        entries: Vec<FileStat>,
        /// Whether there are more.
        truncated: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    #[test]
    fn paths_are_normal_or_not() {
        for path in ["/", "/a", "/a/b.c", "/a/..b", "/workspace"] {
            assert!(is_normal(path), "{path}");
        }
        for path in ["", "a", "/a/", "//", "/a//b", "/a/./b", "/a/..", "/a\0"] {
            assert!(!is_normal(path), "{path}");
        }
    }

    #[test]
    fn rules_have_a_limit_at_its_edge() {
        let rules = |count: usize| FsRules {
            deny_read: vec!["/workspace/x".to_owned(); count],
            ..FsRules::default()
        };
        assert_eq!(rules(RULES_MAX).check(), Ok(()));
        assert_eq!(rules(RULES_MAX + 1).check().unwrap_err().code(), "BP-SANDBOX-010");
    }

    #[test]
    fn names_are_host_names() {
        let overlay = Overlay {
            lowers: vec!["/l".into()],
            upper: "/u".into(),
            work: "/w".into(),
            grown_bytes: 0,
        };
        let named =
            |name: &str| CreateSpec { name: name.to_owned(), ..CreateSpec::new(overlay.clone()) };
        for name in ["a", "run-7", &"x".repeat(63)] {
            assert!(named(name).check().is_ok(), "{name}");
        }
        for name in ["", "A", "a.b", "a/b", "a\n", &"x".repeat(64)] {
            assert_eq!(named(name).check().unwrap_err().code(), "BP-SANDBOX-024", "{name}");
        }
    }
}
