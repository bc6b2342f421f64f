//! Guests in and out: what one side writes the other reads back.

mod answers;
mod round;

use super::*;
use serde_json::json;

const DIALECTS: [Dialect; 3] = [Dialect::Responses, Dialect::Chat, Dialect::Messages];

fn reads(dialect: Dialect, body: &Value) -> GuestRequest {
    decode_request(dialect, body.to_string().as_bytes()).expect("reads")
}

/// Items as `user:`, `say:`, `think:`, `call:id name(arguments)`, `result:id=output`.
fn shown(items: &[Item]) -> Vec<String> {
    let item = |item: &Item| match item {
        Item::UserMessage { text } => format!("user:{text}"),
        Item::AssistantMessage { text } => format!("say:{text}"),
        Item::Reasoning { summary, opaque, origin } => {
            let opaque = opaque.as_ref().map_or_else(String::new, ToString::to_string);
            format!("think:{summary} {opaque} {}", origin.provider)
        }
        Item::ToolCall { call_id, name, arguments } => {
            format!("call:{call_id} {name}({arguments})")
        }
        Item::ToolResult { call_id, output, is_error, .. } => {
            format!("result{}:{call_id}={output}", if *is_error { "!" } else { "" })
        }
    };
    items.iter().map(item).collect()
}

#[test]
fn codex_as_it_speaks() {
    let request = reads(
        Dialect::Responses,
        &json!({
            "model": "gpt-5.5", "stream": true, "store": false, "prompt_cache_key": "k",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be safe."}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "theirs"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
                {"type": "function_call", "call_id": "c1", "name": "exec_command", "arguments": "{\"cmd\":\"ls\"}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin Patch"},
                {"type": "local_shell_call", "call_id": "c3", "action": {"type": "exec", "command": ["bash", "-lc", "ls -l"]}},
                {"type": "function_call", "call_id": "c4", "namespace": "agents", "name": "close", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "a.txt"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "Done"}]},
                {"type": "local_shell_call_output", "call_id": "c3", "output": "x"},
                {"type": "web_search_call", "id": "w"},
                {"type": "message", "role": "developer", "content": "Now in plan mode."},
            ],
            "tools": [
                {"type": "function", "name": "exec_command", "description": "d", "parameters": {"type": "object"}},
                {"type": "custom", "name": "apply_patch", "description": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
                {"type": "local_shell"},
                {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "close", "description": "c"}]},
                {"type": "web_search"},
            ],
        }),
    );
    assert_eq!(request.instructions, "Be safe.");
    assert_eq!(
        shown(&request.items),
        [
            "user:one",
            "user:two",
            "think:hm  guest",
            "say:I look.",
            "call:c1 exec_command({\"cmd\":\"ls\"})",
            "call:c2 apply_patch({\"input\":\"*** Begin Patch\"})",
            "call:c3 local_shell({\"command\":\"ls -l\"})",
            "call:c4 agents__close({})",
            "result:c1=a.txt",
            "result:c2=Done",
            "result:c3=x",
            "user:<system>\nNow in plan mode.\n</system>",
        ]
    );
    let names: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["exec_command", "apply_patch", "local_shell", "agents__close"]);
    assert!(request.tools[1].description.contains("start: x"));
    assert_eq!(request.dropped, ["the tool 'web_search'", "an item of kind 'web_search_call'"]);
    assert_eq!(request.guest_tools.len(), 3);
}

#[test]
fn claude_code_as_it_speaks() {
    let request = reads(
        Dialect::Messages,
        &json!({
            "model": "claude-opus-5-5", "max_tokens": 128_000, "stream": true,
            "system": [{"type": "text", "text": "x-anthropic-billing-header: 1"}, {"type": "text", "text": "You help.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "<system-reminder>r</system-reminder>"}, {"type": "text", "text": "go"}]},
                {"role": "system", "content": [{"type": "text", "text": "# Environment"}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "theirs"}, {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "no"}, {"type": "tool_reference", "tool_name": "Later"}], "is_error": true}, {"type": "text", "text": "and?"}]},
            ],
            "tools": [
                {"name": "Bash", "description": "d", "input_schema": {"type": "object"}},
                {"name": "Later", "description": "d", "input_schema": {"type": "object"}, "defer_loading": true},
                {"name": "Never", "description": "d", "input_schema": {"type": "object"}, "defer_loading": true},
                {"type": "web_search_20250305", "name": "web_search"},
            ],
        }),
    );
    assert_eq!(request.instructions, "x-anthropic-billing-header: 1\n\nYou help.");
    assert_eq!(
        shown(&request.items),
        [
            "user:<system-reminder>r</system-reminder>",
            "user:go",
            "user:<system>\n# Environment\n</system>",
            "think:hm  guest",
            "say:I look.",
            "call:toolu_1 Bash({\"command\":\"ls\"})",
            "result!:toolu_1=no\n[tool Later]",
            "user:and?",
        ]
    );
    assert_eq!(request.tools.len(), 2);
    assert_eq!(
        request.dropped,
        ["tools that are loaded on demand", "the tool 'web_search_20250305'"]
    );
    assert_eq!(request.max_output_tokens, Some(128_000));
}

#[test]
fn what_another_provider_will_not_be_told_is_noted() {
    let dropped = |dialect, extra: Value| {
        let mut body = json!({"model": "m", "input": "x", "messages": [{"role": "user", "content": "x"}], "store": false, "metadata": {"a": 1}});
        for (key, value) in extra.as_object().expect("fields") {
            body[key] = value.clone();
        }
        reads(dialect, &body).dropped
    };
    assert_eq!(
        dropped(Dialect::Chat, json!({"temperature": 0, "stop": null})),
        ["the parameter 'temperature'"]
    );
    assert_eq!(
        dropped(Dialect::Chat, json!({"tool_choice": "required"})),
        ["the parameter 'tool_choice'"]
    );
    assert_eq!(dropped(Dialect::Responses, json!({"tool_choice": "auto"})), [""; 0]);
    assert_eq!(dropped(Dialect::Messages, json!({"tool_choice": {"type": "auto"}})), [""; 0]);
}

#[test]
fn what_is_no_request_is_refused_with_its_code() {
    use types::Coded as _;
    let check = |dialect, body: &str, expected: &str| {
        let error = decode_request(dialect, body.as_bytes()).expect_err(expected);
        assert_eq!(error.code(), "BP-MODEL-020");
        assert!(error.to_string().contains(expected), "{error}");
    };
    for dialect in DIALECTS {
        check(dialect, "", "no JSON");
        check(dialect, "[]", "no JSON object");
        check(dialect, "{\"model\":\"m\"}", "nobody says anything");
        check(dialect, "{\"model\":\"m\",\"tools\":3}", "'tools' is no list");
    }
    check(Dialect::Responses, "{\"input\":\"x\"}", "no model");
    check(
        Dialect::Responses,
        "{\"model\":\"m\",\"previous_response_id\":\"r\"}",
        "stored response",
    );
    check(Dialect::Responses, "{\"model\":\"m\",\"input\":[{\"role\":\"robot\"}]}", "unknown role");
    check(
        Dialect::Responses,
        "{\"model\":\"m\",\"input\":[{\"type\":\"function_call\",\"name\":\"a\"}]}",
        "no id",
    );
    check(Dialect::Chat, "{\"model\":\"m\",\"messages\":[{\"role\":\"x\"}]}", "unknown role 'x'");
    check(Dialect::Chat, "{\"model\":\"m\",\"n\":2,\"messages\":[]}", "more than one answer");
    check(Dialect::Messages, "{\"model\":\"m\",\"messages\":[{\"content\":\"\"}]}", "unknown role");
    let error = decode_request(Dialect::Gemini, b"{}").expect_err("not built");
    assert_eq!(error.code(), "BP-MODEL-015");
}

#[test]
fn requests_are_limited_at_their_edge() {
    use types::Coded as _;
    let items = |count: usize| {
        let message = json!({"role": "user", "content": "a"});
        json!({"model": "m", "messages": vec![message; count]}).to_string()
    };
    assert!(decode_request(Dialect::Chat, items(GUEST_ITEMS_MAX).as_bytes()).is_ok());
    assert!(decode_request(Dialect::Chat, items(GUEST_ITEMS_MAX + 1).as_bytes()).is_err());
    let tools = |count: usize| {
        let tool = |at: usize| json!({"name": format!("t{at}"), "input_schema": {}});
        let tools: Vec<Value> = (0..count).map(tool).collect();
        json!({"model": "m", "system": "s", "tools": tools}).to_string()
    };
    assert!(decode_request(Dialect::Messages, tools(GUEST_TOOLS_MAX).as_bytes()).is_ok());
    assert!(decode_request(Dialect::Messages, tools(GUEST_TOOLS_MAX + 1).as_bytes()).is_err());
    let notes: Vec<Value> =
        (0..=DROPPED_MAX).map(|at| json!({"type": format!("kind_{at}")})).collect();
    let noted = reads(Dialect::Responses, &json!({"model": "m", "input": "x", "tools": notes}));
    assert_eq!(noted.dropped.len(), DROPPED_MAX);
    let huge = vec![b' '; crate::limits::REQUEST_BYTES_MAX + 1];
    let error = decode_request(Dialect::Chat, &huge).expect_err("too large");
    assert_eq!(error.code(), "BP-MODEL-018");
}
