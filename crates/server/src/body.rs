//! What comes in with a request: its body, within limits, and its query.

use crate::ServeError;
use crate::limits::{BODY_BYTES_MAX, BODY_WAIT};
use crate::routes::decoded;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// The whole body.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, ServeError> {
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_WAIT, reading).await {
        Err(_) => Err(ServeError::BodyTooSlow { seconds: BODY_WAIT.as_secs() }),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ServeError::BodyTooLarge { limit: BODY_BYTES_MAX })
        }
        Ok(Err(error)) => Err(bad(error.to_string())),
    }
}

pub(crate) fn bad(reason: impl Into<String>) -> ServeError {
    ServeError::BadRequest { reason: reason.into() }
}

/// A body as JSON; an empty one as an empty object.
pub(crate) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ServeError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| bad(format!("the body: {error}")))
}

/// The query: known names only, each once.
pub(crate) fn query(text: &str, known: &[&str]) -> Result<BTreeMap<String, String>, ServeError> {
    let mut found = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| bad("the query is not UTF-8"))?;
        if !known.contains(&name) || found.insert(name.to_owned(), value).is_some() {
            let name: String = name.chars().take(80).collect();
            return Err(bad(format!(
                "the query has '{name}', which is unknown here or twice there"
            )));
        }
    }
    Ok(found)
}

/// A number of the query.
pub(crate) fn number(
    query: &BTreeMap<String, String>,
    name: &str,
) -> Result<Option<u64>, ServeError> {
    let read = |text: &String| {
        let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        number.and_then(|text| text.parse().ok())
    };
    let value = query.get(name);
    value.map(|text| read(text).ok_or_else(|| bad(format!("{name} is not a number")))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    #[test]
    fn a_query_is_read_strictly() {
        let read = |text: &str| query(text, &["from", "limit"]);
        assert_eq!(read("").expect("empty").len(), 0);
        let two = read("from=3&limit=%31").expect("good");
        assert_eq!(number(&two, "limit"), Ok(Some(1)));
        assert_eq!(number(&two, "none"), Ok(None));
        for wrong in ["form=3", "from=3&from=4", "from=%ff"] {
            assert_eq!(read(wrong).map_err(|e| e.code()), Err("BP-SERVE-005"), "{wrong}");
        }
        for wrong in ["from=", "from=-1", "from=%2B1", "from=99999999999999999999"] {
            let found = read(wrong).expect("known");
            assert_eq!(
                number(&found, "from").map_err(|e| e.code()),
                Err("BP-SERVE-005"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(parsed::<BTreeMap<String, u8>>(b""), Ok(BTreeMap::new()));
        let wrong = parsed::<BTreeMap<String, u8>>(b"[").map_err(|error| error.code());
        assert_eq!(wrong, Err("BP-SERVE-005"));
    }
}
