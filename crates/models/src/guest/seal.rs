//! Reasoning of a provider on its way through a guest.
//!
//! A guest sends back what it was given as the opaque part of reasoning. So that it returns to its
//! origin only, whichever provider answers next, the origin travels with it. The guest could write
//! such a text itself: it would only choose what its own conversation says.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::Origin;

const MARK: &str = "bedplate1:";

#[derive(Serialize, Deserialize)]
struct Sealed {
    origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opaque: Option<Value>,
}

/// The text that a guest keeps.
pub(crate) fn seal(origin: &Origin, opaque: Option<&Value>) -> String {
    let sealed = Sealed { origin: origin.clone(), opaque: opaque.cloned() };
    let json = serde_json::to_string(&sealed).expect("texts and JSON values are JSON");
    format!("{MARK}{json}")
}

/// What was sealed; `None` for a text of another's making.
pub(crate) fn open(text: &str) -> Option<(Origin, Option<Value>)> {
    let sealed: Sealed = serde_json::from_str(text.strip_prefix(MARK)?).ok()?;
    Some((sealed.origin, sealed.opaque))
}

/// Whether a guest's opaque text is one of ours, and so means nothing to a provider.
pub(crate) fn is_sealed(text: &Value) -> bool {
    text.as_str().is_some_and(|text| text.starts_with(MARK))
}
