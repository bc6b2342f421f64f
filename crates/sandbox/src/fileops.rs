//! File operations, done by our own code inside the sandbox.
//!
//! They run after every restriction is in force, so a path means here exactly what it means to a
//! program: links resolve inside, rules bind, the host is not there. The answer goes to standard
//! output as a length, a JSON header and raw bytes; a failure goes to the report.

use crate::SandboxError;
use crate::spec::{FileKind, FileOp, FileResult, FileStat, WORKSPACE};
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes one `Read` returns at most, whatever was asked.
pub const READ_BYTES_MAX: u64 = 16 << 20;
/// Bytes one `Write` takes at most.
pub const WRITE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a file that `Edit` takes.
pub const EDIT_BYTES_MAX: u64 = 16 << 20;
/// Entries one `List` or `Glob` returns at most.
pub const ENTRIES_MAX: u64 = 10_000;
/// Entries a `Glob` looks at before it stops.
const VISITED_MAX: u64 = 1_000_000;
/// Directories deep a `Glob` goes.
const DEPTH_MAX: usize = 128;

/// Performs one operation and writes the answer.
pub(crate) fn perform(op: &FileOp) -> Result<(), SandboxError> {
    let result = match op {
        FileOp::Read { path, offset_line, limit_lines, max_bytes } => {
            read(path, *offset_line, *limit_lines, *max_bytes)?
        }
        FileOp::Write { path, .. } => write(path)?,
        FileOp::Edit { path, old, new, expected_count } => edit(path, old, new, *expected_count)?,
        FileOp::Stat { path } => stat(path)?,
        FileOp::List { path, max_entries } => list(path, *max_entries)?,
        FileOp::Glob { pattern, max_entries } => glob(pattern, *max_entries)?,
    };
    answer(&result).map_err(|error| SandboxError::setup("answering", error))
}

fn answer(result: &FileResult) -> io::Result<()> {
    let header = serde_json::to_vec(result)?;
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    let mut out = File::from(rustix::io::dup(rustix::stdio::stdout())?);
    out.write_all(&length.to_be_bytes())?;
    out.write_all(&header)?;
    if let FileResult::Read { bytes, .. } = result {
        out.write_all(bytes)?;
    }
    Ok(())
}

/// Reads what [`perform`] wrote.
pub(crate) fn parse_answer(bytes: &[u8]) -> Result<FileResult, SandboxError> {
    let bad =
        || SandboxError::Frame { why: "the answer of a file operation is cut off".to_owned() };
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(bad)?;
    let length = u32::from_be_bytes(*length) as usize;
    let header = rest.get(..length).ok_or_else(bad)?;
    let mut result = crate::wire::decode(header)?;
    if let FileResult::Read { bytes, .. } = &mut result {
        *bytes = rest[length..].to_vec();
    }
    Ok(result)
}

fn absolute(path: &str) -> PathBuf {
    Path::new(WORKSPACE).join(path)
}

fn fail(path: &str, access: &str, error: &io::Error) -> SandboxError {
    let path = path.to_owned();
    match error.raw_os_error() {
        Some(libc::ENOENT) => SandboxError::NoSuchFile { path },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            SandboxError::PathDenied { path, access: access.to_owned() }
        }
        Some(libc::EISDIR) => wrong(path, "a directory"),
        _ => SandboxError::FileOp { path, why: error.to_string() },
    }
}

fn wrong(path: String, found: &str) -> SandboxError {
    SandboxError::WrongKind { path, found: found.to_owned() }
}

/// Opens a regular file. A fifo does not make us wait: it is opened without blocking, then refused.
fn open(path: &str) -> Result<(File, Metadata), SandboxError> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(absolute(path))
        .map_err(|error| fail(path, "read", &error))?;
    let meta = file.metadata().map_err(|error| fail(path, "read", &error))?;
    match kind(&meta) {
        FileKind::File => Ok((file, meta)),
        FileKind::Dir => Err(wrong(path.to_owned(), "a directory")),
        _ => Err(wrong(path.to_owned(), "not a regular file")),
    }
}

fn read(path: &str, offset: u64, limit: u64, max_bytes: u64) -> Result<FileResult, SandboxError> {
    let (file, meta) = open(path)?;
    let first = offset.max(1);
    let last = if limit == 0 { u64::MAX } else { first.saturating_add(limit - 1) };
    let max = usize::try_from(max_bytes.min(READ_BYTES_MAX)).unwrap_or(usize::MAX);
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut bytes = Vec::new();
    let (mut line, mut cut, mut open_line) = (1, false, false);
    loop {
        let chunk = reader.fill_buf().map_err(|error| fail(path, "read", &error))?;
        if chunk.is_empty() {
            break;
        }
        let end = chunk.iter().position(|b| *b == b'\n').map(|at| at + 1);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if (first..=last).contains(&line) {
            let room = max - bytes.len();
            cut |= part.len() > room;
            bytes.extend_from_slice(&part[..part.len().min(room)]);
        }
        let used = part.len();
        open_line = end.is_none();
        line += u64::from(end.is_some());
        reader.consume(used);
    }
    let total_lines = line - 1 + u64::from(open_line);
    let returned = if bytes.is_empty() {
        0
    } else {
        bytes.iter().filter(|b| **b == b'\n').count() as u64 + u64::from(!bytes.ends_with(b"\n"))
    };
    Ok(FileResult::Read {
        bytes,
        first_line: first,
        lines: returned,
        total_lines,
        size: meta.len(),
        truncated: cut || total_lines > last,
    })
}

fn write(path: &str) -> Result<FileResult, SandboxError> {
    let denied = |error: io::Error| fail(path, "written", &error);
    let mut bytes = Vec::new();
    let input = rustix::io::dup(rustix::stdio::stdin()).map_err(|error| denied(error.into()))?;
    File::from(input).take(WRITE_BYTES_MAX).read_to_end(&mut bytes).map_err(denied)?;
    let target = absolute(path);
    let created = match fs::metadata(&target) {
        Ok(meta) if meta.is_dir() => return Err(wrong(path.to_owned(), "a directory")),
        Ok(meta) if !meta.is_file() => return Err(wrong(path.to_owned(), "not a regular file")),
        Ok(_) => false,
        Err(_) => true,
    };
    if let (true, Some(parent)) = (created, target.parent()) {
        fs::create_dir_all(parent).map_err(denied)?;
    }
    store(&target, &bytes).map_err(denied)?;
    Ok(FileResult::Written { size: bytes.len() as u64, created })
}

fn store(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(target)?;
    file.write_all(bytes)
}

fn edit(path: &str, old: &str, new: &str, expected: u64) -> Result<FileResult, SandboxError> {
    if old.is_empty() {
        return Err(SandboxError::invalid("the text to replace is empty"));
    }
    let (file, meta) = open(path)?;
    if meta.len() > EDIT_BYTES_MAX {
        return Err(SandboxError::TooMany {
            what: "the size in bytes of a file to edit".to_owned(),
            max: EDIT_BYTES_MAX,
        });
    }
    let mut text = String::new();
    file.take(EDIT_BYTES_MAX).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => wrong(path.to_owned(), "not UTF-8 text"),
        _ => fail(path, "read", &error),
    })?;
    let found = text.matches(old).count() as u64;
    if found != expected || found == 0 {
        return Err(SandboxError::EditMismatch { path: path.to_owned(), found, expected });
    }
    store(&absolute(path), text.replace(old, new).as_bytes())
        .map_err(|error| fail(path, "written", &error))?;
    Ok(FileResult::Edited { count: found })
}

fn kind(meta: &Metadata) -> FileKind {
    let kind = meta.file_type();
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Dir
    } else if kind.is_symlink() {
        FileKind::Symlink
    } else {
        FileKind::Other
    }
}

fn entry(path: String, meta: &Metadata) -> FileStat {
    FileStat {
        path,
        kind: kind(meta),
        size: meta.len(),
        mode: meta.permissions().mode() & 0o7777,
        mtime: meta.mtime(),
    }
}

fn stat(path: &str) -> Result<FileResult, SandboxError> {
    let meta = fs::symlink_metadata(absolute(path)).map_err(|error| fail(path, "read", &error))?;
    Ok(FileResult::Stat(entry(path.to_owned(), &meta)))
}

fn sorted(mut entries: Vec<FileStat>, max: u64) -> FileResult {
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let max = usize::try_from(max.clamp(1, ENTRIES_MAX)).unwrap_or(usize::MAX);
    let truncated = entries.len() > max;
    entries.truncate(max);
    FileResult::List { entries, truncated }
}

fn list(path: &str, max: u64) -> Result<FileResult, SandboxError> {
    let dir = fs::read_dir(absolute(path)).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTDIR) => wrong(path.to_owned(), "not a directory"),
        _ => fail(path, "read", &error),
    })?;
    let mut entries = Vec::new();
    for item in dir.take(VISITED_MAX as usize).flatten() {
        if let Ok(meta) = item.metadata() {
            entries.push(entry(item.file_name().to_string_lossy().into_owned(), &meta));
        }
    }
    Ok(sorted(entries, max))
}

fn glob(pattern: &str, max: u64) -> Result<FileResult, SandboxError> {
    let glob = globset::GlobBuilder::new(pattern.trim_start_matches("./"))
        .literal_separator(true)
        .build()
        .map_err(SandboxError::invalid)?
        .compile_matcher();
    let mut found = Vec::new();
    let mut visited = 0;
    let mut todo = vec![(PathBuf::from(WORKSPACE), 0)];
    while let Some((dir, depth)) = todo.pop() {
        // A directory that may not be read holds nothing for us.
        for item in fs::read_dir(&dir).into_iter().flatten().flatten() {
            visited += 1;
            let Ok(meta) = item.metadata() else { continue };
            let path = item.path();
            let Ok(relative) = path.strip_prefix(WORKSPACE) else {
                continue;
            };
            if glob.is_match(relative) && !meta.is_dir() {
                found.push(entry(relative.to_string_lossy().into_owned(), &meta));
            }
            if meta.is_dir() && depth < DEPTH_MAX {
                todo.push((path, depth + 1));
            }
        }
        if visited > VISITED_MAX || found.len() as u64 > ENTRIES_MAX {
            break;
        }
    }
    Ok(sorted(found, max))
}
