//! The exceptions: `xtask/tidy-allow.toml`, each with a reason, none left over.

use super::Finding;
use crate::tree::Tree;
use toml::{Table, Value};

const FILE: &str = "xtask/tidy-allow.toml";

/// Only these rules have exceptions. The others guard promises of the runtime.
const EXCUSABLE: [&str; 3] = ["file-length", "function-length", "sleep"];

/// Takes out what the file excuses and adds what is wrong with the file.
pub(super) fn apply(tree: &Tree, mut found: Vec<Finding>) -> Vec<Finding> {
    let table = match tree.text(FILE).unwrap_or_default().parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            found.push(complaint(error.to_string()));
            return found;
        }
    };
    let entries = table.get("allow").and_then(Value::as_array).into_iter().flatten();
    for entry in entries {
        let field = |name| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let (rule, path, reason) = (field("rule"), field("path"), field("reason"));
        let before = found.len();
        if !EXCUSABLE.contains(&rule) {
            found.push(complaint(format!("`{rule}` has no exceptions")));
        } else if reason.trim().is_empty() {
            found.push(complaint(format!("the exception for {path} gives no reason")));
        } else {
            found.retain(|f| f.rule != rule || f.path != path);
            if found.len() == before {
                let message = format!("nothing breaks `{rule}` in {path}: drop the exception");
                found.push(complaint(message));
            }
        }
    }
    found
}

fn complaint(message: String) -> Finding {
    Finding::new("allow", FILE, 0, message)
}

#[cfg(test)]
mod tests {
    use super::super::rules_of;
    use super::*;

    fn check(rule: &'static str, file: &str, expected: &[&'static str]) {
        let left = apply(&Tree::from([(FILE, file)]), vec![Finding::new(rule, "a.rs", 3, "m")]);
        let left: Vec<_> = rules_of(&left).into_iter().map(|(_, _, rule)| rule).collect();
        assert_eq!(left, expected, "{file}");
    }

    #[test]
    fn an_exception_needs_a_reason_and_a_use() {
        let entry = |rule, path, reason| {
            format!("[[allow]]\nrule = \"{rule}\"\npath = \"{path}\"\nreason = \"{reason}\"")
        };
        check("sleep", &entry("sleep", "a.rs", "the clock is what it tests"), &[]);
        check("sleep", &entry("sleep", "a.rs", " "), &["sleep", "allow"]);
        check("sleep", &entry("sleep", "b.rs", "why"), &["sleep", "allow"]);
        check("purity", &entry("purity", "a.rs", "why"), &["purity", "allow"]);
        check("sleep", "[[allow", &["sleep", "allow"]);
        check("sleep", "", &["sleep"]);
    }
}
