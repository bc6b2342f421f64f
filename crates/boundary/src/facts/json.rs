//! JSON as a list of scalars, with keys that stand twice refused.

use crate::error::BoundaryError;
use crate::limits::{FACTS_MAX, JSON_DEPTH_MAX};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// What is told of a JSON text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Json {
    pub(super) scalars: Vec<String>,
    pub(super) rpc_methods: Vec<String>,
}

#[derive(Default)]
struct Reader {
    json: Json,
    pointer: String,
    depth: usize,
    twice: bool,
    too_much: bool,
}

/// Reads one text; none when it is not JSON or too much of it.
pub(super) fn read(body: &[u8]) -> Result<Option<Json>, BoundaryError> {
    let mut reader = Reader::default();
    let mut source = serde_json::Deserializer::from_slice(body);
    let whole = Node(&mut reader).deserialize(&mut source).is_ok() && source.end().is_ok();
    if reader.twice {
        return Err(BoundaryError::Body("a key of its JSON stands twice"));
    }
    if !whole || reader.too_much {
        return Ok(None);
    }
    reader.json.rpc_methods = rpc_methods(&reader.json.scalars);
    Ok(Some(reader.json))
}

/// The methods of a request or a batch: `/method` beside `/jsonrpc`, `/7/method` beside
/// `/7/jsonrpc`.
fn rpc_methods(scalars: &[String]) -> Vec<String> {
    let versions = scalars.iter().filter_map(|fact| {
        let at = fact.split_once('=')?.0.strip_suffix("/jsonrpc")?;
        at.bytes().all(|b| b == b'/' || b.is_ascii_digit()).then_some(at)
    });
    let calls: HashSet<&str> = versions.filter(|at| at.matches('/').count() <= 1).collect();
    let method = |fact: &String| {
        let (pointer, value) = fact.split_once('=')?;
        let at = pointer.strip_suffix("/method")?;
        calls.contains(at).then(|| value.to_owned())
    };
    scalars.iter().filter_map(method).collect()
}

impl Reader {
    fn scalar(&mut self, value: &dyn fmt::Display) {
        if self.json.scalars.len() == FACTS_MAX {
            self.too_much = true;
        } else {
            self.json.scalars.push(format!("{}={value}", self.pointer));
        }
    }

    /// Goes one step down for `inside`, and comes back.
    fn step<E: Error>(
        &mut self,
        key: &str,
        inside: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
        self.depth += 1;
        // A fact is `pointer=value`: a key with `=` could be read in two ways.
        if self.depth > JSON_DEPTH_MAX || self.too_much || key.contains('=') {
            self.too_much = true;
            return Err(E::custom("too much"));
        }
        inside(self)?;
        self.depth -= 1;
        self.pointer.truncate(before);
        Ok(())
    }
}

struct Node<'a>(&'a mut Reader);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $kind:ty),*) => {
        $(fn $visit<E>(self, value: $kind) -> Result<(), E> {
            self.0.scalar(&value);
            Ok(())
        })*
    };
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalars!(visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.scalar(&"null");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for at in 0usize.. {
            let mut more = false;
            self.0.step(&at.to_string(), |reader| {
                more = list.next_element_seed(Node(reader))?.is_some();
                Ok(())
            })?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            self.0.step(&key, |reader| map.next_value_seed(Node(reader)))?;
            if !keys.insert(key) {
                self.0.twice = true;
            }
        }
        Ok(())
    }
}
