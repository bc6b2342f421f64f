//! Commitments: how a header speaks of content without containing it.

use crate::{ChainFault, Header};
use types::Digest;

/// Length of a salt. 128 random bits: nobody finds a short content by trying.
pub const SALT_BYTES: usize = 16;
/// Random bytes that make a commitment say nothing to who lacks them.
pub type Salt = [u8; SALT_BYTES];

/// Separates commitments from every other digest. The number is the format's version.
const DOMAIN: &str = "bedplate.commit.1";

/// H(salt, name, bytes): binds the content, and hides it from who lacks the salt.
#[must_use]
pub fn commit(salt: &Salt, name: &str, bytes: &[u8]) -> Digest {
    Digest::of_parts(DOMAIN, &[salt, name.as_bytes(), bytes])
}

/// How a piece of content stands to its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is there and fits.
    Intact,
    /// It was erased; the header still proves that it was.
    Erased,
}

/// Whether content fits its header. `None` is content that was erased together with its salt.
///
/// # Errors
/// [`ChainFault::Uncommitted`] when the header has no such name; [`ChainFault::Content`] when salt
/// or bytes differ from what was committed to.
pub fn verify_content(
    header: &Header,
    name: &str,
    content: Option<(&Salt, &[u8])>,
) -> Result<Standing, ChainFault> {
    let seq = header.seq;
    let Some(commitment) = header.commitments.iter().find(|c| c.name == name) else {
        let name = name.to_owned();
        return Err(ChainFault::Uncommitted { seq, name });
    };
    match content {
        None => Ok(Standing::Erased),
        Some((salt, bytes)) if commit(salt, name, bytes) == commitment.digest => {
            Ok(Standing::Intact)
        }
        Some(_) => {
            Err(ChainFault::Content { seq, name: name.to_owned(), commitment: commitment.digest })
        }
    }
}
