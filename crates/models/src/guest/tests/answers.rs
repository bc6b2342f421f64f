//! Answers as clients see them.

use super::super::*;
use super::{DIALECTS, reads};
use crate::decode::{Answer, Finish};
use serde_json::json;
use types::{Digest, Origin, Usage};

fn answer() -> Answer {
    let call = |id: &str, name: &str, arguments: Value| Item::ToolCall {
        call_id: id.into(),
        name: name.into(),
        arguments,
    };
    Answer {
        items: vec![
            Item::Reasoning {
                summary: "hm".into(),
                opaque: Some(json!({"messages_block": {"type": "thinking", "signature": "s"}})),
                origin: Origin { provider: "anthropic".into(), model: "m".into() },
            },
            Item::AssistantMessage { text: "I look.".into() },
            call("call_1", "shell", json!({"command": "ls"})),
            call("a call: with odd id", "shell", Value::String("{broken".into())),
        ],
        usage: Usage {
            input_tokens: 10,
            cached_tokens: 4,
            cache_write_tokens: 2,
            output_tokens: 5,
            ..Usage::default()
        },
        usage_estimated: false,
        finish: Finish::ToolCalls,
    }
}

fn rendered(dialect: Dialect, stream: bool) -> String {
    let mut renderer = Renderer::new(dialect, stream, "default", Digest::of(b"request"));
    renderer.include_usage_in_stream();
    let mut bytes = renderer.begin();
    bytes.extend(renderer.text("I "));
    bytes.extend(renderer.answer(&answer()));
    String::from_utf8(bytes).expect("text")
}

#[test]
fn streams_have_their_events_in_order() {
    insta::assert_snapshot!("responses_stream", rendered(Dialect::Responses, true));
    insta::assert_snapshot!("chat_stream", rendered(Dialect::Chat, true));
    insta::assert_snapshot!("messages_stream", rendered(Dialect::Messages, true));
}

#[test]
fn whole_answers_are_one_body() {
    for dialect in DIALECTS {
        let body: Value = serde_json::from_str(&rendered(dialect, false)).expect("one JSON value");
        insta::assert_snapshot!(format!("{dialect:?}_whole"), format!("{body:#}"));
    }
}

#[test]
fn reasoning_comes_back_through_a_guest_as_it_was() {
    let mut renderer = Renderer::new(Dialect::Responses, false, "m", Digest::ZERO);
    let whole: Value = serde_json::from_slice(&renderer.answer(&answer())).expect("JSON");
    let request = reads(Dialect::Responses, &json!({"model": "m", "input": whole["output"]}));
    assert_eq!(request.items[0], answer().items[0]);
    let mut renderer = Renderer::new(Dialect::Messages, false, "m", Digest::ZERO);
    let whole: Value = serde_json::from_slice(&renderer.answer(&answer())).expect("JSON");
    let said = json!({"role": "assistant", "content": whole["content"]});
    let request = reads(Dialect::Messages, &json!({"model": "m", "messages": [said]}));
    assert_eq!(request.items[0], answer().items[0]);
    let hidden = Item::Reasoning {
        summary: String::new(),
        opaque: Some(json!({"x": 1})),
        origin: Origin { provider: "openai".into(), model: "m".into() },
    };
    let mut renderer = Renderer::new(Dialect::Messages, false, "m", Digest::ZERO);
    renderer.item(&hidden);
    let whole = renderer.finish(&Usage::default(), Finish::Stop);
    let whole: Value = serde_json::from_slice(&whole).expect("JSON");
    assert_eq!(whole["content"][0]["type"], "redacted_thinking");
    let said = json!({"role": "assistant", "content": whole["content"]});
    let request = reads(Dialect::Messages, &json!({"model": "m", "messages": [said]}));
    assert_eq!(request.items, [hidden]);
}

#[test]
fn a_guest_s_own_kinds_of_tools_come_back_as_they_were_offered() {
    let request = reads(
        Dialect::Responses,
        &json!({"model": "m", "input": "go", "tools": [
            {"type": "custom", "name": "apply_patch"},
            {"type": "local_shell"},
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "close"}]},
            {"type": "function", "name": "a name, with signs"},
        ]}),
    );
    let mut renderer = Renderer::of(&request, Digest::ZERO);
    let arguments =
        [json!({"input": "*** Patch"}), json!({"command": "ls -l"}), json!({"id": 1}), json!({})];
    for (tool, arguments) in request.tools.iter().zip(&arguments) {
        renderer.item(&Item::ToolCall {
            call_id: format!("c_{}", tool.name.len()),
            name: tool.name.clone(),
            arguments: arguments.clone(),
        });
    }
    let whole = renderer.finish(&Usage::default(), Finish::ToolCalls);
    let whole: Value = serde_json::from_slice(&whole).expect("JSON");
    let output = whole["output"].as_array().expect("items");
    assert_eq!(
        (&output[0]["type"], &output[0]["input"]),
        (&json!("custom_tool_call"), &json!("*** Patch"))
    );
    assert_eq!(output[1]["action"]["command"], json!(["bash", "-lc", "ls -l"]));
    assert_eq!((&output[2]["namespace"], &output[2]["name"]), (&json!("agents"), &json!("close")));
    assert_eq!(output[3]["name"], "a name, with signs");
    let again = reads(Dialect::Responses, &json!({"model": "m", "input": output}));
    let calls: Vec<(&str, &Value)> = again
        .items
        .iter()
        .filter_map(|item| match item {
            Item::ToolCall { name, arguments, .. } => Some((name.as_str(), arguments)),
            _ => None,
        })
        .collect();
    let expected: Vec<(&str, &Value)> =
        request.tools.iter().map(|tool| tool.name.as_str()).zip(&arguments).collect();
    assert_eq!(calls, expected, "the history names them as the tools are named");
}

#[test]
fn a_failure_in_the_middle_ends_the_stream() {
    let fault = GuestFault::new(503, "BP-MODEL-006", "cut off");
    for (dialect, expected) in [
        (Dialect::Responses, "event: response.failed\ndata: "),
        (Dialect::Chat, "data: {\"error\":{\"message\":\"cut off (BP-MODEL-006)\""),
        (
            Dialect::Messages,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"",
        ),
    ] {
        let mut renderer = Renderer::new(dialect, true, "m", Digest::ZERO);
        assert!(renderer.error(&fault).is_empty(), "nothing has begun");
        assert!(renderer.keep_alive().is_empty());
        let mut renderer = Renderer::new(dialect, true, "m", Digest::ZERO);
        let mut bytes = renderer.begin();
        assert!(!renderer.keep_alive().is_empty());
        bytes.extend(renderer.text("half"));
        let end = renderer.error(&fault);
        assert!(end.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(&end));
        assert!(renderer.answer(&answer()).is_empty() && renderer.text("x").is_empty());
        assert!(renderer.keep_alive().is_empty());
        bytes.extend(end);
        let context = crate::decode::Context {
            origin: Origin { provider: "us".into(), model: "m".into() },
            request: Digest::ZERO,
            request_bytes: 0,
        };
        use types::Coded as _;
        let read = crate::decode::decode(dialect, &context, &bytes).expect_err("a failure");
        assert_eq!(read.code(), "BP-MODEL-004");
    }
}

#[test]
fn the_same_request_in_other_clothes_has_the_same_key() {
    let base = json!({
        "model": "a", "instructions": "Help.\nToday's date is 2026-11-21.",
        "input": [
            {"role": "user", "content": "go"},
            {"type": "function_call", "call_id": "x", "name": "a", "arguments": "{\"p\":1,\"q\":2}"},
            {"type": "function_call_output", "call_id": "x", "output": "r"},
        ],
        "tools": [{"type": "function", "name": "a"}, {"type": "function", "name": "b"}],
    });
    let key = |body: &Value| request_key(&reads(Dialect::Responses, body));
    let same = |change: &dyn Fn(&mut Value)| {
        let mut other = base.clone();
        change(&mut other);
        key(&other) == key(&base)
    };
    assert!(same(&|body| body["model"] = "b".into()));
    assert!(same(&|body| body["prompt_cache_key"] = "session-2".into()));
    assert!(same(&|body| body["instructions"] = "Help.\nToday's date is 2026-11-22.".into()));
    assert!(same(&|body| {
        body["input"][1]["call_id"] = "y".into();
        body["input"][2]["call_id"] = "y".into();
    }));
    assert!(same(&|body| body["input"][1]["arguments"] = "{\"q\":2,\"p\":1}".into()));
    assert!(same(&|body| body["tools"].as_array_mut().expect("tools").reverse()));
    assert!(!same(&|body| body["instructions"] = "Help.\nToday's date is near.".into()));
    assert!(!same(&|body| body["instructions"] = "Help!".into()));
    assert!(!same(&|body| body["input"][0]["content"] = "go on".into()));
    assert!(!same(&|body| body["input"][1]["name"] = "b".into()));
    assert!(!same(&|body| body["input"][1]["arguments"] = "{\"p\":2}".into()));
    assert!(!same(&|body| body["input"][2]["output"] = "s".into()));
    assert!(!same(&|body| body["tools"][0]["name"] = "c".into()));
}
