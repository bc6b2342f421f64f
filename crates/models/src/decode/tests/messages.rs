//! The Messages dialect.

use super::{TWO_CALLS, check, limits};
use crate::decode::{Context, Finish, decode};
use serde_json::{Value, json};
use types::manifest::Dialect;
use types::{Coded as _, Digest, Item, Origin};

fn stream(events: &[Value]) -> String {
    let event = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x"))
    };
    events.iter().map(event).collect()
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2, "output_tokens": 1}}})
}

fn begin(index: u64, block: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn delta(index: u64, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn stop(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ]
}

pub(super) fn two_calls() -> String {
    let thinking = |text: &str| delta(0, json!({"type": "thinking_delta", "thinking": text}));
    let said = |text: &str| delta(1, json!({"type": "text_delta", "text": text}));
    let input =
        |index, text: &str| delta(index, json!({"type": "input_json_delta", "partial_json": text}));
    let mut events = vec![
        start(),
        json!({"type": "ping"}),
        begin(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        thinking("h"),
        thinking("m"),
        delta(0, json!({"type": "signature_delta", "signature": "s1"})),
        json!({"type": "content_block_stop", "index": 0}),
        begin(1, json!({"type": "text", "text": ""})),
        said("Läs "),
        said("it."),
        begin(2, json!({"type": "tool_use", "id": "toolu_1", "name": "shell", "input": {}})),
        input(2, ""),
        input(2, "{\"command\":"),
        begin(3, json!({"type": "tool_use", "id": "toolu_2", "name": "read", "input": {}})),
        input(2, "\"ls\"}"),
        json!({"type": "some_future_event", "anything": [1]}),
    ];
    events.extend(stop("tool_use"));
    stream(&events)
}

pub(super) fn whole() -> String {
    json!({
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s1"},
            {"type": "text", "text": "Läs it."},
            {"type": "tool_use", "id": "toolu_1", "name": "shell", "input": {"command": "ls"}},
            {"type": "tool_use", "id": "toolu_2", "name": "read", "input": {}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 3},
    })
    .to_string()
}

fn check_stream(blocks: &[Value], reason: &str, expected: &str) {
    let mut events = vec![start()];
    events.extend_from_slice(blocks);
    events.extend(stop(reason));
    check(Dialect::Messages, &stream(&events), expected);
}

fn text(index: u64, text: &str) -> [Value; 2] {
    [
        begin(index, json!({"type": "text", "text": ""})),
        delta(index, json!({"type": "text_delta", "text": text})),
    ]
}

#[test]
fn streams_and_whole_replies_give_the_same() {
    check(Dialect::Messages, &two_calls(), TWO_CALLS);
    check(Dialect::Messages, &whole(), TWO_CALLS);
    check_stream(&text(0, "hi"), "end_turn", "say:hi Stop 9/4/3");
    check_stream(&text(0, "hi"), "stop_sequence", "say:hi Stop 9/4/3");
    check_stream(&text(0, "hi"), "max_tokens", "say:hi Length 9/4/3");
    check_stream(&text(0, "hi"), "model_context_window_exceeded", "say:hi Length 9/4/3");
    check_stream(&text(0, "hi"), "refusal", "say:hi Filtered 9/4/3");
    check_stream(&[], "end_turn", " Stop 9/4/3");
    let cited = [text(0, "one "), text(1, "two")].concat();
    check_stream(&cited, "end_turn", "say:one two Stop 9/4/3");
    let begun = begin(0, json!({"type": "text", "text": "hi"}));
    check_stream(&[begun], "end_turn", "say:hi Stop 9/4/3");
}

#[test]
fn what_only_the_origin_can_read_is_kept_whole() {
    let context = Context {
        origin: Origin { provider: "anthropic".into(), model: "m".into() },
        request: Digest::ZERO,
        request_bytes: 0,
    };
    let opaque = |block: Value| {
        let reply = json!({"content": [block], "stop_reason": "end_turn"}).to_string();
        let answer = decode(Dialect::Messages, &context, reply.as_bytes()).expect("good");
        match &answer.items[0] {
            Item::Reasoning { opaque, .. } => opaque.clone(),
            other => panic!("{other:?}"),
        }
    };
    for block in [
        json!({"type": "thinking", "thinking": "t", "signature": "s", "new": 1}),
        json!({"type": "redacted_thinking", "data": "d"}),
        json!({"type": "server_tool_use", "id": "x", "name": "web_search", "input": {"q": 1}}),
    ] {
        assert_eq!(opaque(block.clone()), Some(json!({"messages_block": block})));
    }
    let unsigned = json!({"type": "thinking", "thinking": "t", "signature": ""});
    assert_eq!(opaque(unsigned), None, "it would be refused");
}

#[test]
fn cache_writes_are_input_and_said_apart() {
    let usage = json!({"input_tokens": 1, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 100, "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40}, "output_tokens": 5});
    let reply = json!({"content": [], "stop_reason": "end_turn", "usage": usage}).to_string();
    let answer = decode(Dialect::Messages, &super::context(), reply.as_bytes()).expect("good");
    let used = answer.usage;
    assert_eq!((used.input_tokens, used.cached_tokens, used.output_tokens), (111, 10, 5));
    assert_eq!((used.cache_write_tokens, used.cache_write_hour_tokens), (100, 40));
    assert_eq!((answer.finish, answer.usage_estimated), (Finish::Stop, false));
}

#[test]
fn arguments_that_are_cut_or_broken_stay_text() {
    let call = |pieces: &str| {
        [
            begin(0, json!({"type": "tool_use", "id": "1", "name": "a", "input": {}})),
            delta(0, json!({"type": "input_json_delta", "partial_json": pieces})),
        ]
    };
    check_stream(&call("{\"x\": "), "max_tokens", "call:a(\"{\\\"x\\\": \") Length 9/4/3");
    check_stream(&call(""), "tool_use", "call:a({}) ToolCalls 9/4/3");
    check_stream(&call("[]"), "end_turn", "call:a(\"[]\") ToolCalls 9/4/3");
}

#[test]
fn what_is_no_message_is_said() {
    let check = |events: &[Value], expected: &str| {
        check(Dialect::Messages, &stream(events), expected);
    };
    let overloaded =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let failed = "BP-MODEL-004 acme failed (HTTP 200): Overloaded (overloaded_error)";
    check(&[start(), overloaded.clone()], failed);
    super::check(Dialect::Messages, &overloaded.to_string(), failed);
    let unreadable = "BP-MODEL-005 acme sent a reply that cannot be read:";
    check(&stop("end_turn"), &format!("{unreadable} it does not begin with message_start"));
    let nowhere = delta(0, json!({"type": "text_delta", "text": "x"}));
    check(&[start(), nowhere], &format!("{unreadable} a piece belongs to no content block"));
    let nameless = begin(0, json!({"type": "tool_use", "id": "1", "input": {}}));
    let [last, _] = stop("tool_use");
    check(&[start(), nameless, last], &format!("{unreadable} a tool call has no name"));
    let untyped = begin(0, json!({"text": "x"}));
    check(&[start(), untyped], &format!("{unreadable} a content block has no type"));
    super::check(Dialect::Messages, "{}", &format!("{unreadable} it has no content"));
    let cut = stream(&[start()]);
    let bytes = cut.len();
    super::check(
        Dialect::Messages,
        &cut,
        &format!("BP-MODEL-006 the reply of acme was cut off after {bytes} bytes"),
    );
}

#[test]
fn blocks_are_limited_at_their_edge() {
    let code = |count: usize| {
        let block = json!({"type": "text", "text": "a"});
        let reply = json!({"content": vec![block; count], "stop_reason": "end_turn"}).to_string();
        decode(Dialect::Messages, &super::context(), reply.as_bytes()).map_err(|e| e.code())
    };
    assert!(code(limits::ITEMS_MAX).is_ok());
    assert_eq!(code(limits::ITEMS_MAX + 1), Err("BP-MODEL-008"));
}
