//! Actions: anything with an effect or a disclosure, as policy sees them.

use crate::{HttpFacts, Labels};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// What a crash between intent and outcome means, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// No effect: do it again.
    Read,
    /// Changes only the sandbox: roll back, do it again.
    Workspace,
    /// The far side honours our key: do it again with the same key.
    Idempotent,
    /// Never blindly again: probe, else a person resolves it.
    Irreversible,
}

impl fmt::Display for EffectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Workspace => "workspace",
            Self::Idempotent => "idempotent",
            Self::Irreversible => "irreversible",
        })
    }
}

/// What policy says of an action, least strict first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may happen.
    Permit,
    /// It may happen once a person has approved exactly this.
    Ask,
    /// It may not happen.
    Deny,
}

/// How a path is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FsAccess {
    /// Read it.
    Read,
    /// Create, change or remove it.
    Write,
    /// Make it appear in the sandbox.
    Mount,
}

/// One action with all that policy may look at, but for who asks and the labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ActionRequest {
    /// One model call.
    CallModel {
        /// The route's name.
        route: String,
        /// The provider's name.
        provider: String,
        /// The model's name at the provider.
        model: String,
        /// Whether the provider is on this machine.
        local: bool,
        /// Kinds of secrets and personal data that would be sent as they are, and `pii` or
        /// `secret` when any of that group would.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        privacy: BTreeSet<String>,
    },
    /// A command tool or an MCP tool.
    CallTool {
        /// The tool's name.
        tool: String,
        /// Its arguments.
        arguments: Value,
        /// Its effect class.
        effect: EffectClass,
    },
    /// `shell`, `python`, a check.
    RunCommand {
        /// The tool's name.
        tool: String,
        /// The command line.
        command: String,
    },
    /// A file or directory.
    Path {
        /// How it is used.
        access: FsAccess,
        /// Absolute path in the sandbox, normalised: `/workspace/report.md`.
        path: String,
    },
    /// One HTTP request.
    HttpRequest {
        /// Lower-case name, no port.
        host: String,
        /// Upper case.
        method: String,
        /// Decoded once, dots resolved, no query.
        path: String,
        /// TCP port.
        port: u16,
        /// `http` or `https`.
        scheme: String,
        /// The query, without `?`.
        query: String,
        /// What the boundary read in the request besides; none when nothing looked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        facts: Option<Box<HttpFacts>>,
    },
    /// An opaque connection.
    Connect {
        /// Lower-case name, no port.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A secret sent to a host.
    UseSecret {
        /// The secret's name.
        secret: String,
        /// The destination.
        host: String,
    },
}

impl ActionRequest {
    /// The action's name as policy and people write it: `run_command`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CallModel { .. } => "call_model",
            Self::CallTool { .. } => "call_tool",
            Self::RunCommand { .. } => "run_command",
            Self::Path { access: FsAccess::Read, .. } => "read_file",
            Self::Path { access: FsAccess::Write, .. } => "write_file",
            Self::Path { access: FsAccess::Mount, .. } => "mount",
            Self::HttpRequest { .. } => "http_request",
            Self::Connect { .. } => "connect",
            Self::UseSecret { .. } => "use_secret",
        }
    }

    /// What is acted on, in a few words: a tool, a path, `GET host/path`.
    #[must_use]
    pub fn resource(&self) -> String {
        match self {
            Self::CallModel { provider, model, .. } => format!("{provider}/{model}"),
            Self::CallTool { tool, .. } | Self::RunCommand { tool, .. } => tool.clone(),
            Self::Path { path, .. } => path.clone(),
            Self::HttpRequest { host, method, path, .. } => format!("{method} {host}{path}"),
            Self::Connect { host, port } => format!("{host}:{port}"),
            Self::UseSecret { secret, host } => format!("{secret}@{host}"),
        }
    }
}

/// Labels and freshness of what an action carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// The union over the model's context and the sandbox.
    pub labels: Labels,
    /// Age in seconds of the oldest input fetched for this run.
    pub oldest_input_age: u64,
}
