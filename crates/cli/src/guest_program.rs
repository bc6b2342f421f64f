//! Where a guest's program is in its sandbox, and what of the host it needs to see for that.
//!
//! Inside there is the host's `/usr` and the workspace. A program that lies elsewhere is shown
//! read-only below `/mnt/guest`: its whole `node_modules` when it lies in one, since it looks for
//! its own packages there; else the one file. The same for the interpreter its first line names.
//! What is shown joins `[sandbox] mounts`, so it stands in the log, and a policy that forbids a
//! mount refuses the run.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use types::manifest::Manifest;

/// Directories of the host that are seen inside at the same place.
const SEEN: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Where programs are looked for inside.
const PATH_INSIDE: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// Where single programs are shown.
const BIN: &str = "/mnt/guest/bin";
/// Where a program's packages are shown.
const MODULES: &str = "/mnt/guest/node_modules";
/// Bytes of a program's first line that are looked at.
const FIRST_LINE_BYTES_MAX: u64 = 256;

/// Puts the program's place inside into the manifest, with the mounts it needs. `here` is what a
/// relative path is relative to. Says what is shown besides. What is not found is left as it is:
/// the sandbox says so.
pub(crate) fn place(manifest: &mut Manifest, workspace: Option<&Path>, here: &Path) -> Vec<String> {
    let Some(program) = manifest.agent.command.first().cloned() else {
        return Vec::new();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let look = Look { workspace, here, path: &path };
    let mut mounts = Vec::new();
    manifest.agent.command[0] = look.program(&program, &mut mounts);
    let mut shown = Vec::new();
    for (inside, host) in mounts {
        // What the manifest says is there is the operator's choice.
        let host = host.to_string_lossy().into_owned();
        let entry = manifest.sandbox.mounts.entry(inside.clone());
        if let std::collections::btree_map::Entry::Vacant(free) = entry {
            shown.push(format!("{host} read-only as {inside}"));
            free.insert(host);
        }
    }
    shown
}

type Mounts = Vec<(String, PathBuf)>;

struct Look<'a> {
    workspace: Option<&'a Path>,
    here: &'a Path,
    path: &'a OsStr,
}

impl Look<'_> {
    fn program(&self, program: &str, mounts: &mut Mounts) -> String {
        let Some(real) = self.find(program) else {
            return program.to_owned();
        };
        let placed = self.placed(program, &real, mounts);
        if let Some(interpreter) = interpreter(&real) {
            self.interpreter(&interpreter, mounts);
        }
        placed
    }

    /// The file that a program's name means, without links; nothing when there is none.
    fn find(&self, program: &str) -> Option<PathBuf> {
        if program.contains('/') {
            return self.here.join(program).canonicalize().ok().filter(|path| path.is_file());
        }
        let inside = PATH_INSIDE.iter().map(PathBuf::from);
        let seen = inside.filter_map(|dir| executable(&dir.join(program))).find(|p| is_seen(p));
        let mut own = std::env::split_paths(self.path);
        seen.or_else(|| own.find_map(|dir| executable(&dir.join(program))))
    }

    fn placed(&self, program: &str, real: &Path, mounts: &mut Mounts) -> String {
        if is_seen(real) {
            let named = PATH_INSIDE.iter().any(|dir| Path::new(dir).join(program).exists());
            return if named { program.to_owned() } else { text(real) };
        }
        if let Some(rest) = self.workspace.and_then(|dir| real.strip_prefix(dir).ok()) {
            return format!("/workspace/{}", text(rest));
        }
        if let Some((modules, rest)) = in_modules(real) {
            mounts.push((MODULES.to_owned(), modules));
            return format!("{MODULES}/{}", text(&rest));
        }
        let name = Path::new(program).file_name().map(|name| text(Path::new(name)));
        let inside = format!("{BIN}/{}", name.unwrap_or_else(|| "program".to_owned()));
        mounts.push((inside.clone(), real.to_owned()));
        inside
    }

    /// An interpreter that is looked for by its name and is not seen inside.
    fn interpreter(&self, name: &str, mounts: &mut Mounts) {
        if let Some(real) = self.find(name).filter(|real| !is_seen(real)) {
            mounts.push((format!("{BIN}/{name}"), real));
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn is_seen(path: &Path) -> bool {
    SEEN.iter().any(|dir| path.starts_with(dir))
}

fn executable(path: &Path) -> Option<PathBuf> {
    let meta = path.metadata().ok()?;
    let runs = meta.is_file() && meta.permissions().mode() & 0o111 != 0;
    path.canonicalize().ok().filter(|_| runs)
}

/// The outermost `node_modules` a path lies in, and the way from there.
fn in_modules(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut modules = PathBuf::new();
    let mut parts = path.components();
    for part in parts.by_ref() {
        modules.push(part);
        if part == Component::Normal(OsStr::new("node_modules")) {
            return Some((modules, parts.as_path().to_owned()));
        }
    }
    None
}

/// The program that `#!/usr/bin/env NAME` names.
fn interpreter(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut begin = Vec::new();
    file.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut begin).ok()?;
    let line = begin.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("#!")?;
    let mut words = line.split_whitespace();
    let env = words.next().filter(|word| word.ends_with("/env"));
    env.and_then(|_| words.find(|word| *word != "-S")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(path, text).expect("written");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("set");
    }

    #[test]
    fn a_program_is_found_where_the_sandbox_sees_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().canonicalize().expect("there");
        let (own, work) = (root.join("bin"), root.join("work"));
        write(&own.join("tool"), "#!/usr/bin/env -S odd --flag\n");
        write(&own.join("odd"), "");
        write(&root.join("lib/node_modules/@openai/codex/bin/codex.js"), "");
        let linked = "../lib/node_modules/@openai/codex/bin/codex.js";
        std::os::unix::fs::symlink(linked, own.join("codex")).expect("linked");
        write(&work.join("agent.sh"), "#!/bin/sh\n");
        let look = Look { workspace: Some(&work), here: &work, path: own.as_os_str() };
        let check = |program: &str, placed: &str, shown: &[(&str, &str)]| {
            let mut mounts = Vec::new();
            assert_eq!(look.program(program, &mut mounts), placed, "{program}");
            let shown: Mounts =
                shown.iter().map(|(at, host)| ((*at).to_owned(), root.join(host))).collect();
            assert_eq!(mounts, shown, "{program}");
        };
        check("sh", "sh", &[]);
        check("./agent.sh", "/workspace/agent.sh", &[]);
        check("no-such-program", "no-such-program", &[]);
        let modules = ("/mnt/guest/node_modules", "lib/node_modules");
        check("codex", "/mnt/guest/node_modules/@openai/codex/bin/codex.js", &[modules]);
        let both = [("/mnt/guest/bin/tool", "bin/tool"), ("/mnt/guest/bin/odd", "bin/odd")];
        check("tool", "/mnt/guest/bin/tool", &both);
    }

    #[test]
    fn what_the_manifest_shows_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        write(&dir.path().join("tool"), "");
        let program = dir.path().join("tool");
        let text = format!(
            "schema = 1\n[agent]\ncommand = [{:?}]\n[sandbox]\nmounts = {{ \"/mnt/guest/bin/tool\" = \"/x\" }}\n",
            program
        );
        let mut manifest = types::manifest::parse(&text).expect("valid");
        assert!(place(&mut manifest, None, Path::new("/")).is_empty());
        assert_eq!(manifest.sandbox.mounts["/mnt/guest/bin/tool"], "/x");
        assert_eq!(manifest.agent.command, ["/mnt/guest/bin/tool"]);
    }
}
