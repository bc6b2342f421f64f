//! What the tests of calls share: a scripted server, a server of raw bytes, and one call.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod guests;

use bytes::Bytes;
use models::{CallFault, Client, Dialect, Endpoint, ModelRequest, Reply, Secret, script};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use types::{Item, ToolSpec};

/// Serves a script and gives its base address.
pub(crate) async fn scripted(text: &str) -> (String, JoinHandle<()>) {
    let script = script::parse(text, "turns.toml").expect("a good script");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        script::serve(Arc::new(script), listener).await.expect("serves until it is dropped");
    });
    (format!("http://{address}/v1"), task)
}

/// Answers every connection with these bytes and closes it.
pub(crate) async fn raw_server(reply: Vec<u8>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_request(&mut stream).await;
            let _ = stream.write_all(&reply).await;
            let _ = stream.shutdown().await;
        }
    });
    (format!("http://{address}/v1"), task)
}

/// Reads one request: header and as many bytes as it says.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length =
                text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if seen.len() >= end + 4 + length {
                return seen;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return seen,
            Ok(bytes) => seen.extend_from_slice(&buffer[..bytes]),
        }
    }
}

pub(crate) fn endpoint(base_url: &str, dialect: Dialect) -> Endpoint {
    Endpoint::script(base_url, dialect)
}

pub(crate) fn user(text: &str) -> Item {
    Item::UserMessage { text: text.into() }
}

pub(crate) fn request(provider: &str, items: Vec<Item>) -> ModelRequest {
    ModelRequest {
        provider: provider.into(),
        model: "turns.toml".into(),
        instructions: "Be brief.".into(),
        items,
        tools: vec![ToolSpec {
            name: "shell".into(),
            description: "Runs a command.".into(),
            input_schema: serde_json::json!({"type": "object", "properties": {}}),
        }],
        max_output_tokens: 1000,
    }
}

/// One call of a conversation.
pub(crate) async fn call(
    endpoint: &Endpoint,
    key: Option<&Secret>,
    items: &[Item],
) -> Result<Reply, Box<CallFault>> {
    let request = request(&endpoint.provider, items.to_vec());
    let bytes = models::encode(endpoint.dialect, &request).expect("encodes");
    let client = Client::from_host();
    client.call(endpoint, &request.model, key, Bytes::from(bytes), &mut |_| {}).await
}

/// Gives every call of an answer a result, after the answer's items.
pub(crate) fn answered(items: &mut Vec<Item>, answer: &[Item], output: &str) {
    items.extend_from_slice(answer);
    for item in answer {
        if let Item::ToolCall { call_id, .. } = item {
            items.push(Item::ToolResult {
                call_id: call_id.clone(),
                output: output.into(),
                is_error: false,
                labels: types::Labels::none(),
            });
        }
    }
}
