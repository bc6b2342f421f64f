//! Tools as guests know them, and as functions that every provider takes.

use serde_json::{Value, json};
use types::{Digest, ToolSpec};

/// The longest name that every provider takes.
const NAME_BYTES_MAX: usize = 64;
/// Between a name space and a name.
const BETWEEN: &str = "__";
/// The function that stands for a guest's own shell.
pub(crate) const LOCAL_SHELL: &str = "local_shell";
/// The only argument of a function that stands for a tool with free text.
pub(crate) const INPUT: &str = "input";

/// What a guest calls a tool, where that is not a function of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestTool {
    /// The guest's name for it.
    pub name: String,
    /// The name space it is in, if any.
    pub namespace: Option<String>,
    /// Of what kind it is.
    pub kind: ToolKind,
}

/// Kinds of tools that guests offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolKind {
    /// A function with JSON arguments.
    Function,
    /// Free text, often with a grammar: as a function it has one argument, `input`.
    Custom,
    /// The guest's own shell: as a function it has one argument, `command`.
    LocalShell,
}

/// One tool of a guest, or what it offers that is none of ours.
pub(crate) enum Offered {
    Tool(ToolSpec, GuestTool),
    /// What it is, for a note.
    Dropped(String),
}

/// The name every provider takes for a guest's tool: the same one, if it can be.
pub(crate) fn plain_name(namespace: Option<&str>, name: &str) -> String {
    let whole = match namespace {
        Some(space) => format!("{}{BETWEEN}{name}", space.trim_end_matches('_')),
        None => name.to_owned(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !whole.is_empty() && whole.len() <= NAME_BYTES_MAX && whole.chars().all(plain) {
        return whole;
    }
    let mut cleaned: String = whole.chars().filter(|c| plain(*c)).collect();
    let mark = Digest::of(whole.as_bytes()).short();
    cleaned.truncate(NAME_BYTES_MAX - mark.len() - 1);
    format!("{cleaned}_{mark}")
}

/// The tools of a request, whichever dialect it is in.
pub(crate) fn offered(tool: &Value, namespace: Option<&str>) -> Vec<Offered> {
    let kind = tool["type"].as_str().unwrap_or_default();
    match kind {
        // Chat wraps what it offers.
        "function" if tool["function"].is_object() => vec![function(&tool["function"], namespace)],
        "custom" if tool["custom"].is_object() => vec![custom(&tool["custom"], namespace)],
        "function" => vec![function(tool, namespace)],
        // Messages has no kind, or this one, for what Responses calls a function.
        "" | "custom" if tool["input_schema"].is_object() => vec![function(tool, namespace)],
        "custom" => vec![custom(tool, namespace)],
        "local_shell" => vec![local_shell()],
        "namespace" if namespace.is_none() => {
            let inner = tool["tools"].as_array().into_iter().flatten();
            inner.flat_map(|inner| offered(inner, tool["name"].as_str())).collect()
        }
        kind => vec![Offered::Dropped(format!("the tool '{}'", short(kind)))],
    }
}

fn function(tool: &Value, namespace: Option<&str>) -> Offered {
    let schema = [&tool["parameters"], &tool["input_schema"]]
        .into_iter()
        .find(|schema| schema.is_object())
        .cloned()
        .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    named(tool, namespace, ToolKind::Function, text(&tool["description"]), schema)
}

fn custom(tool: &Value, namespace: Option<&str>) -> Offered {
    let mut description = text(&tool["description"]);
    let format = &tool["format"];
    // Chat puts the grammar one level deeper.
    let grammar = if format["grammar"].is_object() { &format["grammar"] } else { format };
    if let Some(definition) = grammar["definition"].as_str() {
        let syntax = grammar["syntax"].as_str().unwrap_or("a");
        description
            .push_str(&format!("\n\n`{INPUT}` follows this {syntax} grammar:\n{definition}"));
    }
    let schema = one_text(INPUT, "The whole input, as it is.");
    named(tool, namespace, ToolKind::Custom, description, schema)
}

fn local_shell() -> Offered {
    let spec = ToolSpec {
        name: LOCAL_SHELL.to_owned(),
        description: "Runs a command in a shell and returns its output.".to_owned(),
        input_schema: one_text("command", "The command line, for bash."),
    };
    let tool =
        GuestTool { name: LOCAL_SHELL.to_owned(), namespace: None, kind: ToolKind::LocalShell };
    Offered::Tool(spec, tool)
}

fn one_text(name: &str, description: &str) -> Value {
    json!({
        "type": "object",
        "properties": {name: {"type": "string", "description": description}},
        "required": [name],
        "additionalProperties": false,
    })
}

fn named(
    tool: &Value,
    namespace: Option<&str>,
    kind: ToolKind,
    description: String,
    input_schema: Value,
) -> Offered {
    let Some(name) = tool["name"].as_str().filter(|name| !name.is_empty()) else {
        return Offered::Dropped("a tool without a name".to_owned());
    };
    let spec = ToolSpec { name: plain_name(namespace, name), description, input_schema };
    let namespace = namespace.map(str::to_owned);
    Offered::Tool(spec, GuestTool { name: name.to_owned(), namespace, kind })
}

impl GuestTool {
    /// Whether it is a function of the same name: nothing to remember.
    pub(crate) fn is_plain(&self, name: &str) -> bool {
        self.kind == ToolKind::Function && self.namespace.is_none() && self.name == name
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A word of the guest's as it may stand in a note.
pub(crate) fn short(word: &str) -> String {
    const CHARS_MAX: usize = 40;
    word.chars().filter(|c| !c.is_control()).take(CHARS_MAX).collect()
}
