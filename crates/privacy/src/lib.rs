//! The deterministic tier of the privacy router.
//!
//! [`Fingerprints`] recognises exact secrets without holding them. [`Detector`] finds them, shapes
//! of tokens and personal data in a text. [`Pseudonyms`] puts typed pseudonyms in their place and
//! takes them back exactly, in whole texts, JSON values and streams. [`guard`] does this to the whole
//! body of a request to a model, each kind treated as the caller chooses.
//!
//! Always: the same text, configuration and seed give the same result; the work grows with the
//! length of the text, not faster. Never: a clock, chance, files, sockets; a value in a `Debug`
//! output or in an error.

mod address;
mod cards;
mod decode;
mod detect;
mod email;
mod encode;
mod error;
mod fingerprint;
mod guard;
mod ids;
mod kind;
mod marks;
mod names;
mod numbers;
mod phones;
mod pseudonym;
mod restore;
mod shape;
mod stream;
mod tokens;
mod work;

pub use detect::{
    CANARIES_MAX, CANARY_BYTES_MAX, CANARY_BYTES_MIN, Detector, DetectorConfig, NAME_BYTES_MAX,
    NAMES_MAX,
};
pub use encode::Encoding;
pub use error::PrivacyError;
pub use fingerprint::{
    FingerprintKey, Fingerprints, HITS_MAX, Hit, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRETS_MAX,
    Scanner,
};
pub use guard::{BODY_DEPTH_MAX, Guarded, SHOWN_BYTES_MAX, Seen, Treatments, guard};
pub use kind::{Confidence, Finding, Kind, Kinds};
pub use pseudonym::{DEPTH_MAX, Form, FoundIn, Pseudonyms, VALUES_BYTES_MAX, VALUES_MAX};
pub use shape::PSEUDONYM_BYTES_MAX;
pub use stream::StreamRestorer;
pub use types::Treatment;
