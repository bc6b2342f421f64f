//! Tests of the policy crate through its public face.

mod approvals;
mod arguments;
mod explain;
mod facts;
mod files;
mod guards;
mod hostile;
mod operations;
mod paths;
mod presets;
mod properties;
mod snapshots;
mod support;
mod texts;
