//! How old an input is by its own word: where it says so, and what it said.
//!
//! What is read is a moment or nothing. An input that should say how old it is and does not counts
//! as older than everything, so that nobody makes it young by leaving the field out.

use serde::{Deserialize, Serialize};

/// Longest field, in bytes: a JSON pointer or `header:NAME`.
const FIELD_BYTES_MAX: usize = 256;
/// A number of seconds since 1970 from here on is taken for milliseconds.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// Where an answer says how old it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AsOfField {
    /// A JSON pointer into the body: `/account/updated_at`.
    Json(String),
    /// A header, in lower case: `header:Last-Modified`.
    Header(String),
}

impl From<AsOfField> for String {
    fn from(field: AsOfField) -> Self {
        match field {
            AsOfField::Json(pointer) => pointer,
            AsOfField::Header(name) => format!("header:{name}"),
        }
    }
}

impl TryFrom<String> for AsOfField {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let header = text.strip_prefix("header:").filter(|name| !name.is_empty());
        if text.len() > FIELD_BYTES_MAX {
            return Err(format!("it has more than {FIELD_BYTES_MAX} bytes"));
        }
        match header {
            Some(name) if name.bytes().all(token) => Ok(Self::Header(name.to_ascii_lowercase())),
            None if text.starts_with('/') => Ok(Self::Json(text)),
            _ => Err(format!(
                "'{text}': write a JSON pointer as \"/updated_at\", or \"header:Last-Modified\""
            )),
        }
    }
}

/// What an input said about its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AsOf {
    /// Wall milliseconds since 1970.
    At(u64),
    /// It should have said, and did not, or not so that it can be read.
    Unreadable,
}

impl AsOf {
    /// The moment an input counts from, when it came at `received_ms`: never later than that, and
    /// before everything when it cannot be read.
    #[must_use]
    pub fn counts_from(self, received_ms: u64) -> u64 {
        match self {
            Self::At(ms) => ms.min(received_ms),
            Self::Unreadable => 0,
        }
    }

    /// The older of two.
    #[must_use]
    pub fn older(self, other: Self) -> Self {
        if other.counts_from(u64::MAX) < self.counts_from(u64::MAX) { other } else { self }
    }

    /// From seconds since 1970, or milliseconds where the number is too large for seconds.
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        let seconds = number < MILLISECONDS_FROM;
        Self::At(if seconds { number.saturating_mul(1_000) } else { number })
    }

    /// From the value that a JSON pointer leads to: a number, or a date as in RFC 3339.
    #[must_use]
    pub fn of_json(value: Option<&serde_json::Value>) -> Self {
        use serde_json::Value;
        match value {
            Some(Value::Number(number)) => {
                number.as_u64().map_or(Self::Unreadable, Self::of_number)
            }
            Some(Value::String(text)) => rfc3339_ms(text).map_or(Self::Unreadable, Self::At),
            _ => Self::Unreadable,
        }
    }
}

/// Whether a host rule's key (`HOST` or `HOST/PATH`, `*` at its end for whatever follows) covers a
/// request's host and path.
#[must_use]
pub fn as_of_covers(key: &str, host: &str, path: &str) -> bool {
    let Some((of_host, of_path)) = key.split_once('/') else { return key == host };
    let path = path.strip_prefix('/').unwrap_or(path);
    of_host == host
        && match of_path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == of_path,
        }
}

/// `2026-11-21T18:30:00Z`, with a fraction or an offset, as milliseconds since 1970; `None` when it
/// is another form, no date, or before 1970.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| text[from..to].parse().ok()).flatten()
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|b| wanted.contains(b));
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    if !text.is_ascii() || !separated {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let fraction = text[19..].strip_prefix('.');
    let digits = fraction.map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if fraction.is_some() && digits == 0 {
        return None;
    }
    let zone = &text[19 + fraction.map_or(0, |_| digits + 1)..];
    let good = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    let seconds = seconds - offset_seconds(zone)?;
    good.then(|| u64::try_from(seconds).ok()?.checked_mul(1_000)).flatten()
}

/// `Z`, `+02:00`, `-11:30`.
fn offset_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match zone.as_bytes().first()? {
        b'+' => (1, &zone[1..]),
        b'-' => (-1, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !two(hours) || !two(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60)
}

const fn is_leap(year: i64) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

const fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of the Gregorian calendar from 1970-01-01.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const LEAP_DAYS_TO_1970: i64 = 477;
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - LEAP_DAYS_TO_1970;
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    (year - 1970) * 365 + leap_days + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_read_in_full_or_not_at_all() {
        let check = |value: serde_json::Value, expected: Option<u64>| {
            let expected = expected.map_or(AsOf::Unreadable, AsOf::At);
            assert_eq!(AsOf::of_json(Some(&value)), expected, "{value}");
        };
        check(json!("1970-01-01T00:00:00Z"), Some(0));
        check(json!("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        check(json!("2024-12-31T23:59:59.999Z"), Some(1_735_689_599_000));
        check(json!("2025-01-01T01:59:59+02:00"), Some(1_735_689_599_000));
        check(json!("2024-12-31 12:29:59-11:30"), Some(1_735_689_599_000));
        check(json!("2100-03-01t00:00:00z"), Some(4_107_542_400_000));
        check(json!(1_735_689_599), Some(1_735_689_599_000));
        check(json!(1_735_689_599_123_u64), Some(1_735_689_599_123));
        for bad in [
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00+2:00",
            "2024-01-01T00:00:00Z and more",
            "1969-12-31T23:59:59Z",
            "2024-01-01",
            "yesterday",
            "２024-01-01T00:00:00Z",
            "",
        ] {
            check(json!(bad), None);
        }
        check(json!(-1), None);
        check(json!(1.5), None);
        check(json!(null), None);
        assert_eq!(AsOf::of_json(None), AsOf::Unreadable);
    }

    #[test]
    fn nothing_is_younger_than_its_receipt_and_what_is_silent_is_oldest() {
        assert_eq!(AsOf::At(5).counts_from(9), 5);
        assert_eq!(AsOf::At(15).counts_from(9), 9);
        assert_eq!(AsOf::Unreadable.counts_from(9), 0);
        assert_eq!(AsOf::At(5).older(AsOf::At(3)), AsOf::At(3));
        assert_eq!(AsOf::At(5).older(AsOf::Unreadable), AsOf::Unreadable);
        assert_eq!(AsOf::Unreadable.older(AsOf::At(5)), AsOf::Unreadable);
    }

    #[test]
    fn a_field_is_a_pointer_or_a_header() {
        let check = |text: &str, expected: Option<AsOfField>| {
            assert_eq!(AsOfField::try_from(text.to_owned()).ok(), expected, "{text}");
        };
        check("/a/updated_at", Some(AsOfField::Json("/a/updated_at".to_owned())));
        check("header:Last-Modified", Some(AsOfField::Header("last-modified".to_owned())));
        for bad in ["updated_at", "header:", "header:a b", "", "Last-Modified"] {
            check(bad, None);
        }
        let of_bytes = |count: usize| format!("/{}", "x".repeat(count - 1));
        assert!(AsOfField::try_from(of_bytes(FIELD_BYTES_MAX)).is_ok());
        assert!(AsOfField::try_from(of_bytes(FIELD_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_rule_covers_its_host_and_path() {
        let check = |key: &str, path: &str, expected: bool| {
            assert_eq!(as_of_covers(key, "a.test", path), expected, "{key} {path}");
        };
        check("a.test", "/x", true);
        check("b.test", "/x", false);
        check("a.test/v1/*", "/v1/x", true);
        check("a.test/v1/*", "/v2/x", false);
        check("a.test/v1", "/v1", true);
        check("a.test/v1", "/v1/x", false);
        check("b.test/v1/*", "/v1/x", false);
    }
}
