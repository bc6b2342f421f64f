//! The words of Bedplate as values.
//!
//! Every other crate speaks in these types, so this crate is pure: no clock, no randomness, no
//! files, no sockets, no async. What is stored for years (records, their canonical bytes) is here,
//! with test vectors; what people write (the manifest) is here too, with its errors.

mod action;
mod as_of;
mod digest;
mod failure;
mod http_facts;
mod ids;
mod image;
mod item;
mod labels;
pub mod manifest;
mod memory;
mod money;
mod privacy;
mod record;
mod step;

pub use action::{ActionRequest, Carried, EffectClass, FsAccess, Verdict};
pub use as_of::{AsOf, AsOfField, as_of_covers};
pub use digest::{Digest, DigestParseError};
pub use failure::{Coded, Failure};
pub use http_facts::{BodyFacts, BodyKind, GitFacts, HttpFacts, RefChange, RefUpdate};
pub use ids::{ActionId, ApprovalId, BRANCH_MAIN, BranchId, IdError, LayerId, RunId};
pub use image::{IMAGE_REFERENCE_BYTES_MAX, ImageSource, ImageSourceError};
pub use item::{Item, Origin, ToolSpec, Usage};
pub use labels::Labels;
pub use memory::{MemoryOf, MemoryStart};
pub use money::Usd;
pub use privacy::{PERSONAL_KINDS, PrivacyFound, Restored, TOKEN_KINDS, Treatment};
pub use record::{
    Actor, ApprovalVerdict, Attempt, Body, Cause, EndStatus, FaultClass, Kept, Link, ModelFault,
    OutcomeStatus, Output, Record, Resolution, ResolvedBy, SCHEMA_VERSION, Stamp, TimerPurpose,
    WaitReason,
};
pub use step::{CALLER_KEY_CHARS_MAX, EndAs, Step, is_caller_key};
