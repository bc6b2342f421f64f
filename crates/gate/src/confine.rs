//! Where the gate process gives up what it does not need. One place, called once, before the first
//! byte of a stranger is read and before there is a second thread.

use crate::error::GateError;

/// Confines this process, which goes on as a child of itself; the parent only waits for it.
///
/// # Errors
/// [`GateError::NotConfined`]: the process must end.
pub(crate) fn confine() -> Result<(), GateError> {
    sandbox::confine_gate().map_err(|error| GateError::NotConfined { why: error.to_string() })
}
