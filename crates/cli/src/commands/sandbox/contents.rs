//! Files of a kept sandbox, as its sealed state has them.
//!
//! A path is one below the workspace. What always holds: it is walked here name by name, in the
//! layers, and a link on the way is followed only while it stays in the workspace; so nothing of the
//! host is ever opened, and what is written is written where it was looked for.

use super::verbs;
use crate::error::{Failed, Result};
use crate::session::Session;
use ::sandbox::layers::LayerStore;
use ::sandbox::{FileKind, FileStat};
use serde_json::{Value, json};
use server::ServeError;
use std::fs::File;
use std::path::{Path, PathBuf};
use types::LayerId;

/// Where the workspace is in a sandbox, as links name it.
const WORKSPACE: &str = "workspace";
/// Links that are followed for one path.
const LINKS_MAX: u32 = 40;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4_096;

/// The files of a sandbox at the moment it is at.
struct Contents {
    layers: LayerStore,
    layer: LayerId,
}

/// What stands at a path without links, and where a link leads.
type Entry = (FileStat, Option<PathBuf>);

fn part(error: ::sandbox::SandboxError) -> Failed {
    runtime::RuntimeError::part(&error).into()
}

fn failed(error: &ServeError) -> Failed {
    use types::Coded as _;
    Failed::of(error.failure())
}

fn bad(path: &str, reason: &str) -> Failed {
    let path = path.chars().take(200).collect();
    failed(&ServeError::Path { path, reason: reason.to_owned() })
}

fn absent(path: &str) -> Failed {
    failed(&ServeError::NoFile { path: path.to_owned() })
}

/// The names of a path; `..` and another root than the workspace are refused.
fn names(path: &str) -> Result<Vec<String>> {
    if path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(bad(path, "it is too long, or has a NUL character"));
    }
    let mut names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if path.starts_with('/') {
        if names.first() != Some(&WORKSPACE) {
            return Err(bad(path, "it is not below /workspace"));
        }
        names.remove(0);
    }
    if names.contains(&"..") {
        return Err(bad(path, "it goes up with '..'"));
    }
    Ok(names.into_iter().map(str::to_owned).collect())
}

impl Contents {
    fn of(session: &Session, id: &str) -> Result<Self> {
        let layer = verbs::found(session, id)?.state.layer.expect("a sandbox has a base layer");
        let layers = LayerStore::open(session.home.path()).map_err(part)?;
        Ok(Self { layers, layer })
    }

    fn entry(&self, path: &str) -> Result<Option<Entry>> {
        self.layers.entry(&self.layer, path).map_err(part)
    }

    /// Where a path really is: names without links, from the root of the workspace. Of the last one
    /// it is only said where it would be; it is followed on demand.
    fn place(&self, asked: &str, follow_last: bool) -> Result<String> {
        let mut todo = names(asked)?;
        todo.reverse();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop()
                        .ok_or_else(|| bad(asked, "a link on the way leaves the workspace"))?;
                    continue;
                }
                _ => done.push(name),
            }
            let here = done.join("/");
            let target = match self.entry(&here)? {
                Some((stat, target)) if stat.kind == FileKind::Symlink => target,
                _ => continue,
            };
            if todo.is_empty() && !follow_last {
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(bad(asked, "too many links lead on from it"));
            }
            let target = target.unwrap_or_default();
            done.pop();
            self.follow(asked, &target, &mut done, &mut todo)?;
        }
        Ok(done.join("/"))
    }

    /// Puts the names of a link's target before those that are left.
    fn follow(
        &self,
        asked: &str,
        target: &Path,
        done: &mut Vec<String>,
        todo: &mut Vec<String>,
    ) -> Result<()> {
        let text = target.to_str().ok_or_else(|| bad(asked, "a link on the way is no UTF-8"))?;
        let mut rest: Vec<&str> = text.split('/').collect();
        if text.starts_with('/') {
            done.clear();
            rest.retain(|name| !matches!(*name, "" | "."));
            if rest.first() != Some(&WORKSPACE) {
                return Err(bad(asked, "a link on the way leaves the workspace"));
            }
            rest.remove(0);
        }
        todo.extend(rest.into_iter().rev().map(str::to_owned));
        Ok(())
    }
}

fn told(name: &str, path: &str, (stat, target): &Entry) -> Value {
    let kind = match stat.kind {
        FileKind::File => "file",
        FileKind::Dir => "directory",
        FileKind::Symlink => "link",
        FileKind::Other => "other",
    };
    let mut told = json!({
        "name": name,
        "path": path,
        "kind": kind,
        "bytes": if stat.kind == FileKind::File { stat.size } else { 0 },
        "mode": stat.mode,
        "modified": stat.mtime,
    });
    if let Some(target) = target {
        told["target"] = json!(target.to_string_lossy());
    }
    told
}

/// What lies in a directory: from this entry on, so many, sorted by name.
pub(crate) fn entries(
    session: &Session,
    id: &str,
    dir: &str,
    (from, limit): (usize, usize),
) -> Result<Value> {
    let contents = Contents::of(session, id)?;
    let place = contents.place(dir, true)?;
    if !place.is_empty() {
        match contents.entry(&place)? {
            None => return Err(absent(dir)),
            Some((stat, _)) if stat.kind != FileKind::Dir => {
                return Err(bad(dir, "it is no directory"));
            }
            Some(_) => {}
        }
    }
    let below = if place.is_empty() { String::new() } else { format!("{place}/") };
    let all = contents.layers.list_files(&contents.layer).map_err(part)?;
    let names = all.iter().filter_map(|stat| stat.path.strip_prefix(&below));
    let names: Vec<&str> = names.filter(|name| !name.is_empty() && !name.contains('/')).collect();
    let mut shown = Vec::new();
    for name in names.iter().skip(from).take(limit) {
        let path = format!("{below}{name}");
        if let Some(entry) = contents.entry(&path)? {
            shown.push(told(name, &path, &entry));
        }
    }
    let next = from.saturating_add(limit);
    let next = (next < names.len()).then_some(next);
    Ok(json!({ "path": place, "entries": shown, "next": next }))
}

/// What stands at a path; the last name is told as it is, and not followed.
pub(crate) fn stat(session: &Session, id: &str, path: &str) -> Result<Value> {
    let contents = Contents::of(session, id)?;
    let place = contents.place(path, false)?;
    let entry = contents.entry(&place)?.ok_or_else(|| absent(path))?;
    let name = place.rsplit('/').next().unwrap_or_default();
    Ok(told(name, &place, &entry))
}

/// A file to be read, and its size.
pub(crate) fn open(session: &Session, id: &str, path: &str) -> Result<(File, u64)> {
    let contents = Contents::of(session, id)?;
    let place = contents.place(path, true)?;
    let (stat, _) = contents.entry(&place)?.ok_or_else(|| absent(path))?;
    match stat.kind {
        FileKind::File => {}
        FileKind::Dir => return Err(bad(path, "it is a directory")),
        _ => return Err(bad(path, "it is a device or another special file")),
    }
    let file = contents.layers.open_file(&contents.layer, &place).map_err(part)?;
    Ok((file, stat.size))
}

/// Where a file that is to be written really is.
pub(crate) fn place(session: &Session, id: &str, path: &str) -> Result<String> {
    let contents = Contents::of(session, id)?;
    let place = contents.place(path, true)?;
    if place.is_empty() {
        return Err(bad(path, "it is the workspace itself"));
    }
    match contents.entry(&place)?.map(|(stat, _)| stat.kind) {
        None | Some(FileKind::File) => Ok(place),
        Some(FileKind::Dir) => Err(bad(path, "it is a directory")),
        Some(_) => Err(bad(path, "it is a device or another special file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_below_the_workspace() {
        let check = |path: &str, expected: std::result::Result<&[&str], &str>| {
            let got = names(path).map_err(|failed| failed.failure.code);
            let expected = expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
            assert_eq!(got, expected.map_err(str::to_owned), "{path}");
        };
        check("", Ok(&[]));
        check("a//b/./c", Ok(&["a", "b", "c"]));
        check("/workspace/a", Ok(&["a"]));
        check("/workspace", Ok(&[]));
        check("..a/b..", Ok(&["..a", "b.."]));
        for wrong in ["..", "a/../b", "/etc/passwd", "/workspace/../etc", "/", "a\0b"] {
            check(wrong, Err("BP-SERVE-017"));
        }
        check(&"x".repeat(PATH_BYTES_MAX + 1), Err("BP-SERVE-017"));
        let longest = "x".repeat(PATH_BYTES_MAX);
        check(&longest, Ok(&[longest.as_str()]));
    }

    fn contents() -> (tempfile::TempDir, Contents) {
        let dir = tempfile::tempdir().expect("a directory");
        let from = dir.path().join("w");
        std::fs::create_dir_all(from.join("d/e")).expect("made");
        std::fs::write(from.join("d/e/f"), "text").expect("written");
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, from.join(name)).expect("made");
        };
        link("d/e", "in");
        link("/workspace/d", "absolute");
        link("../d/../../etc/passwd", "d/up");
        link("../d/e/f", "d/down");
        link("/etc/passwd", "out");
        link("/workspaces", "beside");
        link("loop", "loop");
        link("d/e/new", "new");
        let layers = LayerStore::open(&dir.path().join("h")).expect("opens");
        let layer = layers.import(&from, 1 << 20).expect("imported").layer;
        (dir, Contents { layers, layer })
    }

    #[test]
    fn links_are_followed_within_the_workspace_and_nowhere_else() {
        let (_dir, contents) = contents();
        let check = |path: &str, expected: Option<&str>| {
            let got = contents.place(path, true).map_err(|failed| failed.failure.code);
            let expected = expected.map(str::to_owned).ok_or("BP-SERVE-017".to_owned());
            assert_eq!(got, expected, "{path}");
        };
        check("in/f", Some("d/e/f"));
        check("absolute/e/f", Some("d/e/f"));
        check("d/down", Some("d/e/f"));
        check("new", Some("d/e/new"));
        check("missing/too", Some("missing/too"));
        for wrong in ["d/up", "out", "out/x", "beside", "loop", "absolute/up", "in/../../x"] {
            check(wrong, None);
        }
        assert_eq!(contents.place("out", false).ok().as_deref(), Some("out"), "it is told");
    }
}
