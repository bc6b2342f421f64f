//! Strict reading of `bedplate.toml`: unknown keys, wrong types and values out of range are
//! errors with a place and a suggestion.

use super::{
    Agent, Budget, Check, CommandTool, Dialect, Guard, Limits, LimitsStrength, MANIFEST_SCHEMA,
    Manifest, Network, Permissions, Preset, Provider, RouteEntry, SandboxConfig,
    TOOL_TIMEOUT_MS_DEFAULT,
};
use crate::{AsOfField, Coded, EffectClass, Usd};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Longest name of an agent, tool, route or check, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Entries of `[sandbox] mounts`.
const MOUNTS_MAX: usize = 64;
/// Largest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Names of built-in tools; a command tool may not take one.
pub const BUILTIN_TOOLS: [&str; 6] =
    ["shell", "read_file", "write_file", "edit_file", "wait", "check"];

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, an unknown key or a wrong type.
    #[error("{place}: {message}")]
    Syntax {
        /// `bedplate.toml, line 3, column 7`.
        place: String,
        /// What is wrong, with a suggestion where there is one.
        message: String,
    },
    /// Well-formed, but a value cannot be used.
    #[error("{key}: {message}")]
    Value {
        /// The key, as `budget.usd`.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// Another version of the format.
    #[error(
        "this manifest says schema = {found}, and this bedplate reads schema = {MANIFEST_SCHEMA}"
    )]
    Schema {
        /// What it says.
        found: u32,
    },
    /// Too large.
    #[error("the manifest has {bytes} bytes, and the limit is {MANIFEST_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl Coded for ManifestError {
    fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "BP-CONFIG-001",
            Self::Value { .. } => "BP-CONFIG-002",
            Self::Schema { .. } => "BP-CONFIG-003",
            Self::TooLarge { .. } => "BP-CONFIG-004",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Syntax { .. } | Self::Value { .. } => {
                "Correct the manifest and run the command again; nothing was changed.".to_owned()
            }
            Self::Schema { .. } => {
                format!(
                    "Set schema = {MANIFEST_SCHEMA}, or use a bedplate that reads this version."
                )
            }
            Self::TooLarge { .. } => {
                "Move long instructions to instructions_file and schemas to files.".to_owned()
            }
        }
    }
}

/// Reads a manifest.
///
/// # Errors
/// When it is not TOML, has an unknown key, or a value cannot be used.
pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
    parse_with_overlay(text, None)
}

/// Reads a manifest with an overlay (`bedplate.prod.toml`) merged over it, key by key; lists are
/// replaced whole.
///
/// # Errors
/// As [`parse`], for either text.
pub fn parse_with_overlay(text: &str, overlay: Option<&str>) -> Result<Manifest, ManifestError> {
    let total = text.len() + overlay.map_or(0, str::len);
    if total > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge { bytes: total });
    }
    let raw: RawManifest = match overlay {
        None => toml::from_str(text).map_err(|error| syntax("bedplate.toml", text, &error))?,
        Some(over) => {
            let mut base: toml::Table =
                toml::from_str(text).map_err(|error| syntax("bedplate.toml", text, &error))?;
            let over_table: toml::Table =
                toml::from_str(over).map_err(|error| syntax("overlay", over, &error))?;
            merge(&mut base, over_table);
            RawManifest::deserialize(base)
                .map_err(|error| syntax("bedplate.toml with overlay", "", &error))?
        }
    };
    raw.check()
}

fn merge(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(new)) => merge(inner, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ManifestError {
    let place = match error.span() {
        Some(span) if !text.is_empty() => {
            let before = &text[..span.start.min(text.len())];
            let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            format!("{file}, line {line}, column {column}")
        }
        _ => file.to_owned(),
    };
    ManifestError::Syntax { place, message: with_suggestion(error.message()) }
}

/// Turns serde's list of known keys into one suggestion.
fn with_suggestion(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let is_unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let Some((unknown, known)) = quoted.split_first().filter(|_| is_unknown) else {
        return message.trim_end().replace('\n', "; ");
    };
    let what = if message.starts_with("unknown field") { "unknown key" } else { "unknown value" };
    match nearest(unknown, known.iter().copied()) {
        Some(best) => format!("{what} '{unknown}': did you mean '{best}'?"),
        None => format!("{what} '{unknown}'; known here: {}", known.join(", ")),
    }
}

/// The known word nearest to `word`, when it is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const SIMILARITY_MIN: f64 = 0.7;
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    schema: Option<u32>,
    agent: Option<RawAgent>,
    #[serde(default)]
    routes: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    providers: BTreeMap<String, RawProvider>,
    permissions: Option<RawPermissions>,
    #[serde(default)]
    budget: RawBudget,
    #[serde(default)]
    sandbox: RawSandbox,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    #[serde(default)]
    privacy: super::privacy::RawPrivacy,
    #[serde(default)]
    tool: Vec<RawTool>,
    #[serde(default)]
    check: Vec<RawCheck>,
    #[serde(default)]
    artifacts: RawArtifacts,
    memory: Option<super::memory::RawMemory>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAgent {
    name: Option<String>,
    instructions: Option<String>,
    instructions_file: Option<String>,
    model: Option<String>,
    team: Option<String>,
    command: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    dialect: Dialect,
    base_url: String,
    key_env: Option<String>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPermissions {
    preset: Option<Preset>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    ask: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    guard: Vec<String>,
    approval_expires: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBudget {
    usd: Option<f64>,
    tokens: Option<i64>,
    wall: Option<String>,
    actions: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSandbox {
    driver: Option<String>,
    image: Option<String>,
    workspace: Option<String>,
    limits: Option<RawLimits>,
    limits_strength: Option<LimitsStrength>,
    #[serde(default)]
    mounts: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    memory: Option<String>,
    cpus: Option<f64>,
    processes: Option<u32>,
    disk: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    #[serde(default)]
    resolve: BTreeMap<String, String>,
    #[serde(default)]
    trust: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, crate::Labels>,
    #[serde(default)]
    as_of: BTreeMap<String, String>,
    ask_wait: Option<String>,
    #[serde(default)]
    record: bool,
    replay: Option<String>,
}

/// `127.0.0.1:8443`, `[::1]:8443`: who dials reads it in full.
fn looks_like_address(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'.' | b':' | b'[' | b']');
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && host.bytes().all(known) && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

impl RawNetwork {
    fn check(self) -> Result<Network, ManifestError> {
        let wait = self.ask_wait.as_deref();
        let ask_wait_ms = wait.map(|text| duration("network.ask_wait", text)).transpose()?;
        for (name, address) in &self.resolve {
            if !looks_like_address(address) {
                let message = format!("{address:?} for {name} must be an address and a port");
                return Err(bad("network.resolve", message));
            }
        }
        let as_of = self.as_of.into_iter().map(|(key, field)| {
            let host = key.split('/').next().unwrap_or_default();
            let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
            let star = key.find('*').is_some_and(|at| at + 1 < key.len() || !key.contains('/'));
            if host.is_empty() || !host.bytes().all(known) || star {
                let message = format!("'{key}': write HOST, HOST/PATH or HOST/PATH*");
                return Err(bad("network.as_of", message));
            }
            Ok((key, as_of_field("network.as_of", field)?))
        });
        let as_of = as_of.collect::<Result<_, _>>()?;
        let replay = self.replay.as_deref().map(crate::RunId::parse).transpose();
        let replay = replay.map_err(|error| bad("network.replay", error.to_string()))?;
        if self.record && replay.is_some() {
            let message = "what is replayed is recorded already: leave out `record`".to_owned();
            return Err(bad("network.replay", message));
        }
        let (resolve, trust, labels, record) = (self.resolve, self.trust, self.labels, self.record);
        Ok(Network { resolve, trust, labels, as_of, ask_wait_ms, record, replay })
    }
}

fn as_of_field(key: &str, text: String) -> Result<AsOfField, ManifestError> {
    AsOfField::try_from(text).map_err(|message| bad(key, message))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTool {
    name: String,
    description: Option<String>,
    command: Vec<String>,
    probe: Option<Vec<String>>,
    input_schema: Option<String>,
    output_schema: Option<String>,
    effect: Option<EffectClass>,
    timeout: Option<String>,
    retries: Option<RawRetries>,
    as_of: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRetries {
    attempts: Option<u32>,
    backoff: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCheck {
    name: String,
    command: String,
    timeout: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArtifacts {
    #[serde(default)]
    paths: Vec<String>,
}

pub(super) fn bad(key: impl Into<String>, message: impl Into<String>) -> ManifestError {
    ManifestError::Value { key: key.into(), message: message.into() }
}

impl RawManifest {
    fn check(self) -> Result<Manifest, ManifestError> {
        match self.schema {
            Some(MANIFEST_SCHEMA) => {}
            Some(found) => return Err(ManifestError::Schema { found }),
            None => {
                return Err(bad("schema", "is missing: write schema = 1 in the first line"));
            }
        }
        let tools = self.tool.into_iter().map(RawTool::check).collect::<Result<Vec<_>, _>>()?;
        unique("tool", tools.iter().map(|t| t.name.as_str()))?;
        let checks = self.check.into_iter().map(RawCheck::check).collect::<Result<Vec<_>, _>>()?;
        unique("check", checks.iter().map(|c| c.name.as_str()))?;
        let manifest = Manifest {
            schema: MANIFEST_SCHEMA,
            agent: self.agent.unwrap_or_default().check()?,
            routes: routes(self.routes)?,
            providers: self.providers.into_iter().map(provider).collect::<Result<_, _>>()?,
            permissions: self.permissions.map(RawPermissions::check).transpose()?,
            budget: self.budget.check()?,
            sandbox: self.sandbox.check()?,
            network: self.network.check()?,
            secrets: self.secrets,
            privacy: self.privacy.check()?,
            tools,
            checks,
            artifacts: self.artifacts.paths,
            memory: self.memory.map(super::memory::RawMemory::check).transpose()?,
        };
        let route = &manifest.agent.model;
        if !manifest.routes.is_empty() && !manifest.routes.contains_key(route) {
            let known: Vec<&str> = manifest.routes.keys().map(String::as_str).collect();
            let message =
                format!("there is no route '{route}' in [routes]; known: {}", known.join(", "));
            return Err(bad("agent.model", message));
        }
        super::privacy::check_route(&manifest)?;
        super::memory::check_team(&manifest)?;
        Ok(manifest)
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(bad(what, format!("'{name}' is there twice")));
        }
    }
    Ok(())
}

fn name_ok(name: &str) -> bool {
    let chars = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(chars)
}

fn routes(
    raw: BTreeMap<String, Vec<String>>,
) -> Result<BTreeMap<String, Vec<RouteEntry>>, ManifestError> {
    let mut routes = BTreeMap::new();
    for (name, entries) in raw {
        let key = format!("routes.{name}");
        if !name_ok(&name) {
            return Err(bad(key, "a route's name is 1 to 64 letters, digits, '_' or '-'"));
        }
        if entries.is_empty() {
            return Err(bad(key, "a route needs at least one entry"));
        }
        let entries = entries
            .into_iter()
            .map(|entry| RouteEntry::try_from(entry).map_err(|message| bad(key.clone(), message)))
            .collect::<Result<Vec<_>, _>>()?;
        routes.insert(name, entries);
    }
    Ok(routes)
}

fn provider((name, raw): (String, RawProvider)) -> Result<(String, Provider), ManifestError> {
    let key = format!("providers.{name}");
    if !name_ok(&name) {
        return Err(bad(key, "a provider's name is 1 to 64 letters, digits, '_' or '-'"));
    }
    if name == super::SCRIPT_PROVIDER {
        return Err(bad(key, "'script' is the scripted model's own name"));
    }
    let good_url = raw.base_url.starts_with("http://") || raw.base_url.starts_with("https://");
    if !good_url {
        return Err(bad(format!("{key}.base_url"), "must begin with http:// or https://"));
    }
    let base_url = raw.base_url.trim_end_matches('/').to_owned();
    let timeout = raw.timeout.as_deref();
    let timeout_ms = timeout.map(|text| duration(&format!("{key}.timeout"), text)).transpose()?;
    let (dialect, key_env) = (raw.dialect, raw.key_env);
    Ok((name, Provider { dialect, base_url, key_env, timeout_ms }))
}

impl RawAgent {
    fn check(self) -> Result<Agent, ManifestError> {
        let name = self.name.unwrap_or_else(|| "agent".to_owned());
        if !name_ok(&name) {
            return Err(bad("agent.name", "must be 1 to 64 letters, digits, '_' or '-'"));
        }
        if self.instructions.is_some() && self.instructions_file.is_some() {
            return Err(bad("agent", "has both instructions and instructions_file: keep one"));
        }
        if let Some(command) = &self.command {
            check_command(command)?;
        }
        Ok(Agent {
            name,
            instructions: self.instructions.unwrap_or_default(),
            instructions_file: self.instructions_file,
            model: self.model.unwrap_or_else(|| "default".to_owned()),
            team: self.team.unwrap_or_default(),
            command: self.command.unwrap_or_default(),
        })
    }
}

/// A program's name and its arguments, as the kernel takes them.
fn check_command(command: &[String]) -> Result<(), ManifestError> {
    if command.first().is_none_or(String::is_empty) {
        return Err(bad("agent.command", "needs a program's name"));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(bad("agent.command", "a word has a NUL character"));
    }
    Ok(())
}

/// Mounts go below `/mnt/`, where nothing of ours is, by plain paths.
fn check_mounts(mounts: &BTreeMap<String, String>) -> Result<(), ManifestError> {
    for (inside, host) in mounts {
        let rest = inside.strip_prefix("/mnt/").unwrap_or_default();
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !rest.split('/').all(plain) {
            let message = format!("'{inside}': a mount goes below /mnt/, by a plain path");
            return Err(bad("sandbox.mounts", message));
        }
        if host.is_empty() || host.contains('\0') {
            return Err(bad("sandbox.mounts", format!("'{inside}' names no path on the host")));
        }
    }
    if mounts.len() > MOUNTS_MAX {
        return Err(bad("sandbox.mounts", format!("has more than {MOUNTS_MAX} entries")));
    }
    Ok(())
}

impl RawPermissions {
    fn check(self) -> Result<Permissions, ManifestError> {
        let expires = self.approval_expires.as_deref();
        let approval_expires_ms =
            expires.map(|text| duration("permissions.approval_expires", text)).transpose()?;
        let guard: Vec<Guard> =
            self.guard.iter().map(|text| read_guard(text)).collect::<Result<_, _>>()?;
        unique("permissions.guard", guard.iter().map(|guard| guard.name()))?;
        Ok(Permissions {
            guard,
            preset: self.preset,
            allow: self.allow,
            ask: self.ask,
            deny: self.deny,
            approval_expires_ms,
        })
    }
}

/// `trifecta` or `stale:SECONDS`.
fn read_guard(text: &str) -> Result<Guard, ManifestError> {
    const KEY: &str = "permissions.guard";
    const NAMES: [&str; 2] = ["trifecta", "stale"];
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    match (name, value) {
        ("trifecta", None) => Ok(Guard::Trifecta),
        ("trifecta", Some(_)) => Err(bad(KEY, "write 'trifecta' alone")),
        ("stale", value) => {
            let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
            let seconds = value.filter(digits).and_then(|text| text.parse().ok());
            let seconds = seconds.filter(|seconds| *seconds > 0).ok_or_else(|| {
                let limit = u32::MAX;
                bad(
                    KEY,
                    format!("'{text}': write 'stale:SECONDS', as 'stale:900', from 1 to {limit}"),
                )
            })?;
            Ok(Guard::Stale { seconds })
        }
        _ => Err(match nearest(name, NAMES.into_iter()) {
            Some(best) => bad(KEY, format!("unknown guard '{text}': did you mean '{best}'?")),
            None => bad(KEY, format!("unknown guard '{text}'; known: trifecta, stale:SECONDS")),
        }),
    }
}

impl RawBudget {
    fn check(self) -> Result<Budget, ManifestError> {
        let usd = self
            .usd
            .map(|dollars| {
                Usd::from_dollars(dollars).ok_or_else(|| {
                    bad("budget.usd", format!("{dollars} is not an amount from 0 up"))
                })
            })
            .transpose()?;
        let tokens = self.tokens.map(|n| count("budget.tokens", n)).transpose()?;
        let actions = self.actions.map(|n| count("budget.actions", n)).transpose()?;
        let wall_ms = self.wall.map(|text| duration("budget.wall", &text)).transpose()?;
        let actions = actions.unwrap_or(super::ACTIONS_DEFAULT);
        Ok(Budget { usd, tokens, wall_ms, actions })
    }
}

fn count(key: &str, number: i64) -> Result<u64, ManifestError> {
    u64::try_from(number).map_err(|_| bad(key, format!("{number} is below 0")))
}

impl RawSandbox {
    fn check(self) -> Result<SandboxConfig, ManifestError> {
        let driver = self.driver.unwrap_or_else(|| "process".to_owned());
        match driver.as_str() {
            "process" => {}
            "gvisor" | "vm" => {
                return Err(bad(
                    "sandbox.driver",
                    format!("the driver '{driver}' is not built yet: use \"process\""),
                ));
            }
            other => {
                return Err(bad(
                    "sandbox.driver",
                    format!("there is no driver '{other}': process, gvisor or vm"),
                ));
            }
        }
        let image = self.image.unwrap_or_else(|| "host".to_owned());
        if let Err(error) = image.parse::<crate::ImageSource>() {
            return Err(bad("sandbox.image", error.to_string()));
        }
        check_mounts(&self.mounts)?;
        Ok(SandboxConfig {
            driver,
            image,
            image_digest: None,
            workspace: self.workspace,
            limits: self.limits.unwrap_or_default().check()?,
            limits_strength: self.limits_strength.unwrap_or(LimitsStrength::Any),
            mounts: self.mounts,
        })
    }
}

impl RawLimits {
    fn check(self) -> Result<Limits, ManifestError> {
        const MEMORY_BYTES_MIN: u64 = 16 << 20;
        const CPUS_MAX: f64 = 1024.0;
        let mut limits = Limits::default();
        if let Some(text) = self.memory {
            limits.memory_bytes = size("sandbox.limits.memory", &text)?;
            if limits.memory_bytes < MEMORY_BYTES_MIN {
                return Err(bad("sandbox.limits.memory", "must be at least 16MiB"));
            }
        }
        if let Some(text) = self.disk {
            limits.disk_bytes = size("sandbox.limits.disk", &text)?;
        }
        if let Some(processes) = self.processes {
            if processes < 2 {
                return Err(bad("sandbox.limits.processes", "must be at least 2"));
            }
            limits.processes = processes;
        }
        if let Some(cpus) = self.cpus {
            if !(0.05..=CPUS_MAX).contains(&cpus) {
                return Err(bad("sandbox.limits.cpus", "must be from 0.05 to 1024"));
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "range checked above"
            )]
            let centis = (cpus * 100.0).round() as u32;
            limits.cpu_centis = centis;
        }
        Ok(limits)
    }
}

impl RawTool {
    fn check(self) -> Result<CommandTool, ManifestError> {
        let key = |part: &str| format!("tool '{}'.{part}", self.name);
        if !name_ok(&self.name) {
            return Err(bad(
                "tool.name",
                format!("'{}': 1 to 64 letters, digits, '_' or '-'", self.name),
            ));
        }
        if BUILTIN_TOOLS.contains(&self.name.as_str()) {
            return Err(bad("tool.name", format!("'{}' is a built-in tool", self.name)));
        }
        let empty = |c: &Vec<String>| c.first().is_none_or(String::is_empty);
        if empty(&self.command) {
            return Err(bad(key("command"), "is empty: the first word is the program"));
        }
        if self.probe.as_ref().is_some_and(empty) {
            return Err(bad(key("probe"), "is empty: the first word is the program"));
        }
        let effect = self.effect.unwrap_or(EffectClass::Irreversible);
        if effect == EffectClass::Workspace {
            return Err(bad(
                key("effect"),
                "a command tool runs on the host: read, idempotent or irreversible",
            ));
        }
        let retries = self.retries.unwrap_or(RawRetries { attempts: None, backoff: None });
        let attempts = retries.attempts.unwrap_or(1);
        if !(1..=10).contains(&attempts) {
            return Err(bad(key("retries.attempts"), "must be from 1 to 10"));
        }
        if attempts > 1 && effect == EffectClass::Irreversible {
            return Err(bad(key("retries"), "an irreversible tool is never tried again blindly"));
        }
        let timeout_ms =
            optional_duration(&key("timeout"), self.timeout.as_deref(), TOOL_TIMEOUT_MS_DEFAULT)?;
        let backoff_ms =
            optional_duration(&key("retries.backoff"), retries.backoff.as_deref(), 1_000)?;
        let as_of = self.as_of.clone().map(|text| as_of_field(&key("as_of"), text)).transpose()?;
        if matches!(as_of, Some(AsOfField::Header(_))) {
            return Err(bad(key("as_of"), "a tool's result has no headers: write \"/updated_at\""));
        }
        Ok(CommandTool {
            as_of,
            description: self.description.unwrap_or_default(),
            command: self.command,
            probe: self.probe,
            input_schema_file: self.input_schema,
            input_schema: None,
            output_schema_file: self.output_schema,
            output_schema: None,
            effect,
            timeout_ms,
            attempts,
            backoff_ms,
            name: self.name,
        })
    }
}

impl RawCheck {
    fn check(self) -> Result<Check, ManifestError> {
        if self.name.trim().is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(bad("check.name", "must be 1 to 64 bytes"));
        }
        if self.command.trim().is_empty() {
            return Err(bad(format!("check '{}'.command", self.name), "is empty"));
        }
        let key = format!("check '{}'.timeout", self.name);
        let timeout_ms = optional_duration(&key, self.timeout.as_deref(), TOOL_TIMEOUT_MS_DEFAULT)?;
        Ok(Check { name: self.name, command: self.command, timeout_ms })
    }
}

fn optional_duration(key: &str, text: Option<&str>, default_ms: u64) -> Result<u64, ManifestError> {
    text.map_or(Ok(default_ms), |text| duration(key, text))
}

/// Splits `30m` into the number and the unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

/// A duration such as `500ms`, `30s`, `30m`, `2h`, `3d`, in milliseconds.
fn duration(key: &str, text: &str) -> Result<u64, ManifestError> {
    const DURATION_MS_MAX: f64 = 366.0 * 86_400_000.0;
    let wrong = || bad(key, format!("'{text}' is no duration: write 500ms, 30s, 30m, 2h or 3d"));
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit {
        "ms" => 1.0,
        "s" => 1_000.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return Err(wrong()),
    };
    let ms = number * factor;
    if !(1.0..=DURATION_MS_MAX).contains(&ms) {
        return Err(bad(key, format!("'{text}' is outside 1ms to 366d")));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "range checked above"
    )]
    Ok(ms as u64)
}

/// A size such as `512MiB` or `4GiB`, in bytes.
pub(super) fn size(key: &str, text: &str) -> Result<u64, ManifestError> {
    const SIZE_MAX: f64 = (1u64 << 50) as f64;
    let wrong = || bad(key, format!("'{text}' is no size: write 64KiB, 512MiB or 4GiB"));
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if !(0.0..=SIZE_MAX).contains(&bytes) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "range checked above"
    )]
    Ok(bytes as u64)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
