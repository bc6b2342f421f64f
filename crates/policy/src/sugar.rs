//! Presets and permissions entries to Cedar text, the same text for the same input.
//!
//! What `deny` lists is forbidden. What `ask` lists is permitted once approved, and forbidden
//! without approval whatever else permits it. What `allow` lists is permitted.

use crate::cedar::{pattern, printable as shown, quote};
use crate::entry::{self, Entry, Hosts, List, PathRule, ToolKind};
use crate::guard;
use crate::operation::{Operation, What};
use crate::{PolicyError, Sources};
use types::EffectClass;
use types::manifest::{MemoryAccess, Preset};

/// The directory a run works in, as the sandbox sees it.
pub const WORKSPACE: &str = "/workspace";
/// Where its agent's memory is, when it has one.
pub const MEMORY: &str = "/memory";
/// Most entries in one permissions list.
pub const ENTRIES_MAX: usize = 1000;

/// Generated policy text, and where each policy came from by its id.
#[derive(Debug, Default)]
pub(crate) struct Generated {
    pub(crate) text: String,
}

impl Generated {
    fn push(&mut self, id: &str, policy: &str) {
        self.text.push_str("@id(");
        self.text.push_str(&quote(id));
        self.text.push_str(")\n");
        self.text.push_str(policy);
        self.text.push_str("\n\n");
    }

    fn permit(&mut self, id: &str, scope: &str, when: &[String]) {
        self.push(id, &format!("permit(principal, {scope}){};", clauses(when)));
    }

    fn forbid(&mut self, id: &str, scope: &str, when: &[String], approvable: bool) {
        let unless = if approvable { "\n  unless { context.approved }" } else { "" };
        let when = clauses(when);
        self.push(id, &format!("forbid(principal, {scope}){when}{unless};"));
    }
}

fn clauses(when: &[String]) -> String {
    if when.is_empty() { String::new() } else { format!("\n  when {{ {} }}", when.join(" && ")) }
}

const APPROVED: &str = "context.approved";

/// Everything that permissions and the defaults mean.
pub(crate) fn generate(sources: &Sources) -> Result<Generated, Vec<PolicyError>> {
    let mut out = Generated::default();
    for route in &sources.routes {
        let scope =
            format!("action == Action::\"call_model\", resource == Route::{}", quote(route));
        out.permit(&format!("own.route: {}", shown(route)), &scope, &[]);
    }
    let mut errors = Vec::new();
    if let Some(permissions) = &sources.permissions {
        if let Some(preset) = permissions.preset {
            push_preset(&mut out, preset, sources);
        }
        for (name, entries, list) in [
            ("permissions.allow", &permissions.allow, List::Allow),
            ("permissions.ask", &permissions.ask, List::Ask),
            ("permissions.deny", &permissions.deny, List::Deny),
        ] {
            push_list(&mut out, name, entries, list, sources, &mut errors);
        }
    }
    let guards = sources.permissions.iter().flat_map(|permissions| &permissions.guard);
    for (id, policy) in guards.copied().flat_map(guard::policies) {
        out.push(&id, &policy);
    }
    let extra = &sources.extra_allow;
    push_list(&mut out, "run.allow", extra, List::Allow, sources, &mut errors);
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

fn push_list(
    out: &mut Generated,
    name: &str,
    entries: &[String],
    list: List,
    sources: &Sources,
    errors: &mut Vec<PolicyError>,
) {
    if entries.len() > ENTRIES_MAX {
        errors.push(PolicyError::TooLarge {
            what: format!("{name}, in entries"),
            actual: entries.len(),
            limit: ENTRIES_MAX,
        });
        return;
    }
    for (index, text) in entries.iter().enumerate() {
        let source_name = format!("{name}[{index}]");
        match entry::read(text, list, &source_name, &sources.tools) {
            Ok(entry) => {
                let id = format!("{source_name}: {}", shown(text));
                push_entry(out, &id, &entry, list, sources.memory);
            }
            Err(error) => errors.push(error),
        }
    }
}

fn push_preset(out: &mut Generated, preset: Preset, sources: &Sources) {
    for tool in &sources.tools {
        let action = match tool.kind {
            ToolKind::Shell | ToolKind::Check => "run_command",
            ToolKind::Wait => "call_tool",
            ToolKind::Files | ToolKind::Command => continue,
        };
        let id = format!("preset.observe.workspace: {}", shown(&tool.name));
        out.permit(&id, &tool_scope(action, &tool.name), &[]);
    }
    let files = format!(
        "action in [Action::\"read_file\", Action::\"write_file\"], resource in Path::{}",
        quote(WORKSPACE)
    );
    out.permit("preset.observe.workspace: files", &files, &[]);
    if let Some(access) = sources.memory {
        let actions = match access {
            MemoryAccess::Read => "action == Action::\"read_file\"",
            MemoryAccess::Write => "action in [Action::\"read_file\", Action::\"write_file\"]",
        };
        let scope = format!("{actions}, resource in Path::{}", quote(MEMORY));
        out.permit("preset.observe.memory: files", &scope, &[]);
    }
    if preset == Preset::Observe {
        return;
    }
    for (name, actions) in [
        ("tools", "action == Action::\"call_tool\""),
        ("network", "action in [Action::\"http_request\", Action::\"connect\"]"),
        ("secrets", "action == Action::\"use_secret\""),
        ("models", "action == Action::\"call_model\""),
    ] {
        let scope = format!("{actions}, resource");
        out.permit(&format!("preset.draft.{name}"), &scope, &[APPROVED.to_owned()]);
    }
    if preset == Preset::Act {
        let scope = "action == Action::\"call_tool\", resource";
        let bounded = "[\"read\", \"idempotent\"].contains(context.effect)";
        out.permit("preset.act.tools", scope, &[bounded.to_owned()]);
    }
}

fn tool_scope(action: &str, tool: &str) -> String {
    format!("action == Action::\"{action}\", resource == Tool::{}", quote(tool))
}

/// What one entry covers: scopes with their conditions.
#[derive(Clone)]
struct Cover {
    suffix: &'static str,
    /// Not asked even where the entry is.
    free: bool,
    scope: String,
    when: Vec<String>,
}

fn push_entry(
    out: &mut Generated,
    id: &str,
    entry: &Entry,
    list: List,
    memory: Option<MemoryAccess>,
) {
    let of_memory = memory.and_then(|access| memory_cover(entry, access));
    if list != List::Deny {
        let asked = list == List::Ask;
        for mut cover in opened(entry).into_iter().chain(of_memory.clone()) {
            if asked && !cover.free {
                cover.when.push(APPROVED.to_owned());
            }
            out.permit(&format!("{id}{}", cover.suffix), &cover.scope, &cover.when);
        }
    }
    if list != List::Allow {
        let approvable = list == List::Ask;
        for cover in closed(entry).into_iter().chain(of_memory) {
            let kind = if approvable { " (unapproved)" } else { "" };
            let id = format!("{id}{}{kind}", cover.suffix);
            out.forbid(&id, &cover.scope, &cover.when, approvable);
        }
    }
}

/// What an entry permits: exactly what it says.
fn opened(entry: &Entry) -> Vec<Cover> {
    match entry {
        Entry::Tool(name, kind, effect) => vec![tool_cover(name, *kind, *effect)],
        Entry::Http { method, hosts, port, path } => {
            let mut when = match method {
                Some(method) => vec![format!("context.method == {}", quote(method))],
                None => vec!["[\"GET\", \"HEAD\"].contains(context.method)".to_owned()],
            };
            when.extend(host_conditions(hosts));
            when.extend(port_condition(*port));
            when.extend(path_condition(path, false));
            when.extend(path.may_be_push().then(|| "context.operation != \"git push\"".to_owned()));
            vec![cover("http_request", hosts, when)]
        }
        Entry::Connect { hosts, port } => {
            let mut when = host_conditions(hosts);
            when.extend(port_condition(*port));
            vec![cover("connect", hosts, when)]
        }
        Entry::Secret { name, host } => vec![secret_cover(name, host.as_deref())],
        Entry::Operation(Operation { hosts, port, what }) => {
            let covers = what.opened().into_iter().map(|rule| {
                let mut when = host_conditions(hosts);
                when.extend(port_condition(*port));
                when.extend(rule.when);
                let cover = cover("http_request", hosts, when);
                Cover { suffix: rule.suffix, free: rule.free, ..cover }
            });
            covers.collect()
        }
    }
}

/// What an entry forbids: what it says, and what would be a way around it. An opaque connection
/// could carry any request, so a host of which anything is closed has no `connect`.
fn closed(entry: &Entry) -> Vec<Cover> {
    match entry {
        Entry::Tool(..) | Entry::Secret { .. } | Entry::Connect { .. } => opened(entry),
        Entry::Http { method, hosts, port, path } => {
            let mut when: Vec<String> = method
                .iter()
                .map(|method| format!("context.method == {}", quote(method)))
                .collect();
            when.extend(host_conditions(hosts));
            when.extend(port_condition(*port));
            when.extend(path_condition(path, true));
            vec![cover("http_request", hosts, when), opaque(hosts, *port)]
        }
        Entry::Operation(Operation { hosts, port, what }) => {
            let mut when = host_conditions(hosts);
            when.extend(port_condition(*port));
            when.extend(what.closed());
            // Git goes over SSH as well.
            let opaque_port =
                port.filter(|_| !matches!(what, What::Fetch { .. } | What::Push { .. }));
            vec![cover("http_request", hosts, when), opaque(hosts, opaque_port)]
        }
    }
}

fn opaque(hosts: &Hosts, port: Option<u16>) -> Cover {
    let mut when = host_conditions(hosts);
    when.extend(port_condition(port));
    Cover { suffix: " (opaque)", ..cover("connect", hosts, when) }
}

fn tool_cover(name: &str, kind: ToolKind, effect: EffectClass) -> Cover {
    let scope = match kind {
        ToolKind::Shell | ToolKind::Check => tool_scope("run_command", name),
        ToolKind::Command | ToolKind::Wait => tool_scope("call_tool", name),
        ToolKind::Files => {
            let action = if effect == EffectClass::Read { "read_file" } else { "write_file" };
            let workspace = quote(WORKSPACE);
            format!("action == Action::\"{action}\", resource in Path::{workspace}")
        }
    };
    Cover { suffix: "", free: false, scope, when: Vec::new() }
}

/// The tools of files work on memory as on the workspace, as far as the agent may use it at all.
fn memory_cover(entry: &Entry, access: MemoryAccess) -> Option<Cover> {
    let Entry::Tool(_, ToolKind::Files, effect) = entry else { return None };
    let action = match (effect, access) {
        (EffectClass::Read, _) => "read_file",
        (_, MemoryAccess::Write) => "write_file",
        (_, MemoryAccess::Read) => return None,
    };
    let scope = format!("action == Action::\"{action}\", resource in Path::{}", quote(MEMORY));
    Some(Cover { suffix: " (memory)", free: false, scope, when: Vec::new() })
}

fn secret_cover(name: &str, host: Option<&str>) -> Cover {
    Cover {
        suffix: "",
        free: false,
        scope: format!("action == Action::\"use_secret\", resource == Secret::{}", quote(name)),
        when: host.map(|host| format!("context.host == {}", quote(host))).into_iter().collect(),
    }
}

fn cover(action: &str, hosts: &Hosts, when: Vec<String>) -> Cover {
    let resource = match hosts {
        Hosts::Any => "resource".to_owned(),
        Hosts::One(name) => format!("resource == Host::{}", quote(name)),
        Hosts::Below(domain) => format!("resource in Domain::{}", quote(domain)),
    };
    let scope = format!("action == Action::\"{action}\", {resource}");
    Cover { suffix: "", free: false, scope, when }
}

/// `*.example.com` is what lies below the domain, without the domain's own name.
fn host_conditions(hosts: &Hosts) -> Vec<String> {
    match hosts {
        Hosts::Below(domain) => vec![format!("resource != Host::{}", quote(domain))],
        _ => Vec::new(),
    }
}

fn port_condition(port: Option<u16>) -> Option<String> {
    port.map(|port| format!("context.port == {port}"))
}

fn path_condition(path: &PathRule, widely: bool) -> Option<String> {
    match path {
        PathRule::Any => None,
        PathRule::Exactly(path) => Some(format!("context.path == {}", quote(path))),
        PathRule::Pattern(path) => {
            let like = format!("context.path like {}", pattern(path));
            Some(match path.strip_suffix("/*") {
                Some(directory) if widely => {
                    format!("({like} || context.path like {})", pattern(directory))
                }
                _ => like,
            })
        }
    }
}
