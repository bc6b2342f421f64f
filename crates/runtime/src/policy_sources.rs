//! From a manifest and the policy beside it to a policy set: the same for the owner and for
//! commands that only show or check.

use crate::config::POLICY_FILE;
use crate::error::RuntimeError;
use policy::{PolicySet, Principal, Sources, ToolDecl, ToolKind};
use types::manifest::Manifest;
use types::{Coded, Failure};

/// Compiles the policy of an agent.
///
/// # Errors
/// Everything that is wrong with it, in one failure under the first error's code.
pub fn compile(
    manifest: &Manifest,
    cedar: Option<&str>,
    extra_allow: &[String],
) -> Result<PolicySet, RuntimeError> {
    let mut tools = ToolDecl::builtins();
    tools.extend(manifest.tools.iter().map(|tool| ToolDecl {
        name: tool.name.clone(),
        effect: tool.effect,
        kind: ToolKind::Command,
        input_schema: tool.input_schema.clone().unwrap_or_default(),
    }));
    // The operator named both: policy may still forbid either.
    let local = manifest.privacy.local_route.iter().filter(|route| **route != manifest.agent.model);
    let routes = std::iter::once(&manifest.agent.model).chain(local).cloned().collect();
    let sources = Sources {
        permissions: manifest.permissions.clone(),
        extra_allow: extra_allow.to_vec(),
        cedar: cedar.map(|text| (POLICY_FILE.to_owned(), text.to_owned())),
        tools,
        routes,
        memory: manifest.memory.map(|memory| memory.access),
        ..Sources::new(Principal::agent(&manifest.agent.name, &manifest.agent.team))
    };
    PolicySet::compile(&sources).map_err(|errors| RuntimeError::Part(joined(&errors)))
}

/// Several errors as one failure: each on its own line.
fn joined(errors: &[impl Coded]) -> Failure {
    let messages: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
    let first = errors.first().expect("a refused policy has at least one error");
    Failure { code: first.code().to_owned(), message: messages.join("\n"), next: first.next() }
}
