//! Frames: what crosses the socket between owner and gate.
//!
//! ```text
//!  u32 bytes of the rest | u32 bytes of header | header: JSON | (u32 bytes | bytes) per attachment
//! ```
//!
//! Numbers are big-endian. Attachments are raw bytes, so that a reply or a key is never written as
//! text; each is read into a buffer of its own, so that a key can be wiped. Every length is checked
//! before memory is taken for it.

use crate::error::GateError;
use crate::limits::{ATTACHMENTS_MAX, FRAME_BYTES_MAX, QUEUE_FRAMES_MAX};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

const LENGTH_BYTES: usize = 4;
/// A frame's length and its header's.
const LENGTHS_BYTES: usize = 2 * LENGTH_BYTES;
/// Frames without attachments are written together up to so many bytes.
const TOGETHER_BYTES_MAX: usize = 64 << 10;

/// Bytes beside the header.
#[derive(Debug, Clone)]
pub(crate) enum Attachment {
    /// Ordinary bytes.
    Plain(Bytes),
    /// A key: wiped when dropped.
    Secret(models::Secret),
}

impl Attachment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Secret(secret) => secret.expose(),
        }
    }
}

/// A frame ready to be written.
#[derive(Debug)]
pub(crate) struct Frame {
    header: Vec<u8>,
    attachments: Vec<Attachment>,
}

impl Frame {
    /// Puts a frame together.
    ///
    /// # Errors
    /// [`GateError::FrameTooLarge`].
    pub(crate) fn new(
        header: &impl Serialize,
        attachments: Vec<Attachment>,
    ) -> Result<Self, GateError> {
        assert!(attachments.len() <= ATTACHMENTS_MAX, "callers attach a fixed few");
        let header = serde_json::to_vec(header)
            .map_err(|error| GateError::Protocol { why: error.to_string() })?;
        let frame = Self { header, attachments };
        let bytes = frame.bytes_after_length();
        if bytes > FRAME_BYTES_MAX {
            return Err(GateError::FrameTooLarge {
                bytes: bytes as u64,
                limit: FRAME_BYTES_MAX as u64,
            });
        }
        Ok(frame)
    }

    fn bytes_after_length(&self) -> usize {
        let attached = self.attachments.iter();
        let attached: usize = attached.map(|part| LENGTH_BYTES + part.bytes().len()).sum();
        LENGTH_BYTES + self.header.len() + attached
    }

    /// What comes before its attachments, behind what is in `start` already.
    fn begin(&self, start: &mut Vec<u8>) {
        start.reserve(LENGTHS_BYTES + self.header.len());
        start.extend_from_slice(&length(self.bytes_after_length()));
        start.extend_from_slice(&length(self.header.len()));
        start.extend_from_slice(&self.header);
    }

    /// Writes frames in order, with few calls to the system.
    pub(crate) async fn write_all(
        frames: &mut Vec<Self>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let mut together = Vec::new();
        for frame in frames.drain(..) {
            let plain = frame.attachments.is_empty();
            if plain {
                frame.begin(&mut together);
            }
            if !together.is_empty() && (!plain || together.len() > TOGETHER_BYTES_MAX) {
                to.write_all(&together).await?;
                together.clear();
            }
            if !plain {
                frame.write(to).await?;
            }
        }
        to.write_all(&together).await?;
        to.flush().await
    }

    /// Writes it. Attachments are not copied: they may be keys.
    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut start = Vec::new();
        self.begin(&mut start);
        to.write_all(&start).await?;
        for attachment in &self.attachments {
            to.write_all(&length(attachment.bytes().len())).await?;
            to.write_all(attachment.bytes()).await?;
        }
        to.flush().await
    }
}

/// Writes what comes, as many frames together as wait, until nobody sends or nobody reads.
pub(crate) async fn write_queue(
    mut to: impl AsyncWrite + Unpin,
    mut frames: tokio::sync::mpsc::Receiver<Frame>,
) {
    let mut ready = Vec::new();
    while frames.recv_many(&mut ready, QUEUE_FRAMES_MAX).await > 0 {
        if Frame::write_all(&mut ready, &mut to).await.is_err() {
            return;
        }
    }
}

fn length(bytes: usize) -> [u8; LENGTH_BYTES] {
    let bytes = u32::try_from(bytes).expect("a frame is under 4 GiB, as FRAME_BYTES_MAX is");
    bytes.to_be_bytes()
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Received<H> {
    /// The header.
    pub(crate) header: H,
    /// The attachments.
    pub(crate) attachments: Vec<Zeroizing<Vec<u8>>>,
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// [`GateError::Protocol`] when what comes is no frame; [`GateError::Died`] when it ends within one.
pub(crate) async fn read<H: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<Received<H>>, GateError> {
    let mut first = [0u8; LENGTHS_BYTES];
    let mut had = 0;
    // What is too long is told by its first bytes: there may never be more.
    while had < LENGTHS_BYTES {
        had += match from.read(&mut first[had..]).await {
            Ok(0) if had == 0 => return Ok(None),
            Ok(0) | Err(_) => return Err(GateError::Died),
            Ok(count) => count,
        };
        if had >= LENGTH_BYTES && number(&first[..LENGTH_BYTES]) > FRAME_BYTES_MAX {
            return Err(protocol("it is longer than a frame may be"));
        }
    }
    let mut left = number(&first[..LENGTH_BYTES]);
    let header = section(from, number(&first[LENGTH_BYTES..]), &mut left).await?;
    let header = serde_json::from_slice(&header)
        .map_err(|error| protocol(&format!("its header is unknown ({error})")))?;
    let mut attachments = Vec::new();
    while left > 0 {
        if attachments.len() == ATTACHMENTS_MAX {
            return Err(protocol("it has too many attachments"));
        }
        let bytes = from.read_u32().await.map_err(|_| GateError::Died)? as usize;
        attachments.push(section(from, bytes, &mut left).await?);
    }
    Ok(Some(Received { header, attachments }))
}

/// A big-endian number of four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

async fn section(
    from: &mut (impl AsyncRead + Unpin),
    bytes: usize,
    left: &mut usize,
) -> Result<Zeroizing<Vec<u8>>, GateError> {
    let Some(rest) = left.checked_sub(LENGTH_BYTES).and_then(|rest| rest.checked_sub(bytes)) else {
        return Err(protocol("a part is longer than the frame"));
    };
    *left = rest;
    let mut section = Zeroizing::new(vec![0; bytes]);
    from.read_exact(&mut section).await.map_err(|_| GateError::Died)?;
    Ok(section)
}

fn protocol(why: &str) -> GateError {
    GateError::Protocol { why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use types::Coded as _;

    fn plain(bytes: usize) -> Attachment {
        Attachment::Plain(vec![b'x'; bytes].into())
    }

    async fn written(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.write(&mut bytes).await.expect("memory takes everything");
        bytes
    }

    async fn code(mut bytes: &[u8]) -> Option<&'static str> {
        read::<Value>(&mut bytes).await.err().map(|error| error.code())
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let key = Attachment::Secret(models::Secret::new(b"key".to_vec()));
        let frame = Frame::new(&json!({"a": 1}), vec![plain(3), key, plain(0)]).expect("fits");
        let bytes = [written(&frame).await, written(&frame).await].concat();
        let mut rest = bytes.as_slice();
        for _ in 0..2 {
            let received = read::<Value>(&mut rest).await.expect("good").expect("one more");
            assert_eq!(received.header, json!({"a": 1}));
            let parts: Vec<&[u8]> =
                received.attachments.iter().map(|part| part.as_slice()).collect();
            assert_eq!(parts, [b"xxx".as_slice(), b"key", b""]);
        }
        assert!(read::<Value>(&mut rest).await.expect("good").is_none());
        assert!(!format!("{frame:?}").contains("key"), "a key is not shown");
    }

    #[tokio::test]
    async fn frames_written_together_are_those_written_one_by_one() {
        let key = || Attachment::Secret(models::Secret::new(b"key".to_vec()));
        let long = json!({ "text": "x".repeat(TOGETHER_BYTES_MAX) });
        let (short, none) = (json!({"a": 1}), Vec::new);
        let mut frames: Vec<Frame> =
            [(&short, none()), (&short, vec![key()]), (&long, none()), (&short, none())]
                .map(|(header, attached)| Frame::new(header, attached).expect("fits"))
                .into();
        let mut expected = Vec::new();
        for frame in &frames {
            expected.extend(written(frame).await);
        }
        let mut bytes = Vec::new();
        Frame::write_all(&mut frames, &mut bytes).await.expect("memory takes everything");
        assert!(bytes == expected && frames.is_empty());
    }

    #[tokio::test]
    async fn a_frame_may_have_exactly_its_limit() {
        let room = FRAME_BYTES_MAX - LENGTH_BYTES - "{}".len() - LENGTH_BYTES;
        let frame = Frame::new(&json!({}), vec![plain(room)]).expect("fits");
        let bytes = written(&frame).await;
        assert_eq!(code(&bytes).await, None);
        let error = Frame::new(&json!({}), vec![plain(room + 1)]).expect_err("does not fit");
        assert_eq!(error.code(), "BP-GATE-004");
        let length = u32::try_from(FRAME_BYTES_MAX + 1).expect("small").to_be_bytes();
        assert_eq!(code(&length).await, Some("BP-GATE-003"));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused_and_what_ends_early_is_a_death() {
        let frame = Frame::new(&json!({"a": 1}), vec![plain(3)]).expect("fits");
        let bytes = written(&frame).await;
        for at in 1..bytes.len() {
            assert_eq!(code(&bytes[..at]).await, Some("BP-GATE-001"), "cut at {at}");
        }
        assert_eq!(code(b"GET / HTTP/1.1\r\n\r\n").await, Some("BP-GATE-003"));
        assert_eq!(code(&[0, 0, 0, 6, 0, 0, 0, 3, b'{', b'}']).await, Some("BP-GATE-003"));
        assert_eq!(code(&[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'{']).await, Some("BP-GATE-003"));
        let attached = Frame::new(&json!({}), vec![]).expect("fits");
        let mut many = written(&attached).await;
        many.extend_from_slice(&[0; LENGTH_BYTES * (ATTACHMENTS_MAX + 1)]);
        many[3] += u8::try_from(LENGTH_BYTES * (ATTACHMENTS_MAX + 1)).expect("small");
        assert_eq!(code(&many).await, Some("BP-GATE-003"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("builds");
            // The first length is made small, so that the rest is looked at.
            let mut small = bytes.clone();
            small.iter_mut().take(3).for_each(|byte| *byte = 0);
            runtime.block_on(async {
                let _ = read::<Value>(&mut bytes.as_slice()).await;
                let _ = read::<Value>(&mut small.as_slice()).await;
            });
        }
    }
}
