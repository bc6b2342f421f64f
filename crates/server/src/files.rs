//! Files of a kept sandbox: read from its sealed state, and written as a step of it.
//!
//! Reading asks no policy: it is its owner's look at what the log names, as a comparison is. Writing
//! is a call of `write_file`, decided and recorded as any; what policy asks about is a command that
//! waits, by its number.

use crate::answer::{Answer, pieces};
use crate::body::{self, bad};
use crate::exec::wait_of;
use crate::handlers::{ok, pass_on};
use crate::limits::{ARTIFACT_BYTES_MAX, ENTRIES_MAX, PIECES_MAX};
use crate::sandboxes::OfSandbox;
use crate::service::Service;
use crate::{Refusal, ServeError};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue};
use runtime::protocol::Bytes64;
use serde_json::json;
use std::io::{Read as _, Seek as _, SeekFrom};
use tokio::sync::mpsc;
use types::Step;

impl Service {
    pub(crate) async fn list_files(&self, asked: OfSandbox) -> Result<Answer, Refusal> {
        let OfSandbox { id, query, .. } = asked;
        let dir = query.get("path").cloned().unwrap_or_default();
        let number = |name, default| {
            let given = body::number(&query, name)?.unwrap_or(default as u64);
            Ok::<_, Refusal>(usize::try_from(given).unwrap_or(usize::MAX))
        };
        let (from, limit) = (number("from", 0)?, number("limit", ENTRIES_MAX)?);
        if !(1..=ENTRIES_MAX).contains(&limit) {
            return Err(bad(format!("limit is from 1 to {ENTRIES_MAX}")).into());
        }
        let entries = self.sandboxes(move |desk| desk.entries(&id, &dir, from, limit));
        Ok(ok(&entries.await?))
    }

    /// A file's bytes, or a range of them.
    pub(crate) async fn read_file(&self, asked: OfSandbox) -> Result<Answer, Refusal> {
        let OfSandbox { id, second: path, range, .. } = asked;
        let named = path.clone();
        let (mut file, bytes) = self.sandboxes(move |desk| desk.open(&id, &named)).await?;
        if bytes > ARTIFACT_BYTES_MAX {
            let reason = format!("it has {bytes} bytes, and {ARTIFACT_BYTES_MAX} are given out");
            return Err(ServeError::Path { path, reason }.into());
        }
        let part = range.map(|range| part_of(&range, bytes)).transpose()?;
        let (first, count) = part.map_or((0, bytes), |(first, last)| (first, last + 1 - first));
        let (to, from_us) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_blocking(move || {
            if file.seek(SeekFrom::Start(first)).is_ok() {
                pass_on(file.take(count), &to);
            }
        });
        let mut answer = pieces("application/octet-stream", from_us);
        let head = answer.headers_mut();
        // A file that cannot be read to its end is then an answer that is cut off, not a short one.
        head.insert(CONTENT_LENGTH, count.into());
        head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some((first, last)) = part {
            let value = HeaderValue::try_from(format!("bytes {first}-{last}/{bytes}"));
            head.insert(CONTENT_RANGE, value.expect("numbers are a header"));
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        Ok(answer)
    }

    /// Writes a file, and waits until it is written.
    pub(crate) async fn write_file(&self, asked: OfSandbox) -> Result<Answer, Refusal> {
        let OfSandbox { id, second: path, query, body, .. } = asked;
        let wait = wait_of(&query)?;
        let (of, named) = (id.clone(), path.clone());
        let place = self.sandboxes(move |desk| desk.place(&of, &named)).await?;
        let begun = self.begin(id, written(&place, body), None).await?;
        let (run, exec) = (begun.run().clone(), begun.exec);
        let (status, told) = self.exec_told(&run, exec, wait).await?;
        let done = told["done"] == true;
        let why = told["output"].as_str().unwrap_or_default().to_owned();
        match told["status"].as_str() {
            Some("denied" | "expired") if done => Err(ServeError::Denied { path, why }.into()),
            Some("ok") | None => Ok(crate::answer::document(status, &told)),
            Some(_) if done => Err(ServeError::NotWritten { path, why }.into()),
            Some(_) => Ok(crate::answer::document(status, &told)),
        }
    }
}

/// The step that writes a file. What is text is recorded as text.
fn written(path: &str, bytes: Bytes) -> Step {
    let arguments = match String::from_utf8(bytes.into()) {
        Ok(content) => json!({ "path": path, "content": content }),
        Err(error) => {
            let content = Bytes64(error.into_bytes());
            json!({ "path": path, "content": content, "encoding": "base64" })
        }
    };
    Step::Tool { call_id: None, name: "write_file".to_owned(), arguments }
}

/// The first and the last byte that are wanted of so many.
fn part_of(range: &str, bytes: u64) -> Result<(u64, u64), Refusal> {
    let none =
        || Refusal::from(ServeError::Range { range: range.chars().take(80).collect(), bytes });
    let number = |text: &str| {
        let digits = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|text| text.parse::<u64>().ok()).ok_or_else(none)
    };
    let (first, last) =
        range.strip_prefix("bytes=").and_then(|text| text.split_once('-')).ok_or_else(none)?;
    let end = bytes.checked_sub(1).ok_or_else(none)?;
    let (first, last) = match (first, last) {
        ("", count) => match number(count)? {
            0 => return Err(none()),
            count => (bytes.saturating_sub(count), end),
        },
        (first, "") => (number(first)?, end),
        (first, last) => (number(first)?, number(last)?.min(end)),
    };
    if first > last { Err(none()) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_part_of_the_file() {
        let check = |range: &str, bytes: u64, expected: Option<(u64, u64)>| {
            let got = part_of(range, bytes).map_err(|refusal| refusal.into_failure().code);
            assert_eq!(got, expected.ok_or("BP-SERVE-024".to_owned()), "{range} of {bytes}");
        };
        check("bytes=0-0", 1, Some((0, 0)));
        check("bytes=2-", 5, Some((2, 4)));
        check("bytes=2-99", 5, Some((2, 4)));
        check("bytes=-2", 5, Some((3, 4)));
        check("bytes=-9", 5, Some((0, 4)));
        for wrong in
            ["bytes=5-", "bytes=3-2", "bytes=-0", "bytes=", "bytes=a-b", "0-1", "bytes=0-1,3-4"]
        {
            check(wrong, 5, None);
        }
        check("bytes=0-", 0, None);
    }

    #[test]
    fn what_is_no_text_is_recorded_as_base64() {
        let check = |bytes: &'static [u8], content: &str, encoding: Option<&str>| {
            let Step::Tool { arguments, .. } = written("a", Bytes::from_static(bytes)) else {
                panic!("a call")
            };
            assert_eq!(arguments["content"], content);
            assert_eq!(arguments["encoding"].as_str(), encoding);
        };
        check(b"text\n\0", "text\n\0", None);
        check(&[0xff, 0x00], "/wA=", Some("base64"));
    }
}
