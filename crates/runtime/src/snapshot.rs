//! Names for moments of a run, to go back to, to fork at and to compare.
//!
//! A snapshot is a record: it copies nothing, and lasts as long as its run and the runs forked from
//! it. Unlike any other record it says that the files of that moment survive a power cut.

use crate::error::RuntimeError;
use crate::protocol::Keys;
use crate::registry::{Registry, Wanted};
use crate::run::Control;
use std::sync::Arc;
use store::Read;
use types::{BRANCH_MAIN, Body, Record, RunId};

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Whether a text can name a snapshot: 1 to 64 of `a-z`, `0-9`, `_`, `-`, `.`, a letter first, so that
/// it is no number of a record.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}

/// The record of the snapshot of this name.
#[must_use]
pub fn find(records: &[Record], name: &str) -> Option<u64> {
    let mut named = records.iter().filter(|record| match &record.body {
        Body::SnapshotTaken { name: is, .. } => is == name,
        _ => false,
    });
    named.next().map(|record| record.stamp.seq)
}

/// Takes one, and gives its name.
pub(crate) async fn take(
    registry: &Arc<Registry>,
    run: &RunId,
    name: Option<String>,
    by: String,
) -> Result<String, RuntimeError> {
    let refuse = |reason: String| RuntimeError::RunState { run: run.to_string(), reason };
    let records = registry.parts.store.records(run, BRANCH_MAIN, 0);
    let records = records.map_err(|error| RuntimeError::part(&error))?;
    let name = name.unwrap_or_else(|| format!("s{}", records.len()));
    if !is_name(&name) {
        return Err(refuse(format!(
            "'{name}' cannot name a snapshot: take up to {NAME_BYTES_MAX} of a-z, 0-9, '_', '-', \
             '.', a letter first"
        )));
    }
    if let Some(seq) = find(&records, &name) {
        return Err(refuse(format!("it has a snapshot '{name}' already, record {seq}")));
    }
    let control = Control::Snapshot { name: name.clone(), by };
    let wanted = Wanted { keys: Keys::default(), resume: false, control: Some(control) };
    registry.ask(run, wanted).await?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_number_and_has_a_limit() {
        let check = |text: &str, expected: bool| assert_eq!(is_name(text), expected, "{text}");
        check("before-refactoring", true);
        check("s12", true);
        check("12", false);
        check("", false);
        check("a/b", false);
        check("A", false);
        check("a@b", false);
        check(&"a".repeat(NAME_BYTES_MAX), true);
        check(&"a".repeat(NAME_BYTES_MAX + 1), false);
    }
}
