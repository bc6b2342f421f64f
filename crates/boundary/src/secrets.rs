//! Placeholders: found in a request before the question, swapped for values after a permit.
//!
//! A placeholder is plain text that needs no escape anywhere, so it is found where it stands. The
//! value takes its place in the escape of that place. What the judge gave no value for stays.

use crate::body::Collected;
use crate::error::BoundaryError;
use crate::judge::{How, Place, Placeholder, SecretUse};
use crate::limits::PLACEHOLDERS_MAX;
use crate::mask::{json_escaped, percent};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use zeroize::Zeroizing;

const PREFIX: &[u8] = b"bpsecret-";
/// Hexadecimal digits at the end.
const DIGITS: usize = 32;
/// Bytes of the name in a placeholder.
const NAME_BYTES_MAX: usize = 64;

/// A placeholder at the beginning of these bytes: its length and that of its name.
fn at(bytes: &[u8]) -> Option<(usize, usize)> {
    let rest = bytes.strip_prefix(PREFIX)?;
    let known = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let run = rest.iter().take_while(|b| known(b)).count();
    // The name may have hyphens: the first hyphen before exactly the digits ends it.
    let ends = (1..run).filter(|end| rest[*end] == b'-').take_while(|end| *end <= NAME_BYTES_MAX);
    let mut names = ends.filter(|end| {
        let digits = rest.get(end + 1..end + 1 + DIGITS);
        digits.is_some_and(|digits| digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    });
    names.next().map(|name| (PREFIX.len() + name + 1 + DIGITS, name))
}

/// Where placeholders stand: start, end, name.
fn find(bytes: &[u8]) -> Vec<(usize, usize, String)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(step) = bytes[from..].windows(PREFIX.len()).position(|w| w == PREFIX) {
        let start = from + step;
        from = start + PREFIX.len();
        if let Some((length, name)) = at(&bytes[start..]) {
            let name = &bytes[start + PREFIX.len()..start + PREFIX.len() + name];
            found.push((start, start + length, String::from_utf8_lossy(name).into_owned()));
            from = start + length;
        }
    }
    found
}

/// The same without what differs between sandboxes: of each placeholder its name alone.
#[must_use]
pub fn by_name(bytes: &[u8]) -> Cow<'_, [u8]> {
    let places = find(bytes);
    if places.is_empty() {
        return Cow::Borrowed(bytes);
    }
    let (mut named, mut from) = (Vec::with_capacity(bytes.len()), 0);
    for (start, end, name) in places {
        named.extend_from_slice(&bytes[from..start]);
        named.extend_from_slice(PREFIX);
        named.extend_from_slice(name.as_bytes());
        from = end;
    }
    named.extend_from_slice(&bytes[from..]);
    Cow::Owned(named)
}

/// All placeholders of a request.
pub(crate) fn placeholders(
    headers: &HeaderMap,
    query: &str,
    body: &Collected,
) -> Result<Vec<Placeholder>, BoundaryError> {
    let mut all: Vec<Placeholder> = Vec::new();
    let mut add = |bytes: &[u8], place| {
        for (start, end, name) in find(bytes) {
            let text = String::from_utf8_lossy(&bytes[start..end]).into_owned();
            let one = Placeholder { text, name, place };
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all.len() <= PLACEHOLDERS_MAX
    };
    let mut few = add(query.as_bytes(), Place::Query);
    for value in headers.values() {
        let basic = basic(value.as_bytes());
        few &= add(basic.as_ref().map_or(value.as_bytes(), |inside| inside), Place::Header);
    }
    if body.rest.is_none() {
        few &= add(&body.data, Place::Body);
    }
    if few { Ok(all) } else { Err(BoundaryError::Limit("placeholders of one request")) }
}

/// What stands inside `Basic`.
fn basic(value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let engine: &GeneralPurpose = &STANDARD;
    engine.decode(rest.trim_ascii()).ok().map(Zeroizing::new)
}

/// What takes the place of placeholders.
pub(crate) struct Swap<'a>(&'a [SecretUse]);

impl<'a> Swap<'a> {
    pub(crate) const fn new(secrets: &'a [SecretUse]) -> Self {
        Self(secrets)
    }

    fn value(&self, placeholder: &[u8]) -> Option<&'a str> {
        let uses = self.0.iter().filter(|used| used.how == How::Replace);
        let mut mine = uses.filter(|used| used.placeholder.as_bytes() == placeholder);
        mine.next().map(|used| used.value.as_str())
    }

    /// The bytes with values in place of placeholders; none when nothing changes.
    fn apply(
        &self,
        bytes: &[u8],
        escape: impl Fn(&str) -> Zeroizing<String>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::with_capacity(bytes.len() + 256));
        let mut from = 0;
        for (start, end, _) in find(bytes) {
            if let Some(value) = self.value(&bytes[start..end]) {
                out.extend_from_slice(&bytes[from..start]);
                out.extend_from_slice(escape(value).as_bytes());
                from = end;
            }
        }
        out.extend_from_slice(&bytes[from..]);
        (from > 0).then_some(out)
    }

    /// Swaps in the values of headers.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) -> Result<(), BoundaryError> {
        let plain = |value: &str| Zeroizing::new(value.to_owned());
        for value in headers.values_mut() {
            let swapped = match basic(value.as_bytes()) {
                Some(inside) => self.apply(&inside, plain).map(|inside| {
                    let text = Zeroizing::new(STANDARD.encode(&*inside));
                    Zeroizing::new(format!("Basic {}", *text).into_bytes())
                }),
                None => self.apply(value.as_bytes(), plain),
            };
            if let Some(bytes) = swapped {
                let bad = |_| BoundaryError::Secret("its value cannot stand in a header");
                *value = HeaderValue::from_bytes(&bytes).map_err(bad)?;
                value.set_sensitive(true);
            }
        }
        Ok(())
    }

    /// Swaps in the query.
    pub(crate) fn query(&self, query: &mut String) {
        if let Some(bytes) = self.apply(query.as_bytes(), |value| percent(value.as_bytes(), true)) {
            *query = String::from_utf8_lossy(&bytes).into_owned();
        }
    }

    /// Swaps in a body that was read whole, in the escape of its type.
    pub(crate) fn body(&self, headers: &HeaderMap, body: &mut Collected) {
        if body.rest.is_some() {
            return;
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        let swapped = self.apply(&body.data, |value| {
            if kind.contains("json") {
                json_escaped(value)
            } else if kind.starts_with("application/x-www-form-urlencoded") {
                percent(value.as_bytes(), true)
            } else {
                Zeroizing::new(value.to_owned())
            }
        });
        if let Some(bytes) = swapped {
            body.data = bytes.to_vec().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "bpsecret-api-key-0123456789abcdef0123456789abcdef";

    fn uses(value: &str) -> Vec<SecretUse> {
        let value = Zeroizing::new(value.to_owned());
        vec![SecretUse { placeholder: ONE.to_owned(), value, how: How::Replace }]
    }

    #[test]
    fn placeholders_are_found_where_they_stand() {
        let text = format!("x{ONE},{ONE}0 bpsecret-short-0123 bpsecret--{}", "0".repeat(32));
        let found = find(text.as_bytes());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().all(|(start, end, name)| &text[*start..*end] == ONE && name == "api-key")
        );
    }

    #[test]
    fn placeholders_have_a_limit_at_its_edge() {
        let of = |count: usize| {
            let many = (0..count).map(|at| format!("bpsecret-n-{at:032x}")).collect::<Vec<_>>();
            placeholders(&HeaderMap::new(), &many.join("&"), &Collected::default())
        };
        assert_eq!(of(PLACEHOLDERS_MAX).unwrap().len(), PLACEHOLDERS_MAX);
        assert!(of(PLACEHOLDERS_MAX + 1).is_err());
    }

    #[test]
    fn values_stand_in_the_escape_of_their_place() {
        let secrets = uses("p&\"w");
        let swap = Swap::new(&secrets);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {ONE}").parse().unwrap());
        let inside = STANDARD.encode(format!("user:{ONE}"));
        headers.insert("x-basic", format!("Basic {inside}").parse().unwrap());
        assert_eq!(placeholders(&headers, ONE, &Collected::default()).unwrap().len(), 2);
        swap.headers(&mut headers).unwrap();
        assert_eq!(headers["authorization"], "Bearer p&\"w");
        assert_eq!(headers["x-basic"], format!("Basic {}", STANDARD.encode("user:p&\"w")));
        let mut query = format!("a=1&k={ONE}");
        swap.query(&mut query);
        assert_eq!(query, "a=1&k=p%26%22w");
        for (kind, expected) in [
            ("application/json", "{\"k\":\"p&\\\"w\"}"),
            ("application/x-www-form-urlencoded", "{\"k\":\"p%26%22w\"}"),
            ("text/plain", "{\"k\":\"p&\"w\"}"),
        ] {
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            let mut body = Collected::whole(format!("{{\"k\":\"{ONE}\"}}").into_bytes().into());
            swap.body(&headers, &mut body);
            assert_eq!(body.data, expected, "{kind}");
        }
    }

    #[test]
    fn a_value_that_would_split_a_header_is_refused() {
        let secrets = uses("a\r\nx: y");
        let mut headers = HeaderMap::new();
        headers.insert("authorization", ONE.parse().unwrap());
        assert!(Swap::new(&secrets).headers(&mut headers).is_err());
    }

    #[test]
    fn a_placeholder_without_a_value_stays() {
        let mut query = format!("k={ONE}");
        Swap::new(&[]).query(&mut query);
        assert_eq!(query, format!("k={ONE}"));
    }
}
