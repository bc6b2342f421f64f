mod messages;

use super::*;
use crate::limits;
use proptest::prelude::*;
use serde_json::json;
use types::Coded as _;

fn context() -> Context {
    Context {
        origin: Origin { provider: "acme".into(), model: "m-1".into() },
        request: Digest::of(b"request"),
        request_bytes: 400,
    }
}

/// Items as `say:`, `think:summary+opaque?`, `call:name(arguments)`.
fn shown(answer: &Answer) -> String {
    let item = |item: &Item| match item {
        Item::AssistantMessage { text } => format!("say:{text}"),
        Item::Reasoning { summary, opaque, .. } => {
            format!("think:{summary}{}", if opaque.is_some() { "+" } else { "" })
        }
        Item::ToolCall { name, arguments, .. } => format!("call:{name}({arguments})"),
        other => format!("{other:?}"),
    };
    let items: Vec<String> = answer.items.iter().map(item).collect();
    let usage = answer.usage;
    let estimated = if answer.usage_estimated { "~" } else { "" };
    let tokens = format!(
        "{estimated}{}/{}/{}",
        usage.input_tokens, usage.cached_tokens, usage.output_tokens
    );
    format!("{} {:?} {tokens}", items.join(" | "), answer.finish)
}

fn check(dialect: Dialect, reply: &str, expected: &str) {
    match decode(dialect, &context(), reply.as_bytes()) {
        Ok(answer) => assert_eq!(shown(&answer), expected),
        Err(error) => assert_eq!(format!("{} {error}", error.code()), expected),
    }
}

/// Chunks of Chat as an event stream.
fn chat(chunks: &[Value]) -> String {
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    format!("{events}data: [DONE]\n\n")
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn chat_usage() -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}})
}

fn two_calls() -> String {
    let call = |index: u32, id: &str, name: &str, arguments: &str| {
        delta(
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]}),
        )
    };
    let more = |index: u32, arguments: &str| {
        delta(json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
    };
    chat(&[
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning_content": "hm"})),
        delta(json!({"content": "Läs "})),
        delta(json!({"content": "it."})),
        call(0, "a", "shell", ""),
        more(0, "{\"command\":"),
        call(1, "b", "read", "{}"),
        more(0, "\"ls\"}"),
        finish("tool_calls"),
        chat_usage(),
    ])
}

fn responses(events: &[Value]) -> String {
    let event = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("x"))
    };
    events.iter().map(event).collect()
}

fn response_items() -> Value {
    json!([
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "x"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Läs it."}]},
        {"type": "function_call", "call_id": "a", "name": "shell", "arguments": "{\"command\":\"ls\"}"},
        {"type": "function_call", "call_id": "b", "name": "read", "arguments": "{}"},
    ])
}

fn response_stream() -> String {
    let done = |index: usize| json!({"type": "response.output_item.done", "output_index": index, "item": response_items()[index]});
    responses(&[
        json!({"type": "response.created", "response": {"output": []}}),
        json!({"type": "response.output_text.delta", "delta": "Läs "}),
        json!({"type": "some.future.event", "anything": [1]}),
        done(1),
        done(0),
        done(2),
        done(3),
        json!({"type": "response.completed", "response": {"status": "completed", "output": [], "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3}}}),
    ])
}

const TWO_CALLS: &str =
    "think:hm+ | say:Läs it. | call:shell({\"command\":\"ls\"}) | call:read({}) ToolCalls 9/4/3";

#[test]
fn chat_streams() {
    let check = |chunks: &[Value], expected: &str| check(Dialect::Chat, &chat(chunks), expected);
    super::tests::check(Dialect::Chat, &two_calls(), TWO_CALLS);
    check(&[delta(json!({"content": "hi"})), finish("stop")], "say:hi Stop ~100/0/1");
    check(&[delta(json!({"content": "hi"}))], "say:hi Stop ~100/0/1");
    check(&[delta(json!({"content": "hi"})), finish("length")], "say:hi Length ~100/0/1");
    check(&[delta(json!({"refusal": "no"})), finish("content_filter")], "say:no Filtered ~100/0/1");
    check(
        &[
            delta(
                json!({"content": [{"type": "text", "text": "hi"}, {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
            ),
            finish("stop"),
        ],
        "think:hm | say:hi Stop ~100/0/1",
    );
    check(&[finish("stop")], " Stop ~100/0/0");
    check(&[], "BP-MODEL-005 acme sent a reply that cannot be read: it has no choices");
    let other_choice = json!({"choices": [{"index": 1, "delta": {"content": "x"}}]});
    check(&[other_choice, delta(json!({"content": "hi"})), finish("stop")], "say:hi Stop ~100/0/1");
}

#[test]
fn chat_calls_in_the_ways_servers_write_them() {
    let check = |calls: Value, expected: &str| {
        let reply = chat(&[delta(json!({"tool_calls": calls})), finish("stop"), chat_usage()]);
        check(Dialect::Chat, &reply, &format!("{expected} ToolCalls 9/4/3"));
    };
    let call = |index: Value, id: &str, arguments: Value| json!({"index": index, "id": id, "function": {"name": "a", "arguments": arguments}});
    check(
        json!([call(json!(0), "1", json!("{}")), call(json!(0), "2", json!("{\"x\":1}"))]),
        "call:a({}) | call:a({\"x\":1})",
    );
    check(
        json!([call(Value::Null, "1", json!("{}")), call(Value::Null, "2", json!("{}"))]),
        "call:a({}) | call:a({})",
    );
    check(
        json!([call(json!(0), "", json!("")), call(json!(1), "", json!({"x": 1}))]),
        "call:a({}) | call:a({\"x\":1})",
    );
    check(json!([call(json!(0), "1", json!("{\"x\":"))]), "call:a(\"{\\\"x\\\":\")");
    check(json!([call(json!(0), "1", json!("[1]"))]), "call:a(\"[1]\")");
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
    check(json!([call(json!(0), "1", json!(deep))]), &format!("call:a({})", Value::from(deep)));
}

#[test]
fn ids_of_calls_are_ours_and_distinct() {
    let answer = decode(Dialect::Chat, &context(), two_calls().as_bytes()).expect("good");
    let ids: Vec<&String> = answer
        .items
        .iter()
        .filter_map(|item| match item {
            Item::ToolCall { call_id, .. } => Some(call_id),
            _ => None,
        })
        .collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.starts_with("call_") && id.len() == 29));
    let mut later = context();
    later.request = Digest::of(b"another request");
    let again = decode(Dialect::Chat, &later, two_calls().as_bytes()).expect("good");
    assert_ne!(answer.items[2], again.items[2], "the same provider id in two answers");
}

#[test]
fn chat_keeps_what_only_the_origin_can_read() {
    let reply = chat(&[
        delta(
            json!({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "h", "format": "f"}]}),
        ),
        delta(
            json!({"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "m", "signature": "s"}]}),
        ),
        delta(
            json!({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "d"}]}),
        ),
        delta(
            json!({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "a", "arguments": "{}"}, "extra_content": {"google": 1}}]}),
        ),
        finish("tool_calls"),
    ]);
    let answer = decode(Dialect::Chat, &context(), reply.as_bytes()).expect("good");
    let Item::Reasoning { opaque: Some(opaque), .. } = &answer.items[0] else {
        panic!("no opaque part: {answer:?}");
    };
    let details = json!([
        {"type": "reasoning.text", "index": 0, "text": "hm", "format": "f", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "d"},
    ]);
    assert_eq!(opaque["chat_message"]["reasoning_details"], details);
    assert_eq!(opaque["chat_tool_calls"]["0"]["extra_content"]["google"], 1);
}

#[test]
fn responses_streams() {
    check(Dialect::Responses, &response_stream(), TWO_CALLS);
    let ended =
        |response: Value| responses(&[json!({"type": "response.completed", "response": response})]);
    let whole = json!({"status": "completed", "output": response_items()});
    check(Dialect::Responses, &ended(whole.clone()), &TWO_CALLS.replace("9/4/3", "~100/0/35"));
    check(Dialect::Responses, &whole.to_string(), &TWO_CALLS.replace("9/4/3", "~100/0/35"));
    let cut = json!({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [response_items()[1]]});
    check(Dialect::Responses, &ended(cut), "say:Läs it. Length ~100/0/2");
    let bare = json!({"status": "completed", "output": [{"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null}]});
    check(Dialect::Responses, &ended(bare), "think: Stop ~100/0/18");
    let unknown = json!({"status": "completed", "output": [{"type": "acme:thing", "id": "t"}]});
    check(Dialect::Responses, &ended(unknown), "think:+ Stop ~100/0/8");
    check(
        Dialect::Responses,
        &ended(json!([])),
        "BP-MODEL-005 acme sent a reply that cannot be read: the final response is no JSON object",
    );
    check(
        Dialect::Responses,
        "data: [DONE]\n\n",
        "BP-MODEL-006 the reply of acme was cut off after 14 bytes",
    );
}

#[test]
fn replies_that_are_not_streamed() {
    let message = json!({"role": "assistant", "content": "hi", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}}]});
    let reply = json!({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}});
    check(Dialect::Chat, &format!("\n {reply}\n"), "say:hi | call:a({}) ToolCalls 1/0/2");
    check(
        Dialect::Chat,
        "{\"choices\": [",
        "BP-MODEL-006 the reply of acme was cut off after 13 bytes",
    );
    check(
        Dialect::Chat,
        "{\"choices\": []}",
        "BP-MODEL-005 acme sent a reply that cannot be read: it has no choices",
    );
    check(
        Dialect::Responses,
        "{}",
        "BP-MODEL-005 acme sent a reply that cannot be read: it has no output",
    );
    check(
        Dialect::Responses,
        "{\"output\":[],\"status\":\"queued\"}",
        "BP-MODEL-005 acme sent a reply that cannot be read: its status is 'queued'",
    );
}

#[test]
fn cut_and_malformed_streams() {
    let all = two_calls();
    let before_end = all.find("finish_reason\":\"tool").expect("is there");
    let at = before_end - 60;
    check(
        Dialect::Chat,
        &all[..at],
        &format!("BP-MODEL-006 the reply of acme was cut off after {at} bytes"),
    );
    check(Dialect::Chat, "", "BP-MODEL-006 the reply of acme was cut off after 0 bytes");
    check(Dialect::Chat, "<html>", "BP-MODEL-006 the reply of acme was cut off after 6 bytes");
    check(
        Dialect::Chat,
        ": comment\n\n",
        "BP-MODEL-006 the reply of acme was cut off after 11 bytes",
    );
    check(
        Dialect::Chat,
        "data: {\n\n",
        "BP-MODEL-005 acme sent a reply that cannot be read: an event is no JSON (EOF while parsing an object at line 1 column 1)",
    );
    check(
        Dialect::Chat,
        "data: 3\n\n",
        "BP-MODEL-005 acme sent a reply that cannot be read: an event is no JSON object",
    );
    check(
        Dialect::Responses,
        "data: []\n\n",
        "BP-MODEL-005 acme sent a reply that cannot be read: an event is no JSON object",
    );
    let nameless =
        chat(&[delta(json!({"tool_calls": [{"index": 0, "id": "1"}]})), finish("tool_calls")]);
    check(
        Dialect::Chat,
        &nameless,
        "BP-MODEL-005 acme sent a reply that cannot be read: a tool call has no name",
    );
}

#[test]
fn errors_within_a_stream() {
    let limited = json!({"error": {"message": "slow down", "code": "rate_limit_exceeded"}});
    let expected =
        "BP-MODEL-003 acme has had too many requests (HTTP 200): slow down (rate_limit_exceeded)";
    check(Dialect::Chat, &chat(&[delta(json!({"content": "h"})), limited.clone()]), expected);
    check(Dialect::Chat, &limited.to_string(), expected);
    check(Dialect::Responses, &limited.to_string(), expected);
    let error =
        |event: Value, expected: &str| check(Dialect::Responses, &responses(&[event]), expected);
    error(
        json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}),
        expected,
    );
    error(
        json!({"type": "error", "error": {"code": "rate_limit_exceeded", "message": "slow down"}}),
        expected,
    );
    error(
        json!({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "oops"}}}),
        "BP-MODEL-004 acme failed (HTTP 200): oops (server_error)",
    );
    check(
        Dialect::Chat,
        &chat(&[json!({"object": "error", "message": "bad", "code": 400})]),
        "BP-MODEL-010 acme rejected the request (HTTP 200): bad (400)",
    );
    check(
        Dialect::Chat,
        &chat(&[json!({"error": "broken"})]),
        "BP-MODEL-004 acme failed (HTTP 200): broken",
    );
}

#[test]
fn limits_hold_at_their_edge() {
    let text = |bytes: usize| chat(&[delta(json!({"content": "x".repeat(bytes)})), finish("stop")]);
    let code = |dialect, reply: &str| {
        decode(dialect, &context(), reply.as_bytes()).map_err(|error| error.code())
    };
    assert!(code(Dialect::Chat, &text(limits::ANSWER_BYTES_MAX)).is_ok());
    assert_eq!(code(Dialect::Chat, &text(limits::ANSWER_BYTES_MAX + 1)), Err("BP-MODEL-008"));
    let calls = |count: usize| {
        let call = |index: usize| json!({"index": index, "id": index.to_string(), "function": {"name": "a", "arguments": "{}"}});
        chat(&[
            delta(json!({"tool_calls": (0..count).map(call).collect::<Vec<_>>()})),
            finish("tool_calls"),
        ])
    };
    assert!(code(Dialect::Chat, &calls(limits::TOOL_CALLS_MAX)).is_ok());
    assert_eq!(code(Dialect::Chat, &calls(limits::TOOL_CALLS_MAX + 1)), Err("BP-MODEL-008"));
    let items = |count: usize| {
        let item = json!({"type": "message", "content": "a"});
        json!({"output": vec![item; count]}).to_string()
    };
    assert!(code(Dialect::Responses, &items(limits::ITEMS_MAX)).is_ok());
    assert_eq!(code(Dialect::Responses, &items(limits::ITEMS_MAX + 1)), Err("BP-MODEL-008"));
    let mut decoder = Decoder::new(Dialect::Chat, context()).expect("built");
    let comment = b": still here\n\n".repeat(100_000);
    let mut fed = 0;
    let error = loop {
        match decoder.feed(&comment, &mut |_| {}) {
            Ok(()) => fed += comment.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "BP-MODEL-008");
    assert!(fed <= limits::REPLY_BYTES_MAX && fed + comment.len() > limits::REPLY_BYTES_MAX);
    assert_eq!(decoder.feed(b"", &mut |_| {}), Err(error.clone()), "it stays in error");
    assert!(!decoder.is_complete());
    assert_eq!(decoder.finish(), Err(error));
}

#[test]
fn text_comes_as_it_is_said() {
    for (dialect, reply) in [
        (Dialect::Chat, two_calls()),
        (Dialect::Responses, response_stream()),
        (Dialect::Messages, messages::two_calls()),
    ] {
        let mut said = String::new();
        let mut decoder = Decoder::new(dialect, context()).expect("built");
        for byte in reply.as_bytes() {
            decoder.feed(&[*byte], &mut |text| said.push_str(text)).expect("good");
        }
        assert!(decoder.is_complete());
        assert!(said.starts_with("Läs "), "{said}");
    }
}

#[test]
fn dialects_not_built_have_no_decoder() {
    let error = Decoder::new(Dialect::Gemini, context()).expect_err("refused");
    assert_eq!(error.code(), "BP-MODEL-015");
}

/// Replies of every kind, good and bad, to cut and to damage.
fn corpus() -> Vec<(Dialect, Vec<u8>)> {
    let whole = json!({"status": "completed", "output": response_items()}).to_string();
    vec![
        (Dialect::Chat, two_calls().into_bytes()),
        (Dialect::Chat, two_calls().replace('\n', "\r\n").into_bytes()),
        (Dialect::Responses, response_stream().into_bytes()),
        (Dialect::Responses, response_stream().replace('\n', "\r").into_bytes()),
        (Dialect::Responses, whole.into_bytes()),
        (Dialect::Chat, b": x\n\ndata: {\"error\": {\"message\": \"m\"}}\n\n".to_vec()),
        (Dialect::Messages, messages::two_calls().into_bytes()),
        (Dialect::Messages, messages::whole().into_bytes()),
    ]
}

fn fed_in(dialect: Dialect, chunks: &[&[u8]]) -> Result<Answer, ModelError> {
    let mut decoder = Decoder::new(dialect, context())?;
    for chunk in chunks {
        decoder.feed(chunk, &mut |_| {})?;
    }
    decoder.finish()
}

#[test]
fn every_cut_in_two_gives_the_same_answer() {
    for (dialect, reply) in corpus() {
        let whole = fed_in(dialect, &[&reply]);
        for at in 0..=reply.len() {
            assert_eq!(fed_in(dialect, &[&reply[..at], &reply[at..]]), whole, "cut at {at}");
        }
    }
}

#[test]
fn every_prefix_gives_the_answer_or_a_coded_fault() {
    for (dialect, reply) in corpus() {
        let whole = fed_in(dialect, &[&reply]);
        for at in 0..reply.len() {
            match (fed_in(dialect, &[&reply[..at]]), &whole) {
                (Ok(answer), Ok(whole)) => assert_eq!(answer.items, whole.items, "prefix of {at}"),
                (Ok(answer), Err(_)) => panic!("an answer from a broken reply: {answer:?}"),
                (Err(error), _) => assert!(error.code().starts_with("BP-MODEL-"), "{error}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn any_split_gives_the_same_answer(which in 0usize..8, cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20)) {
        let (dialect, reply) = corpus().swap_remove(which);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(reply.len() + 1)).collect();
        cuts.extend([0, reply.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &reply[pair[0]..pair[1]]).collect();
        prop_assert_eq!(fed_in(dialect, &chunks), fed_in(dialect, &[&reply]));
    }

    #[test]
    fn damaged_replies_never_panic(which in 0usize..8, damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8)) {
        let (dialect, mut reply) = corpus().swap_remove(which);
        for (at, byte) in damage {
            let at = at.index(reply.len());
            reply[at] = byte;
        }
        if let Ok(answer) = fed_in(dialect, &[&reply]) {
            prop_assert!(answer.items.len() <= limits::ITEMS_MAX);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(dialect in dialect(), bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = fed_in(dialect, &[&bytes]);
    }

    #[test]
    fn arbitrary_json_never_panics(dialect in dialect(), stream in any::<bool>(), value in json_value()) {
        let text = if stream { format!("data: {value}\n\n") } else { value.to_string() };
        let _ = fed_in(dialect, &[text.as_bytes()]);
    }
}

fn dialect() -> impl Strategy<Value = Dialect> {
    proptest::sample::select(&[Dialect::Chat, Dialect::Responses, Dialect::Messages][..])
}

/// JSON made of the words that the decoders look for, in any place and of any type.
fn json_value() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 32] = [
        "type",
        "response",
        "output",
        "item",
        "choices",
        "delta",
        "message",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "index",
        "content",
        "error",
        "usage",
        "finish_reason",
        "reasoning_details",
        "response.completed",
        "response.output_item.done",
        "function_call",
        "reasoning",
        "summary",
        "text",
        "status",
        "content_block",
        "content_block_start",
        "content_block_delta",
        "input_json_delta",
        "partial_json",
        "tool_use",
        "thinking",
        "message_delta",
    ];
    let word = proptest::sample::select(&WORDS[..]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0u64..3).prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..6).prop_map(|fields| {
                let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}
