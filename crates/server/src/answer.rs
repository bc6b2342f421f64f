//! Answers: whole, or in pieces as they come.

use crate::Refusal;
use crate::limits::STALLED_WAIT;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// The bytes of an answer.
#[derive(Debug)]
pub(crate) enum Payload {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Bytes>),
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Pieces(pieces) => pieces.poll_recv(context),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

pub(crate) type Answer = Response<Payload>;

fn answer(status: StatusCode, kind: &'static str, payload: Payload) -> Answer {
    let mut answer = Response::new(payload);
    *answer.status_mut() = status;
    let head = answer.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

/// A JSON document.
pub(crate) fn document(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", value.to_string())
}

/// A text that is there already.
pub(crate) fn text(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    answer(status, kind, Payload::Whole(Some(text.into())))
}

/// What comes, as it comes.
pub(crate) fn pieces(kind: &'static str, pieces: mpsc::Receiver<Bytes>) -> Answer {
    answer(StatusCode::OK, kind, Payload::Pieces(pieces))
}

/// An error.
pub(crate) fn refusal(refusal: &Refusal) -> Answer {
    let mut answer = document(refusal.status, &json!({ "error": refusal.failure }));
    if refusal.status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// Hands a piece to whoever reads a stream; whether somebody still does.
pub(crate) async fn tell(to: &mpsc::Sender<Bytes>, piece: Bytes) -> bool {
    let told = tokio::time::timeout(STALLED_WAIT, to.send(piece)).await;
    matches!(told, Ok(Ok(())))
}

/// A server-sent event.
pub(crate) fn event(kind: &str, data: &Value) -> Bytes {
    format!("event: {kind}\ndata: {data}\n\n").into()
}
