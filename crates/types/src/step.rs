//! Steps: what a caller's own loop asks of a run, one after the other.

use crate::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Characters of a caller's key.
pub const CALLER_KEY_CHARS_MAX: usize = 128;
/// Characters of a step that its short form shows.
const SHORT_CHARS_MAX: usize = 120;

/// How a caller ends its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndAs {
    /// The work is done: the checks decide.
    Done,
    /// The caller gives up.
    Failed,
}

/// One step. The same step at the same place has the same outcome, however often it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Call the model with the run's conversation.
    Model {
        /// What joins the conversation first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<String>,
    },
    /// Call a tool.
    Tool {
        /// The call of the model's last answer that this carries out; none for one of the caller's
        /// own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
        /// The tool.
        name: String,
        /// One JSON object.
        arguments: Value,
    },
    /// Run a command in the sandbox.
    Exec {
        /// For `/bin/sh -c`.
        command: String,
        /// Its time limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_s: Option<u64>,
    },
    /// Run a check of the manifest.
    Check {
        /// Its name.
        name: String,
    },
    /// End the run.
    End {
        /// How.
        status: EndAs,
        /// The last words: the result, or why it failed.
        output: String,
    },
}

impl Step {
    /// The tool call that this is: the tool and its arguments. None for a model call and the end.
    #[must_use]
    pub fn call(&self) -> Option<(&str, Value)> {
        match self {
            Self::Tool { name, arguments, .. } => Some((name, arguments.clone())),
            Self::Exec { command, timeout_s } => {
                let mut arguments = json!({ "command": command });
                if let Some(seconds) = timeout_s {
                    arguments["timeout_s"] = json!(seconds);
                }
                Some(("shell", arguments))
            }
            Self::Check { name } => Some(("check", json!({ "name": name }))),
            Self::Model { .. } | Self::End { .. } => None,
        }
    }

    /// The id of its tool call in the conversation, when it is step number `at`.
    #[must_use]
    pub fn call_id(&self, at: u64) -> Option<String> {
        match self {
            Self::Tool { call_id: Some(id), .. } => Some(id.clone()),
            Self::Tool { .. } | Self::Exec { .. } | Self::Check { .. } => {
                Some(format!("step-{at}"))
            }
            Self::Model { .. } | Self::End { .. } => None,
        }
    }

    /// In a few words, for an error or a list: `exec "make test"`.
    #[must_use]
    pub fn short(&self) -> String {
        let text = match self {
            Self::Model { input: None } => "model".to_owned(),
            Self::Model { input: Some(input) } => format!("model {}", json!(input)),
            Self::Tool { call_id, name, arguments } => {
                let of = call_id.as_ref().map(|id| format!(" for call {id}")).unwrap_or_default();
                format!("tool {name} {arguments}{of}")
            }
            Self::Exec { command, .. } => format!("exec {}", json!(command)),
            Self::Check { name } => format!("check {}", json!(name)),
            Self::End { status, output } => {
                let how = if *status == EndAs::Done { "done" } else { "failed" };
                format!("end {how} {}", json!(output))
            }
        };
        if text.chars().count() <= SHORT_CHARS_MAX {
            return text;
        }
        let digest = Digest::of(text.as_bytes()).to_string();
        let shown: String = text.chars().take(SHORT_CHARS_MAX).collect();
        format!("{shown}... (sha256 {})", &digest[..12])
    }
}

/// Whether a caller may name a run by this key.
#[must_use]
pub fn is_caller_key(key: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    (1..=CALLER_KEY_CHARS_MAX).contains(&key.len()) && key.chars().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_strictly_and_names_its_call() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let step: Result<Step, _> = serde_json::from_str(text);
            let got = step.as_ref().ok().map(|step| (step.short(), step.call_id(3)));
            let got = got.as_ref().map(|(short, id)| (short.as_str(), id.as_deref()));
            assert_eq!(got, expected, "{text}");
        };
        check(r#"{"type":"model"}"#, Some(("model", None)));
        check(r#"{"type":"model","input":"hi"}"#, Some(("model \"hi\"", None)));
        check(r#"{"type":"exec","command":"a b"}"#, Some(("exec \"a b\"", Some("step-3"))));
        check(r#"{"type":"check","name":"ok"}"#, Some(("check \"ok\"", Some("step-3"))));
        check(
            r#"{"type":"tool","name":"t","arguments":{"a":1},"call_id":"c9"}"#,
            Some(("tool t {\"a\":1} for call c9", Some("c9"))),
        );
        check(r#"{"type":"end","status":"done","output":""}"#, Some(("end done \"\"", None)));
        check(r#"{"type":"exec"}"#, None);
        check(r#"{"type":"exec","command":"a","more":1}"#, None);
        check(r#"{"type":"sleep"}"#, None);
    }

    #[test]
    fn a_long_step_is_told_apart_by_its_digest() {
        let long = |end: &str| Step::Model { input: Some("x".repeat(500) + end) };
        assert!(long("a").short().len() < 200);
        assert_ne!(long("a").short(), long("b").short());
    }

    #[test]
    fn steps_are_equal_by_value_not_by_the_order_of_names() {
        let read = |text: &str| serde_json::from_str::<Step>(text).expect("a step");
        assert_eq!(
            read(r#"{"type":"tool","name":"t","arguments":{"a":1,"b":2}}"#),
            read(r#"{"type":"tool","name":"t","arguments":{"b":2,"a":1}}"#)
        );
    }

    #[test]
    fn keys_are_plain_and_short() {
        for good in ["a", "order-17/retry:2", &"k".repeat(CALLER_KEY_CHARS_MAX)] {
            assert!(is_caller_key(good), "{good}");
        }
        for bad in ["", "a b", "a\n", "ä", &"k".repeat(CALLER_KEY_CHARS_MAX + 1)] {
            assert!(!is_caller_key(bad), "{bad}");
        }
    }
}
