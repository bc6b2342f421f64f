//! What can be wrong with a policy, each with its code and the place in the text.

use std::fmt;
use types::Coded;

/// Longest line shown in an excerpt, in characters.
const EXCERPT_CHARS_MAX: usize = 120;

/// A place in a policy text, with the line itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file's name as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line with a caret below the column.
    pub excerpt: String,
}

impl Location {
    /// The place of a byte offset in a text. An offset past the end means the end.
    #[must_use]
    pub fn at(file: &str, text: &str, offset: usize) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = text[start..offset].chars().count() + 1;
        let whole = text[start..].lines().next().unwrap_or_default();
        Self { file: file.to_owned(), line, column, excerpt: excerpt(line, column, whole) }
    }
}

/// The line, cut around the column, with a caret. Control characters are shown as `·`, so that a
/// policy cannot write to the terminal.
fn excerpt(line: usize, column: usize, text: &str) -> String {
    let from = (column - 1).saturating_sub(EXCERPT_CHARS_MAX * 2 / 3);
    let shown: String = text
        .chars()
        .skip(from)
        .take(EXCERPT_CHARS_MAX)
        .map(|c| if crate::cedar::is_hidden(c) { '·' } else { c })
        .collect();
    let gutter = format!("{line:>4} | ");
    let indent = " ".repeat(gutter.len() - 2);
    let caret = " ".repeat(column - 1 - from);
    format!("{gutter}{shown}\n{indent}| {caret}^")
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A policy, a permissions entry or a test file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// BP-POLICY-001: the text is no Cedar.
    #[error("{at}: {message}\n{}", at.excerpt)]
    Syntax {
        /// Where.
        at: Box<Location>,
        /// What the parser says.
        message: String,
    },
    /// BP-POLICY-002: the policy does not fit the schema.
    #[error("{at}: {message}{}\n{}", for_tool(tool), at.excerpt)]
    Schema {
        /// Where.
        at: Box<Location>,
        /// What the validator says.
        message: String,
        /// What it suggests, may be empty.
        help: String,
        /// The tool whose arguments the policy was checked against, if that matters.
        tool: Option<String>,
    },
    /// BP-POLICY-003: a permissions entry names a tool that does not exist.
    #[error("{source_name}: \"{entry}\" names no tool of this agent{}", nearest.as_ref().map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default())]
    UnknownTool {
        /// Which list and place: `permissions.allow[2]`.
        source_name: String,
        /// The entry as written, cut to 200 characters.
        entry: String,
        /// The nearest tool.
        nearest: Option<String>,
    },
    /// BP-POLICY-004: a permissions entry is malformed.
    #[error("{source_name}: \"{entry}\" is no permissions entry: {reason}")]
    BadEntry {
        /// Which list and place.
        source_name: String,
        /// The entry as written, cut to 200 characters.
        entry: String,
        /// Why.
        reason: String,
    },
    /// BP-POLICY-005: a text, a list or a nesting is over its limit.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What: `policy.cedar, in bytes`.
        what: String,
        /// How much it is.
        actual: usize,
        /// How much it may be.
        limit: usize,
    },
    /// BP-POLICY-006: an organisation policy permits something.
    #[error("{at}: organisation policies may only forbid, this one permits\n{}", at.excerpt)]
    OrganisationPermits {
        /// Where.
        at: Box<Location>,
    },
    /// BP-POLICY-007: approval could turn a permit into a denial.
    #[error("{at}: policy {policy} could permit what is not approved and deny it once it is\n{}", at.excerpt)]
    ApprovalNarrows {
        /// Where.
        at: Box<Location>,
        /// The policy's id.
        policy: String,
    },
    /// BP-POLICY-008: a file rule that the sandbox cannot enforce.
    #[error("policy {policy} cannot bind a shell: {reason}")]
    NotEnforceable {
        /// The policy's id.
        policy: String,
        /// Which part, and why.
        reason: String,
    },
    /// BP-POLICY-009: a policy id used twice or reserved.
    #[error("{at}: policy id \"{id}\" is {why}\n{}", at.excerpt)]
    BadId {
        /// Where.
        at: Box<Location>,
        /// The id.
        id: String,
        /// `used twice`, `reserved`.
        why: String,
    },
    /// BP-POLICY-010: a template (a policy with `?principal` or `?resource`).
    #[error("{file}: policy templates (?principal, ?resource) are not supported")]
    Template {
        /// The file.
        file: String,
    },
    /// BP-POLICY-015: two tools of one name.
    #[error("the agent has two tools named \"{name}\", so a rule for one would be a rule for both")]
    DuplicateTool {
        /// The name.
        name: String,
    },
    /// BP-POLICY-014: a file of policy tests that cannot be read.
    #[error("{file}: {message}")]
    BadTest {
        /// The file.
        file: String,
        /// What is wrong, with line or case.
        message: String,
    },
}

fn for_tool(tool: &Option<String>) -> String {
    tool.as_ref()
        .map(|name| format!(" (with the arguments of tool \"{name}\")"))
        .unwrap_or_default()
}

impl Coded for PolicyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "BP-POLICY-001",
            Self::Schema { .. } => "BP-POLICY-002",
            Self::UnknownTool { .. } => "BP-POLICY-003",
            Self::BadEntry { .. } => "BP-POLICY-004",
            Self::TooLarge { .. } => "BP-POLICY-005",
            Self::OrganisationPermits { .. } => "BP-POLICY-006",
            Self::ApprovalNarrows { .. } => "BP-POLICY-007",
            Self::NotEnforceable { .. } => "BP-POLICY-008",
            Self::BadId { .. } => "BP-POLICY-009",
            Self::Template { .. } => "BP-POLICY-010",
            Self::BadTest { .. } => "BP-POLICY-014",
            Self::DuplicateTool { .. } => "BP-POLICY-015",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Syntax { .. } => {
                "Correct the text at that place; a policy is `permit(...) when { ... };` or `forbid(...) when { ... };`."
            }
            Self::Schema { help, .. } if !help.is_empty() => return format!("Correct the policy: {help}."),
            Self::Schema { .. } => {
                "Correct the policy; `bedplate help BP-POLICY-002` lists actions, resources and their attributes."
            }
            Self::UnknownTool { .. } => {
                "Write a tool's name, `METHOD host/path*`, `host`, `git push host/owner/repo refs/heads/x`, `install host`, or `secret:NAME@host`. A host without a dot is written `host/*`."
            }
            Self::BadEntry { .. } => {
                "Write a tool's name, `METHOD host/path*`, `host`, `git push host/owner/repo refs/heads/x`, `install host`, or `secret:NAME@host`; anything else goes into policy.cedar."
            }
            Self::TooLarge { .. } => "Make it smaller, or split what it covers between agents.",
            Self::OrganisationPermits { .. } => {
                "Turn it into a `forbid`, or move it to the agent's policy.cedar."
            }
            Self::ApprovalNarrows { .. } => {
                "Use `context.approved` only as `permit(...) when { context.approved }` or `forbid(...) unless { context.approved }`."
            }
            Self::NotEnforceable { .. } => {
                "Use whole directories (`resource in Path::\"/workspace/x\"`, `context.path like \"/workspace/x/*\"`) or single paths without other conditions, or permit no `run_command`."
            }
            Self::BadId { .. } => "Give the policy another `@id(\"...\")`.",
            Self::Template { .. } => "Write one policy for each principal and resource.",
            Self::DuplicateTool { .. } => "Rename one of them in the manifest or at its MCP server.",
            Self::BadTest { .. } => "Correct the file; `bedplate help BP-POLICY-014` shows the format.",
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_show_the_line() {
        let at = Location::at("p.cedar", "ab\nçde\u{1b}f\nx", 6);
        assert_eq!((at.line, at.column), (2, 3));
        assert_eq!(at.excerpt, "   2 | çde·f\n     |   ^");
        let end = Location::at("p.cedar", "ab\n", 99);
        assert_eq!((end.line, end.column), (2, 1));
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = "x".repeat(5000);
        let at = Location::at("p.cedar", &text, 4000);
        assert!(at.excerpt.len() < 300, "{}", at.excerpt);
        assert_eq!(at.column, 4001);
    }
}
