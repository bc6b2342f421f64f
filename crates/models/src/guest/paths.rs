//! Which address of the endpoint is what, and the answers that need no provider.

use serde_json::json;
use types::manifest::Dialect;

/// Bytes of a request for each token, for a count that no provider is asked for. Providers count
/// fewer tokens in ordinary text: a guest that trusts this compacts early rather than too late.
const BYTES_PER_TOKEN: u64 = 3;

/// What a guest calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestCall {
    /// A model, in this dialect.
    Answer(Dialect),
    /// How many tokens a request of the Messages dialect has: see [`count_tokens`].
    CountTokens,
    /// Which models there are: see [`models`].
    Models,
    /// Whether there is this model: an entry of [`models`].
    Model(String),
}

/// What an address is; `None` for what this endpoint has not. A query does not matter.
#[must_use]
pub fn paths(method: &str, path: &str) -> Option<GuestCall> {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let call = path.strip_prefix("/v1")?;
    match (method, call) {
        ("POST", "/responses") => Some(GuestCall::Answer(Dialect::Responses)),
        ("POST", "/chat/completions") => Some(GuestCall::Answer(Dialect::Chat)),
        ("POST", "/messages") => Some(GuestCall::Answer(Dialect::Messages)),
        ("POST", "/messages/count_tokens") => Some(GuestCall::CountTokens),
        ("GET", "/models") => Some(GuestCall::Models),
        ("GET", _) => {
            let name = call.strip_prefix("/models/").filter(|name| !name.is_empty())?;
            Some(GuestCall::Model(name.to_owned()))
        }
        _ => None,
    }
}

/// The answer to [`GuestCall::CountTokens`]: an estimate from the size of the body.
#[must_use]
pub fn count_tokens(body: &[u8]) -> Vec<u8> {
    let tokens = (body.len() as u64).div_ceil(BYTES_PER_TOKEN);
    json!({"input_tokens": tokens}).to_string().into_bytes()
}

/// The answer to [`GuestCall::Models`], for clients of every dialect at once; of one model when
/// `only` names it, `None` when there is no such model.
#[must_use]
pub fn models(names: &[&str], only: Option<&str>) -> Option<Vec<u8>> {
    let entry = |name: &&str| {
        json!({
            "id": name,
            "object": "model",
            "created": 0,
            "owned_by": "bedplate",
            "type": "model",
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
        })
    };
    if let Some(only) = only {
        let found = names.iter().find(|name| **name == only)?;
        return Some(entry(found).to_string().into_bytes());
    }
    let list = json!({
        "object": "list",
        "data": names.iter().map(entry).collect::<Vec<_>>(),
        "has_more": false,
        "first_id": names.first(),
        "last_id": names.last(),
    });
    Some(list.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known() {
        let check = |method: &str, path: &str, expected: Option<GuestCall>| {
            assert_eq!(paths(method, path), expected, "{method} {path}");
        };
        let answer = |dialect| Some(GuestCall::Answer(dialect));
        check("POST", "/v1/responses", answer(Dialect::Responses));
        check("POST", "/v1/chat/completions", answer(Dialect::Chat));
        check("POST", "/v1/messages", answer(Dialect::Messages));
        check("POST", "/v1/messages?beta=true", answer(Dialect::Messages));
        check("POST", "/v1/messages/count_tokens?beta=true", Some(GuestCall::CountTokens));
        check("GET", "/v1/models", Some(GuestCall::Models));
        check("GET", "/v1/models?client_version=1", Some(GuestCall::Models));
        check("GET", "/v1/models/a/b", Some(GuestCall::Model("a/b".into())));
        check("GET", "/v1/models/", Some(GuestCall::Models));
        check("GET", "/v1/responses", None);
        check("POST", "/v1/responses/compact", None);
        check("POST", "/v1/embeddings", None);
        check("POST", "/v1/messages/batches", None);
        check("GET", "/", None);
        check("POST", "/v1", None);
    }

    #[test]
    fn models_are_listed_for_every_client() {
        let list = models(&["default", "fast"], None).expect("always");
        let list: serde_json::Value = serde_json::from_slice(&list).expect("JSON");
        assert_eq!((&list["object"], &list["last_id"]), (&json!("list"), &json!("fast")));
        assert_eq!(list["data"][0]["id"], "default");
        assert!(models(&["default"], Some("default")).is_some());
        assert!(models(&["default"], Some("other")).is_none());
    }

    #[test]
    fn tokens_are_estimated() {
        assert_eq!(count_tokens(b"1234"), b"{\"input_tokens\":2}");
    }
}
