//! Looks for a secret where it must not be: every file below a directory as it lies there (logs of
//! SQLite and layers included), the memory of every process of a sandbox and of the gate, and what
//! commands said.
//!
//! Processes are found by what they were started from; what the kernel does not let us read is
//! counted, so that a test can tell a clean look from none.

use crate::support::Said;
use aho_corasick::AhoCorasick;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes of memory that are read at once; a value across two reads is seen by their overlap.
const READ_BYTES: usize = 1 << 20;

/// Finds a value in the ways in which it is looked for.
fn forms(value: &str) -> AhoCorasick {
    let bytes = value.as_bytes();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    // The middle of its base64, as it stands at each offset of a longer text.
    let base64 = (0..3).map(|offset| {
        let padded = [&b"xx"[..offset], bytes].concat();
        let whole = base64(&padded);
        let from = if offset == 0 { 0 } else { offset + 1 };
        whole.as_bytes()[from..whole.len() - 4].to_vec()
    });
    let forms = base64.chain([bytes.to_vec(), hex.into_bytes()]);
    AhoCorasick::new(forms).expect("few and short")
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = bytes.chunks(3).map(|group| {
        let word = group.iter().fold(0u32, |word, b| word << 8 | u32::from(*b));
        let word = word << (8 * (3 - group.len()));
        (0..4)
            .map(|at| match at <= group.len() {
                true => char::from(LETTERS[(word >> (18 - 6 * at)) as usize & 63]),
                false => '=',
            })
            .collect::<String>()
    });
    groups.collect()
}

/// Files below a directory that hold the value, in any form.
pub(crate) fn files(dir: &Path, value: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(dir, &forms(value), &mut found);
    found
}

fn walk(dir: &Path, forms: &AhoCorasick, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&path, forms, found),
            Ok(kind) if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if forms.is_match(&bytes) {
                    found.push(path);
                }
            }
            _ => {}
        }
    }
}

/// Whether a command said it.
pub(crate) fn said(said: &Said, value: &str) -> bool {
    let forms = forms(value);
    forms.is_match(&said.stdout) || forms.is_match(&said.stderr)
}

/// What a look into processes came to.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Bytes that were read.
    pub(crate) bytes: u64,
    /// Processes that were read.
    pub(crate) processes: BTreeSet<i32>,
    /// Those that hold the value, by id and name.
    pub(crate) holding: Vec<String>,
}

/// Reads the memory of these processes, as far as the kernel lets us.
pub(crate) fn memory(processes: &[i32], value: &str) -> Memory {
    let forms = forms(value);
    let mut memory = Memory::default();
    for pid in processes {
        let read = read_process(*pid, &forms);
        let Some((bytes, holding)) = read else { continue };
        if bytes > 0 {
            memory.processes.insert(*pid);
            memory.bytes += bytes;
        }
        if holding {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            memory.holding.push(format!("{pid} {}", name.trim()));
        }
    }
    memory
}

fn read_process(pid: i32, forms: &AhoCorasick) -> Option<(u64, bool)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut source = File::open(format!("/proc/{pid}/mem")).ok()?;
    let overlap = forms.max_pattern_len() as u64;
    let (mut bytes, mut holding) = (0, false);
    let mut buffer = vec![0; READ_BYTES];
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ')?;
        if !rest.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-')?;
        let (mut at, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        while at < to && source.seek(SeekFrom::Start(at)).is_ok() {
            let most = (to - at).min(READ_BYTES as u64) as usize;
            let Ok(count @ 1..) = source.read(&mut buffer[..most]) else { break };
            bytes += count as u64;
            holding |= forms.is_match(&buffer[..count]);
            let step = count as u64;
            at += if step > overlap && at + step < to { step - overlap } else { step };
        }
    }
    Some((bytes, holding))
}

/// Every process below this one, itself not counted.
pub(crate) fn below(pid: i32) -> Vec<i32> {
    let all: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut found: Vec<i32> = Vec::new();
    let mut next = vec![pid];
    while let Some(above) = next.pop() {
        let children = all.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid);
        for child in children {
            if !found.contains(&child) {
                found.push(child);
                next.push(child);
            }
        }
    }
    found
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(')')?.1;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_value_is_seen_where_it_is() {
    let value = "value-that-is-looked-for-4711";
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir_all(dir.path().join("a/b")).expect("made");
    assert!(files(dir.path(), value).is_empty());
    for (at, text) in [
        format!("x{value}y"),
        base64(value.as_bytes()),
        base64(format!("a{value}").as_bytes()),
        base64(format!("ab{value}z").as_bytes()),
        value.bytes().map(|b| format!("{b:02x}")).collect(),
    ]
    .iter()
    .enumerate()
    {
        std::fs::write(dir.path().join(format!("a/b/{at}")), text).expect("written");
        assert_eq!(files(dir.path(), value).len(), at + 1, "{text}");
    }
    // Our own memory holds it: the look works.
    let own = i32::try_from(std::process::id()).expect("a pid");
    let found = memory(&[own], value);
    assert_eq!(found.holding.len(), 1, "{found:?}");
    assert!(below(1).contains(&own) || parent(own).is_some());
}
