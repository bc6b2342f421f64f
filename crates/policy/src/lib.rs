//! Cedar and permissions to decisions.
//!
//! Everything an agent may do is one policy set ([`PolicySet`]), made from the manifest's
//! permissions, `policy.cedar` and organisation policies, checked strictly against one schema
//! ([`schema_text`]). A set never changes and answers with values: the same input always gives the
//! same decision, and both are named by digests.
//!
//! What always holds: deny by default; a `forbid` wins; an evaluation error denies; organisation
//! policies only narrow; approval only opens; no name, path or argument becomes policy text.
//!
//! What it never does: I/O, clocks, randomness; and it may not depend on what holds secrets.

mod arguments;
mod canonical;
mod cases;
mod cedar;
mod decide;
mod entry;
mod error;
mod explain;
mod facts;
mod guard;
mod host;
mod input;
mod monotone;
mod operation;
mod paths;
mod question;
mod reach;
mod set;
mod slice;
mod sugar;
mod table;

pub use arguments::{
    ARGUMENT_ATTRIBUTES_MAX, ARGUMENT_DEPTH_MAX, ARGUMENT_ELEMENTS_MAX, schema_text,
};
pub use cases::{CASES_MAX, Case, CaseResult, parse_cases, run_tests};
pub use cedar::{NESTING_MAX, OPERATORS_MAX, POLICIES_MAX, POLICY_BYTES_MAX};
pub use decide::{Because, Decision};
pub use entry::{ENTRY_BYTES_MAX, ToolKind};
pub use error::{Location, PolicyError};
pub use explain::{Explanation, Suggestion, explain_denial, narrowest};
pub use facts::{FACT_BYTES_MAX, FACTS_MAX, NAME_BYTES_MAX, NAME_PARTS_MAX};
pub use host::{HOST_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};
pub use input::{
    DecisionInput, PersonAction, PersonInput, Principal, PrincipalKind, TEXT_BYTES_MAX,
};
pub use paths::FsRules;
pub use set::{ORGANISATION_FILES_MAX, PolicySet, Sources, TOOLS_MAX, ToolDecl};
pub use sugar::{ENTRIES_MAX, MEMORY, WORKSPACE};
pub use table::{Row, diff};
