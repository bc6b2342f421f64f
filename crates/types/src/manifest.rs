//! The manifest: what a user writes in `bedplate.toml`.
//!
//! Parsing is strict: an unknown key is an error that names the nearest known one and its line.
//! Nothing here reads a file; paths stay as written, relative to the manifest's directory.

mod memory;
mod parse;
mod privacy;

pub use parse::{
    BUILTIN_TOOLS, MANIFEST_BYTES_MAX, ManifestError, nearest, parse, parse_with_overlay,
};

use crate::{EffectClass, Treatment, Usd};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The only schema version of manifests.
pub const MANIFEST_SCHEMA: u32 = 1;
/// Name of the scripted provider in a route.
pub const SCRIPT_PROVIDER: &str = "script";
/// Default time limit of a tool call, milliseconds.
pub const TOOL_TIMEOUT_MS_DEFAULT: u64 = 120_000;
/// How long an approval waits for a person, milliseconds: seven days.
pub const APPROVAL_EXPIRES_MS_DEFAULT: u64 = 7 * 86_400_000;
/// Default number of actions a run may perform.
pub const ACTIONS_DEFAULT: u64 = 200;

/// A whole manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`MANIFEST_SCHEMA`].
    pub schema: u32,
    /// The agent.
    pub agent: Agent,
    /// Routes by name.
    pub routes: BTreeMap<String, Vec<RouteEntry>>,
    /// Providers by name, beside the built-in ones.
    pub providers: BTreeMap<String, Provider>,
    /// Permissions sugar; `None` when the section is absent.
    pub permissions: Option<Permissions>,
    /// Limits of the whole run.
    pub budget: Budget,
    /// The sandbox.
    pub sandbox: SandboxConfig,
    /// How to reach hosts.
    pub network: Network,
    /// Environment variable in the sandbox to secret name.
    pub secrets: BTreeMap<String, String>,
    /// What of secrets and personal data a model may be sent.
    #[serde(default)]
    pub privacy: Privacy,
    /// Command tools.
    pub tools: Vec<CommandTool>,
    /// Checks.
    pub checks: Vec<Check>,
    /// Globs of results, relative to the workspace.
    pub artifacts: Vec<String>,
    /// What outlives a run; `None` when the section is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// The agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// `[a-z0-9_-]{1,64}`.
    pub name: String,
    /// Instructions; what `instructions_file` held once it is read.
    pub instructions: String,
    /// File to read the instructions from.
    pub instructions_file: Option<String>,
    /// The route it acts with.
    pub model: String,
    /// The team it belongs to, empty when none.
    pub team: String,
    /// A guest: the program that is the agent, in the sandbox, with its arguments. Empty for the
    /// built-in loop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

impl Manifest {
    /// Whether a program of others is the agent, and not the built-in loop.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        !self.agent.command.is_empty()
    }
}

/// One entry of a route: `PROVIDER/MODEL`, or `script/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RouteEntry {
    /// Provider's name.
    pub provider: String,
    /// Model's name, or the script's path.
    pub model: String,
}

impl From<RouteEntry> for String {
    fn from(entry: RouteEntry) -> Self {
        format!("{}/{}", entry.provider, entry.model)
    }
}

impl TryFrom<String> for RouteEntry {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self { provider: provider.to_owned(), model: model.to_owned() })
            }
            _ => Err(format!("'{text}' is no route entry: write PROVIDER/MODEL or script/PATH")),
        }
    }
}

/// How a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI Responses.
    Responses,
    /// Chat Completions, as Ollama and vLLM speak it.
    Chat,
    /// Anthropic Messages.
    Messages,
    /// Google Gemini.
    Gemini,
}

/// A provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// How it speaks.
    pub dialect: Dialect,
    /// Base address, with `/v1` or the like.
    pub base_url: String,
    /// Environment variable that holds the key.
    pub key_env: Option<String>,
    /// How long the provider may be silent, milliseconds; `None` is the client's default.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// A preset of permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Read and prepare.
    Observe,
    /// Outward actions are asked.
    Draft,
    /// Bounded actions.
    Act,
}

/// A built-in rule on where data may flow, named in `[permissions] guard`. It only narrows: what
/// it catches is asked instead of permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// Written `trifecta`: outward actions, once private data and untrusted input are together.
    Trifecta,
    /// Written `stale:SECONDS`: outward actions, once an input is older than that.
    Stale {
        /// Oldest input that is still acted on, in seconds.
        seconds: u32,
    },
}

impl Guard {
    /// Its name, without what follows a colon.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trifecta => "trifecta",
            Self::Stale { .. } => "stale",
        }
    }
}

/// `[permissions]`: tool names, `METHOD host/path*`, `host`, `secret:NAME@host`, `git push ...`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// The preset, if any.
    pub preset: Option<Preset>,
    /// Permitted.
    pub allow: Vec<String>,
    /// Asked.
    pub ask: Vec<String>,
    /// Denied, whatever else says.
    pub deny: Vec<String>,
    /// Built-in rules that are switched on, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guard: Vec<Guard>,
    /// How long an approval may be answered, milliseconds; `None` is
    /// [`APPROVAL_EXPIRES_MS_DEFAULT`].
    #[serde(default)]
    pub approval_expires_ms: Option<u64>,
}

/// `[budget]`: `None` is no limit of that kind, but for actions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Money.
    pub usd: Option<Usd>,
    /// Tokens.
    pub tokens: Option<u64>,
    /// Wall time without suspension, milliseconds.
    pub wall_ms: Option<u64>,
    /// Actions.
    pub actions: u64,
}

/// `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// `process`; others are refused until their driver exists.
    pub driver: String,
    /// `host`, or where an image comes from: [`crate::ImageSource`].
    pub image: String,
    /// What that image was when the run was made. Never written by people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<crate::Digest>,
    /// Directory seen as a layer, relative to the manifest; `None`: an empty workspace.
    pub workspace: Option<String>,
    /// Limits.
    pub limits: Limits,
    /// `kernel` refuses watched limits.
    pub limits_strength: LimitsStrength,
    /// Host paths that are shown read-only: the path inside, below `/mnt/`, and the path on the
    /// host, relative to the manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mounts: BTreeMap<String, String>,
}

/// What enforcement of limits is acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitsStrength {
    /// Either; the log says which it was.
    Any,
    /// Only cgroups.
    Kernel,
}

/// `[sandbox] limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory for all processes.
    pub memory_bytes: u64,
    /// Hundredths of a CPU.
    pub cpu_centis: u32,
    /// Processes and threads.
    pub processes: u32,
    /// Bytes the workspace may grow by.
    pub disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 2 << 30, cpu_centis: 200, processes: 256, disk_bytes: 4 << 30 }
    }
}

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Names we answer for ourselves.
    pub resolve: BTreeMap<String, String>,
    /// Certificate files trusted besides the system's.
    pub trust: Vec<String>,
    /// Labels of what comes from a host. What comes from any other is `untrusted`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, crate::Labels>,
    /// Where the answers to GETs of a host say how old they are, by `HOST` or `HOST/PATH*`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub as_of: BTreeMap<String, crate::AsOfField>,
    /// How long a request that a person is asked about waits on its connection, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask_wait_ms: Option<u64>,
    /// Whether answers are kept, for runs that replay them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record: bool,
    /// The run whose answers this one gets, instead of the world's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<crate::RunId>,
}

/// `[privacy]`: what is done with secrets and personal data in requests to models. Values of the
/// vault are masked and canaries refused, whatever stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privacy {
    /// For personal data of a type that is not named.
    pub default: Treatment,
    /// For what has the shape of a token, a key or a password, unless its type is named.
    pub secrets: Treatment,
    /// By type: [`crate::PERSONAL_KINDS`], [`crate::TOKEN_KINDS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Treatment>,
    /// Names of people, products or customers: the type `name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Values that must never travel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// By label of the context: `local`, `ask` or `refuse`. `confidential` stands for
    /// `confidential:NAME` too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Treatment>,
    /// The route whose first entry takes what may go to this machine only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_route: Option<String>,
    /// What providers on this machine get.
    #[serde(default)]
    pub local: LocalPrivacy,
}

/// What providers on this machine get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalPrivacy {
    /// Everything as it is, but for values of the vault and canaries.
    #[default]
    AsIs,
    /// The same as others, but that `local` is satisfied.
    Same,
}

impl Default for Privacy {
    fn default() -> Self {
        Self {
            default: Treatment::AsIs,
            secrets: Treatment::Pseudonym,
            types: BTreeMap::new(),
            names: Vec::new(),
            canaries: Vec::new(),
            labels: BTreeMap::new(),
            local_route: None,
            local: LocalPrivacy::AsIs,
        }
    }
}

/// Bytes a memory may have, unless `[memory] limit` says otherwise.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes `[memory] limit` may say at most.
pub const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// `[memory]`: a tree at `/memory` that outlives the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What the agent may do with it.
    pub access: MemoryAccess,
    /// Whom it is kept for.
    pub serves: Serves,
    /// Bytes of its files together.
    pub bytes_max: u64,
}

/// What an agent may do with its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryAccess {
    /// Read it.
    Read,
    /// Read and change it.
    Write,
}

/// Whom a memory is kept for, beside its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serves {
    /// The user the run acts for.
    User,
    /// The agent's team.
    Team,
}

impl Serves {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Team => "team",
        }
    }
}

/// `[[tool]]`: a command tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandTool {
    /// `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// For the model.
    pub description: String,
    /// Program and arguments; run in the manifest's directory.
    pub command: Vec<String>,
    /// After a crash: exit 0 = it happened, 1 = it did not, else no answer.
    pub probe: Option<Vec<String>>,
    /// The input schema's path as written.
    pub input_schema_file: Option<String>,
    /// The input schema, once it is read.
    pub input_schema: Option<Value>,
    /// The output schema's path as written.
    pub output_schema_file: Option<String>,
    /// The output schema, once it is read.
    pub output_schema: Option<Value>,
    /// Its effect class; never `workspace`.
    pub effect: EffectClass,
    /// Time limit, milliseconds.
    pub timeout_ms: u64,
    /// Attempts in all, for read and idempotent only.
    pub attempts: u32,
    /// Pause before the second attempt, milliseconds; doubled each time.
    pub backoff_ms: u64,
    /// Where its result says how old it is; never a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<crate::AsOfField>,
}

/// `[[check]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Shell command in the sandbox; exit 0 passes.
    pub command: String,
    /// Time limit, milliseconds.
    pub timeout_ms: u64,
}
