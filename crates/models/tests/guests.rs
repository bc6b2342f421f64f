//! The real harnesses, unmodified, on our endpoint: Codex, Claude Code and a LangGraph program each
//! do one scripted task, whose model speaks another dialect than they do.
//!
//! `cargo xtask test` installs them and names their folder in `BEDPLATE_GUESTS_DIR`. When that is
//! set, a missing one is a failure. They are set up by `models::guest::recipes` and nothing else.

mod support;

use models::Dialect;
use models::guest::recipes;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use support::guests::{Served, serve, serve_native};
use tokio::process::Command;

const VARIABLE: &str = "BEDPLATE_GUESTS_DIR";
/// A model that no harness knows.
const MODEL: &str = "turns.toml";
/// A harness that is not done by then hangs.
const GUEST_LIMIT: Duration = Duration::from_secs(180);

/// The folder with the harnesses; `None` when nobody asked for them.
fn folder() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// The packages of the platform hold the programs themselves.
fn platform() -> (&'static str, &'static str) {
    if cfg!(target_arch = "aarch64") {
        ("linux-arm64", "aarch64-unknown-linux-musl")
    } else {
        ("linux-x64", "x86_64-unknown-linux-musl")
    }
}

/// A home and a workspace that are gone afterwards.
struct Place {
    home: tempfile::TempDir,
    work: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = || tempfile::tempdir().expect("a directory");
        Self { home: place(), work: place() }
    }

    fn greeting(&self) -> String {
        std::fs::read_to_string(self.work.path().join("greeting.txt")).unwrap_or_default()
    }

    /// Runs a command by its recipe, with nothing of the host but PATH, and with the packages of
    /// Python that it names.
    async fn run(
        &self,
        command: &[&str],
        served: &Served,
        model: &str,
        packages: Option<&Path>,
    ) -> Output {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let workspace = self.work.path().to_str().expect("a plain path");
        let base_url = &served.base_url;
        let setting = recipes::Setting { base_url, token: "run-1", model, workspace };
        let applied = recipes::apply(&command, &setting);
        for (path, contents) in &applied.files {
            std::fs::write(self.home.path().join(path), contents).expect("writes");
        }
        let packages = packages.map(|packages| ("PYTHONPATH", packages.as_os_str()));
        let child = Command::new(&applied.command[0])
            .args(&applied.command[1..])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(packages)
            .env("HOME", self.home.path())
            .envs(applied.env)
            .current_dir(self.work.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(GUEST_LIMIT, child).await;
        output.expect("the harness ends").expect("the harness runs")
    }
}

/// What a harness did and said, for a failed test.
fn shown(output: &Output, served: &Served) -> String {
    format!(
        "{}\n{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        served.log().join("\n")
    )
}

fn check_done(output: &Output, served: &Served, place: &Place) {
    assert!(output.status.success(), "{}", shown(output, served));
    assert_eq!(place.greeting().trim(), "hello", "{}", shown(output, served));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("The greeting is written."), "{}", shown(output, served));
    assert_eq!(served.unknown(), Vec::<String>::new(), "{}", shown(output, served));
    assert!(
        served.offered_all(),
        "a tool was called that was not offered: {}",
        shown(output, served)
    );
}

fn program(folder: &Path, path: &str) -> String {
    let program = folder.join(path);
    assert!(program.is_file(), "{VARIABLE} is set, but there is no {}", program.display());
    program.to_str().expect("a plain path").to_owned()
}

/// A task of one call and one answer.
fn script(tool: &str, arguments: &str) -> String {
    format!(
        "[[turn]]\ntext = \"I write it.\"\ntool = \"{tool}\"\narguments = {arguments}\n\
         [[turn]]\ntext = \"The greeting is written.\"\n"
    )
}

fn codex(folder: &Path) -> String {
    let (system, triple) = platform();
    program(folder, &format!("node_modules/@openai/codex-{system}/vendor/{triple}/bin/codex"))
}

fn claude(folder: &Path) -> String {
    program(folder, &format!("node_modules/@anthropic-ai/claude-code-{}/claude", platform().0))
}

#[tokio::test]
async fn codex_does_its_task_with_any_model() {
    let Some(folder) = folder() else { return };
    let codex = codex(&folder);
    let (function, custom, code) = (
        script("exec_command", "{ cmd = \"echo hello > greeting.txt\" }"),
        script(
            "apply_patch",
            "{ input = \"*** Begin Patch\\n*** Add File: greeting.txt\\n+hello\\n*** End Patch\\n\" }",
        ),
        script(
            "functions__exec",
            "{ input = \"await tools.exec_command({cmd: 'echo hello > greeting.txt'})\" }",
        ),
    );
    // Codex offers other tools for each of these models: functions, free text, and code.
    for (dialect, model, turns) in [
        (Dialect::Chat, MODEL, &function),
        (Dialect::Messages, MODEL, &function),
        (Dialect::Responses, MODEL, &function),
        (Dialect::Chat, "gpt-5.5", &custom),
        (Dialect::Messages, "gpt-6.1-sol", &code),
    ] {
        let served = serve(turns, dialect).await;
        let place = Place::new();
        let task = [&codex, "exec", "--skip-git-repo-check", "Write a greeting."];
        let output = place.run(&task, &served, model, None).await;
        check_done(&output, &served, &place);
        assert_eq!(served.answered(), [Dialect::Responses, Dialect::Responses]);
    }
}

#[tokio::test]
async fn claude_code_does_its_task_with_any_model() {
    let Some(folder) = folder() else { return };
    let claude = claude(&folder);
    for (dialect, model) in [
        (Dialect::Chat, MODEL),
        (Dialect::Messages, "claude-opus-5-5"),
        (Dialect::Responses, "gpt-5.5"),
    ] {
        let turns = script(
            "Bash",
            "{ command = \"echo hello > greeting.txt\", description = \"Write the greeting\" }",
        );
        let served = serve(&turns, dialect).await;
        let place = Place::new();
        let output = place.run(&[&claude, "-p", "Write a greeting."], &served, model, None).await;
        check_done(&output, &served, &place);
        assert_eq!(served.answered(), [Dialect::Messages, Dialect::Messages]);
    }
}

#[tokio::test]
async fn a_provider_of_the_guest_s_dialect_gets_its_own_body_and_gives_its_own_bytes() {
    let Some(folder) = folder() else { return };
    let (codex, claude) = (codex(&folder), claude(&folder));
    let patch =
        "{ input = \"*** Begin Patch\\n*** Add File: greeting.txt\\n+hello\\n*** End Patch\\n\" }";
    let turns = [
        script("apply_patch", patch),
        script("Bash", "{ command = \"echo hello > greeting.txt\", description = \"d\" }"),
    ];
    let commands = [
        vec![codex.as_str(), "exec", "--skip-git-repo-check", "Write a greeting."],
        vec![claude.as_str(), "-p", "Write a greeting."],
    ];
    let kinds = [(Dialect::Responses, "gpt-5.5"), (Dialect::Messages, "claude-opus-5-5")];
    for ((turns, command), (dialect, model)) in turns.iter().zip(commands).zip(kinds) {
        let behind = serve(turns, Dialect::Chat).await;
        let served = serve_native(&behind, dialect).await;
        let place = Place::new();
        let output = place.run(&command, &served, model, None).await;
        check_done(&output, &served, &place);
        assert_eq!(behind.answered(), [dialect, dialect], "{:?}", behind.log());
        assert!(behind.offered_all() && behind.unknown().is_empty(), "{:?}", behind.log());
    }
}

#[tokio::test]
async fn a_langgraph_program_does_its_task_with_any_model() {
    let Some(folder) = folder() else { return };
    let packages = folder.join("python");
    assert!(packages.is_dir(), "{VARIABLE} is set, but there is no {}", packages.display());
    let agent = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/langgraph_agent.py");
    let (chat, messages, responses) = (Dialect::Chat, Dialect::Messages, Dialect::Responses);
    for (dialect, mode) in
        [(chat, "stream"), (messages, "stream"), (responses, "stream"), (messages, "whole")]
    {
        let turns = script("shell", "{ command = \"echo hello > greeting.txt\" }");
        let served = serve(&turns, dialect).await;
        let place = Place::new();
        let command = ["python3", agent, mode];
        let output = place.run(&command, &served, MODEL, Some(&packages)).await;
        check_done(&output, &served, &place);
        assert_eq!(served.answered(), [Dialect::Chat, Dialect::Chat]);
    }
}
