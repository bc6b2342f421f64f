//! What a worker is told, and what it answers: lines of JSON with bytes beside them.
//!
//! The first line is the order, from us. A reader then gets documents to read, one after the other;
//! every other worker answers once and ends.

use crate::ImageError;
use crate::limits::LayerLimits;
use crate::metadata::{Config, Legacy, Next, Packing};
use crate::unpack::Unpacked;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use types::Digest;

/// The first line a worker reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Read documents, as they come.
    Read,
    /// Say what an archive holds.
    Survey {
        /// The archive.
        file: PathBuf,
    },
    /// Unpack a layer.
    Unpack(Box<Unpack>),
    /// Bring an image from a registry into a layout.
    Fetch(Box<Fetch>),
}

/// A layer to unpack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unpack {
    /// The file it lies in, from where, and how many bytes of it.
    pub(crate) file: PathBuf,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) packing: Packing,
    /// Of the packed bytes, where anybody said it.
    pub(crate) digest: Option<Digest>,
    /// Of the unpacked ones.
    pub(crate) diff_id: Digest,
    /// An empty directory of the worker's.
    pub(crate) out: PathBuf,
    pub(crate) limits: LayerLimits,
}

/// An image to bring.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fetch {
    pub(crate) host: String,
    pub(crate) name: String,
    /// A tag, or `sha256:` and a digest.
    pub(crate) version: String,
    /// Unpacked layers that are here already.
    pub(crate) have: Vec<Digest>,
    /// An empty directory of the worker's.
    pub(crate) out: PathBuf,
}

/// A document for a reader; its bytes follow the line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) bytes: u64,
    pub(crate) kind: DocumentKind,
}

/// What it is taken for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum DocumentKind {
    /// `oci-layout`.
    Layout,
    /// An index or a manifest.
    Image { media: String, tag: Option<String> },
    /// A configuration.
    Config,
    /// `manifest.json`.
    Legacy,
}

/// Where a member of an archive lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// What a worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A layout of a version we read.
    Layout,
    /// Where an index or manifest leads.
    Next(Next),
    /// A configuration.
    Config(Config),
    /// An older archive's manifest.
    Legacy(Legacy),
    /// The members of an archive.
    Members(BTreeMap<String, Extent>),
    /// A layer is there.
    Unpacked(Unpacked),
    /// The layout is there.
    Fetched,
}

/// A line that a worker writes.
pub(crate) type Reply = Result<Answer, ImageError>;
