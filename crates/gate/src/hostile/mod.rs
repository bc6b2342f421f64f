//! Bytes of strangers into values: JSON of tools, schemas, output.
//!
//! Pure functions; every size and depth is limited, and no reference in a schema is ever fetched.

mod json;
mod text;

pub(crate) use json::{as_of_in, check_value, compile, parse_json};
pub(crate) use text::read_output;
