//! placeholder
use types::{Record, RunId};
#[derive(Debug, serde::Serialize)]
pub(crate) struct Explanation {}
pub(crate) fn explain(_records: &[Record], _at: Option<u64>) -> Explanation {
    Explanation {}
}
pub(crate) fn text(_run: &RunId, _records: &[Record], _e: &Explanation) -> String {
    String::new()
}
