//! From a directory to a manifest with its files read in.

use crate::error::RuntimeError;
use serde_json::Value;
use std::path::{Path, PathBuf};
use types::manifest::{self, Manifest};

/// Name of the manifest.
pub const MANIFEST_FILE: &str = "bedplate.toml";
/// Name of the policy beside it.
pub const POLICY_FILE: &str = "policy.cedar";
/// Largest file that a manifest may name, in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 4 << 20;

/// A manifest, where it came from, and the policy beside it.
#[derive(Debug, Clone)]
pub struct Project {
    /// Absolute directory.
    pub dir: PathBuf,
    /// The manifest.
    pub manifest: Manifest,
    /// `policy.cedar`, when there is one.
    pub cedar: Option<String>,
}

/// Reads a project.
///
/// # Errors
/// When there is no manifest, it cannot be used, or a file it names cannot be read.
pub fn load(dir: &Path, environment: Option<&str>) -> Result<Project, RuntimeError> {
    let dir = absolute(dir)?;
    let path = dir.join(MANIFEST_FILE);
    if !path.exists() {
        return Err(RuntimeError::NoManifest { dir });
    }
    let text = read_text(&path)?;
    let overlay = environment
        .map(|name| read_text(&dir.join(format!("bedplate.{name}.toml"))))
        .transpose()?;
    let mut manifest = manifest::parse_with_overlay(&text, overlay.as_deref())
        .map_err(|error| RuntimeError::part(&error))?;
    if let Some(file) = manifest.agent.instructions_file.take() {
        manifest.agent.instructions = read_text(&dir.join(file))?;
    }
    for tool in &mut manifest.tools {
        tool.input_schema = schema(&dir, tool.input_schema_file.as_deref())?;
        tool.output_schema = schema(&dir, tool.output_schema_file.as_deref())?;
    }
    let cedar_path = dir.join(POLICY_FILE);
    let cedar = if cedar_path.exists() { Some(read_text(&cedar_path)?) } else { None };
    Ok(Project { dir, manifest, cedar })
}

/// The host directory that the workspace is made from.
///
/// # Errors
/// When it is not a directory.
pub fn workspace(project: &Project) -> Result<Option<PathBuf>, RuntimeError> {
    let Some(relative) = &project.manifest.sandbox.workspace else {
        return Ok(None);
    };
    let path = project.dir.join(relative);
    match std::fs::canonicalize(&path) {
        Ok(found) if found.is_dir() => Ok(Some(found)),
        Ok(_) => Err(RuntimeError::Workspace { path, reason: "it is not a directory".to_owned() }),
        Err(error) => Err(RuntimeError::Workspace { path, reason: error.to_string() }),
    }
}

/// Absolute and without links.
///
/// # Errors
/// When it does not exist.
pub fn absolute(dir: &Path) -> Result<PathBuf, RuntimeError> {
    std::fs::canonicalize(dir).map_err(|error| RuntimeError::ConfigFile {
        path: dir.to_owned(),
        reason: error.to_string(),
    })
}

/// Reads a text file of bounded size.
///
/// # Errors
/// When it cannot be read, is too large or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, RuntimeError> {
    let fail = |reason: String| RuntimeError::ConfigFile { path: path.to_owned(), reason };
    let meta = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?;
    if !meta.is_file() {
        return Err(fail("it is not a file".to_owned()));
    }
    if meta.len() > CONFIG_FILE_BYTES_MAX {
        return Err(fail(format!(
            "it has {} bytes, and the limit is {CONFIG_FILE_BYTES_MAX}",
            meta.len()
        )));
    }
    std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}

fn schema(dir: &Path, file: Option<&str>) -> Result<Option<Value>, RuntimeError> {
    let Some(file) = file else { return Ok(None) };
    let path = dir.join(file);
    let text = read_text(&path)?;
    let value: Value = serde_json::from_str(&text).map_err(|error| RuntimeError::ConfigFile {
        path: path.clone(),
        reason: format!("it is not JSON: {error}"),
    })?;
    if !value.is_object() {
        return Err(RuntimeError::ConfigFile {
            path,
            reason: "a schema is a JSON object".to_owned(),
        });
    }
    Ok(Some(value))
}
