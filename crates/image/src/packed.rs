//! A layer's bytes on their way: counted, hashed, decompressed, never more than was promised.

use crate::ImageError;
use crate::metadata::Packing;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, BufReader, Read};
use types::Digest;

/// Bytes read at once.
const CHUNK_BYTES: usize = 128 << 10;

/// What is behind an [`io::Error`] of ours: it passes through readers that know only such errors.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Carried(pub(crate) ImageError);

/// The error of ours that a reader's error carries, or what `otherwise` makes of it.
pub(crate) fn carried(
    error: &io::Error,
    otherwise: impl FnOnce(String) -> ImageError,
) -> ImageError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Carried>()) {
        Some(Carried(ours)) => ours.clone(),
        None if error.kind() == io::ErrorKind::OutOfMemory => {
            ImageError::limit("bytes in memory", crate::limits::WORKER_MEMORY_BYTES)
        }
        None => otherwise(error.to_string()),
    }
}

/// Hashes what is read from it, and stops at a limit.
#[derive(Debug)]
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
    bytes_max: u64,
}

impl<R: Read> Hashing<R> {
    /// Reads at most `bytes_max`; more is an error, never an end.
    pub(crate) fn new(inner: R, bytes_max: u64) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0, bytes_max }
    }

    /// Reads what is left, and says what all of it was.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest(self.hasher.finalize().into()), self.bytes))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > self.bytes_max {
            let error = ImageError::limit("bytes in a layer", self.bytes_max);
            return Err(io::Error::other(Carried(error)));
        }
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// The bytes inside a packed layer.
pub(crate) fn plain<'a>(packed: impl Read + 'a, packing: Packing) -> Box<dyn Read + 'a> {
    let packed = BufReader::with_capacity(CHUNK_BYTES, packed);
    match packing {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Packing::Zstd => Box::new(BufReader::with_capacity(CHUNK_BYTES, Frames::new(packed))),
    }
}

/// An empty frame. The decoder holds only frames after its first to its limit for windows.
const EMPTY_FRAME: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];

/// Zstandard, which may be several frames one after the other.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.init(EMPTY_FRAME.as_slice()).expect("it is a frame");
        Self { source, decoder, within: false }
    }

    /// Goes into the next frame; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error.to_string())),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.within || self.next()? {
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let wanted = buffer.len() - self.decoder.can_collect();
                let strategy = BlockDecodingStrategy::UptoBytes(wanted);
                let decoded = self.decoder.decode_blocks(&mut self.source, strategy);
                decoded.map_err(|error| io::Error::other(error.to_string()))?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.within = false;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::io::Write;
    use types::Coded;

    fn read(bytes: &[u8], packing: Packing) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        plain(bytes, packing).read_to_end(&mut found).map(|_| found)
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    #[test]
    fn each_packing_gives_the_same_bytes() {
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n / 7) as u8).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).unwrap();
        assert_eq!(read(&bytes, Packing::Plain).unwrap(), bytes);
        assert_eq!(read(&gzip.finish().unwrap(), Packing::Gzip).unwrap(), bytes);
        let (first, second) = bytes.split_at(100_000);
        let mut frames = zstd(first);
        // One to be skipped, as tools put them between.
        frames.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        frames.extend(zstd(second));
        assert_eq!(read(&frames, Packing::Zstd).unwrap(), bytes);
        frames.truncate(frames.len() - 5);
        assert!(read(&frames, Packing::Zstd).is_err());
        assert!(read(&bytes, Packing::Zstd).is_err() && read(&bytes, Packing::Gzip).is_err());
    }

    #[test]
    fn a_window_that_wants_much_memory_is_refused() {
        // No single segment, a window of 2^41 bytes, an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        assert!(read(&frame, Packing::Zstd).is_err());
    }

    #[test]
    fn more_than_the_limit_is_an_error_at_its_edge() {
        let whole = |max: u64| {
            let mut found = Vec::new();
            let mut hashing = Hashing::new([7u8; 100].as_slice(), max);
            hashing.read_to_end(&mut found).map(|_| found)
        };
        assert_eq!(whole(100).unwrap().len(), 100);
        let error = carried(&whole(99).unwrap_err(), |_| panic!("it carries ours"));
        assert_eq!(error.code(), "BP-IMAGE-011");
    }
}
