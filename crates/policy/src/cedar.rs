//! Cedar text: quoting what we write, reading what people wrote, with ids and places.
//!
//! Nothing enters a policy text but through [`quote`] and [`pattern`], so no name, path or host can
//! become policy.

use crate::error::{Location, PolicyError};
use cedar_policy::{Policy, PolicyId, pst};
use miette::Diagnostic;
use std::fmt::Write as _;

/// Longest policy text, in bytes: one file, or all generated text together.
pub const POLICY_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of brackets in one policy. Reading and evaluating recurse, so this and
/// [`OPERATORS_MAX`] keep both within [`with_stack`]'s bounds.
pub const NESTING_MAX: usize = 40;
/// Most operators in one policy: `&&`, `||`, `+`, `-`, `*` and `.` count two, `if` and each clause
/// two, `!` one.
pub const OPERATORS_MAX: usize = 600;
/// Most policies in one set.
pub const POLICIES_MAX: usize = 20_000;
/// Ids that start so are given by us.
const RESERVED_PREFIXES: [&str; 6] =
    ["permissions.", "preset.", "run.", "own.", "people.", "guard."];

/// Stack for reading and checking policies, in bytes.
const STACK_READ_BYTES: usize = 16 << 20;
/// Stack for evaluating and showing policies, in bytes: less than this left, and it grows.
const STACK_USE_BYTES: usize = 1 << 20;

/// Runs what reads and checks policies on a stack that every text within the limits fits.
pub(crate) fn with_reading_stack<R>(work: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(STACK_READ_BYTES, STACK_READ_BYTES, work)
}

/// Runs what evaluates or shows a loaded policy, so that an answer never depends on how deep in
/// its stack the caller is.
pub(crate) fn with_stack<R>(work: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(STACK_USE_BYTES, 4 * STACK_USE_BYTES, work)
}

/// One policy with its id, its text and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    /// Under its own id.
    pub(crate) policy: Policy,
    /// The parsed tree.
    pub(crate) tree: pst::Template,
    /// Its text, with an `@id` annotation.
    pub(crate) text: String,
    /// Where it came from, for people: `policy.cedar:12`, `permissions.allow[2]`.
    pub(crate) source: String,
    /// Where it starts in its file.
    pub(crate) at: Location,
}

impl Statement {
    pub(crate) fn id(&self) -> &str {
        self.policy.id().as_ref()
    }

    pub(crate) fn forbids(&self) -> bool {
        self.tree.effect == pst::Effect::Forbid
    }
}

/// A Cedar string literal of any text.
#[must_use]
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out.push('"');
    out
}

/// A Cedar `like` pattern: `*` stays a wildcard, everything else stands for itself.
#[must_use]
pub(crate) fn pattern(text: &str) -> String {
    quote(text)
}

/// Text for people and ids: control and invisible formatting characters escaped.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character could mislead a reader of a line.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || is_formatting(c)
}

/// Characters that change how a line looks without being seen: direction marks, joiners, tags.
const fn is_formatting(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_escaped(out: &mut String, c: char) {
    let plain = matches!(c, ' '..='~') && c != '"' && c != '\\';
    if plain {
        out.push(c);
    } else {
        write!(out, "\\u{{{:x}}}", u32::from(c)).expect("writing to a string succeeds");
    }
}

/// Reads one file of policies. Ids are the `@id` annotations, else `FILE[N]` from 0.
pub(crate) fn read(file: &str, text: &str) -> Result<Vec<Statement>, Vec<PolicyError>> {
    check_limits(file, text).map_err(|error| vec![error])?;
    let set: cedar_policy::PolicySet =
        text.parse().map_err(|errors| syntax_errors(file, text, &errors))?;
    if set.templates().next().is_some() {
        return Err(vec![PolicyError::Template { file: file.to_owned() }]);
    }
    let mut policies: Vec<&Policy> = set.policies().collect();
    policies.sort_by_key(|policy| default_number(policy.id()));
    let mut from = 0;
    let mut statements = Vec::with_capacity(policies.len());
    let mut errors = Vec::new();
    for (index, policy) in policies.into_iter().enumerate() {
        let body = policy.to_cedar().unwrap_or_default();
        let offset = text[from..].find(&body).map_or(from, |found| from + found);
        from = (offset + body.len()).min(text.len());
        match statement(policy, body, index, Location::at(file, text, offset)) {
            Ok(statement) => statements.push(statement),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(statements) } else { Err(errors) }
}

/// Cedar numbers the policies of a text `policy0`, `policy1` in their order.
fn default_number(id: &PolicyId) -> usize {
    let text: &str = id.as_ref();
    text.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

fn statement(
    policy: &Policy,
    body: String,
    index: usize,
    at: Location,
) -> Result<Statement, PolicyError> {
    let (id, text) = match policy.annotation("id") {
        Some(id) => (id.to_owned(), body),
        None => {
            let id = format!("{}[{index}]", at.file);
            let text = format!("@id({})\n{body}", quote(&id));
            (id, text)
        }
    };
    let empty = id.is_empty() || id.chars().any(is_hidden);
    if empty {
        return Err(PolicyError::BadId {
            at: Box::new(at),
            id: printable(&id),
            why: "empty or has invisible characters".to_owned(),
        });
    }
    let policy = policy.new_id(PolicyId::new(&id));
    let tree = tree_of(&policy).ok_or_else(|| PolicyError::Template { file: at.file.clone() })?;
    Ok(Statement { policy, tree, text, source: format!("{}:{}", at.file, at.line), at })
}

fn tree_of(policy: &Policy) -> Option<pst::Template> {
    match policy.to_pst().ok()? {
        pst::Policy::Static(policy) => Some(policy.body().clone()),
        _ => None,
    }
}

/// Refuses an id used before, and one of ours among `theirs`.
pub(crate) fn check_ids(
    statements: &[Statement],
    theirs: std::ops::Range<usize>,
) -> Vec<PolicyError> {
    let mut seen = std::collections::BTreeSet::new();
    let mut errors = Vec::new();
    for (index, statement) in statements.iter().enumerate() {
        let id = statement.id();
        let reserved =
            theirs.contains(&index) && RESERVED_PREFIXES.iter().any(|p| id.starts_with(p));
        let why = match (reserved, seen.insert(id)) {
            (true, _) => "reserved",
            (false, false) => "used twice",
            (false, true) => continue,
        };
        errors.push(PolicyError::BadId {
            at: Box::new(statement.at.clone()),
            id: id.to_owned(),
            why: why.to_owned(),
        });
    }
    errors
}

/// Bounds bytes, bracket depth and the length of operator chains before Cedar's parser sees the
/// text. The scan knows strings and comments; where it is unsure it counts too much, never too
/// little.
pub(crate) fn check_limits(file: &str, text: &str) -> Result<(), PolicyError> {
    let over = |what: &str, actual, limit| {
        Err(PolicyError::TooLarge { what: format!("{file}, in {what}"), actual, limit })
    };
    if text.len() > POLICY_BYTES_MAX {
        return over("bytes", text.len(), POLICY_BYTES_MAX);
    }
    let complexity = complexity(text);
    if complexity.policies > POLICIES_MAX {
        return over("policies", complexity.policies, POLICIES_MAX);
    }
    if complexity.nesting > NESTING_MAX {
        return over("nested brackets of one policy", complexity.nesting, NESTING_MAX);
    }
    if complexity.operators > OPERATORS_MAX {
        return over("operators of one policy", complexity.operators, OPERATORS_MAX);
    }
    Ok(())
}

#[derive(Default)]
struct Complexity {
    policies: usize,
    nesting: usize,
    operators: usize,
}

fn complexity(text: &str) -> Complexity {
    let mut most = Complexity::default();
    let (mut depth, mut operators) = (0usize, 0usize);
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'/' if bytes.peek() == Some(&b'/') => {
                bytes.by_ref().find(|b| *b == b'\n' || *b == b'\r');
            }
            b'(' | b'[' => depth += 1,
            b'{' => {
                depth += 1;
                operators += 2;
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'!' | b'&' | b'|' => operators += 1,
            b'-' | b'+' | b'*' | b'.' => operators += 2,
            b'i' if bytes.peek() == Some(&b'f') => operators += 2,
            b';' => {
                most.policies += 1;
                (operators, depth) = (0, 0);
            }
            _ => {}
        }
        most.nesting = most.nesting.max(depth);
        most.operators = most.operators.max(operators);
    }
    most
}

fn skip_string(bytes: &mut std::iter::Peekable<std::str::Bytes<'_>>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return,
            _ => {}
        }
    }
}

fn syntax_errors(file: &str, text: &str, errors: &cedar_policy::ParseErrors) -> Vec<PolicyError> {
    errors
        .iter()
        .map(|error| PolicyError::Syntax {
            at: Box::new(place(file, text, error)),
            message: described(error),
        })
        .collect()
}

/// Where a diagnostic of Cedar points.
pub(crate) fn place(file: &str, text: &str, diagnostic: &dyn Diagnostic) -> Location {
    let offset =
        diagnostic.labels().and_then(|mut labels| labels.next()).map_or(0, |label| label.offset());
    Location::at(file, text, offset)
}

/// A diagnostic's message with its label, on one line.
pub(crate) fn described(diagnostic: &dyn Diagnostic) -> String {
    let mut message = diagnostic.to_string();
    let label = diagnostic
        .labels()
        .and_then(|mut labels| labels.next())
        .and_then(|label| label.label().map(str::to_owned));
    if let Some(label) = label.filter(|label| !message.contains(label.as_str())) {
        message.push_str(": ");
        message.push_str(&label);
    }
    message.chars().map(|c| if is_hidden(c) { ' ' } else { c }).collect()
}
