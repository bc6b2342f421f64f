//! What a refusal means: HTTP statuses, providers' error codes, and how long to wait.

use crate::error::ModelError;
use crate::limits::RETRY_AFTER_MS_MAX;
use crate::redact::{Secret, provider_text};
use http::HeaderMap;
use serde_json::Value;

/// The scripted server's code for "no next turn".
pub(crate) const SCRIPT_EXHAUSTED: &str = "script_exhausted";

/// An error that a provider reported within a reply that began well. Unknown codes are its fault.
pub(crate) fn reported(provider: &str, code: &str, message: &str) -> ModelError {
    let status = match code {
        "rate_limit_exceeded" | "rate_limit_error" | "tokens" | "requests" | "429" => 429,
        "invalid_api_key"
        | "authentication_error"
        | "permission_error"
        | "insufficient_quota"
        | "billing_error"
        | "401"
        | "403" => 401,
        "model_not_found" | "not_found_error" | "404" => 404,
        "invalid_request_error"
        | "request_too_large"
        | "invalid_prompt"
        | "context_length_exceeded"
        | "content_policy_violation"
        | "BadRequestError"
        | "400"
        | "422" => 400,
        _ => 500,
    };
    let detail = if code.is_empty() { message.to_owned() } else { format!("{message} ({code})") };
    let detail = provider_text(&detail, None);
    match refused(provider, status, code, detail) {
        // The status is our reading of the code; the reply's own was 200.
        ModelError::AuthRefused { provider, detail, .. } => {
            ModelError::AuthRefused { provider, status: 200, detail }
        }
        ModelError::RateLimited { provider, detail, .. } => {
            ModelError::RateLimited { provider, status: 200, detail }
        }
        ModelError::Gone { provider, detail, .. } => {
            ModelError::Gone { provider, status: 200, detail }
        }
        ModelError::Rejected { provider, detail, .. } => {
            ModelError::Rejected { provider, status: 200, detail }
        }
        ModelError::ServerError { provider, detail, .. } => {
            ModelError::ServerError { provider, status: 200, detail }
        }
        other => other,
    }
}

/// A reply whose status is no success.
pub(crate) fn from_status(
    provider: &str,
    status: u16,
    body: &[u8],
    key: Option<&Secret>,
) -> ModelError {
    let (code, message) = error_of(body);
    let mut detail = provider_text(&message, key);
    if (300..400).contains(&status) {
        detail = "redirects are not followed; name the final address in base_url".into();
    }
    refused(provider, status, &code, detail)
}

fn refused(provider: &str, status: u16, code: &str, detail: String) -> ModelError {
    let provider = provider.to_owned();
    match (status, code) {
        (_, SCRIPT_EXHAUSTED) if provider == types::manifest::SCRIPT_PROVIDER => {
            ModelError::ScriptExhausted { detail }
        }
        (401..=403, _) | (_, "insufficient_quota" | "invalid_api_key") => {
            ModelError::AuthRefused { provider, status, detail }
        }
        (404 | 410, _) | (_, "model_not_found" | "model_deprecated") => {
            ModelError::Gone { provider, status, detail }
        }
        (429, _) => ModelError::RateLimited { provider, status, detail },
        (408 | 409 | 425 | 500.., _) => ModelError::ServerError { provider, status, detail },
        _ => ModelError::Rejected { provider, status, detail },
    }
}

/// Code and message of an error body, whatever its shape.
fn error_of(body: &[u8]) -> (String, String) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return (String::new(), String::from_utf8_lossy(body).into_owned());
    };
    let error = if value["error"].is_null() { &value } else { &value["error"] };
    let text = |path: &str| error.pointer(path).and_then(Value::as_str);
    let code = text("/code").or_else(|| text("/type")).unwrap_or_default();
    let message =
        error.as_str().or_else(|| text("/message")).or_else(|| text("/detail")).unwrap_or_default();
    (code.to_owned(), message.to_owned())
}

/// How long the provider asks us to wait, milliseconds, at most [`RETRY_AFTER_MS_MAX`]. A date is
/// read against the reply's own `Date`, so no clock of ours matters.
pub(crate) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = header("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return whole_ms(ms);
    }
    let text = header("retry-after")?;
    if let Ok(seconds) = text.parse::<f64>() {
        return whole_ms(seconds * 1000.0);
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(header("date")?).ok()?;
    let wait = until.duration_since(now).unwrap_or_default();
    Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).min(RETRY_AFTER_MS_MAX))
}

fn whole_ms(ms: f64) -> Option<u64> {
    if !ms.is_finite() || ms < 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a cast saturates"
    )]
    let whole = ms.ceil() as u64;
    Some(whole.min(RETRY_AFTER_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Coded as _, FaultClass};

    #[test]
    fn statuses_and_codes_have_their_class() {
        let check = |status: u16, body: &str, class: FaultClass, code: &str| {
            let error = from_status("acme", status, body.as_bytes(), None);
            assert_eq!((error.class(), error.code()), (class, code), "{status} {body}");
        };
        let coded = |code: &str| format!(r#"{{"error":{{"message":"m","code":"{code}"}}}}"#);
        check(401, "", FaultClass::Auth, "BP-MODEL-001");
        check(403, "no", FaultClass::Auth, "BP-MODEL-001");
        check(402, "", FaultClass::Auth, "BP-MODEL-001");
        check(429, &coded("insufficient_quota"), FaultClass::Auth, "BP-MODEL-001");
        check(429, &coded("rate_limit_exceeded"), FaultClass::Transient, "BP-MODEL-003");
        check(500, "", FaultClass::Transient, "BP-MODEL-004");
        check(503, "<html>", FaultClass::Transient, "BP-MODEL-004");
        check(529, "", FaultClass::Transient, "BP-MODEL-004");
        check(408, "", FaultClass::Transient, "BP-MODEL-004");
        check(404, "", FaultClass::Gone, "BP-MODEL-011");
        check(400, &coded("model_not_found"), FaultClass::Gone, "BP-MODEL-011");
        check(400, &coded("context_length_exceeded"), FaultClass::Rejected, "BP-MODEL-010");
        check(422, "", FaultClass::Rejected, "BP-MODEL-010");
        check(413, "", FaultClass::Rejected, "BP-MODEL-010");
        check(301, "", FaultClass::Rejected, "BP-MODEL-010");
        check(400, &coded("script_exhausted"), FaultClass::Rejected, "BP-MODEL-010");
        let ours = from_status("script", 400, coded("script_exhausted").as_bytes(), None);
        assert_eq!((ours.class(), ours.code()), (FaultClass::Rejected, "BP-MODEL-012"));
    }

    #[test]
    fn a_key_in_a_refusal_is_not_passed_on() {
        let key = Secret::new(b"sk-very-secret".to_vec());
        let body = br#"{"error":{"message":"Incorrect API key provided: sk-very-secret"}}"#;
        let error = from_status("acme", 401, body, Some(&key));
        let shown = format!("{error} {error:?} {:?}", error.fault(401, None));
        assert!(!shown.contains("sk-very-secret"), "{shown}");
        assert!(shown.contains("[key]"));
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let check = |headers: &[(&'static str, &'static str)], expected: Option<u64>| {
            let map: HeaderMap = headers
                .iter()
                .map(|(name, value)| {
                    let name = http::HeaderName::from_static(name);
                    (name, http::HeaderValue::from_static(value))
                })
                .collect();
            assert_eq!(retry_after_ms(&map), expected, "{headers:?}");
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(&[], None);
        check(&[("retry-after", "2")], Some(2000));
        check(&[("retry-after", "0.5")], Some(500));
        check(&[("retry-after-ms", "250"), ("retry-after", "2")], Some(250));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], Some(30_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date], Some(0));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None);
        check(&[("retry-after", "soon"), date], None);
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "1e300")], Some(RETRY_AFTER_MS_MAX));
    }

    #[test]
    fn errors_within_a_stream_have_their_class() {
        let check = |code: &str, class: FaultClass| {
            let error = reported("acme", code, "m");
            assert_eq!(error.class(), class, "{code}");
            assert!(error.to_string().contains("200"), "{error}");
        };
        check("rate_limit_exceeded", FaultClass::Transient);
        check("server_error", FaultClass::Transient);
        check("overloaded_error", FaultClass::Transient);
        check("api_error", FaultClass::Transient);
        check("billing_error", FaultClass::Auth);
        check("request_too_large", FaultClass::Rejected);
        check("", FaultClass::Transient);
        check("invalid_prompt", FaultClass::Rejected);
        check("model_not_found", FaultClass::Gone);
        check("invalid_api_key", FaultClass::Auth);
    }
}
