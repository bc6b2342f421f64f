//! Compiling the tests and knowing what came out.

use crate::cargo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What tests need built in, by package: places to die at, and containment that a test can leave
/// out. Neither does anything unless a test asks for it while it runs, so one build serves all
/// tests; what users build has neither, and the lints look at it so.
const FEATURES: [(&str, &str); 3] = [
    ("bedplate", "bedplate/failpoints"),
    ("bedplate", "bedplate/weakened"),
    ("bedplate-sandbox", "bedplate-sandbox/weakened"),
];

/// Tests that look at a program of ours from outside: package, script beside its tests, program.
/// The script gets the program's path, and its exit status is the result.
const SCRIPTS: [(&str, &str, &str); 1] = [("bedplate-store", "fdatasync.sh", "append_bench")];

/// Where cargo puts what it builds.
///
/// # Errors
/// When cargo cannot read the workspace.
pub(super) fn target_directory(root: &Path) -> Result<PathBuf, String> {
    let mut command = cargo(root);
    command.args(["metadata", "--no-deps", "--format-version=1"]).stderr(Stdio::inherit());
    let out = command.output().map_err(|e| format!("cannot start cargo: {e}"))?;
    let said: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo: {e}"))?;
    let folder = said["target_directory"].as_str().ok_or("cargo names no target directory")?;
    Ok(folder.into())
}

/// Cargo's arguments for these packages, or for all with none, with what their tests need.
pub(super) fn chosen<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut arguments: Vec<_> = packages.iter().flat_map(|package| ["-p", package]).collect();
    if packages.is_empty() {
        arguments.push("--workspace");
    }
    let wanted = FEATURES.into_iter().filter(|(p, _)| packages.is_empty() || packages.contains(p));
    arguments.extend(wanted.flat_map(|(_, feature)| ["--features", feature]));
    arguments
}

/// Cargo's messages about test executables that it compiled.
fn compiled(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = cargo(root);
    let out = command.arg("test").args(arguments).stderr(Stdio::inherit()).output();
    let out = out.map_err(|e| format!("cannot start cargo: {e}"))?;
    if !out.status.success() {
        return Err(out.status.to_string());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A test executable.
#[derive(Debug)]
pub(super) struct Binary {
    package: String,
    /// `lib`, `bin NAME` or `tests/NAME`.
    pub(super) target: String,
    pub(super) path: PathBuf,
    /// The folder of its crate, where tests run.
    pub(super) folder: PathBuf,
    /// For a script, the program it looks at. A script counts as one test.
    pub(super) program: Option<PathBuf>,
}

impl Binary {
    /// A name for files.
    pub(super) fn slug(&self) -> String {
        format!("{}-{}", self.package, self.target.replace(['/', ' '], "-"))
    }

    /// Runs it as this user, with a home and a temporary folder of its own.
    pub(super) fn command(&self, temporary: &Path, variables: &[(OsString, OsString)]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.program);
        command.current_dir(&self.folder).env_remove("BEDPLATE_HOME");
        command.env("TMPDIR", temporary).env("HOME", temporary.join("home"));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Everything that was built for testing.
#[derive(Debug, Default)]
pub(super) struct Build {
    tests: Vec<Binary>,
    /// Our programs, by name.
    programs: BTreeMap<String, PathBuf>,
}

impl Build {
    /// Builds the tests of `packages`, or of all.
    ///
    /// # Errors
    /// When something does not compile; cargo has said why.
    pub(super) fn make(root: &Path, packages: &[&str]) -> Result<Self, String> {
        let arguments =
            [&["--no-run", "--message-format=json-render-diagnostics"][..], &chosen(packages)]
                .concat();
        let mut build = Self::read(&compiled(root, &arguments)?);
        build.add_scripts();
        Ok(build)
    }

    /// Reads cargo's messages, one JSON object a line.
    fn read(messages: &str) -> Self {
        let mut build = Self::default();
        let lines = messages.lines();
        let parsed = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        for message in parsed.filter(|m| m["reason"] == "compiler-artifact") {
            build.add(&message);
        }
        build.tests.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
        build
    }

    /// A script is a test of its package, if that was built. Without its program it still runs,
    /// and fails.
    fn add_scripts(&mut self) {
        for (package, script, program) in SCRIPTS {
            let sibling = self.tests.iter().find(|b| b.package == package);
            let Some(folder) = sibling.map(|b| b.folder.clone()) else {
                continue;
            };
            let program = self.programs.get(program).cloned().unwrap_or_default();
            self.tests.push(Binary {
                package: package.to_owned(),
                target: format!("tests/{script}"),
                path: folder.join("tests").join(script),
                folder,
                program: Some(program),
            });
        }
    }

    fn add(&mut self, message: &Value) -> Option<()> {
        let path = PathBuf::from(message["executable"].as_str()?);
        let target = &message["target"];
        let (name, kind) = (target["name"].as_str()?, target["kind"][0].as_str()?);
        let manifest = PathBuf::from(message["manifest_path"].as_str()?);
        if message["profile"]["test"] != true {
            self.programs.insert(name.to_owned(), path);
            return Some(());
        }
        let target = match kind {
            "test" => format!("tests/{name}"),
            "bin" => format!("bin {name}"),
            kind => kind.to_owned(),
        };
        let package = package_name(message["package_id"].as_str()?).to_owned();
        self.tests.push(Binary {
            package,
            target,
            path,
            folder: manifest.parent()?.to_owned(),
            program: None,
        });
        Some(())
    }

    /// The packages that have test executables, each once.
    pub(super) fn packages(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tests.iter().map(|b| b.package.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn of(&self, package: &str) -> impl Iterator<Item = &Binary> {
        self.tests.iter().filter(move |b| b.package == package)
    }

    /// What cargo would tell a test executable.
    pub(super) fn variables(&self, binary: &Binary) -> Vec<(OsString, OsString)> {
        let programs = self.programs.iter();
        let programs = programs.map(|(name, path)| {
            (format!("CARGO_BIN_EXE_{name}").into(), path.clone().into_os_string())
        });
        let folder = ("CARGO_MANIFEST_DIR".into(), binary.folder.clone().into());
        let package = ("CARGO_PKG_NAME".into(), binary.package.clone().into());
        programs.chain([folder, package]).collect()
    }

    /// Every file that somebody else must be able to execute.
    pub(super) fn executables(&self) -> impl Iterator<Item = &Path> {
        let compiled = self.tests.iter().filter(|b| b.program.is_none());
        let tests = compiled.map(|b| b.path.as_path());
        tests.chain(self.programs.values().map(PathBuf::as_path))
    }
}

/// `path+file:///a/crates/cli#bedplate@0.1.0` is `bedplate`, `path+file:///a/xtask#0.1.0` `xtask`.
fn package_name(id: &str) -> &str {
    let (path, tail) = id.rsplit_once('#').unwrap_or((id, ""));
    match tail.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cargo's message about one executable; `place` is `FOLDER#PACKAGE`.
    fn artifact(place: &str, kind: &str, name: &str, test: bool) -> String {
        let (folder, _) = place.split_once('#').unwrap();
        let message = serde_json::json!({
            "reason": "compiler-artifact",
            "package_id": format!("path+file:///r/crates/{place}@0.1.0"),
            "manifest_path": format!("/r/crates/{folder}/Cargo.toml"),
            "target": {"kind": [kind], "name": name},
            "profile": {"test": test},
            "executable": format!("/t/{name}"),
        });
        message.to_string()
    }

    #[test]
    fn package_ids_have_two_shapes() {
        assert_eq!(package_name("path+file:///a/crates/cli#bedplate@0.1.0"), "bedplate");
        assert_eq!(package_name("path+file:///a/xtask#0.1.0"), "xtask");
    }

    #[test]
    fn a_script_is_a_test_of_its_package() {
        let message = |kind, name, test| artifact("store#bedplate-store", kind, name, test);
        let said = [message("lib", "store", true), message("example", "append_bench", false)];
        let mut build = Build::read(&said.join("\n"));
        build.add_scripts();
        assert_eq!(build.packages(), ["bedplate-store"]);
        let scripts: Vec<_> = build.of("bedplate-store").filter(|b| b.program.is_some()).collect();
        assert_eq!(scripts.len(), 1);
        assert_eq!(scripts[0].path, Path::new("/r/crates/store/tests/fdatasync.sh"));
        assert_eq!(scripts[0].program.as_deref(), Some(Path::new("/t/append_bench")));
        assert_eq!(build.executables().count(), 2);
    }

    #[test]
    fn messages_become_tests_and_programs() {
        let artifact = |kind, name, test| artifact("cli#bedplate", kind, name, test);
        let library = r#"{"reason":"compiler-artifact","executable":null}"#;
        let said = [
            artifact("test", "run", true),
            artifact("bin", "bedplate", false),
            artifact("bin", "bedplate", true),
            library.to_owned(),
            "not JSON".to_owned(),
        ];
        let build = Build::read(&said.join("\n"));
        assert_eq!(build.packages(), ["bedplate"]);
        let targets: Vec<_> = build.of("bedplate").map(|b| b.target.as_str()).collect();
        assert_eq!(targets, ["bin bedplate", "tests/run"]);
        let binary = build.of("bedplate").next().unwrap();
        assert_eq!(binary.folder, Path::new("/r/crates/cli"));
        assert_eq!(binary.slug(), "bedplate-bin-bedplate");
        let variables = build.variables(binary);
        assert_eq!(variables[0], ("CARGO_BIN_EXE_bedplate".into(), "/t/bedplate".into()));
    }
}
