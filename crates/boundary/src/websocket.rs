//! WebSockets: judged as the request that opens them, then carried frame by frame.
//!
//! No extension is negotiated, so every frame says what it is. Frames are bounded; what is no
//! frame ends the connection. Where a secret was given to the opening request and comes back in a
//! frame, the connection ends before the secret has passed.

use crate::accept::Link;
use crate::body::Permit;
use crate::error::BoundaryError;
use crate::limits::FRAME_BYTES_MAX;
use crate::mask::Masker;
use crate::standing::Stands;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes copied at once.
const COPY_BYTES: usize = 16 << 10;
/// Bytes of a control frame's payload.
const CONTROL_BYTES_MAX: u64 = 125;

/// Whether an upstream switched as it was asked to.
pub(crate) fn accepted(headers: &HeaderMap) -> bool {
    let websocket = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    websocket.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
        && headers.contains_key(SEC_WEBSOCKET_ACCEPT)
        && !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
}

/// Puts back what was stripped because it ends at each hop: this hop switches too.
pub(crate) fn put_back(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Carries in a task of its own until either side ends, or policy ends it.
pub(crate) fn carry(
    link: Arc<Link>,
    program: OnUpgrade,
    upstream: OnUpgrade,
    mut permit: Permit,
    stands: Arc<Stands>,
    masker: Option<Masker>,
) {
    link.shared.tunnel.store(true, Ordering::SeqCst);
    tokio::spawn(async move {
        let down = AtomicU64::new(0);
        let up = Arc::clone(&permit.up);
        let both = async {
            let (program, upstream) =
                tokio::try_join!(program, upstream).map_err(io::Error::other)?;
            copy_both(program, upstream, &up, &down, masker).await
        };
        let result = tokio::select! {
            result = both => result.map_err(|error| error.to_string()),
            () = stands.switch.closed() => Err(BoundaryError::Revoked.to_string()),
            () = link.inner.closing.closed() => Err("the sandbox ends".to_owned()),
        };
        permit.down = down.load(Ordering::Relaxed);
        match result {
            Ok(()) => permit.answered(),
            Err(why) => permit.failed(&why),
        }
    });
}

async fn copy_both(
    program: Upgraded,
    upstream: Upgraded,
    up: &AtomicU64,
    down: &AtomicU64,
    masker: Option<Masker>,
) -> io::Result<()> {
    let mut program = tokio::io::split(TokioIo::new(program));
    let mut upstream = tokio::io::split(TokioIo::new(upstream));
    let upward = copy(&mut program.0, &mut upstream.1, up, None);
    let downward = copy(&mut upstream.0, &mut program.1, down, masker);
    tokio::try_join!(upward, downward).map(|_| ())
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
    masker: Option<Masker>,
) -> io::Result<()> {
    let mut buffer = vec![0u8; COPY_BYTES];
    let mut frames = Frames::new(masker);
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        frames.feed(&buffer[..bytes]).map_err(io::Error::other)?;
        to.write_all(&buffer[..bytes]).await?;
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Follows the frames of one direction.
#[derive(Debug)]
struct Frames {
    head: Vec<u8>,
    /// Bytes of payload left.
    left: u64,
    /// Looks for secrets in the payloads, one after the other.
    masker: Option<Masker>,
}

impl Frames {
    const fn new(masker: Option<Masker>) -> Self {
        Self { head: Vec::new(), left: 0, masker }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                let (payload, rest) = bytes.split_at(taken);
                self.left -= taken as u64;
                bytes = rest;
                if let Some(masker) = &mut self.masker {
                    masker.feed(payload);
                    if masker.hits() > 0 {
                        return Err("a frame had a secret of the request");
                    }
                }
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(length) = payload_bytes(&self.head)? {
                self.left = length;
                self.head.clear();
            }
        }
        Ok(())
    }
}

/// The payload of a frame whose head is whole; none while it is not.
fn payload_bytes(head: &[u8]) -> Result<Option<u64>, &'static str> {
    let [first, second, extended @ ..] = head else { return Ok(None) };
    let (opcode, masked) = (first & 0x0f, second & 0x80 != 0);
    if first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) {
        return Err("a frame of an extension");
    }
    let size = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    if extended.len() < size + if masked { 4 } else { 0 } {
        return Ok(None);
    }
    let wide = extended[..size].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if size == 0 { u64::from(second & 0x7f) } else { wide };
    if length > FRAME_BYTES_MAX
        || (opcode >= 8 && (length > CONTROL_BYTES_MAX || first & 0x80 == 0))
    {
        return Err("a frame that is too long");
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Masks;

    fn run(bytes: &[u8]) -> Result<(), &'static str> {
        let mut frames = Frames::new(None);
        bytes.chunks(3).try_for_each(|piece| frames.feed(piece))
    }

    #[test]
    fn frames_are_followed() {
        assert_eq!(run(b"\x81\x05hello\x82\x83maskabc\x89\x00\x01\x7e\x00\x01x\x80\x00"), Ok(()));
        for bad in [&b"\xc1\x00"[..], b"\x83\x00", b"\x8b\x00", b"\x09\x00", b"\x89\x7e\x00\x7e"] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn frames_have_a_limit_at_its_edge() {
        let of = |length: u64| [&b"\x82\x7f"[..], &length.to_be_bytes()].concat();
        assert_eq!(run(&of(FRAME_BYTES_MAX)), Ok(()));
        assert!(run(&of(FRAME_BYTES_MAX + 1)).is_err());
        assert!(run(&of(u64::MAX)).is_err());
    }

    #[test]
    fn a_secret_is_seen_across_frames() {
        let masks = Masks::new([("api", "hunter2")].into_iter()).unwrap();
        let mut frames = Frames::new(Some(Masker::new(masks)));
        assert_eq!(frames.feed(b"\x01\x04hunt"), Ok(()));
        assert!(frames.feed(b"\x80\x03er2").is_err());
    }
}
