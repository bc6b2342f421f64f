//! What the network boundary read in an HTTP request, as policy may look at it.
//!
//! Every list is bounded by whoever reads, and a request whose content cannot be read in exactly
//! one way never gets this far. What was not read is said to be so, and never left to be guessed:
//! a rule about content that was not read does not match.

use crate::Digest;
use serde::{Deserialize, Serialize};

/// How much of a request's body was read before it was judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyKind {
    /// There is none.
    #[default]
    None,
    /// All of it: digest and facts speak of exactly what is sent.
    Buffered,
    /// It goes on after the question; the facts speak of its beginning, if of anything.
    Streamed,
}

/// What is known of a request's body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyFacts {
    /// How much of it was read.
    pub kind: BodyKind,
    /// Bytes read before the question.
    pub bytes: u64,
    /// A JSON body as `/pointer=value`, each scalar once, strings without quotes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub json: Vec<String>,
    /// A form as `key=value`, decoded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub form: Vec<String>,
    /// The methods of a JSON-RPC request; of a batch, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rpc_methods: Vec<String>,
    /// Whether all of the body was understood and is told above. A rule that wants to see the
    /// content matches nothing where this is false.
    #[serde(default)]
    pub understood: bool,
}

/// How a push changes a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefChange {
    /// It did not exist.
    Create,
    /// It moves; whether by force only the server can tell.
    Update,
    /// It goes away.
    Delete,
}

/// One reference that a push changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefUpdate {
    /// The whole name: `refs/heads/main`.
    pub name: String,
    /// How it changes.
    pub change: RefChange,
}

/// A request of git over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitFacts {
    /// The path of the repository, without a leading slash or `.git`: `owner/name`.
    pub repository: String,
    /// `git-upload-pack` or `git-receive-pack`.
    pub service: String,
    /// What a push changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub updates: Vec<RefUpdate>,
    /// Whether `updates` is all of it; false for a push whose commands could not be read.
    pub complete: bool,
}

/// What the boundary read in a request besides method, path and query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpFacts {
    /// `git fetch`, `git push`, `package install`, `package publish`, `oauth token`, or nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// Headers as `name=value`, names in lower case; what carries a credential has its value
    /// replaced by `sha256:` and a digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// The body.
    #[serde(default)]
    pub body: BodyFacts,
    /// Git's own words, if it is a request of git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitFacts>,
    /// The names of the secrets whose placeholders are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Whether it asks for a WebSocket.
    #[serde(default)]
    pub websocket: bool,
    /// The canonical digest of the request: what an approval is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ActionRequest;

    #[test]
    fn a_request_without_facts_reads_and_writes_as_it_always_did() {
        let old = r#"{"action":"http_request","host":"a.test","method":"GET","path":"/","port":443,"scheme":"https","query":""}"#;
        let request: ActionRequest = serde_json::from_str(old).unwrap();
        assert!(matches!(request, ActionRequest::HttpRequest { facts: None, .. }));
        assert_eq!(serde_json::to_string(&request).unwrap(), old);
    }

    #[test]
    fn facts_round_trip_and_say_nothing_that_is_not_so() {
        let facts = HttpFacts {
            operation: "git push".to_owned(),
            git: Some(GitFacts {
                repository: "o/r".to_owned(),
                service: "git-receive-pack".to_owned(),
                updates: vec![RefUpdate {
                    name: "refs/heads/main".to_owned(),
                    change: RefChange::Delete,
                }],
                complete: true,
            }),
            ..HttpFacts::default()
        };
        let text = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<HttpFacts>(&text).unwrap(), facts);
        assert!(!HttpFacts::default().body.understood);
    }
}
