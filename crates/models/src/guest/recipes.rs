//! How known harnesses are pointed at our endpoint: data only.
//!
//! `{base_url}` stands for the endpoint without a path and without a final slash, `{token}` for
//! what the guest shows as its key: a name for the run, no secret of a provider; `{model}` for the
//! model that the route names first: harnesses choose their tools and parameters by it, and one
//! that they do not know gets what every model understands; in files, `{workspace}` for the
//! directory the harness starts in. A recipe also
//! turns off what a harness does besides its work (updates, telemetry), since nothing of that
//! passes the gate, and its own sandbox and questions, since the gate decides.

/// How one harness is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// The harness, for people.
    pub name: &'static str,
    /// The last part of its command, or the package that a launcher is asked for.
    pub commands: &'static [&'static str],
    /// Variables to set.
    pub env: &'static [(&'static str, &'static str)],
    /// Arguments to put right behind the command's name.
    pub arguments: &'static [&'static str],
    /// Files to write below HOME, where there is none: path and JSON.
    pub files: &'static [(&'static str, &'static str)],
}

/// What a recipe is filled in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The endpoint: `http://HOST:PORT`.
    pub base_url: &'a str,
    /// What the guest shows as its key.
    pub token: &'a str,
    /// The model that the route names first.
    pub model: &'a str,
    /// The directory it starts in, as it sees it.
    pub workspace: &'a str,
}

/// A recipe with its setting filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Variables to set.
    pub env: Vec<(String, String)>,
    /// Files to write below HOME, where there is none.
    pub files: Vec<(String, String)>,
    /// The whole command.
    pub command: Vec<String>,
}

/// `OpenAI` Codex: Responses.
pub const CODEX: Recipe = Recipe {
    name: "codex",
    commands: &["codex", "@openai/codex"],
    env: &[("BEDPLATE_TOKEN", "{token}"), ("OPENAI_API_KEY", "{token}")],
    arguments: &[
        "-c",
        "model_provider=\"bedplate\"",
        "-c",
        "model_providers.bedplate={name=\"bedplate\",base_url=\"{base_url}/v1\",wire_api=\"responses\",env_key=\"BEDPLATE_TOKEN\",supports_websockets=false}",
        "-c",
        "model=\"{model}\"",
        "-c",
        "sandbox_mode=\"danger-full-access\"",
        "-c",
        "approval_policy=\"never\"",
        "-c",
        "check_for_update_on_startup=false",
        "-c",
        "analytics.enabled=false",
        "-c",
        "web_search=\"disabled\"",
        // It would look for more of them on the Internet.
        "-c",
        "features.plugins=false",
        "-c",
        "features.apps=false",
        "-c",
        "features.enable_request_compression=false",
    ],
    files: &[],
};

/// Claude Code: Messages.
pub const CLAUDE_CODE: Recipe = Recipe {
    name: "claude",
    commands: &["claude", "@anthropic-ai/claude-code"],
    env: &[
        ("ANTHROPIC_BASE_URL", "{base_url}"),
        // Of a key in the other variable it asks whether it may be used.
        ("ANTHROPIC_AUTH_TOKEN", "{token}"),
        ("ANTHROPIC_MODEL", "{model}"),
        ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "{model}"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        // Tools that are loaded on demand are a feature of its own provider.
        ("ENABLE_TOOL_SEARCH", "false"),
        // It refuses to work unattended as root unless it is told that it is contained.
        ("IS_SANDBOX", "1"),
    ],
    arguments: &["--permission-mode", "bypassPermissions"],
    // On a terminal it would first call its provider, ask for an account, and ask twice for trust.
    files: &[(
        ".claude.json",
        r#"{"hasCompletedOnboarding":true,"bypassPermissionsModeAccepted":true,"projects":{"{workspace}":{"hasTrustDialogAccepted":true}}}"#,
    )],
};

/// Programs that use the providers' libraries, as LangGraph does.
pub const LIBRARIES: Recipe = Recipe {
    name: "libraries",
    commands: &[],
    env: &[
        ("OPENAI_BASE_URL", "{base_url}/v1"),
        ("OPENAI_API_BASE", "{base_url}/v1"),
        ("OPENAI_API_KEY", "{token}"),
        ("ANTHROPIC_BASE_URL", "{base_url}"),
        ("ANTHROPIC_API_KEY", "{token}"),
        ("LANGCHAIN_TRACING_V2", "false"),
        ("LANGSMITH_TRACING", "false"),
    ],
    arguments: &[],
    files: &[],
};

/// The recipes of harnesses that are known by their command.
pub const KNOWN: [Recipe; 2] = [CODEX, CLAUDE_CODE];

/// Programs that start the one named after them.
const LAUNCHERS: [&str; 6] = ["npx", "bunx", "node", "npm", "pnpm", "yarn"];
/// Words of launchers that are not what they start.
const LAUNCHER_WORDS: [&str; 4] = ["exec", "dlx", "--yes", "-y"];

/// The recipe for a command, and the place of the harness in it. What is unknown is a program
/// with the providers' libraries.
#[must_use]
pub fn find(command: &[String]) -> (&'static Recipe, usize) {
    let launched = command.iter().position(|word| {
        let name = last_part(word);
        !LAUNCHERS.contains(&name) && !LAUNCHER_WORDS.contains(&word.as_str()) && word != "--"
    });
    let at = launched.unwrap_or(0);
    let known = command.get(at).and_then(|word| {
        let name = last_part(word);
        let package = word.rsplit_once('@').map_or(word.as_str(), |(package, _)| package);
        KNOWN.iter().find(|recipe| {
            recipe
                .commands
                .iter()
                .any(|known| *known == name || *known == word || *known == package)
        })
    });
    known.map_or((&LIBRARIES, 0), |recipe| (recipe, at))
}

fn last_part(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or(word);
    name.strip_suffix(".js").or_else(|| name.strip_suffix(".exe")).unwrap_or(name)
}

/// The command as it is to be run, its variables and files.
#[must_use]
pub fn apply(command: &[String], setting: &Setting<'_>) -> Applied {
    let (recipe, at) = find(command);
    let filled = |text: &str| {
        let text = text.replace("{base_url}", setting.base_url.trim_end_matches('/'));
        text.replace("{token}", setting.token).replace("{model}", setting.model)
    };
    // As it stands within the quotes of JSON.
    let quoted = serde_json::Value::from(setting.workspace).to_string();
    let workspace = &quoted[1..quoted.len() - 1];
    let env = recipe.env.iter().map(|(name, value)| ((*name).to_owned(), filled(value)));
    let files = recipe.files.iter().map(|(path, contents)| {
        ((*path).to_owned(), filled(contents).replace("{workspace}", workspace))
    });
    let behind = (at + 1).min(command.len());
    let mut whole = command[..behind].to_vec();
    whole.extend(recipe.arguments.iter().map(|argument| filled(argument)));
    whole.extend_from_slice(&command[behind..]);
    Applied { env: env.collect(), files: files.collect(), command: whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn harnesses_are_known_by_their_command() {
        let check = |line: &str, name: &str, at: usize| {
            let (recipe, place) = find(&words(line));
            assert_eq!((recipe.name, place), (name, at), "{line}");
        };
        check("codex exec hello", "codex", 0);
        check("/usr/local/bin/codex", "codex", 0);
        check("npx -y @openai/codex exec", "codex", 2);
        check("npx @openai/codex@0.169.0 exec", "codex", 1);
        check("node node_modules/@openai/codex/bin/codex.js exec", "codex", 1);
        check("claude -p hi", "claude", 0);
        check("npx @anthropic-ai/claude-code -p hi", "claude", 1);
        check("python3 agent.py claude", "libraries", 0);
        check("claudette", "libraries", 0);
        assert_eq!(find(&[]).0.name, "libraries");
    }

    #[test]
    fn a_recipe_is_filled_in_and_keeps_the_command() {
        let setting = Setting {
            base_url: "http://127.0.0.1:9/",
            token: "run-1",
            model: "m-1",
            workspace: "/work \"space\"",
        };
        let applied = apply(&words("npx @openai/codex exec go"), &setting);
        assert_eq!(applied.command[..2], words("npx @openai/codex"));
        assert_eq!(applied.command[applied.command.len() - 2..], words("exec go"));
        assert!(applied.command.contains(&"model=\"m-1\"".to_owned()));
        assert!(applied.env.contains(&("BEDPLATE_TOKEN".into(), "run-1".into())));
        let claude = apply(&words("claude"), &setting);
        assert!(claude.env.contains(&("ANTHROPIC_BASE_URL".into(), "http://127.0.0.1:9".into())));
        for (_, contents) in &claude.files {
            let json: serde_json::Value = serde_json::from_str(contents).expect("JSON");
            assert!(json["projects"][setting.workspace].is_object(), "{json}");
        }
        let plain = apply(&words("python3 agent.py"), &setting);
        assert_eq!(plain.command, words("python3 agent.py"));
        for applied in [applied, claude, plain] {
            let all = format!("{applied:?}");
            assert!(all.contains("http://127.0.0.1:9/v1") || all.contains("claude"), "{all}");
            let places = ["{base_url}", "{token}", "{model}", "{workspace}"];
            assert!(places.iter().all(|place| !all.contains(place)), "{all}");
        }
    }
}
