//! One byte string for one JSON value: object keys sorted by their bytes, no white space.

use serde_json::Value;

/// Canonical JSON text: the same for equal values, whatever order their keys came in.
pub(crate) fn text(value: &Value) -> String {
    let mut out = Vec::new();
    write(&mut out, value);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_bytes());
            out.push(b'{');
            for (index, (name, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                plain(out, name);
                out.push(b':');
                write(out, field);
            }
            out.push(b'}');
        }
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(out, element);
            }
            out.push(b']');
        }
        scalar => plain(out, scalar),
    }
}

fn plain(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("memory takes everything");
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
