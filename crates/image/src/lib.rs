//! Images as layers of a home: read, verified, unpacked without privilege, kept once.
//!
//! An image comes from a layout directory, an archive of `docker save` or a registry; it becomes a
//! stack of directories that sandboxes stand on ([`sandbox::Root`]).
//!
//! What always holds:
//!
//! - Hostile bytes (archives, documents, what a registry says) are parsed in processes of their own
//!   that are confined first: [`worker_main`]. The one that calls [`Images::pull`] hashes bytes and
//!   reads typed answers.
//! - Every digest and size is checked; what does not fit has no name in the store.
//! - An image is there whole or not at all, whatever is killed when.
//!
//! What it never does: run anything of an image, or keep credentials.

mod client;
mod error;
mod fetch;
pub mod limits;
mod metadata;
mod order;
mod packed;
mod pull;
mod store;
mod survey;
mod unpack;
mod worker;

pub use error::ImageError;
pub use metadata::Settings;
pub use store::{Collected, Held, Image, Images, Listed};
pub use worker::{WORKER_ARG, worker_main};
