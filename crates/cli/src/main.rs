//! The `bedplate` binary.
fn main() {}
