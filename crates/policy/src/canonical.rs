//! One byte string for one JSON value: object keys sorted by their bytes, no white space.

use serde_json::Value;

/// Canonical JSON text: the same for equal values, whatever order their keys came in.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value);
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_bytes());
            out.push('{');
            for (index, (name, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, &Value::String(name.clone()));
                out.push(':');
                write(out, field);
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, element);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn key_order_does_not_matter() {
        let a = json!({"b": [1, {"z": null, "y": "\n"}], "a": true});
        let b = json!({"a": true, "b": [1, {"y": "\n", "z": null}]});
        assert_eq!(text(&a), text(&b));
        assert_eq!(text(&a), r#"{"a":true,"b":[1,{"y":"\n","z":null}]}"#);
    }
}
