//! Embeds the error pages: a table of code and text, sorted.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = std::env::var("CARGO_MANIFEST_DIR")?;
    let folder = Path::new(&here).join("../../docs/errors").canonicalize()?;
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|e| e == "md") && name.starts_with("BP-") {
            pages.push((name.to_owned(), path));
        }
    }
    pages.sort();
    let mut table = String::from("/// Code and page, sorted by code.\n");
    table.push_str("pub(crate) const PAGES: &[(&str, &str)] = &[\n");
    for (code, path) in &pages {
        writeln!(table, "    ({code:?}, include_str!({:?})),", path.display().to_string())?;
    }
    table.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("pages.rs"), table)?;
    println!("cargo::rerun-if-changed={}", folder.display());
    Ok(())
}
