//! From a tool call to a plan: what it will do, its effect class, and what policy is asked.

use crate::builtin::SHELL_TIMEOUT_MS_MAX;
use crate::path::{ARTIFACT_PREFIX, in_workspace};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Deserialize;
use serde_json::Value;
use types::manifest::{BUILTIN_TOOLS, Manifest, TOOL_TIMEOUT_MS_DEFAULT, nearest};
use types::{ActionId, ActionRequest, Coded, EffectClass, FsAccess};

/// What a call will do, once it is permitted.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// A command line in the sandbox.
    Shell {
        /// For `/bin/sh -c`.
        command: String,
        /// Time limit.
        timeout_ms: u64,
    },
    /// Lines of a file.
    Read {
        /// Absolute in the sandbox.
        path: String,
        /// First line, from 1; 0 is 1.
        offset: u64,
        /// Number of lines.
        limit: Option<u64>,
    },
    /// Bytes of a kept output.
    ReadArtifact {
        /// The action it is the output of.
        action: ActionId,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        limit: Option<u64>,
    },
    /// Create or replace a file.
    Write {
        /// Absolute in the sandbox.
        path: String,
        /// Its content.
        content: Vec<u8>,
    },
    /// Replace text in a file.
    Edit {
        /// Absolute in the sandbox.
        path: String,
        /// What is there.
        old: String,
        /// What shall be there.
        new: String,
        /// How often `old` must occur.
        count: u64,
    },
    /// Wait.
    Wait {
        /// For this long.
        seconds: Option<u64>,
        /// For this signal.
        signal: Option<String>,
    },
    /// The guest that is the agent.
    Guest {
        /// Program and arguments.
        command: Vec<String>,
    },
    /// Run a check of the manifest.
    Check {
        /// Its index.
        index: usize,
    },
    /// A command tool on the host.
    Command {
        /// Its index in the manifest.
        index: usize,
        /// What it reads on standard input.
        input: Value,
    },
}

/// A call that cannot be planned. The model is told, and may try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No tool of this name.
    #[error("there is no tool '{name}'{hint}")]
    Unknown {
        /// The name.
        name: String,
        /// `; did you mean 'shell'?`, or empty.
        hint: String,
    },
    /// The arguments do not fit.
    #[error("the arguments of '{tool}' do not fit: {reason}")]
    Arguments {
        /// The tool.
        tool: String,
        /// Why.
        reason: String,
    },
}

impl Coded for Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "BP-TOOL-001",
            Self::Arguments { .. } => "BP-TOOL-002",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Unknown { .. } => "Use one of the tools that were offered.".to_owned(),
            Self::Arguments { .. } => {
                "Call it again with arguments that fit its schema.".to_owned()
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShellArguments {
    command: String,
    timeout_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadArguments {
    path: String,
    #[serde(default)]
    offset: u64,
    limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteArguments {
    path: String,
    content: String,
    /// Not offered to models: what a program writes may be no text.
    #[serde(default)]
    encoding: Encoding,
}

/// How `content` stands for bytes.
#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Encoding {
    #[default]
    Text,
    Base64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditArguments {
    path: String,
    old: String,
    new: String,
    count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitArguments {
    seconds: Option<u64>,
    signal: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckArguments {
    name: String,
}

/// Plans a call.
///
/// # Errors
/// When there is no such tool, or the arguments do not fit it. Arguments of command tools are
/// held against their schema elsewhere, where hostile bytes are read.
pub fn plan(manifest: &Manifest, name: &str, arguments: &Value) -> Result<Plan, Refusal> {
    if !arguments.is_object() {
        let reason = "they are not a JSON object".to_owned();
        return Err(Refusal::Arguments { tool: name.to_owned(), reason });
    }
    match name {
        "shell" => plan_shell(read(name, arguments)?),
        "read_file" => plan_read(read(name, arguments)?),
        "write_file" => {
            let WriteArguments { path, content, encoding } = read(name, arguments)?;
            let content = match encoding {
                Encoding::Text => content.into_bytes(),
                Encoding::Base64 => {
                    let bytes = BASE64.decode(content);
                    bytes.map_err(|_| refuse(name, "content is not base64"))?
                }
            };
            Ok(Plan::Write { path: absolute(name, &path)?, content })
        }
        "edit_file" => {
            let EditArguments { path, old, new, count } = read(name, arguments)?;
            if old.is_empty() {
                return Err(refuse(name, "old is empty"));
            }
            Ok(Plan::Edit { path: absolute(name, &path)?, old, new, count: count.unwrap_or(1) })
        }
        "wait" => {
            let WaitArguments { seconds, signal } = read(name, arguments)?;
            if seconds.is_none() && signal.is_none() {
                return Err(refuse(name, "give seconds, signal, or both"));
            }
            Ok(Plan::Wait { seconds, signal })
        }
        // No model asks for it: the run's own first record does.
        "guest" if manifest.is_guest() => {
            Ok(Plan::Guest { command: manifest.agent.command.clone() })
        }
        "check" => plan_check(manifest, read(name, arguments)?),
        other => plan_command(manifest, other, arguments),
    }
}

fn refuse(tool: &str, reason: &str) -> Refusal {
    Refusal::Arguments { tool: tool.to_owned(), reason: reason.to_owned() }
}

fn read<'a, T: Deserialize<'a>>(tool: &str, arguments: &'a Value) -> Result<T, Refusal> {
    T::deserialize(arguments).map_err(|error| refuse(tool, &error.to_string()))
}

fn absolute(tool: &str, path: &str) -> Result<String, Refusal> {
    in_workspace(path).ok_or_else(|| refuse(tool, "path is empty, too long, or leaves the root"))
}

fn plan_shell(arguments: ShellArguments) -> Result<Plan, Refusal> {
    let timeout_ms =
        arguments.timeout_s.map_or(TOOL_TIMEOUT_MS_DEFAULT, |s| s.saturating_mul(1_000));
    if !(1..=SHELL_TIMEOUT_MS_MAX).contains(&timeout_ms) {
        return Err(refuse("shell", "timeout_s must be from 1 to 3600"));
    }
    if arguments.command.contains('\0') {
        return Err(refuse("shell", "command has a NUL character"));
    }
    Ok(Plan::Shell { command: arguments.command, timeout_ms })
}

fn plan_read(arguments: ReadArguments) -> Result<Plan, Refusal> {
    let ReadArguments { path, offset, limit } = arguments;
    if let Some(number) = path.strip_prefix(ARTIFACT_PREFIX) {
        let action = number.parse().map_err(|_| refuse("read_file", "artifact: needs a number"))?;
        return Ok(Plan::ReadArtifact { action, offset, limit });
    }
    Ok(Plan::Read { path: absolute("read_file", &path)?, offset, limit })
}

fn plan_check(manifest: &Manifest, arguments: CheckArguments) -> Result<Plan, Refusal> {
    let found = manifest.checks.iter().position(|check| check.name == arguments.name);
    let index = found.ok_or_else(|| refuse("check", "there is no check of this name"))?;
    Ok(Plan::Check { index })
}

fn plan_command(manifest: &Manifest, name: &str, arguments: &Value) -> Result<Plan, Refusal> {
    match manifest.tools.iter().position(|tool| tool.name == name) {
        Some(index) => Ok(Plan::Command { index, input: arguments.clone() }),
        None => {
            let known =
                BUILTIN_TOOLS.into_iter().chain(manifest.tools.iter().map(|t| t.name.as_str()));
            let hint = nearest(name, known).map(|best| format!("; did you mean '{best}'?"));
            Err(Refusal::Unknown { name: name.to_owned(), hint: hint.unwrap_or_default() })
        }
    }
}

/// Words as a POSIX shell reads them again.
#[must_use]
pub fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

impl Plan {
    /// Its effect class.
    #[must_use]
    pub fn effect(&self, manifest: &Manifest) -> EffectClass {
        match self {
            Self::Shell { .. } | Self::Guest { .. } | Self::Write { .. } | Self::Edit { .. } => {
                EffectClass::Workspace
            }
            Self::Read { .. }
            | Self::ReadArtifact { .. }
            | Self::Wait { .. }
            | Self::Check { .. } => EffectClass::Read,
            Self::Command { index, .. } => manifest.tools[*index].effect,
        }
    }

    /// What policy is asked: all of it must be permitted.
    #[must_use]
    pub fn requests(&self, manifest: &Manifest) -> Vec<ActionRequest> {
        let file = |access, path: &String| ActionRequest::Path { access, path: path.clone() };
        match self {
            Self::Shell { command, .. } => {
                vec![ActionRequest::RunCommand {
                    tool: "shell".to_owned(),
                    command: command.clone(),
                }]
            }
            Self::Guest { command } => vec![ActionRequest::RunCommand {
                tool: "shell".to_owned(),
                command: command_line(command),
            }],
            Self::Read { path, .. } => vec![file(FsAccess::Read, path)],
            Self::Write { path, .. } => vec![file(FsAccess::Write, path)],
            Self::Edit { path, .. } => {
                vec![file(FsAccess::Read, path), file(FsAccess::Write, path)]
            }
            Self::ReadArtifact { .. } => Vec::new(),
            Self::Wait { seconds, signal } => vec![ActionRequest::CallTool {
                tool: "wait".to_owned(),
                arguments: serde_json::json!({ "seconds": seconds, "signal": signal }),
                effect: EffectClass::Read,
            }],
            Self::Check { index } => vec![ActionRequest::RunCommand {
                tool: "check".to_owned(),
                command: manifest.checks[*index].command.clone(),
            }],
            Self::Command { index, input } => {
                let tool = &manifest.tools[*index];
                vec![ActionRequest::CallTool {
                    tool: tool.name.clone(),
                    arguments: input.clone(),
                    effect: tool.effect,
                }]
            }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
