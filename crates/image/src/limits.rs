//! How large an image and its parts may be.

use serde::{Deserialize, Serialize};

/// Bytes of one document that describes an image: an index, a manifest, a configuration.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Entries an index may have.
pub const INDEX_ENTRIES_MAX: usize = 1024;
/// Indexes an index may lead through.
pub const INDEX_DEPTH_MAX: usize = 3;
/// Members of a `docker save` archive.
pub const MEMBERS_MAX: usize = 4096;
/// Bytes of one layer as it lies there.
pub const BLOB_BYTES_MAX: u64 = 16 << 30;
/// Bytes of an answer of a worker.
pub(crate) const REPLY_BYTES_MAX: u64 = 16 << 20;
/// Milliseconds a worker may take for one layer, or to fetch an image.
pub(crate) const WORK_MS_MAX: u64 = 60 * 60 * 1000;
/// Milliseconds a registry may say nothing.
pub(crate) const SILENCE_MS_MAX: u64 = 60_000;
/// Bytes of memory of a worker.
pub(crate) const WORKER_MEMORY_BYTES: u64 = 1 << 30;
/// Layers that are unpacked at once.
pub(crate) const PARALLEL_MAX: usize = 4;
/// Times a registry may send us elsewhere for one thing.
pub(crate) const REDIRECTS_MAX: usize = 5;
/// Bytes of a registry's token and of what it says when it refuses.
pub(crate) const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// What one layer may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerLimits {
    /// Bytes of the unpacked stream, and bytes of its files as they seem (holes count).
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of one path.
    pub path_bytes: u64,
    /// Bytes of all paths.
    pub paths_bytes: u64,
    /// Directories deep.
    pub depth: u64,
    /// Extended attributes of one entry.
    pub xattrs: u64,
}

impl Default for LayerLimits {
    fn default() -> Self {
        Self {
            bytes: 32 << 30,
            entries: 1_000_000,
            path_bytes: 4095,
            paths_bytes: 256 << 20,
            depth: 128,
            xattrs: 64,
        }
    }
}
