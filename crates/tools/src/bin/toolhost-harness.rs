//! The supervisor as a program of its own, for this crate's tests.

fn main() {
    std::process::exit(tools::host::toolhost_main());
}
