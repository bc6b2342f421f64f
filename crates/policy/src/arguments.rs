//! A tool's arguments as Cedar sees them: types from its input schema, values from its call.
//!
//! | JSON Schema | Cedar | |
//! |---|---|---|
//! | `string` | `String` | |
//! | `integer` | `Long` | outside 64 bits: the action is denied |
//! | `number` | `decimal` | more than 4 decimals or too large: the action is denied |
//! | `boolean` | `Bool` | |
//! | `array` with `items` | `Set<...>` | order and repetition are not visible |
//! | `object` with `properties` | a record | not in `required`: an optional attribute |
//! | anything else | `String` | the value's canonical JSON text |
//! | `null`, `["T", "null"]` | an optional attribute | absent when null |
//!
//! Properties the schema does not declare are not visible to policy. A call whose arguments do not
//! have the declared types is denied when any policy looks at arguments, never guessed at.

use crate::canonical;
use cedar_policy::{RestrictedExpression, Schema, SchemaFragment};
use serde_json::{Map, Value, json};

/// Deepest nesting of records and sets that policy sees; below that, JSON text.
pub const ARGUMENT_DEPTH_MAX: usize = 8;
/// Most attributes of one record that policy sees; a larger object is JSON text.
pub const ARGUMENT_ATTRIBUTES_MAX: usize = 256;
/// Most elements of an array that policy sees; a longer one is denied.
pub const ARGUMENT_ELEMENTS_MAX: usize = 10_000;

const SCHEMA_TEXT: &str = include_str!("schema.cedarschema");

/// The published schema, as text.
#[must_use]
pub const fn schema_text() -> &'static str {
    SCHEMA_TEXT
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Long,
    Decimal,
    Bool,
    Set(Box<Self>),
    Record(Vec<Attribute>),
    /// Anything: its canonical JSON text.
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    name: String,
    of: Type,
    required: bool,
}

/// The type of a tool's arguments: always a record.
pub(crate) fn type_of(input_schema: &Value) -> Type {
    match read_type(input_schema, 0) {
        record @ Type::Record(_) => record,
        _ => Type::Record(Vec::new()),
    }
}

fn read_type(schema: &Value, depth: usize) -> Type {
    if depth > ARGUMENT_DEPTH_MAX || schema.get("$ref").is_some() {
        return Type::Json;
    }
    match type_name(schema).as_deref() {
        Some("string") => Type::Text,
        Some("integer") => Type::Long,
        Some("number") => Type::Decimal,
        Some("boolean") => Type::Bool,
        Some("array") => match schema.get("items") {
            Some(items) if items.is_object() => Type::Set(Box::new(read_type(items, depth + 1))),
            _ => Type::Json,
        },
        Some("object") => read_record(schema, depth),
        _ => Type::Json,
    }
}

/// The one type named, beside `null`.
fn type_name(schema: &Value) -> Option<String> {
    match schema.get("type")? {
        Value::String(name) => Some(name.clone()),
        Value::Array(names) => {
            let mut others = names.iter().filter(|name| *name != "null");
            match (others.next(), others.next()) {
                (Some(Value::String(name)), None) => Some(name.clone()),
                _ => None,
            }
        }
        _ => None,
    }
}

fn allows_null(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(|name| name == "null"),
        _ => false,
    }
}

fn read_record(schema: &Value, depth: usize) -> Type {
    let Some(Value::Object(properties)) = schema.get("properties") else {
        return Type::Json;
    };
    if properties.len() > ARGUMENT_ATTRIBUTES_MAX {
        return Type::Json;
    }
    let required: Vec<&str> = match schema.get("required") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let attributes = properties
        .iter()
        .map(|(name, of)| Attribute {
            name: name.clone(),
            required: required.contains(&name.as_str()) && !allows_null(of),
            of: read_type(of, depth + 1),
        })
        .collect();
    Type::Record(attributes)
}

impl Type {
    /// The type in Cedar's JSON schema format.
    pub(crate) fn to_schema(&self) -> Value {
        match self {
            Self::Text | Self::Json => json!({"type": "String"}),
            Self::Long => json!({"type": "Long"}),
            Self::Decimal => json!({"type": "Extension", "name": "decimal"}),
            Self::Bool => json!({"type": "Boolean"}),
            Self::Set(of) => json!({"type": "Set", "element": of.to_schema()}),
            Self::Record(attributes) => {
                let fields: Map<String, Value> = attributes
                    .iter()
                    .map(|attribute| {
                        let mut of = attribute.of.to_schema();
                        of["required"] = Value::Bool(attribute.required);
                        (attribute.name.clone(), of)
                    })
                    .collect();
                json!({"type": "Record", "attributes": fields})
            }
        }
    }

    /// A value of this type for Cedar.
    ///
    /// # Errors
    /// A sentence that names the argument, when the value is not of this type.
    pub(crate) fn value(&self, value: &Value, name: &str) -> Result<RestrictedExpression, String> {
        let unlike = || format!("argument {name} is not {}", self.noun());
        match self {
            Self::Json => Ok(RestrictedExpression::new_string(canonical::text(value))),
            Self::Text => {
                let text = value.as_str().ok_or_else(unlike)?;
                Ok(RestrictedExpression::new_string(text.to_owned()))
            }
            Self::Bool => Ok(RestrictedExpression::new_bool(value.as_bool().ok_or_else(unlike)?)),
            Self::Long => Ok(RestrictedExpression::new_long(value.as_i64().ok_or_else(unlike)?)),
            Self::Decimal => {
                decimal(value).map(RestrictedExpression::new_decimal).ok_or_else(unlike)
            }
            Self::Set(of) => set(of, value, name).unwrap_or_else(|| Err(unlike())),
            Self::Record(attributes) => {
                let fields = value.as_object().ok_or_else(unlike)?;
                record(attributes, fields, name)
            }
        }
    }

    const fn noun(&self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Long => "a 64-bit integer",
            Self::Decimal => "a number with at most 4 decimals",
            Self::Bool => "a boolean",
            Self::Set(_) => "an array of at most 10000 elements",
            Self::Record(_) => "an object",
            Self::Json => "JSON",
        }
    }
}

fn set(of: &Type, value: &Value, name: &str) -> Option<Result<RestrictedExpression, String>> {
    let elements = value.as_array().filter(|elements| elements.len() <= ARGUMENT_ELEMENTS_MAX)?;
    let read: Result<Vec<_>, _> =
        elements.iter().map(|element| of.value(element, &format!("{name}[]"))).collect();
    Some(read.map(RestrictedExpression::new_set))
}

fn record(
    attributes: &[Attribute],
    fields: &Map<String, Value>,
    name: &str,
) -> Result<RestrictedExpression, String> {
    let mut pairs = Vec::with_capacity(attributes.len());
    for attribute in attributes {
        let path = if name.is_empty() {
            attribute.name.clone()
        } else {
            format!("{name}.{}", attribute.name)
        };
        match fields.get(&attribute.name) {
            None | Some(Value::Null) if !attribute.required => {}
            None => return Err(format!("argument {path} is missing")),
            Some(value) => pairs.push((attribute.name.clone(), attribute.of.value(value, &path)?)),
        }
    }
    RestrictedExpression::new_record(pairs).map_err(|error| error.to_string())
}

/// Cedar's decimal notation: exactly representable with 4 decimals, else nothing.
fn decimal(value: &Value) -> Option<String> {
    if let Some(whole) = value.as_i64() {
        const WHOLE_MAX: u64 = 922_337_203_685_477;
        return (whole.unsigned_abs() < WHOLE_MAX).then(|| format!("{whole}.0"));
    }
    let text = value.as_f64().filter(|n| n.abs() < 1e11)?.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    (fraction.len() <= 4).then(|| format!("{whole}.{fraction}"))
}

/// The schema with one tool's arguments; without a tool, the published one.
pub(crate) fn schema_for(arguments: Option<&Type>) -> Schema {
    let Some(arguments) = arguments else {
        return Schema::from_cedarschema_str(SCHEMA_TEXT)
            .expect("the embedded schema is well-formed, a test reads it")
            .0;
    };
    let mut document = SchemaFragment::from_cedarschema_str(SCHEMA_TEXT)
        .expect("the embedded schema is well-formed, a test reads it")
        .0
        .to_json_value()
        .expect("a schema read from text has a JSON form");
    document[""]["commonTypes"]["Arguments"] = arguments.to_schema();
    Schema::from_json_value(document).unwrap_or_else(|_| schema_for(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_reads_without_warnings() {
        let (_, warnings) = Schema::from_cedarschema_str(SCHEMA_TEXT).expect("schema");
        assert_eq!(warnings.count(), 0);
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        for (value, expected) in [
            (json!(1), Some("1.0")),
            (json!(-3), Some("-3.0")),
            (json!(1.5), Some("1.5")),
            (json!(0.1234), Some("0.1234")),
            (json!(0.12345), None),
            (json!(1e300), None),
            (json!(i64::MAX), None),
            (json!(i64::MIN + 1), None),
            (json!("1"), None),
        ] {
            assert_eq!(decimal(&value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn types_follow_the_input_schema() {
        let schema = json!({"type": "object", "required": ["title", "maybe"], "properties": {
            "title": {"type": "string"},
            "maybe": {"type": ["string", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "amount": {"type": "number"},
            "count": {"type": "integer"},
            "odd \"name\"\n": {"anyOf": [{"type": "string"}]},
            "to": {"type": "object", "properties": {"name": {"type": "string"}}},
        }});
        let of = type_of(&schema);
        let cedar = schema_for(Some(&of));
        assert!(cedar.actions().count() > 10);
        let fields = json!({"title": "a", "maybe": null, "tags": ["x"], "amount": 2.5,
            "count": 3, "odd \"name\"\n": {"b": 1, "a": 2}, "to": {"name": "n"}, "undeclared": 1});
        assert!(of.value(&fields, "").is_ok());
        for (bad, says) in [
            (json!({}), "argument title is missing"),
            (json!({"title": null}), "argument title is not a string"),
            (json!({"title": "a", "count": 1.5}), "argument count is not a 64-bit integer"),
            (
                json!({"title": "a", "count": 9_300_000_000_000_000_000_u64}),
                "argument count is not a 64-bit integer",
            ),
            (json!({"title": "a", "to": {"name": 1}}), "argument to.name is not a string"),
            (json!({"title": "a", "tags": [1]}), "argument tags[] is not a string"),
        ] {
            assert_eq!(of.value(&bad, "").map(|_| ()), Err(says.to_owned()), "{bad}");
        }
        assert!(of.value(&json!("text"), "").is_err());
    }
}
