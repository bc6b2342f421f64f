use super::*;
use serde_json::json;
use types::Labels;

fn request(provider: &str, items: Vec<Item>) -> ModelRequest {
    ModelRequest {
        provider: provider.into(),
        model: "m-1".into(),
        instructions: "Be brief.".into(),
        items,
        tools: vec![ToolSpec {
            name: "shell".into(),
            description: "Runs a command.".into(),
            input_schema: json!({"type": "object", "properties": {"command": {"type": "string"}}}),
        }],
        max_output_tokens: 100,
    }
}

fn origin(provider: &str) -> Origin {
    Origin { provider: provider.into(), model: "m-1".into() }
}

fn talk() -> Vec<Item> {
    vec![
        Item::UserMessage { text: "hi".into() },
        Item::Reasoning {
            summary: "thinking".into(),
            opaque: Some(
                json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x", "new": 1}),
            ),
            origin: origin("openai"),
        },
        Item::AssistantMessage { text: "I look.".into() },
        Item::ToolCall {
            call_id: "functions.shell:0|very odd".into(),
            name: "shell".into(),
            arguments: json!({"command": "ls"}),
        },
        Item::ToolCall {
            call_id: "b".into(),
            name: "shell".into(),
            arguments: Value::String("{\"command\": ".into()),
        },
        Item::ToolResult {
            call_id: "b".into(),
            output: "bad arguments".into(),
            is_error: true,
            labels: Labels::one("untrusted"),
        },
        Item::ToolResult {
            call_id: "functions.shell:0|very odd".into(),
            output: "a.txt".into(),
            is_error: false,
            labels: Labels::none(),
        },
    ]
}

fn sent(dialect: Dialect, request: &ModelRequest) -> Value {
    serde_json::from_slice(&encode(dialect, request).expect("encodes")).expect("is JSON")
}

#[test]
fn responses_body_is_as_the_dialect_says() {
    insta::assert_snapshot!(format!("{:#}", sent(Dialect::Responses, &request("openai", talk()))));
}

#[test]
fn chat_body_groups_calls_and_places_results_after_them() {
    insta::assert_snapshot!(format!("{:#}", sent(Dialect::Chat, &request("ollama", talk()))));
}

#[test]
fn messages_body_takes_turns_and_begins_with_the_user() {
    let mut items = talk();
    items.remove(0);
    items[0] = Item::Reasoning {
        summary: "thinking".into(),
        opaque: Some(
            json!({"messages_block": {"type": "thinking", "thinking": "hm", "signature": "s"}}),
        ),
        origin: origin("anthropic"),
    };
    items.push(Item::UserMessage { text: "and now?".into() });
    insta::assert_snapshot!(format!("{:#}", sent(Dialect::Messages, &request("anthropic", items))));
}

#[test]
fn messages_never_hold_what_its_servers_refuse() {
    let say = |text: &str| Item::AssistantMessage { text: text.into() };
    let user = |text: &str| Item::UserMessage { text: text.into() };
    let check = |items: Vec<Item>, expected: &str| {
        let body = sent(Dialect::Messages, &request("local", items));
        let shown: Vec<String> = body["messages"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|message| {
                let blocks = message["content"].as_array().expect("blocks").iter();
                let texts: Vec<&str> = blocks.filter_map(|block| block["text"].as_str()).collect();
                format!("{}:{}", &message["role"].as_str().expect("a role")[..1], texts.join("+"))
            })
            .collect();
        assert_eq!(shown.join(" "), expected);
        assert!(body["cache_control"].is_null(), "only its own provider is asked to cache");
    };
    check(vec![], "u:Continue.");
    check(vec![user(" "), user("a"), user("b")], "u:a+b");
    check(vec![user("a"), say("x")], "u:a a:x u:Continue.");
    check(vec![say("x"), user("a")], "u:Continue. a:x u:a");
    check(vec![user("a"), say(""), user("b")], "u:a+b");
}

#[test]
fn opaque_parts_go_to_their_origin_only() {
    let check = |dialect, provider: &str, sent_to: bool| {
        let bytes = encode(dialect, &request(provider, talk())).expect("encodes");
        let text = String::from_utf8(bytes).expect("is text");
        assert_eq!(text.contains("encrypted_content\":\"x\""), sent_to, "{text}");
        assert!(!text.contains("thinking"), "a summary is not sent as an answer");
    };
    check(Dialect::Responses, "openai", true);
    check(Dialect::Responses, "other", false);
    check(Dialect::Chat, "openai", false);
    check(Dialect::Messages, "openai", false);
}

#[test]
fn chat_opaque_fields_return_to_their_places_and_replace_none_of_ours() {
    let mut items = talk();
    items[1] = Item::Reasoning {
        summary: String::new(),
        opaque: Some(json!({
            "chat_message": {"reasoning_details": [{"type": "reasoning.encrypted", "data": "d"}], "role": "system"},
            "chat_tool_calls": {"1": {"extra_content": {"google": {"thought_signature": "s"}}, "id": "evil"}, "9": {"x": 1}},
        })),
        origin: origin("openrouter"),
    };
    let body = sent(Dialect::Chat, &request("openrouter", items.clone()));
    let message = &body["messages"][2];
    assert_eq!(message["role"], "assistant");
    assert_eq!(message["reasoning_details"][0]["data"], "d");
    assert_eq!(message["tool_calls"][1]["extra_content"]["google"]["thought_signature"], "s");
    assert_ne!(message["tool_calls"][1]["id"], "evil");
    let elsewhere = sent(Dialect::Responses, &request("openrouter", items)).to_string();
    assert!(!elsewhere.contains("reasoning_details"));
}

#[test]
fn a_longer_conversation_begins_with_the_shorter_one() {
    for dialect in [Dialect::Responses, Dialect::Chat, Dialect::Messages] {
        let all = talk();
        let mut longer = all.clone();
        longer.push(Item::AssistantMessage { text: "done".into() });
        longer.push(Item::UserMessage { text: "more".into() });
        let short = encode(dialect, &request("openai", all)).expect("encodes");
        let long = encode(dialect, &request("openai", longer)).expect("encodes");
        let prefix = &short[..short.len() - 2];
        assert_eq!(&short[short.len() - 2..], b"]}");
        assert!(long.starts_with(prefix));
    }
}

#[test]
fn dialects_not_built_and_requests_too_large_are_refused() {
    use types::Coded as _;
    let error = encode(Dialect::Gemini, &request("google", vec![])).expect_err("refused");
    assert_eq!(error.code(), "BP-MODEL-015");
    let huge = vec![Item::UserMessage { text: "x".repeat(REQUEST_BYTES_MAX) }];
    let error = encode(Dialect::Chat, &request("vllm", huge)).expect_err("refused");
    assert_eq!(error.code(), "BP-MODEL-018");
}

#[test]
fn the_name_of_the_output_limit_follows_the_server() {
    let check = |provider: &str, model: &str, name: &str| {
        let mut request = request(provider, vec![]);
        request.model = model.into();
        assert_eq!(sent(Dialect::Chat, &request)[name], 100, "{provider}/{model}");
    };
    check("openai", "gpt-5.4", "max_completion_tokens");
    check("openai", "gpt-4.1", "max_tokens");
    check("ollama", "qwen3", "max_tokens");
}
