//! How old an answer is by its own word, where the operator said where that stands.
//!
//! The judge is told before the program has the last byte, so that whatever the program sends next
//! counts the age. So the answer's body is read ahead, up to a limit; what cannot be read in full
//! and in one way is said to be unreadable, and passes on as it comes.

use crate::accept::Link;
use crate::limits::{DATED_BYTES_MAX, DATED_MS_MAX};
use crate::request::Checked;
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use types::{AsOf, AsOfField, as_of_covers};

/// The beginning of an answer that was read before it was passed on.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    pub(crate) frames: VecDeque<Frame<Bytes>>,
    /// Its share of what the sandbox may have read ahead.
    _share: Option<OwnedSemaphorePermit>,
}

/// Where the answer to a request says how old it is: the longest rule that covers it. Only a GET
/// fetches something.
pub(crate) fn field(link: &Link, checked: &Checked) -> Option<AsOfField> {
    if checked.method != "GET" {
        return None;
    }
    let host = link.origin.host.to_string();
    let rules = link.inner.config.as_of.iter();
    let covers = rules.filter(|(key, _)| as_of_covers(key, &host, &checked.path.decoded));
    covers.max_by_key(|(key, _)| key.len()).map(|(_, field)| field.clone())
}

/// Reads how old an answer is, and as much of its body as that takes. `None` for an answer that
/// brings nothing: any but a 2xx.
pub(crate) async fn read(
    link: &Link,
    field: &AsOfField,
    response: &mut Response<Incoming>,
) -> (Option<AsOf>, Ahead) {
    if !response.status().is_success() {
        return (None, Ahead::default());
    }
    match field {
        AsOfField::Header(name) => (Some(of_header(response.headers(), name)), Ahead::default()),
        AsOfField::Json(pointer) => {
            let encoded = response.headers().contains_key(CONTENT_ENCODING);
            let kib = u32::try_from(DATED_BYTES_MAX >> 10).expect("a small constant");
            let share = Arc::clone(&link.inner.bodies).try_acquire_many_owned(kib).ok();
            if encoded || share.is_none() {
                return (Some(AsOf::Unreadable), Ahead::default());
            }
            let (body, frames) = collect(response.body_mut()).await;
            let as_of = body.map_or(AsOf::Unreadable, |body| of_body(&body, pointer));
            (Some(as_of), Ahead { frames, _share: share })
        }
    }
}

/// The frames of a body, and its bytes when that was all of it.
async fn collect(body: &mut Incoming) -> (Option<Vec<u8>>, VecDeque<Frame<Bytes>>) {
    let until = Instant::now() + Duration::from_millis(DATED_MS_MAX);
    let (mut bytes, mut frames) = (Vec::new(), VecDeque::new());
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return (Some(bytes), frames),
            // What is wrong with it comes again when it is passed on, or it is slow.
            Ok(Some(Err(_))) | Err(_) => return (None, frames),
        };
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
        }
        frames.push_back(frame);
        if bytes.len() > DATED_BYTES_MAX {
            return (None, frames);
        }
    }
}

fn of_header(headers: &HeaderMap, name: &str) -> AsOf {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return AsOf::Unreadable };
    let Ok(text) = value.to_str() else { return AsOf::Unreadable };
    let since = httpdate::parse_http_date(text).ok();
    match since.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) {
        Some(since) => AsOf::of_number(since.as_secs()),
        None => AsOf::of_json(Some(&Value::from(text))),
    }
}

fn of_body(body: &[u8], pointer: &str) -> AsOf {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    AsOf::of_json(value.as_ref().and_then(|value| value.pointer(pointer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_header_is_read_when_it_stands_once_and_is_a_date() {
        let check = |values: &[&'static str], expected: AsOf| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append("last-modified", HeaderValue::from_static(value));
            });
            assert_eq!(of_header(&headers, "last-modified"), expected, "{values:?}");
        };
        check(&["Tue, 31 Dec 2024 23:59:59 GMT"], AsOf::At(1_735_689_599_000));
        check(&["2024-12-31T23:59:59Z"], AsOf::At(1_735_689_599_000));
        check(&["soon"], AsOf::Unreadable);
        check(&[], AsOf::Unreadable);
        check(&["Tue, 31 Dec 2024 23:59:59 GMT"; 2], AsOf::Unreadable);
    }

    #[test]
    fn a_body_is_read_by_its_pointer() {
        let check = |body: &str, expected: AsOf| {
            assert_eq!(of_body(body.as_bytes(), "/a/at"), expected, "{body}");
        };
        check(r#"{"a":{"at":"2024-12-31T23:59:59Z"}}"#, AsOf::At(1_735_689_599_000));
        check(r#"{"a":{"at":1735689599}}"#, AsOf::At(1_735_689_599_000));
        check(r#"{"a":{}}"#, AsOf::Unreadable);
        check(r#"{"a":{"at":"2024-12-31T23:59:59Z"}"#, AsOf::Unreadable);
        check("", AsOf::Unreadable);
    }
}
