//! `init`: a manifest to begin with. Asks nothing, overwrites nothing.

use crate::error::{CliError, Result, exit};
use crate::model_choice;
use crate::session::Session;
use crate::terminal::{Paint, Terminal};
use runtime::config::MANIFEST_FILE;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// Name of the script beside the manifest.
const TURNS_FILE: &str = "turns.toml";
const TEMPLATE: &str = include_str!("init/bedplate.toml");
const TURNS: &str = include_str!("init/turns.toml");
/// What stands in the template for the agent's name and for the route's entry.
const NAME_MARK: &str = "@NAME@";
const MODEL_MARK: &str = "@MODEL@";

/// What the agent of a new manifest may do.
const MAY: [&str; 5] = [
    "it reads and changes a copy of this directory; yours changes only by `bedplate apply`",
    "it runs commands in a sandbox without network, secrets or anything of yours",
    "it may call its own model, and no other",
    "everything outward (hosts, tools on this machine) is denied until you write it down",
    "it stops at 1 dollar, 30 minutes or 100 actions",
];

/// `init`.
pub(crate) fn init(session: &Session) -> Result<u8> {
    let here = std::env::current_dir().map_err(|error| CliError::Io {
        what: "cannot find the current directory".to_owned(),
        reason: error.to_string(),
    })?;
    let found = model_choice::found();
    let model = found.as_ref().map_or_else(
        || format!("script/{TURNS_FILE}"),
        |models| String::from(models.routes[&models.route][0].clone()),
    );
    let manifest = manifest_text(&agent_name(&here), &model);
    let with_script = found.is_none() && !here.join(TURNS_FILE).exists();
    create(&here.join(MANIFEST_FILE), &manifest)?;
    if with_script {
        create(&here.join(TURNS_FILE), TURNS)?;
    }
    if session.json {
        let files: Vec<&str> =
            if with_script { vec![MANIFEST_FILE, TURNS_FILE] } else { vec![MANIFEST_FILE] };
        Terminal::answer_json(&serde_json::json!({ "files": files, "model": model, "may": MAY }));
        return Ok(exit::DONE);
    }
    let terminal = &session.terminal;
    terminal.progress(&format!("wrote {MANIFEST_FILE}, model {model}"));
    if with_script {
        terminal.progress(&format!(
            "wrote {TURNS_FILE}: no known key and no Ollama here, so the answers come from a script"
        ));
    }
    terminal.progress(&terminal.paint(Paint::Bold, "what the agent may do:"));
    for line in MAY {
        terminal.progress(&format!("  {line}"));
    }
    terminal.progress(&format!("next: {}", session.command("run")));
    Ok(exit::DONE)
}

fn manifest_text(name: &str, model: &str) -> String {
    TEMPLATE.replace(NAME_MARK, name).replace(MODEL_MARK, model)
}

/// The directory's name as an agent's.
fn agent_name(dir: &Path) -> String {
    const NAME_CHARS_MAX: usize = 40;
    let name =
        dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = |c: char| {
        if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }
    };
    let name: String = name.chars().map(plain).take(NAME_CHARS_MAX).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "agent".to_owned() } else { name.to_owned() }
}

/// A new file; one that is there is left as it is.
fn create(path: &Path, text: &str) -> Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let fail = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => CliError::Exists { path: path.to_owned() },
        _ => CliError::Io {
            what: format!("cannot write {}", path.display()),
            reason: error.to_string(),
        },
    };
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(fail)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_manifest_whose_policy_compiles() {
        let text = manifest_text("agent", "openai/gpt-5.4");
        let manifest = types::manifest::parse(&text).expect("a manifest");
        runtime::policy_sources::compile(&manifest, None, &[]).expect("a policy");
        let live = |line: &&str| !line.trim_start().starts_with('#') && !line.trim().is_empty();
        assert!(text.lines().filter(live).count() <= 25, "few live lines");
    }

    #[test]
    fn what_is_commented_out_is_a_manifest_too() {
        let mut text = String::new();
        for line in manifest_text("agent", "openai/gpt-5.4").lines() {
            let bare = line.strip_prefix("#: ").unwrap_or(line);
            text.push_str(bare);
            text.push('\n');
        }
        types::manifest::parse(&text).expect("a manifest with every commented line live");
    }

    #[test]
    fn directories_name_agents() {
        let check = |path: &str, expected: &str| assert_eq!(agent_name(Path::new(path)), expected);
        check("/x/my project", "my-project");
        check("/x/Über.Agent_2", "ber-agent-2");
        check("/", "agent");
        check("/x/___", "agent");
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        create(&path, "mine").expect("new");
        let failed = create(&path, "theirs").expect_err("refused");
        assert_eq!((failed.failure.code.as_str(), failed.exit), ("BP-CLI-007", 2));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
    }
}
