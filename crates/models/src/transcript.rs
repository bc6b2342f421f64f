//! The conversation in the order every server accepts.
//!
//! Each answer of the model is one group; the results of its calls follow it at once, each call
//! exactly one, in the order of the calls. A result that is missing is said to be missing rather
//! than left out, because servers refuse a call without one. The conversation itself is not
//! changed: this is the outbound copy only.

use std::collections::{HashMap, VecDeque};
use types::Item;

/// What a call without a result is answered with.
const RESULT_MISSING: &str = "no result: the call was interrupted before it ended";

/// One entry, borrowed from the items.
#[derive(Debug, PartialEq)]
pub(crate) enum Entry<'a> {
    /// Something a person said.
    User(&'a str),
    /// One answer: messages, reasoning and calls, at least one.
    Answer(Vec<&'a Item>),
    /// The result of a call of the answer before.
    Result {
        /// The call.
        call_id: &'a str,
        /// The text for the model; of a failure, without a word that says so.
        output: &'a str,
        /// Whether it failed.
        is_error: bool,
    },
}

/// A result as text where the dialect has no mark for a failure.
pub(crate) fn marked(output: &str, is_error: bool) -> String {
    if is_error { format!("error: {output}") } else { output.to_owned() }
}

/// Puts items into the order servers accept.
pub(crate) fn entries(items: &[Item]) -> Vec<Entry<'_>> {
    let mut results = results_by_call(items);
    let mut entries = Vec::new();
    let mut answer: Vec<&Item> = Vec::new();
    for item in items {
        match item {
            Item::AssistantMessage { .. } | Item::Reasoning { .. } | Item::ToolCall { .. } => {
                answer.push(item);
            }
            Item::UserMessage { text } => {
                close_answer(&mut entries, &mut answer, &mut results);
                entries.push(Entry::User(text));
            }
            Item::ToolResult { .. } => close_answer(&mut entries, &mut answer, &mut results),
        }
    }
    close_answer(&mut entries, &mut answer, &mut results);
    entries
}

type Results<'a> = HashMap<&'a str, VecDeque<(&'a str, bool)>>;

fn results_by_call(items: &[Item]) -> Results<'_> {
    let mut results: Results<'_> = HashMap::new();
    for item in items {
        if let Item::ToolResult { call_id, output, is_error, .. } = item {
            let queue = results.entry(call_id).or_default();
            queue.push_back((output, *is_error));
        }
    }
    results
}

fn close_answer<'a>(
    entries: &mut Vec<Entry<'a>>,
    answer: &mut Vec<&'a Item>,
    results: &mut Results<'a>,
) {
    if answer.is_empty() {
        return;
    }
    let answer = std::mem::take(answer);
    let calls: Vec<&str> = answer
        .iter()
        .filter_map(|item| match item {
            Item::ToolCall { call_id, .. } => Some(call_id.as_str()),
            _ => None,
        })
        .collect();
    entries.push(Entry::Answer(answer));
    for call_id in calls {
        let result = results.get_mut(call_id).and_then(VecDeque::pop_front);
        let (output, is_error) = result.unwrap_or((RESULT_MISSING, true));
        entries.push(Entry::Result { call_id, output, is_error });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use types::Labels;

    fn call(id: &str) -> Item {
        Item::ToolCall { call_id: id.into(), name: "shell".into(), arguments: json!({}) }
    }

    fn result(id: &str, output: &str, is_error: bool) -> Item {
        Item::ToolResult {
            call_id: id.into(),
            output: output.into(),
            is_error,
            labels: Labels::none(),
        }
    }

    fn user(text: &str) -> Item {
        Item::UserMessage { text: text.into() }
    }

    /// Shows entries as `U:text`, `A[calls]`, `R:id=output`.
    fn check(items: &[Item], expected: &str) {
        let shown: Vec<String> = entries(items)
            .iter()
            .map(|entry| match entry {
                Entry::User(text) => format!("U:{text}"),
                Entry::Answer(items) => format!("A{}", items.len()),
                Entry::Result { call_id, output, is_error } => {
                    format!("R:{call_id}={}", marked(output, *is_error))
                }
            })
            .collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[test]
    fn results_follow_their_answer() {
        check(&[], "");
        check(&[user("hi")], "U:hi");
        check(
            &[user("hi"), call("a"), call("b"), result("b", "2", false), result("a", "1", true)],
            "U:hi A2 R:a=error: 1 R:b=2",
        );
        check(&[call("a"), user("more"), result("a", "1", false)], "A1 R:a=1 U:more");
        check(
            &[call("a"), result("a", "1", false), call("a"), result("a", "2", false)],
            "A1 R:a=1 A1 R:a=2",
        );
    }

    #[test]
    fn a_missing_result_is_said_and_a_result_without_a_call_is_left_out() {
        check(
            &[call("a"), user("go on")],
            "A1 R:a=error: no result: the call was interrupted before it ended U:go on",
        );
        check(&[user("hi"), result("z", "1", false)], "U:hi");
    }
}
