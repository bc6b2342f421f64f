//! The whole body of a request to a model: what is found in it, and each kind treated as the
//! caller chooses.
//!
//! The body is JSON in any provider's dialect. Every text of it is looked into: instructions,
//! messages, tool results, descriptions and schemas of tools, and the arguments of tool calls, be
//! they a value or the text of one, keys included. Left as they are: names and ids by which a
//! dialect ties its parts together, parts that only their provider can read (they came from
//! there), and images. Values of the vault and canaries are looked for in those too, as bytes.
//!
//! Always: a value of the vault is masked, or nothing is sent; a canary stops the request; what
//! was replaced restores to exactly what it was. Never: an image looked into.

use crate::detect::Detector;
use crate::error::PrivacyError;
use crate::kind::{Finding, Kind, Kinds};
use crate::pseudonym::{Pseudonyms, with_look_alikes};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use types::Treatment;

/// Deepest nesting of a body that is walked.
pub const BODY_DEPTH_MAX: usize = crate::pseudonym::DEPTH_MAX;
/// Most bytes of excerpts that a person is shown.
pub const SHOWN_BYTES_MAX: usize = 64 << 10;
/// Bytes of text around a marked value that are shown.
const AROUND_BYTES: usize = 160;

/// Keys whose texts tie the parts of a dialect together.
const STRUCTURE: [&str; 12] = [
    "id",
    "call_id",
    "tool_call_id",
    "tool_use_id",
    "type",
    "role",
    "model",
    "name",
    "object",
    "status",
    "encrypted_content",
    "signature",
];
/// Types of parts that only their provider can read.
const OPAQUE: [&str; 3] = ["reasoning", "thinking", "redacted_thinking"];
/// Keys of payloads: what stands below is data, whatever its keys are called.
const PAYLOADS: [&str; 4] = ["arguments", "parameters", "input_schema", "schema"];

/// What is done with each kind. A value of the vault is masked and a canary refused whatever is
/// said; a look-alike always gets a pseudonym; what is not named is sent as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Treatments(BTreeMap<Kind, Treatment>);

impl Treatments {
    /// For a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> Treatment {
        match kind {
            Kind::Secret => Treatment::Mask,
            Kind::Canary => Treatment::Refuse,
            Kind::Pseudonym => Treatment::Pseudonym,
            _ => self.0.get(&kind).copied().unwrap_or(Treatment::AsIs),
        }
    }
}

impl FromIterator<(Kind, Treatment)> for Treatments {
    fn from_iter<T: IntoIterator<Item = (Kind, Treatment)>>(treatments: T) -> Self {
        Self(treatments.into_iter().collect())
    }
}

/// What was found of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// In how many places.
    pub count: u64,
    /// The names of the vault's secrets.
    pub names: BTreeSet<String>,
}

/// What was found in a body and done to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guarded {
    /// By kind; look-alikes are not counted.
    pub found: BTreeMap<Kind, Seen>,
    /// Whether the body is another now.
    pub changed: bool,
    /// Texts with what is sent as it is marked, for a person; empty unless it was wanted.
    pub shown: String,
}

/// Treats everything in a body. `show` asks for [`Guarded::shown`].
///
/// # Errors
/// BP-PRIVACY-002 beyond [`BODY_DEPTH_MAX`], BP-PRIVACY-003 when the mapping is full,
/// BP-PRIVACY-004 when something would not restore exactly. Nothing may be sent then.
pub fn guard(
    body: &mut Value,
    detector: &Detector,
    treatments: &Treatments,
    pseudonyms: &mut Pseudonyms,
    show: bool,
) -> Result<Guarded, PrivacyError> {
    let shown = show.then(Shown::default);
    let guarded = Guarded::default();
    let pointer = String::new();
    let mut walk = Walk { detector, treatments, pseudonyms, guarded, shown, pointer };
    walk.structure(body, 0)?;
    let mut guarded = walk.guarded;
    guarded.shown = walk.shown.map(Shown::into_text).unwrap_or_default();
    Ok(guarded)
}

struct Walk<'a> {
    detector: &'a Detector,
    treatments: &'a Treatments,
    pseudonyms: &'a mut Pseudonyms,
    guarded: Guarded,
    shown: Option<Shown>,
    pointer: String,
}

type Done = Result<(), PrivacyError>;

impl Walk<'_> {
    /// A part of the dialect.
    fn structure(&mut self, value: &mut Value, depth: usize) -> Done {
        within(depth)?;
        match value {
            Value::String(text) => self.replace(text),
            Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(at, item)| {
                self.below(&at.to_string(), |walk| walk.structure(item, depth + 1))
            }),
            Value::Object(fields) => self.part(fields, depth),
            Value::Number(_) | Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn part(&mut self, fields: &mut Map<String, Value>, depth: usize) -> Done {
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if OPAQUE.contains(&kind.as_str()) {
            return Ok(());
        }
        for (key, field) in fields.iter_mut() {
            let data = PAYLOADS.contains(&key.as_str()) || (key == "input" && kind == "tool_use");
            self.below(key, |walk| match field {
                Value::String(text) if key == "arguments" => walk.arguments(text, depth + 1),
                field if data => walk.payload(field, depth + 1),
                Value::String(_) if STRUCTURE.contains(&key.as_str()) => Ok(()),
                // The bytes of an image; those of a text go another way.
                Value::String(text) if is_image(&kind, key, text) => Ok(()),
                field => walk.structure(field, depth + 1),
            })?;
        }
        Ok(())
    }

    /// The arguments of a call as the text of a JSON value; any other text is one.
    fn arguments(&mut self, text: &mut String, depth: usize) -> Done {
        match serde_json::from_str::<Value>(text) {
            Ok(mut value) if value.is_object() || value.is_array() => {
                let before = std::mem::take(&mut self.guarded.changed);
                self.payload(&mut value, depth)?;
                if self.guarded.changed {
                    *text = value.to_string();
                }
                self.guarded.changed |= before;
                Ok(())
            }
            _ => self.replace(text),
        }
    }

    /// Data: every text, integer and key of it.
    fn payload(&mut self, value: &mut Value, depth: usize) -> Done {
        within(depth)?;
        match value {
            Value::String(text) => self.replace(text),
            Value::Number(_) => self.number(value),
            Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(at, item)| {
                self.below(&at.to_string(), |walk| walk.payload(item, depth + 1))
            }),
            Value::Object(fields) => {
                let mut treated = Map::with_capacity(fields.len());
                for (mut key, mut field) in std::mem::take(fields) {
                    let step = key.clone();
                    self.below(&step, |walk| {
                        walk.replace(&mut key)?;
                        walk.payload(&mut field, depth + 1)
                    })?;
                    treated.insert(key, field);
                }
                *fields = treated;
                Ok(())
            }
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn number(&mut self, value: &mut Value) -> Done {
        let Some(digits) = value.as_u64().map(|n| n.to_string()) else { return Ok(()) };
        let whole = |f: &&Finding| f.start == 0 && f.end == digits.len();
        let findings = with_look_alikes(&digits, self.detector.find(&digits));
        let Some(finding) = findings.iter().find(whole) else { return Ok(()) };
        self.note(finding);
        match self.treatments.of(finding.kind) {
            Treatment::Pseudonym => {
                let integer = self.pseudonyms.of(finding.kind, &digits, true)?;
                *value = integer.parse::<u64>().expect("its shape is 16 digits").into();
            }
            Treatment::Mask => *value = mask(finding).into(),
            _ => return Ok(()),
        }
        self.guarded.changed = true;
        Ok(())
    }

    fn replace(&mut self, text: &mut String) -> Done {
        let findings = with_look_alikes(text, self.detector.find(text));
        if findings.is_empty() {
            return Ok(());
        }
        // What is sent, what it must restore to, and where in it something stands as it is.
        let (mut sent, mut back, mut at) = (String::with_capacity(text.len() + 64), None, 0);
        let mut bare = Vec::new();
        for finding in &findings {
            self.note(finding);
            let value = &text[finding.start..finding.end];
            let between = &text[at..finding.start];
            let back = back.get_or_insert_with(|| String::with_capacity(text.len()));
            *back += between;
            sent += between;
            match self.treatments.of(finding.kind) {
                Treatment::Pseudonym => {
                    sent += self.pseudonyms.of(finding.kind, value, false)?;
                    *back += value;
                }
                Treatment::Mask => {
                    let mask = mask(finding);
                    sent += &mask;
                    *back += &mask;
                }
                _ => {
                    bare.push((sent.len(), sent.len() + value.len(), finding.kind));
                    sent += value;
                    *back += value;
                }
            }
            at = finding.end;
        }
        sent += &text[at..];
        let back = back.unwrap_or_default() + &text[at..];
        if let Some(shown) = &mut self.shown {
            shown.add(&self.pointer, &sent, &bare);
        }
        if sent != *text {
            if self.pseudonyms.restore(&sent, Kinds::all()) != back {
                return Err(PrivacyError::NotRestorable);
            }
            *text = sent;
            self.guarded.changed = true;
        }
        Ok(())
    }

    fn note(&mut self, finding: &Finding) {
        if finding.kind == Kind::Pseudonym {
            return;
        }
        let seen = self.guarded.found.entry(finding.kind).or_default();
        seen.count += 1;
        seen.names.extend(finding.secret.clone());
    }

    fn below(&mut self, step: &str, walk: impl FnOnce(&mut Self) -> Done) -> Done {
        if self.shown.is_none() {
            return walk(self);
        }
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer += step;
        let result = walk(self);
        self.pointer.truncate(length);
        result
    }
}

fn within(depth: usize) -> Done {
    crate::fingerprint::limit("the nesting of a request", depth, BODY_DEPTH_MAX)
}

/// What stands where a value was that nothing brings back.
fn mask(finding: &Finding) -> String {
    format!("[masked:{}]", finding.secret.as_deref().unwrap_or(finding.kind.as_str()))
}

fn is_image(kind: &str, key: &str, text: &str) -> bool {
    let inline = text.starts_with("data:image/") && text.contains(";base64,");
    inline || (kind == "base64" && key == "data")
}

/// Excerpts for a person.
#[derive(Default)]
struct Shown {
    text: String,
    left_out: u64,
}

impl Shown {
    fn add(&mut self, pointer: &str, text: &str, bare: &[(usize, usize, Kind)]) {
        if bare.is_empty() {
            return;
        }
        let excerpt = format!("{pointer}: {}\n", excerpt(text, bare));
        if self.text.len() + excerpt.len() <= SHOWN_BYTES_MAX {
            self.text += &excerpt;
        } else {
            self.left_out += bare.len() as u64;
        }
    }

    fn into_text(self) -> String {
        match self.left_out {
            0 => self.text,
            left => format!("{}[{left} more are not shown]\n", self.text),
        }
    }
}

/// The text around each value, which is marked.
fn excerpt(text: &str, bare: &[(usize, usize, Kind)]) -> String {
    let (mut out, mut at) = (String::new(), 0);
    for (index, (start, end, kind)) in bare.iter().enumerate() {
        let from = floor(text, start.saturating_sub(AROUND_BYTES)).max(at);
        if from > at {
            out += if at == 0 { "… " } else { " … " };
        }
        out += &text[from..*start];
        out += &format!("⟦{kind}: {}⟧", &text[*start..*end]);
        let next = bare.get(index + 1).map_or(text.len(), |(start, ..)| *start);
        at = floor(text, (end + AROUND_BYTES).min(next));
        out += &text[*end..at];
    }
    if at < text.len() {
        out += " …";
    }
    out
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests;
