//! Error codes: one meaning each, a page, and a test that knows them.

use super::Finding;
use crate::source::{Function, Source};
use crate::tokens::Kind;
use crate::tree::{Tree, is_test_path};
use std::collections::{BTreeMap, BTreeSet};

const PAGES: &str = "docs/errors/";

/// Every page has these parts, in this order, none empty.
const HEADINGS: [&str; 3] = ["## Meaning", "## Cause", "## What to do"];

/// Where a code stands in the source.
struct Place<'a> {
    code: &'a str,
    path: &'a str,
    line: usize,
    /// Whether a `fn code` hands it out: the place that gives it its meaning.
    defines: bool,
}

pub(super) fn check(tree: &Tree, sources: &[Source<'_>]) -> Vec<Finding> {
    let places: Vec<_> = sources.iter().flat_map(places).collect();
    let tested = tested(tree, sources);
    let mut found = shared_codes(&places);
    let mut first = BTreeMap::new();
    for place in &places {
        first.entry(place.code).or_insert(place);
    }
    for (code, place) in &first {
        let of = |message| Finding::new("codes", place.path, place.line, message);
        match tree.text(&page_of(code)) {
            None => found.push(of(format!("{code} has no page {}", page_of(code)))),
            Some(page) => found.extend(check_page(code, page)),
        }
        if !tested.contains(*code) {
            found.push(of(format!("no test mentions {code}")));
        }
    }
    found.extend(orphans(tree, &first.into_keys().collect()));
    found
}

fn page_of(code: &str) -> String {
    format!("{PAGES}{code}.md")
}

/// Every `BP-AREA-NNN` in a text.
fn codes_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("BP-").filter_map(|(start, _)| {
        let tail = &text[start + 3..];
        let area = tail.find(|c: char| !c.is_ascii_uppercase())?;
        let number = tail[area..].strip_prefix('-')?;
        let digits = number.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(number.len());
        let whole = area > 0 && digits == 3 && number[..3].bytes().all(|b| b.is_ascii_digit());
        whole.then(|| &text[start..start + 3 + area + 1 + 3])
    })
}

/// The codes in the strings of a file that is not a test.
fn places<'a>(source: &Source<'a>) -> Vec<Place<'a>> {
    if !source.path.starts_with("crates/") || !source.path.contains("/src/") {
        return Vec::new();
    }
    let defining: Vec<&Function<'_>> =
        source.functions.iter().filter(|f| f.name == "code").collect();
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.kind != Kind::Text || source.is_test(at) {
            continue;
        }
        let defines = defining.iter().any(|f| f.span.contains(&at));
        let place = |code| Place { code, path: source.path, line: token.line, defines };
        found.extend(codes_in(token.text).map(place));
    }
    found
}

/// The codes that some test mentions: test code, files beside tests, recorded output.
fn tested<'a>(tree: &'a Tree, sources: &[Source<'a>]) -> BTreeSet<&'a str> {
    let scripts = tree.files().filter(|(path, _)| {
        !path.ends_with(".rs") && (is_test_path(path) || path.contains("/snapshots/"))
    });
    let mut found: BTreeSet<_> = scripts.flat_map(|(_, text)| codes_in(text)).collect();
    for source in sources.iter().filter(|s| !s.path.starts_with("xtask/")) {
        let inside = source.tokens.iter().enumerate().filter(|(at, _)| source.is_test(*at));
        found.extend(inside.flat_map(|(_, token)| codes_in(token.text)));
    }
    found
}

fn shared_codes(places: &[Place<'_>]) -> Vec<Finding> {
    let mut first: BTreeMap<&str, &Place<'_>> = BTreeMap::new();
    let mut found = Vec::new();
    for place in places.iter().filter(|p| p.defines) {
        if let Some(other) = first.get(place.code) {
            let message = format!("{} already means {}:{}", place.code, other.path, other.line);
            found.push(Finding::new("codes", place.path, place.line, message));
        }
        first.entry(place.code).or_insert(place);
    }
    found
}

fn check_page(code: &str, page: &str) -> Vec<Finding> {
    let path = page_of(code);
    let of = |line, message: String| Finding::new("codes", &path, line, message);
    let mut found = Vec::new();
    let title = format!("# {code}: ");
    let first = page.lines().next().and_then(|line| line.strip_prefix(&title));
    if first.is_none_or(str::is_empty) {
        found.push(of(1, format!("the page starts with `{title}` and its meaning in a few words")));
    }
    let lines: Vec<_> = page.lines().map(str::trim_end).collect();
    let mut after = 0;
    for heading in HEADINGS {
        let Some(at) = lines[after..].iter().position(|l| *l == heading) else {
            found.push(of(0, format!("the page lacks `{heading}`, in its place")));
            continue;
        };
        after += at + 1;
        let text = lines[after..].iter().take_while(|l| !l.starts_with("## "));
        if text.into_iter().all(|l| l.is_empty()) {
            found.push(of(after, format!("nothing stands under `{heading}`")));
        }
    }
    found
}

fn orphans(tree: &Tree, known: &BTreeSet<&str>) -> Vec<Finding> {
    let pages = tree.files().filter_map(|(path, _)| {
        let name = path.strip_prefix(PAGES)?.strip_suffix(".md")?;
        (name != "README" && !known.contains(name)).then_some(path)
    });
    pages
        .map(|path| Finding::new("codes", path, 0, "no code in crates/*/src has this name"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "# BP-GATE-001: closed\n\n## Meaning\n\na\n\n## Cause\n\nb\n\n## What to do\n\nc\n";
    const LIB: &str = "fn code() { \"BP-GATE-001\" } #[test] fn a() { \"BP-GATE-001\"; }";

    fn check_files<const N: usize>(files: [(&str, &str); N], expected: &[&str]) {
        let tree = Tree::from(files);
        let found: Vec<_> = check(&tree, &tree.sources()).into_iter().map(|f| f.message).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn codes_are_found_whole() {
        let of = |text| codes_in(text).collect::<Vec<_>>();
        assert_eq!(
            of("BP-GATE-001: BP-GATE-0012 BP--001 BP-gate-001 (BP-X-999)"),
            ["BP-GATE-001", "BP-X-999"]
        );
        assert_eq!(of("BP-GATE-01 BP-GATE-00a BP-AREA-NNN BP-"), [""; 0]);
    }

    #[test]
    fn a_code_with_a_page_and_a_test_is_fine() {
        check_files([("crates/gate/src/lib.rs", LIB), ("docs/errors/BP-GATE-001.md", GOOD)], &[]);
        let source = "fn code() { \"BP-GATE-001\" }";
        check_files(
            [
                ("crates/gate/src/lib.rs", source),
                ("crates/cli/tests/run.py", "assert 'BP-GATE-001' in out"),
                ("docs/errors/BP-GATE-001.md", GOOD),
            ],
            &[],
        );
    }

    #[test]
    fn a_code_needs_a_page_and_a_test() {
        let missing = "BP-GATE-001 has no page docs/errors/BP-GATE-001.md";
        check_files([("crates/gate/src/lib.rs", LIB)], &[missing]);
        let source = "/// BP-GATE-001\nfn code() { \"BP-GATE-001\" }";
        check_files(
            [("crates/gate/src/lib.rs", source), ("docs/errors/BP-GATE-001.md", GOOD)],
            &["no test mentions BP-GATE-001"],
        );
    }

    #[test]
    fn a_page_has_a_title_and_three_parts() {
        let check = |page: &str, expected: &[&str]| {
            check_files(
                [("crates/gate/src/lib.rs", LIB), ("docs/errors/BP-GATE-001.md", page)],
                expected,
            );
        };
        let title = "the page starts with `# BP-GATE-001: ` and its meaning in a few words";
        check(&GOOD.replace("# BP-GATE-001: closed", "# closed"), &[title]);
        check(&GOOD.replace("## Cause\n", ""), &["the page lacks `## Cause`, in its place"]);
        check(&GOOD.replace("\nb\n", ""), &["nothing stands under `## Cause`"]);
    }

    #[test]
    fn a_page_without_a_code_is_refused() {
        let none = "no code in crates/*/src has this name";
        check_files([("docs/errors/BP-GATE-001.md", GOOD)], &[none]);
    }

    #[test]
    fn one_code_has_one_meaning() {
        check_files(
            [
                ("crates/gate/src/lib.rs", LIB),
                (
                    "crates/tools/src/lib.rs",
                    "fn code() { \"BP-GATE-001\" } fn b() { \"BP-GATE-001\" }",
                ),
                ("docs/errors/BP-GATE-001.md", GOOD),
            ],
            &["BP-GATE-001 already means crates/gate/src/lib.rs:1"],
        );
    }
}
