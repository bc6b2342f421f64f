//! A function fits a screen, a file fits a head.

use super::Finding;
use crate::source::Source;

/// Lines from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Lines of a file, its tests included.
const FILE_LINES_MAX: usize = 1000;

pub(super) fn check(source: &Source<'_>, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        let message = format!("the file has {lines} lines, at most {FILE_LINES_MAX}: split it");
        found.push(Finding::new("file-length", source.path, 0, message));
    }
    for function in source.functions.iter().filter(|f| f.line_count() > FUNCTION_LINES_MAX) {
        let (name, lines) = (function.name, function.line_count());
        let message = format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}");
        let line = function.lines.start;
        found.push(Finding::new("function-length", source.path, line, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::rules_of;
    use super::*;

    fn check_text(text: &str, expected: &[(&str, usize, &'static str)]) {
        let source = Source::new("a.rs", text, false);
        assert_eq!(rules_of(&check(&source, text)), expected);
    }

    #[test]
    fn a_function_of_71_lines_is_too_long() {
        let of = |lines: usize| format!("\nfn a() {{{}}}\n", "\n".repeat(lines - 1));
        check_text(&of(FUNCTION_LINES_MAX), &[]);
        check_text(&of(FUNCTION_LINES_MAX + 1), &[("a.rs", 2, "function-length")]);
    }

    #[test]
    fn a_file_of_1001_lines_is_too_long() {
        check_text(&"\n".repeat(FILE_LINES_MAX), &[]);
        check_text(&"\n".repeat(FILE_LINES_MAX + 1), &[("a.rs", 0, "file-length")]);
    }
}
