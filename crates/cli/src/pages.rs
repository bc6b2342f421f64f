//! The pages of `docs/errors`, embedded when the binary is built.

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

#[cfg(test)]
mod tests {
    use super::PAGES;

    #[test]
    fn pages_are_sorted_and_whole() {
        assert!(PAGES.is_sorted_by(|a, b| a.0 < b.0));
        for (code, text) in PAGES {
            assert!(text.starts_with(&format!("# {code}: ")), "{code}");
            for heading in ["## Meaning", "## Cause", "## What to do"] {
                assert!(text.contains(heading), "{code} lacks {heading}");
            }
        }
    }
}
