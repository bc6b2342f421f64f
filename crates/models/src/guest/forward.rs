//! A guest's request on its way to a provider.

use super::seal::is_sealed;
use super::{GuestRequest, OUTPUT_TOKENS_MAX};
use crate::encode::{ModelRequest, encode};
use crate::error::ModelError;
use crate::limits::REQUEST_BYTES_MAX;
use serde_json::Value;
use types::manifest::{Dialect, SCRIPT_PROVIDER};

/// Headers of a guest that its own provider needs to understand the body.
const FORWARDED: [&str; 2] = ["anthropic-beta", "openai-beta"];
/// Characters of such a header.
const HEADER_CHARS_MAX: usize = 2_048;

/// The headers to send with a body that is sent on: those that say how to read it. Never one that
/// could hold a credential.
pub fn forward_headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<(String, String)> {
    let known = |name: &str| FORWARDED.iter().any(|known| name.eq_ignore_ascii_case(known));
    let plain = |value: &str| {
        value.len() <= HEADER_CHARS_MAX && value.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    headers
        .into_iter()
        .filter(|(name, value)| known(name) && plain(value))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect()
}

/// Whether a request is sent on as it came: the provider speaks the guest's dialect. The scripted
/// model does not know what harnesses add to theirs.
#[must_use]
pub fn is_native(request: &GuestRequest, dialect: Dialect, provider: &str) -> bool {
    request.dialect == dialect && provider != SCRIPT_PROVIDER
}

impl GuestRequest {
    /// The same for our own encoders.
    #[must_use]
    pub fn model_request(&self, provider: &str, model: &str) -> ModelRequest {
        ModelRequest {
            provider: provider.to_owned(),
            model: model.to_owned(),
            instructions: self.instructions.clone(),
            items: self.items.clone(),
            tools: self.tools.clone(),
            max_output_tokens: self
                .max_output_tokens
                .map_or(OUTPUT_TOKENS_MAX, |wanted| wanted.clamp(1, OUTPUT_TOKENS_MAX)),
        }
    }

    /// The bytes for a provider: the guest's own body where [`is_native`], else encoded anew.
    /// Either way the reply is a stream when the guest's is, and always when it is encoded.
    ///
    /// # Errors
    /// As [`encode`].
    pub fn encode_for(
        &self,
        dialect: Dialect,
        provider: &str,
        model: &str,
    ) -> Result<Vec<u8>, ModelError> {
        if is_native(self, dialect, provider) {
            return self.forward_body(model);
        }
        encode(dialect, &self.model_request(provider, model))
    }

    /// The guest's own body with another model, and without reasoning of other providers that
    /// travelled through the guest.
    ///
    /// # Errors
    /// [`ModelError::RequestTooLarge`] when the model's name makes it so.
    pub fn forward_body(&self, model: &str) -> Result<Vec<u8>, ModelError> {
        let mut body = self.body.clone();
        body.insert("model".into(), model.into());
        for key in ["input", "messages"] {
            if let Some(Value::Array(list)) = body.get_mut(key) {
                list.retain_mut(keeps);
            }
        }
        let bytes = Value::Object(body).to_string().into_bytes();
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(ModelError::RequestTooLarge {
                bytes: bytes.len() as u64,
                limit: REQUEST_BYTES_MAX as u64,
            });
        }
        Ok(bytes)
    }
}

/// Whether an item or a message still says something without our sealed reasoning.
fn keeps(entry: &mut Value) -> bool {
    let ours = |block: &Value| {
        ["encrypted_content", "signature", "data"].iter().any(|field| is_sealed(&block[*field]))
    };
    if ours(entry) {
        return false;
    }
    let Some(blocks) = entry.get_mut("content").and_then(Value::as_array_mut) else {
        return true;
    };
    let before = blocks.len();
    blocks.retain(|block| !ours(block));
    before == blocks.len() || !blocks.is_empty()
}

#[cfg(test)]
mod tests {
    use super::super::decode_request;
    use super::super::seal::seal;
    use super::*;
    use serde_json::json;
    use types::Origin;

    #[test]
    fn a_native_body_changes_its_model_only() {
        let body = json!({
            "model": "theirs",
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"x": 1}}]}],
            "unheard_of": {"deep": [1, 2]},
            "max_tokens": 5,
        });
        let request =
            decode_request(Dialect::Messages, body.to_string().as_bytes()).expect("reads");
        let sent = request.encode_for(Dialect::Messages, "anthropic", "ours").expect("encodes");
        let sent: Value = serde_json::from_slice(&sent).expect("JSON");
        let mut expected = body;
        expected["model"] = "ours".into();
        assert_eq!(sent, expected);
        assert_eq!(request.dropped, ["content of kind 'image'", "the parameter 'unheard_of'"]);
        let script = request.encode_for(Dialect::Messages, "script", "t.toml").expect("encodes");
        assert!(!String::from_utf8(script).expect("text").contains("unheard_of"));
    }

    #[test]
    fn reasoning_that_we_sealed_is_not_sent_to_a_native_provider() {
        let origin = Origin { provider: "p".into(), model: "m".into() };
        let sealed = seal(&origin, Some(&json!({"x": 1})));
        let thinking = json!({"type": "thinking", "thinking": "t", "signature": sealed});
        let said = json!({"type": "text", "text": "hi"});
        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": [thinking, said]},
            {"role": "assistant", "content": [thinking]},
            {"role": "user", "content": "u"},
        ]});
        let request =
            decode_request(Dialect::Messages, body.to_string().as_bytes()).expect("reads");
        let sent = request.forward_body("m").expect("encodes");
        let sent: Value = serde_json::from_slice(&sent).expect("JSON");
        assert_eq!(sent["messages"].as_array().map(Vec::len), Some(3));
        assert_eq!(sent["messages"][1]["content"], json!([said]));
        let reasoning = json!({"type": "reasoning", "summary": [], "encrypted_content": sealed});
        let theirs = json!({"type": "reasoning", "summary": [], "encrypted_content": "theirs"});
        let user = json!({"type": "message", "role": "user", "content": "u"});
        let body = json!({"model": "m", "input": [user, reasoning, theirs]});
        let request =
            decode_request(Dialect::Responses, body.to_string().as_bytes()).expect("reads");
        let sent: Value =
            serde_json::from_slice(&request.forward_body("m").expect("encodes")).expect("JSON");
        assert_eq!(sent["input"], json!([user, theirs]));
    }

    #[test]
    fn an_answer_from_elsewhere_is_limited() {
        let limit = |wanted: Value| {
            let body = json!({"model": "m", "max_tokens": wanted, "system": "s"}).to_string();
            let request = decode_request(Dialect::Messages, body.as_bytes()).expect("reads");
            request.model_request("p", "m").max_output_tokens
        };
        assert_eq!(limit(Value::Null), OUTPUT_TOKENS_MAX);
        assert_eq!(limit(OUTPUT_TOKENS_MAX.into()), OUTPUT_TOKENS_MAX);
        assert_eq!(limit((OUTPUT_TOKENS_MAX + 1).into()), OUTPUT_TOKENS_MAX);
        assert_eq!((limit(5.into()), limit(0.into())), (5, 1));
    }

    #[test]
    fn only_headers_that_explain_the_body_are_sent_on() {
        let headers = [
            ("Anthropic-Beta", "a-1,b-2"),
            ("x-api-key", "sk"),
            ("authorization", "Bearer x"),
            ("cookie", "x"),
            ("openai-beta", "two\nlines"),
        ];
        let sent = forward_headers(headers);
        assert_eq!(sent, [("anthropic-beta".to_owned(), "a-1,b-2".to_owned())]);
    }
}
