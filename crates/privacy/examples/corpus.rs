//! Writes the generated part of the golden corpus again:
//! `cargo run -p bedplate-privacy --example corpus`.

#[path = "../tests/it/maker.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the tests use more of it")]
mod maker;

const HEAD: &str = "# Made by tests/it/maker.rs, which says what the lines mean. Do not edit: run\n\
    # `cargo run -p bedplate-privacy --example corpus`.\n";

fn main() -> std::io::Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/generated.txt");
    std::fs::write(path, format!("{HEAD}{}", maker::cases()))
}
