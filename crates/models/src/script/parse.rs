//! Strict reading of a script: unknown keys, wrong types and turns that say nothing are errors
//! with their line and a suggestion.

use super::{CALLS_MAX, Call, Fault, FaultKind, SCRIPT_BYTES_MAX, Script, TURNS_MAX, Turn};
use crate::error::ModelError;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use types::manifest::nearest;

const TURN_KEYS: [&str; 7] = ["text", "reasoning", "tool", "arguments", "calls", "when", "fault"];
const CALL_KEYS: [&str; 2] = ["tool", "arguments"];
const WHEN_KEYS: [&str; 1] = ["contains"];
const FAULT_KEYS: [&str; 7] =
    ["status", "retry_after", "stall", "cut_at", "garbage", "endless", "times"];
/// Longest name of a tool, as providers take it.
const TOOL_NAME_BYTES_MAX: usize = 64;

/// Reads a script; `name` is for messages.
///
/// # Errors
/// [`ModelError::ScriptInvalid`] with the line.
pub fn parse(text: &str, name: &str) -> Result<Script, ModelError> {
    let place = Place { text };
    let script = place.script(text, name);
    script.map_err(|Problem { at, why }| ModelError::ScriptInvalid {
        name: name.chars().take(200).collect(),
        why: match at {
            Some(at) => format!("line {}: {why}", place.line(at)),
            None => why,
        },
    })
}

/// What is wrong, and the byte where it is.
struct Problem {
    at: Option<usize>,
    why: String,
}

type Read<T> = Result<T, Problem>;
type Table<'a, 'i> = &'a DeTable<'i>;
type Node<'a, 'i> = &'a Spanned<DeValue<'i>>;

fn wrong<T>(at: usize, why: impl Into<String>) -> Read<T> {
    Err(Problem { at: Some(at), why: why.into() })
}

struct Place<'t> {
    text: &'t str,
}

impl Place<'_> {
    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn script(&self, text: &str, name: &str) -> Read<Script> {
        if text.len() > SCRIPT_BYTES_MAX {
            let why = format!("it has {} bytes, more than {SCRIPT_BYTES_MAX}", text.len());
            return Err(Problem { at: None, why });
        }
        let root = DeTable::parse(text).map_err(|error| Problem {
            at: error.span().map(|span| span.start),
            why: error.message().trim_end().replace('\n', "; "),
        })?;
        let root = root.get_ref();
        known_keys(root, &["turn"], "at the top; a script is a list of [[turn]]")?;
        let Some((key, node)) = root.iter().next() else {
            let why = "it has no [[turn]]".to_owned();
            return Err(Problem { at: None, why });
        };
        let DeValue::Array(turns) = node.get_ref() else {
            return wrong(key.span().start, "write [[turn]], with two brackets");
        };
        if turns.len() > TURNS_MAX {
            return wrong(key.span().start, format!("there are more than {TURNS_MAX} turns"));
        }
        if turns.is_empty() {
            return wrong(key.span().start, "it has no [[turn]]");
        }
        let turns = turns.iter().map(turn).collect::<Read<_>>()?;
        Ok(Script { name: name.to_owned(), turns })
    }
}

fn known_keys(table: Table<'_, '_>, known: &[&str], place: &str) -> Read<()> {
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            continue;
        }
        let hint = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("known here: {}", known.join(", ")),
        };
        return wrong(key.span().start, format!("unknown key '{name}' {place}: {hint}"));
    }
    Ok(())
}

fn table<'a, 'i>(node: Node<'a, 'i>, what: &str) -> Read<Table<'a, 'i>> {
    match node.get_ref() {
        DeValue::Table(table) => Ok(table),
        _ => wrong(node.span().start, format!("{what} is a table")),
    }
}

fn text(node: Node<'_, '_>, what: &str) -> Read<String> {
    match node.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        _ => wrong(node.span().start, format!("{what} is a text in quotes")),
    }
}

fn number(node: Node<'_, '_>, what: &str, least: u64, most: u64) -> Read<u64> {
    let number = match node.get_ref() {
        DeValue::Integer(number) => number.to_string().replace('_', "").parse::<u64>().ok(),
        _ => None,
    };
    match number.filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok(number),
        None => {
            wrong(node.span().start, format!("{what} is a whole number from {least} to {most}"))
        }
    }
}

fn turn(node: Node<'_, '_>) -> Read<Turn> {
    let start = node.span().start;
    let fields = table(node, "a turn")?;
    known_keys(fields, &TURN_KEYS, "in a turn")?;
    let mut turn = Turn::default();
    if let Some(node) = fields.get("text") {
        turn.text = text(node, "text")?;
    }
    if let Some(node) = fields.get("reasoning") {
        turn.reasoning = text(node, "reasoning")?;
    }
    match (fields.get("tool"), fields.get("arguments"), fields.get("calls")) {
        (Some(_), _, None) => turn.calls.push(call(fields, start)?),
        (Some(tool), _, Some(_)) => {
            return wrong(tool.span().start, "a turn has either tool or calls, not both");
        }
        (None, Some(node), _) => {
            return wrong(node.span().start, "arguments stand beside tool, or within calls");
        }
        (None, None, Some(node)) => turn.calls = calls(node)?,
        (None, None, None) => {}
    }
    turn.contains = fields.get("when").map(when).transpose()?;
    turn.fault = fields.get("fault").map(fault).transpose()?;
    if turn.text.is_empty() && turn.calls.is_empty() && turn.fault.is_none() {
        return wrong(start, "this turn says nothing: give it text, tool or calls");
    }
    Ok(turn)
}

fn calls(node: Node<'_, '_>) -> Read<Vec<Call>> {
    let DeValue::Array(calls) = node.get_ref() else {
        return wrong(node.span().start, "calls is a list of { tool = ..., arguments = ... }");
    };
    if calls.len() > CALLS_MAX {
        return wrong(node.span().start, format!("there are more than {CALLS_MAX} calls"));
    }
    let read = |node: Node<'_, '_>| {
        let fields = table(node, "a call")?;
        known_keys(fields, &CALL_KEYS, "in a call")?;
        call(fields, node.span().start)
    };
    calls.iter().map(read).collect()
}

fn call(fields: Table<'_, '_>, start: usize) -> Read<Call> {
    let Some(node) = fields.get("tool") else {
        return wrong(start, "a call names its tool");
    };
    let tool = text(node, "tool")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if tool.is_empty() || tool.len() > TOOL_NAME_BYTES_MAX || !tool.bytes().all(plain) {
        let why = format!("a tool's name has 1 to {TOOL_NAME_BYTES_MAX} letters, digits, _ or -");
        return wrong(node.span().start, why);
    }
    let arguments = match fields.get("arguments") {
        Some(node) => json_object(table(node, "arguments")?)?,
        None => Map::new(),
    };
    Ok(Call { tool, arguments })
}

fn when(node: Node<'_, '_>) -> Read<String> {
    let fields = table(node, "when")?;
    known_keys(fields, &WHEN_KEYS, "in when")?;
    let Some(inner) = fields.get("contains") else {
        return wrong(node.span().start, "write when = { contains = \"...\" }");
    };
    let contains = text(inner, "contains")?;
    if contains.is_empty() {
        return wrong(inner.span().start, "every text contains the empty one: leave out when");
    }
    Ok(contains)
}

fn fault(node: Node<'_, '_>) -> Read<Fault> {
    let start = node.span().start;
    let fields = table(node, "fault")?;
    known_keys(fields, &FAULT_KEYS, "in fault")?;
    let mut kinds = Vec::new();
    if let Some(node) = fields.get("status") {
        let status = number(node, "status", 400, 599)?;
        let retry_after = fields.get("retry_after");
        let retry_after =
            retry_after.map(|node| number(node, "retry_after", 0, 86_400)).transpose()?;
        kinds.push(FaultKind::Status {
            status: u16::try_from(status).expect("at most 599"),
            retry_after,
        });
    } else if let Some(node) = fields.get("retry_after") {
        return wrong(node.span().start, "retry_after stands beside status");
    }
    if let Some(node) = fields.get("cut_at") {
        kinds.push(FaultKind::CutAt(number(node, "cut_at", 0, 1 << 30)?));
    }
    let switches = [
        ("stall", FaultKind::Stall),
        ("garbage", FaultKind::Garbage),
        ("endless", FaultKind::Endless),
    ];
    for (key, kind) in switches {
        match fields.get(key).map(|node| (node.get_ref(), node.span().start)) {
            None | Some((DeValue::Boolean(false), _)) => {}
            Some((DeValue::Boolean(true), _)) => kinds.push(kind),
            Some((_, at)) => return wrong(at, format!("{key} is true or false")),
        }
    }
    let times = fields.get("times");
    let times = times.map(|node| number(node, "times", 1, u64::from(u32::MAX))).transpose()?;
    let times = times.map(|times| u32::try_from(times).expect("checked"));
    match (kinds.pop(), kinds.is_empty()) {
        (Some(kind), true) => Ok(Fault { kind, times }),
        _ => wrong(start, "a fault is exactly one of status, stall, cut_at, garbage, endless"),
    }
}

fn json_object(table: Table<'_, '_>) -> Read<Map<String, Value>> {
    let field = |(key, node): (&Spanned<std::borrow::Cow<'_, str>>, Node<'_, '_>)| {
        Ok((key.get_ref().to_string(), json(node)?))
    };
    table.iter().map(field).collect()
}

/// A TOML value as JSON. Dates become texts; numbers that JSON lacks are refused.
fn json(node: Node<'_, '_>) -> Read<Value> {
    let at = node.span().start;
    Ok(match node.get_ref() {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Datetime(value) => Value::from(value.to_string()),
        DeValue::Integer(value) => {
            let digits = value.as_str().replace('_', "");
            match i64::from_str_radix(&digits, value.radix()) {
                Ok(value) => Value::from(value),
                Err(_) => return wrong(at, "this number is too large"),
            }
        }
        DeValue::Float(value) => {
            let value = value.as_str().replace('_', "").parse::<f64>().ok();
            match value.and_then(Number::from_f64) {
                Some(value) => Value::Number(value),
                None => return wrong(at, "JSON has no such number"),
            }
        }
        DeValue::Array(values) => Value::Array(values.iter().map(json).collect::<Read<_>>()?),
        DeValue::Table(fields) => Value::Object(json_object(fields)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use types::Coded as _;

    #[test]
    fn every_form_of_turn_is_read() {
        let script = parse(
            r#"
[[turn]]
text = "hello"

[[turn]]
tool = "shell"
arguments = { command = "ls", deep = { list = [1, 0x10, 2.5, true, "x"] } }

[[turn]]
text = "both"
reasoning = "hm"
calls = [{ tool = "a" }, { tool = "b", arguments = { x = 1_000 } }]
when = { contains = "denied" }

[[turn]]
fault = { status = 429, retry_after = 1, times = 2 }
text = "then"
"#,
            "turns.toml",
        )
        .expect("a good script");
        assert_eq!(script.turns.len(), 4);
        assert_eq!(
            Value::Object(script.turns[1].calls[0].arguments.clone()),
            json!({"command": "ls", "deep": {"list": [1, 16, 2.5, true, "x"]}}),
        );
        assert_eq!(script.turns[2].calls.len(), 2);
        assert_eq!(script.turns[2].contains.as_deref(), Some("denied"));
        assert_eq!(script.turns[2].reasoning, "hm");
        let fault = script.turns[3].fault.clone().expect("has one");
        assert_eq!(fault.times, Some(2));
        assert_eq!(fault.kind, FaultKind::Status { status: 429, retry_after: Some(1) });
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let check = |text: &str, expected: &str| {
            let error = parse(text, "t.toml").expect_err(text);
            assert_eq!(error.code(), "BP-MODEL-013");
            let shown = error.to_string();
            assert!(shown.contains(expected), "{shown}");
        };
        check("", "no [[turn]]");
        check("turn = []", "no [[turn]]");
        check("[turn]\ntext = \"a\"", "line 1: write [[turn]]");
        check("[[turns]]\n", "line 1: unknown key 'turns'");
        check(
            "[[turn]]\ntext = \"a\"\n[[turn]]\ntxet = \"b\"\n",
            "line 4: unknown key 'txet' in a turn: did you mean 'text'?",
        );
        check("[[turn]]\n\n[[turn]]\ntext = 3\n", "line 1: this turn says nothing");
        check("[[turn]]\ntext = 3\n", "line 2: text is a text");
        check("[[turn]]\ntool = \"a b\"\n", "line 2: a tool's name");
        check("[[turn]]\ntool = \"a\"\ncalls = []\n", "line 2: a turn has either");
        check("[[turn]]\narguments = {}\n", "line 2: arguments stand beside tool");
        check("[[turn]]\ncalls = [{ arguments = {} }]\n", "line 2: a call names its tool");
        check("[[turn]]\ncalls = [{ tool = \"a\", argument = {} }]\n", "did you mean 'arguments'?");
        check("[[turn]]\ntext = \"a\"\nwhen = { contain = \"b\" }\n", "did you mean 'contains'?");
        check(
            "[[turn]]\ntext = \"a\"\nwhen = { contains = \"\" }\n",
            "line 3: every text contains",
        );
        check("[[turn]]\nfault = { status = 200 }\n", "from 400 to 599");
        check("[[turn]]\nfault = { retry_after = 1 }\n", "beside status");
        check("[[turn]]\nfault = { stall = true, garbage = true }\n", "exactly one");
        check("[[turn]]\nfault = { times = 1 }\n", "exactly one");
        check("[[turn]]\nfault = { stall = true, times = 0 }\n", "from 1 to");
        check("[[turn]]\ntool = \"a\"\narguments = { x = nan }\n", "no such number");
        check("[[turn]]\ntext = \"a\ntext = \"b\"\n", "line 2");
    }

    #[test]
    fn sizes_are_limited_at_their_edge() {
        let turns = |count: usize| "[[turn]]\ntext=\"a\"\n".repeat(count);
        assert!(parse(&turns(TURNS_MAX), "t").is_ok());
        assert!(parse(&turns(TURNS_MAX + 1), "t").is_err());
        let calls =
            |count: usize| format!("[[turn]]\ncalls = [{}]\n", "{tool=\"a\"},".repeat(count));
        assert!(parse(&calls(CALLS_MAX), "t").is_ok());
        assert!(parse(&calls(CALLS_MAX + 1), "t").is_err());
        let padded = |bytes: usize| {
            let turn = "[[turn]]\ntext=\"a\"\n#";
            format!("{turn}{}", "x".repeat(bytes - turn.len()))
        };
        assert!(parse(&padded(SCRIPT_BYTES_MAX), "t").is_ok());
        assert!(parse(&padded(SCRIPT_BYTES_MAX + 1), "t").is_err());
    }
}
