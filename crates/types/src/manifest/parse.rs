//! Strict reading of `bedplate.toml`.
use super::Manifest;
/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ManifestError {
    /// What is wrong.
    pub message: String,
}
/// Reads a manifest.
///
/// # Errors
/// When it is not a manifest.
pub fn parse(_text: &str) -> Result<Manifest, ManifestError> {
    Err(ManifestError {
        message: String::new(),
    })
}
/// Reads a manifest with an overlay.
///
/// # Errors
/// When either is not a manifest.
pub fn parse_with_overlay(text: &str, _overlay: Option<&str>) -> Result<Manifest, ManifestError> {
    parse(text)
}
