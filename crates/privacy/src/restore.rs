//! Takes pseudonyms back in what a model answered, and says which kinds were put back.
//!
//! Other than [`Pseudonyms::restore_value`], keys of objects are restored too, as [`crate::guard`]
//! replaces them.

use crate::error::PrivacyError;
use crate::kind::{Kind, Kinds};
use crate::pseudonym::{Form, Pseudonyms, within_depth};
use serde_json::{Map, Value};

impl Pseudonyms {
    /// The text with all values back in their places, and the kinds of those.
    #[must_use]
    pub fn restored_text(&self, text: &str) -> (String, Kinds) {
        let (mut out, mut seen) = (String::with_capacity(text.len()), Kinds::NONE);
        let into = (&mut out, &mut seen);
        let taken = self.restore_into(text, Kinds::all(), Form::Text, true, into);
        assert_eq!(taken, text.len(), "the last part of a text is never held back");
        (out, seen.without(Kind::Pseudonym))
    }

    /// Restores a whole JSON value, keys included, and says which kinds were put back.
    ///
    /// # Errors
    /// BP-PRIVACY-002 beyond [`crate::DEPTH_MAX`].
    pub fn restored_value(&self, value: &mut Value) -> Result<Kinds, PrivacyError> {
        let mut seen = Kinds::NONE;
        self.deep(value, 0, &mut seen)?;
        Ok(seen)
    }

    fn deep(&self, value: &mut Value, depth: usize, seen: &mut Kinds) -> Result<(), PrivacyError> {
        within_depth(depth)?;
        match value {
            Value::String(text) => *text = self.noted(text, seen),
            Value::Number(number) => {
                let known = number.as_u64().map(|n| n.to_string());
                let known = known.and_then(|n| self.permitted(&n, Kinds::all()));
                let found = known.and_then(|e| Some((e.kind, e.value.parse::<u64>().ok()?)));
                if let Some((kind, integer)) = found {
                    *number = integer.into();
                    *seen = seen.with(kind).without(Kind::Pseudonym);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.deep(item, depth + 1, seen)?;
                }
            }
            Value::Object(fields) => {
                let mut restored = Map::with_capacity(fields.len());
                for (key, mut field) in std::mem::take(fields) {
                    self.deep(&mut field, depth + 1, seen)?;
                    restored.insert(self.noted(&key, seen), field);
                }
                *fields = restored;
            }
            Value::Null | Value::Bool(_) => {}
        }
        Ok(())
    }

    fn noted(&self, text: &str, seen: &mut Kinds) -> String {
        let (text, kinds) = self.restored_text(text);
        *seen = kinds.iter().fold(*seen, Kinds::with);
        text
    }
}
