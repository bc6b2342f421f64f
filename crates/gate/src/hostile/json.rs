//! JSON of tools, and the schemas it must fit.

use crate::error::GateError;
use crate::hostile::text::one_line;
use crate::limits::{JSON_BYTES_MAX, JSON_DEPTH_MAX, SCHEMA_BYTES_MAX};
use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;
use std::error::Error;
use types::{AsOf, AsOfField};

/// Places in a value that an error names.
const PLACES_MAX: usize = 3;
/// Characters of an error about a value.
const WHY_CHARS_MAX: usize = 600;

/// Parses what a tool printed: one JSON value that fits the schema.
///
/// # Errors
/// [`GateError::InputTooLarge`], [`GateError::JsonInvalid`], [`GateError::SchemaInvalid`],
/// [`GateError::SchemaMismatch`].
pub(crate) fn parse_json(bytes: &[u8], schema: Option<&Value>) -> Result<Value, GateError> {
    if bytes.len() > JSON_BYTES_MAX {
        return Err(GateError::InputTooLarge {
            bytes: bytes.len() as u64,
            limit: JSON_BYTES_MAX as u64,
        });
    }
    let invalid = |why: &str| GateError::JsonInvalid { why: why.to_owned() };
    if bytes.trim_ascii().is_empty() {
        return Err(invalid("there is nothing"));
    }
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| invalid(&error.to_string()))?;
    if depth_exceeds(&value, JSON_DEPTH_MAX) {
        return Err(invalid(&format!("it has more than {JSON_DEPTH_MAX} levels")));
    }
    if let Some(schema) = schema {
        check_value(&value, schema)?;
    }
    Ok(value)
}

/// What a result says about its age. It has no headers.
pub(crate) fn as_of_in(value: &Value, field: &AsOfField) -> AsOf {
    match field {
        AsOfField::Json(pointer) => AsOf::of_json(value.pointer(pointer)),
        AsOfField::Header(_) => AsOf::Unreadable,
    }
}

/// Checks a value against a schema.
///
/// # Errors
/// [`GateError::SchemaInvalid`], [`GateError::SchemaMismatch`].
pub(crate) fn check_value(value: &Value, schema: &Value) -> Result<(), GateError> {
    let validator = compile(schema)?;
    let mut errors = validator.iter_errors(value);
    let places: Vec<String> = errors
        .by_ref()
        .take(PLACES_MAX)
        .map(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "/".into() } else { place };
            one_line(&format!("{place}: {error}"), WHY_CHARS_MAX / PLACES_MAX)
        })
        .collect();
    if places.is_empty() {
        return Ok(());
    }
    let more = if errors.next().is_some() { "; and more" } else { "" };
    Err(GateError::SchemaMismatch { why: format!("{}{more}", places.join("; ")) })
}

/// Makes a schema ready, without any other document.
///
/// # Errors
/// [`GateError::SchemaInvalid`].
pub(crate) fn compile(schema: &Value) -> Result<Validator, GateError> {
    let invalid = |why: String| GateError::SchemaInvalid { why: one_line(&why, WHY_CHARS_MAX) };
    if depth_exceeds(schema, JSON_DEPTH_MAX) {
        return Err(invalid(format!("it has more than {JSON_DEPTH_MAX} levels")));
    }
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(invalid(format!("it has more than {SCHEMA_BYTES_MAX} bytes")));
    }
    jsonschema::options()
        .with_retriever(NoOtherDocument)
        .build(schema)
        .map_err(|error| invalid(error.to_string()))
}

struct NoOtherDocument;

impl Retrieve for NoOtherDocument {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        Err(format!("it refers to {uri}, and no other document is fetched").into())
    }
}

fn depth_exceeds(value: &Value, levels: usize) -> bool {
    if levels == 0 {
        return true;
    }
    match value {
        Value::Array(values) => values.iter().any(|value| depth_exceeds(value, levels - 1)),
        Value::Object(fields) => fields.values().any(|value| depth_exceeds(value, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use types::Coded as _;

    fn parse_check(text: &str, schema: Option<Value>, expected: Result<Value, &str>) {
        let parsed = parse_json(text.as_bytes(), schema.as_ref());
        let parsed = parsed.map_err(|error| error.code());
        assert_eq!(parsed, expected, "{text}");
    }

    fn ticket() -> Value {
        json!({
            "type": "object",
            "properties": {"id": {"type": "integer"}},
            "required": ["id"],
            "additionalProperties": false,
        })
    }

    #[test]
    fn output_of_tools_is_parsed_and_checked() {
        parse_check("{\"id\": 1}\n", Some(ticket()), Ok(json!({"id": 1})));
        parse_check("[1]", None, Ok(json!([1])));
        parse_check("{\"id\": \"x\"}", Some(ticket()), Err("BP-GATE-008"));
        parse_check("{}", Some(ticket()), Err("BP-GATE-008"));
        parse_check("", None, Err("BP-GATE-007"));
        parse_check("{} {}", None, Err("BP-GATE-007"));
        parse_check("{\"a\":", None, Err("BP-GATE-007"));
        parse_check("{}", Some(json!({"type": "strnig"})), Err("BP-GATE-009"));
    }

    #[test]
    fn depth_and_size_are_limited_at_their_edge() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse_json(nested(JSON_DEPTH_MAX).as_bytes(), None).is_ok());
        parse_check(&nested(JSON_DEPTH_MAX + 1), None, Err("BP-GATE-007"));
        parse_check(&nested(100_000), None, Err("BP-GATE-007"));
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(parse_json(text(JSON_BYTES_MAX).as_bytes(), None).is_ok());
        parse_check(&text(JSON_BYTES_MAX + 1), None, Err("BP-GATE-013"));
    }

    #[test]
    fn no_schema_reaches_beyond_itself() {
        let check = |reference: &str| {
            let error = compile(&json!({"$ref": reference})).expect_err("refused");
            assert_eq!(error.code(), "BP-GATE-009", "{error}");
        };
        check("http://127.0.0.1:1/schema.json");
        check("https://example.org/schema.json");
        check("file:///etc/passwd");
        check("other.json");
        assert!(compile(&json!({"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"})).is_ok());
        assert!(
            compile(&json!({"$schema": "https://json-schema.org/draft/2020-12/schema"})).is_ok()
        );
        assert!(compile(&json!({"$schema": "http://json-schema.org/draft-07/schema#"})).is_ok());
    }

    #[test]
    fn schemas_are_limited() {
        let mut deep = json!({});
        for _ in 0..JSON_DEPTH_MAX {
            deep = json!({"not": deep});
        }
        assert_eq!(compile(&deep).expect_err("refused").code(), "BP-GATE-009");
        let wide = json!({"description": "x".repeat(SCHEMA_BYTES_MAX)});
        assert_eq!(compile(&wide).expect_err("refused").code(), "BP-GATE-009");
        let wrong = compile(&json!({"type": "object", "properties": 3}));
        assert_eq!(wrong.expect_err("refused").code(), "BP-GATE-009");
    }

    #[test]
    fn errors_about_values_are_short_and_clean() {
        let value = json!({"id": format!("\u{1b}[31m{}", "x".repeat(100_000))});
        let error = check_value(&value, &ticket()).expect_err("refused").to_string();
        assert!(error.chars().count() < WHY_CHARS_MAX + 100, "{}", error.len());
        assert!(!error.contains('\u{1b}'), "{error}");
        assert!(error.contains("/id"), "{error}");
    }
}
