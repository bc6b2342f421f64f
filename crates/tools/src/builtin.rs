//! The built-in tools as a model sees them.

use serde_json::{Value, json};
use types::ToolSpec;
use types::manifest::Manifest;

/// Longest time a shell command may ask for, milliseconds.
pub const SHELL_TIMEOUT_MS_MAX: u64 = 3_600_000;

/// Every tool of this agent, in a stable order: built-in tools, then the manifest's.
#[must_use]
pub fn specs(manifest: &Manifest) -> Vec<ToolSpec> {
    let mut specs = vec![shell(), read_file(), write_file(), edit_file(), wait()];
    if !manifest.checks.is_empty() {
        specs.push(check(manifest));
    }
    specs.extend(manifest.tools.iter().map(|tool| ToolSpec {
        name: tool.name.clone(),
        description: tool.description.clone(),
        input_schema: tool.input_schema.clone().unwrap_or_else(open_object),
    }));
    specs
}

fn open_object() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": true })
}

fn spec(name: &str, description: &str, properties: Value, required: &[&str]) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: description.to_owned(),
        input_schema: json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        }),
    }
}

fn shell() -> ToolSpec {
    spec(
        "shell",
        "Run a command with /bin/sh in the sandbox, in /workspace. Processes it leaves behind are \
         killed when it ends. There is no network. Long output is kept whole as an artifact and \
         shown in part.",
        json!({
            "command": { "type": "string", "description": "The command line." },
            "timeout_s": { "type": "integer", "minimum": 1, "maximum": 3600,
                           "description": "Time limit in seconds, 120 if absent." },
        }),
        &["command"],
    )
}

fn read_file() -> ToolSpec {
    spec(
        "read_file",
        "Read a text file of the workspace. For a kept output, path is artifact:NUMBER, and offset \
         and limit count bytes.",
        json!({
            "path": { "type": "string", "description": "Relative to /workspace, or absolute." },
            "offset": { "type": "integer", "minimum": 0, "description": "First line, from 1." },
            "limit": { "type": "integer", "minimum": 1, "description": "Number of lines." },
        }),
        &["path"],
    )
}

fn write_file() -> ToolSpec {
    spec(
        "write_file",
        "Create or replace a file of the workspace, with its parent directories.",
        json!({
            "path": { "type": "string" },
            "content": { "type": "string" },
        }),
        &["path", "content"],
    )
}

fn edit_file() -> ToolSpec {
    spec(
        "edit_file",
        "Replace a piece of text in a file of the workspace. The old text must occur exactly \
         `count` times (1 if absent).",
        json!({
            "path": { "type": "string" },
            "old": { "type": "string" },
            "new": { "type": "string" },
            "count": { "type": "integer", "minimum": 1 },
        }),
        &["path", "old", "new"],
    )
}

fn wait() -> ToolSpec {
    spec(
        "wait",
        "Wait for a number of seconds, for a named signal from outside, or for whichever comes \
         first.",
        json!({
            "seconds": { "type": "integer", "minimum": 1, "maximum": 2_592_000 },
            "signal": { "type": "string" },
        }),
        &[],
    )
}

fn check(manifest: &Manifest) -> ToolSpec {
    let names: Vec<&str> = manifest.checks.iter().map(|check| check.name.as_str()).collect();
    spec(
        "check",
        "Run one of the checks that decide whether the work is done, on a copy of the workspace.",
        json!({ "name": { "type": "string", "enum": names } }),
        &["name"],
    )
}
