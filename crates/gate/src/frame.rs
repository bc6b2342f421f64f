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
use crate::limits::{ATTACHMENTS_MAX, FRAME_BYTES_MAX};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

const LENGTH_BYTES: usize = 4;

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
        assert!(
            attachments.len() <= ATTACHMENTS_MAX,
            "callers attach a fixed few"
        );
        let header = serde_json::to_vec(header).map_err(|error| GateError::Protocol {
            why: error.to_string(),
        })?;
        let frame = Self {
            header,
            attachments,
        };
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

    /// Writes it.
    pub(crate) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut start = Vec::with_capacity(2 * LENGTH_BYTES + self.header.len());
        start.extend_from_slice(&length(self.bytes_after_length()));
        start.extend_from_slice(&length(self.header.len()));
        start.extend_from_slice(&self.header);
        to.write_all(&start).await?;
        for attachment in &self.attachments {
            to.write_all(&length(attachment.bytes().len())).await?;
            to.write_all(attachment.bytes()).await?;
        }
        to.flush().await
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
    let mut first = [0u8; LENGTH_BYTES];
    match from.read(&mut first[..1]).await {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(_) => return Err(GateError::Died),
    }
    from.read_exact(&mut first[1..])
        .await
        .map_err(|_| GateError::Died)?;
    let mut left = u32::from_be_bytes(first) as usize;
    if left > FRAME_BYTES_MAX {
        return Err(protocol("it is longer than a frame may be"));
    }
    let header = section(from, &mut left).await?;
    let header = serde_json::from_slice(&header)
        .map_err(|error| protocol(&format!("its header is unknown ({error})")))?;
    let mut attachments = Vec::new();
    while left > 0 {
        if attachments.len() == ATTACHMENTS_MAX {
            return Err(protocol("it has too many attachments"));
        }
        attachments.push(section(from, &mut left).await?);
    }
    Ok(Some(Received {
        header,
        attachments,
    }))
}

async fn section(
    from: &mut (impl AsyncRead + Unpin),
    left: &mut usize,
) -> Result<Zeroizing<Vec<u8>>, GateError> {
    let bytes = from.read_u32().await.map_err(|_| GateError::Died)? as usize;
    let Some(rest) = left
        .checked_sub(LENGTH_BYTES)
        .and_then(|rest| rest.checked_sub(bytes))
    else {
        return Err(protocol("a part is longer than the frame"));
    };
    *left = rest;
    let mut section = Zeroizing::new(vec![0; bytes]);
    from.read_exact(&mut section)
        .await
        .map_err(|_| GateError::Died)?;
    Ok(section)
}

fn protocol(why: &str) -> GateError {
    GateError::Protocol {
        why: why.to_owned(),
    }
}
