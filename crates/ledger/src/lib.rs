//! The chain: what makes the log evidence. This is the code an auditor reads.
//!
//! Every record has a [`Header`]: where and when it stands, of what kind it is, what it follows
//! from, the digest of the record before, and a commitment to each piece of its content. The
//! header's digest is the record's digest; the last one is the [`Head`], and whoever holds a head
//! holds the whole history that leads to it.
//!
//! What always holds:
//! - One header has one encoding, and one encoding has one header. [`decode`] refuses the rest.
//! - A digest covers every byte of a header, and through `prev` every record before it. Flipping,
//!   dropping, reordering or truncating anything is found by [`verify_chain`], which names it.
//! - Content (actor, body, attachments) is in a header only as H(salt, bytes). Without the salt a
//!   digest tells nothing of it, not even its length; so content can be erased while every proof
//!   holds.
//!
//! What is never here: files, clocks, randomness, keys, or the meaning of a body. The written
//! format, with test vectors, is `docs/log-format.md`.

mod chain;
mod codec;
mod content;
mod fault;

pub use chain::{Chain, FORKED, Head, verify_chain};
pub use codec::{
    CAUSES_MAX, COMMITMENTS_MAX, Commitment, Header, NAME_BYTES_MAX, check, decode, digest,
    digest_encoded, encode, is_name,
};
pub use content::{SALT_BYTES, Salt, Standing, commit, verify_content};
pub use fault::{ChainFault, HeaderFault};
