//! Tests of the policy crate through its public face.

mod approvals;
mod arguments;
mod explain;
mod files;
mod hostile;
mod paths;
mod presets;
mod properties;
mod snapshots;
mod support;
mod texts;
