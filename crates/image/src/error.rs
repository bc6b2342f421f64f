//! What can go wrong with images.
//!
//! Errors travel from a worker to its parent as they are. What a hostile image says is quoted cut
//! and escaped.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use types::{Coded, ImageSourceError};

/// Characters of hostile text that an error repeats.
const QUOTED_MAX: usize = 120;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ImageError {
    /// A reference that is none.
    #[error("{why}")]
    Reference {
        /// What is wrong with it.
        why: String,
    },
    /// There is no such image.
    #[error("there is no image '{name}'{why}")]
    NotFound {
        /// What was looked for.
        name: String,
        /// Where, or what there is instead.
        why: String,
    },
    /// A layout or archive cannot be read as one.
    #[error("{} cannot be read as an image: {why}", path.display())]
    Source {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Bytes are not what their name says.
    #[error("{what} is not what was promised: expected {expected}, found {found}")]
    Mismatch {
        /// Which bytes.
        what: String,
        /// The digest or size that was promised.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A kind of content that nothing here reads.
    #[error("{what} is of a kind that is not read here: {media}")]
    MediaType {
        /// Which part.
        what: String,
        /// Its media type.
        media: String,
    },
    /// What describes the image is wrong or says two things at once.
    #[error("{what} cannot be used: {why}")]
    Metadata {
        /// Which part.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The image is for other machines.
    #[error("the image is not for {wanted}; it is for {offered}")]
    Platform {
        /// This machine.
        wanted: String,
        /// The machines it is for.
        offered: String,
    },
    /// A path that could lead out of the layer.
    #[error("a layer names the path {path}, which {why}")]
    Path {
        /// The path, cut.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A link that leads somewhere it may not.
    #[error("a layer writes {path} through or to a link: {why}")]
    Link {
        /// The path, cut.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// An entry of a kind that no layer may hold.
    #[error("a layer holds {path}, which is {kind}")]
    Kind {
        /// The path, cut.
        path: String,
        /// What it is.
        kind: String,
    },
    /// More than a named limit.
    #[error("the image has more {what} than the limit of {limit}")]
    Limit {
        /// Of what.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A layer's bytes are broken.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// Which bytes.
        what: String,
        /// Why.
        why: String,
    },
    /// The confined process did not do its work.
    #[error("the process that reads images {why}")]
    Worker {
        /// What became of it.
        why: String,
    },
    /// The store in the home cannot be used.
    #[error("cannot {action} {}: {why}", path.display())]
    Store {
        /// What was done.
        action: String,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        why: String,
    },
    /// A registry did not give what was asked for.
    #[error("the registry {host} did not give {what}: {why}")]
    Registry {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// Why not.
        why: String,
    },
}

/// Hostile bytes as an error repeats them: cut, escaped, in quotes.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(QUOTED_MAX).collect();
    format!("{text:?}")
}

impl ImageError {
    pub(crate) fn store(action: &str, path: &std::path::Path, why: impl ToString) -> Self {
        Self::Store { action: action.to_owned(), path: path.to_owned(), why: why.to_string() }
    }

    pub(crate) fn worker(why: impl ToString) -> Self {
        Self::Worker { why: why.to_string() }
    }

    pub(crate) fn limit(what: &str, limit: u64) -> Self {
        Self::Limit { what: what.to_owned(), limit }
    }

    pub(crate) fn metadata(what: &str, why: impl ToString) -> Self {
        Self::Metadata { what: what.to_owned(), why: why.to_string() }
    }
}

impl From<ImageSourceError> for ImageError {
    fn from(error: ImageSourceError) -> Self {
        Self::Reference { why: error.to_string() }
    }
}

impl Coded for ImageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "BP-IMAGE-001",
            Self::NotFound { .. } => "BP-IMAGE-002",
            Self::Source { .. } => "BP-IMAGE-003",
            Self::Mismatch { .. } => "BP-IMAGE-004",
            Self::MediaType { .. } => "BP-IMAGE-005",
            Self::Metadata { .. } => "BP-IMAGE-006",
            Self::Platform { .. } => "BP-IMAGE-007",
            Self::Path { .. } => "BP-IMAGE-008",
            Self::Link { .. } => "BP-IMAGE-009",
            Self::Kind { .. } => "BP-IMAGE-010",
            Self::Limit { .. } => "BP-IMAGE-011",
            Self::Damaged { .. } => "BP-IMAGE-012",
            Self::Worker { .. } => "BP-IMAGE-013",
            Self::Store { .. } => "BP-IMAGE-014",
            Self::Registry { .. } => "BP-IMAGE-015",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Reference { .. } => {
                "Write host, oci:DIR[:TAG], archive:FILE, or REGISTRY/NAME:TAG."
            }
            Self::NotFound { .. } => "`bedplate image ls` lists what is here; `pull` brings more.",
            Self::Source { .. } => {
                "Name a directory with an index.json, or an uncompressed archive of `docker save`."
            }
            Self::Mismatch { .. } => {
                "Get the image again from where it was made; do not use this copy."
            }
            Self::MediaType { .. } => {
                "Convert it to an OCI image with layers of tar, gzip or zstd."
            }
            Self::Metadata { .. } => "Make the image again, or name one of its tags or digests.",
            Self::Platform { .. } => "Pull an image that is made for this machine.",
            Self::Path { .. } | Self::Link { .. } | Self::Kind { .. } => {
                "Do not use this image unless you know who made it. docs/images.md says what a \
                 layer may hold."
            }
            Self::Limit { .. } => "Use a smaller image; docs/images.md has the limits.",
            Self::Damaged { .. } => "Get the image again; it was cut off or changed.",
            Self::Worker { .. } => "Run `bedplate doctor`, then try again.",
            Self::Store { .. } => "Check the disk's space and the rights of --home.",
            Self::Registry { .. } => {
                "Check the name and the network, then try again. Private registries need a layout \
                 or an archive that you made."
            }
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_cut_and_escaped() {
        assert_eq!(quoted(b"a\x1b[2Jb\n"), "\"a\\u{1b}[2Jb\\n\"");
        assert_eq!(quoted(&[b'x'; 500]).len(), QUOTED_MAX + 2);
    }

    #[test]
    fn every_code_has_its_page_and_travels() {
        let (what, why) = (|| "w".to_owned(), || "y".to_owned());
        let all = [
            ImageError::Reference { why: why() },
            ImageError::NotFound { name: what(), why: why() },
            ImageError::Source { path: "/p".into(), why: why() },
            ImageError::Mismatch { what: what(), expected: what(), found: what() },
            ImageError::MediaType { what: what(), media: what() },
            ImageError::metadata("w", "y"),
            ImageError::Platform { wanted: what(), offered: what() },
            ImageError::Path { path: what(), why: why() },
            ImageError::Link { path: what(), why: why() },
            ImageError::Kind { path: what(), kind: what() },
            ImageError::limit("w", 1),
            ImageError::Damaged { what: what(), why: why() },
            ImageError::worker("died"),
            ImageError::store("read", std::path::Path::new("/p"), "y"),
            ImageError::Registry { host: what(), what: what(), why: why() },
        ];
        for (index, error) in all.iter().enumerate() {
            assert_eq!(error.code(), format!("BP-IMAGE-{:03}", index + 1));
            let page =
                format!("{}/../../docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), error.code());
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.starts_with(&format!("# {}: ", error.code())), "{page}");
            assert!(!error.next().is_empty());
            let text = serde_json::to_string(error).unwrap();
            assert_eq!(serde_json::from_str::<ImageError>(&text).unwrap(), *error);
        }
    }
}
