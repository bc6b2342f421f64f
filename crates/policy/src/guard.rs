//! Guards: named rules on where data may flow, switched on by `[permissions] guard`.
//!
//! A guard only narrows: it turns what is permitted into what is asked, and opens nothing.

use crate::cedar::quote;
use types::manifest::Guard;

/// Something outward that a guard watches: id, scope, and the condition that makes it outward.
const OUTWARD: [(&str, &str, &str); 3] = [
    (
        "http",
        "action == Action::\"http_request\", resource",
        "(!([\"GET\", \"HEAD\", \"OPTIONS\"].contains(context.method)) || context.body_kind != \"none\")",
    ),
    ("connect", "action == Action::\"connect\", resource", ""),
    (
        "tools",
        "action == Action::\"call_tool\", resource",
        "[\"idempotent\", \"irreversible\"].contains(context.effect)",
    ),
];

/// The policies of a guard as (id, text).
pub(crate) fn policies(guard: Guard) -> Vec<(String, String)> {
    let (condition, reason) = match guard {
        Guard::Trifecta => (
            "context.labels.contains(\"untrusted\") && context.labels.containsAny([\"confidential\", \"pii\", \"secret\"])".to_owned(),
            "private data and untrusted input have come together, so what goes out is asked".to_owned(),
        ),
        Guard::Stale { seconds } => (
            format!("context.oldest_input_age > {seconds}"),
            format!("an input is older than {seconds} s, so what acts on it is asked"),
        ),
    };
    OUTWARD
        .into_iter()
        .map(|(part, scope, outward)| {
            let id = format!("guard.{}.{part}", guard.name());
            let and = if outward.is_empty() { "" } else { " && " };
            let text = format!(
                "@reason({})\nforbid(principal, {scope})\n  when {{ {condition}{and}{outward} }}\n  unless {{ context.approved }};",
                quote(&reason)
            );
            (id, text)
        })
        .collect()
}
