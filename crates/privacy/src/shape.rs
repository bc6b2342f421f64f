//! What pseudonyms look like: each is a fixed prefix, a tail of fixed length that nobody can
//! guess, and a fixed suffix.
//!
//! They are chosen so that tools which parse them go on working and nothing real is met:
//!
//! | for | shape | why it meets nothing |
//! |---|---|---|
//! | e-mail | `person-TAIL@pseudonym.invalid` | `.invalid` never resolves (RFC 2606) |
//! | telephone | `+999` and 12 digits | the country code is reserved |
//! | card | `9999` and 12 digits | no issuer has the prefix, and the check digit is wrong |
//! | IBAN | `XX00TAIL` | no country, and `00` is never a check digit |
//! | IPv4, IPv6 | `100::` and 64 bits | the discard-only prefix (RFC 6666) |
//! | hardware address | `f2:` and 40 bits | locally administered |
//! | an integer in JSON | `8990` and 12 digits | exact as a double, no issuer's prefix |
//! | all else | `pseudonym-KIND-TAIL` | a word |
//!
//! Always: no shape is the beginning of another, so at one place at most one of them stands.

use crate::kind::Kind;
use std::sync::LazyLock;

/// Longest pseudonym, in bytes: what a stream holds back at most.
pub const PSEUDONYM_BYTES_MAX: usize = 48;

/// Letters of a tail: 12 of them have 60 bits.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const CAPITALS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DIGITS: &[u8; 10] = b"0123456789";
const HEX: &[u8; 16] = b"0123456789abcdef";

const WORD: &str = "pseudonym-";

/// In `tail`, `a` stands for a letter, `A` for a capital, `0` for a digit, `f` for a hexadecimal
/// digit; `:` for itself.
struct Shape {
    prefix: String,
    tail: &'static str,
    suffix: &'static str,
}

static FIXED: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let of = |prefix: &str, tail, suffix| Shape { prefix: prefix.to_owned(), tail, suffix };
    vec![
        of("person-", "aaaaaaaaaaaa", "@pseudonym.invalid"),
        of("+999", "000000000000", ""),
        of("9999", "000000000000", ""),
        of("XX00", "AAAAAAAAAAAAAAAA", ""),
        of("100::", "ffff:ffff:ffff:ffff", ""),
        of("f2:", "ff:ff:ff:ff:ff", ""),
        of("8990", "000000000000", ""),
    ]
});
const CARD: usize = 2;
const INTEGER: usize = 6;

static WORDS: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let of =
        |kind: &Kind| Shape { prefix: format!("{WORD}{kind}-"), tail: "aaaaaaaaaaaa", suffix: "" };
    Kind::ALL.iter().map(of).collect()
});

/// Whether a pseudonym stands at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// None does.
    No,
    /// The bytes end too early to tell.
    Partial,
    /// One does, of this many bytes.
    Whole(usize),
}

/// The bytes with which a pseudonym starts, and those that come second.
const FIRST: [bool; 256] = among(b"p+9X1f8");
const SECOND: [bool; 256] = among(b"se9X02");

const fn among(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
}

/// The next place from `at` where a pseudonym may start, or the end of the text.
pub(crate) fn next_start(text: &[u8], at: usize) -> usize {
    let second = |place: usize| text.get(place + 1).is_none_or(|b| SECOND[usize::from(*b)]);
    let mut from = at;
    while let Some(step) = text[from..].iter().position(|b| FIRST[usize::from(*b)]) {
        if second(from + step) {
            return from + step;
        }
        from += step + 1;
    }
    text.len()
}

/// Whether a pseudonym of any run stands at the start of `text`.
pub(crate) fn match_at(text: &[u8]) -> Match {
    if next_start(&text[..text.len().min(2)], 0) != 0 || text.is_empty() {
        return Match::No;
    }
    match_shapes(text)
}

fn match_shapes(text: &[u8]) -> Match {
    let fixed = FIXED.iter().map(|shape| shape.match_at(text));
    let fixed = fixed.fold(Match::No, Match::or);
    if fixed != Match::No || !common_start(text, WORD.as_bytes()) {
        return fixed;
    }
    WORDS.iter().map(|shape| shape.match_at(text)).fold(Match::No, Match::or)
}

/// The pseudonym of a kind with the tail that `random` gives; `integer` for one in JSON.
pub(crate) fn write(kind: Kind, integer: bool, random: &[u8; 32]) -> String {
    let shape = match kind {
        _ if integer => &FIXED[INTEGER],
        Kind::Email => &FIXED[0],
        Kind::Phone => &FIXED[1],
        Kind::Card => &FIXED[CARD],
        Kind::Iban => &FIXED[3],
        Kind::Ipv4 | Kind::Ipv6 => &FIXED[4],
        Kind::Mac => &FIXED[5],
        kind => &WORDS[kind as usize],
    };
    let mut text = shape.prefix.clone();
    for (class, byte) in shape.tail.bytes().zip(random) {
        let letter = match alphabet(class) {
            Some(letters) => letters[usize::from(*byte) % letters.len()],
            None => class,
        };
        text.push(char::from(letter));
    }
    text += shape.suffix;
    if kind == Kind::Card && !integer {
        spoil_check_digit(&mut text, random[31]);
    }
    assert_eq!(match_at(text.as_bytes()), Match::Whole(text.len()), "a pseudonym has its shape");
    text
}

/// Whether one is the beginning of the other.
fn common_start(a: &[u8], b: &[u8]) -> bool {
    let shorter = a.len().min(b.len());
    a[..shorter] == b[..shorter]
}

fn alphabet(class: u8) -> Option<&'static [u8]> {
    match class {
        b'a' => Some(LETTERS),
        b'A' => Some(CAPITALS),
        b'0' => Some(DIGITS),
        b'f' => Some(HEX),
        _ => None,
    }
}

/// Replaces the last digit by one with which Luhn's sum is wrong.
fn spoil_check_digit(card: &mut String, random: u8) {
    card.pop();
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let digits = card.bytes().rev().map(|b| u32::from(b - b'0')).enumerate();
    let sum: u32 = digits.map(|(at, d)| if at % 2 == 0 { doubled(d) } else { d }).sum();
    let right = (10 - sum % 10) % 10;
    let wrong = (right + 1 + u32::from(random) % 9) % 10;
    card.push(char::from_digit(wrong, 10).expect("a remainder by 10 is a digit"));
}

impl Shape {
    fn match_at(&self, text: &[u8]) -> Match {
        let (prefix, suffix) = (self.prefix.as_bytes(), self.suffix.as_bytes());
        if !common_start(text, prefix) {
            return Match::No;
        }
        let rest = text.get(prefix.len()..).unwrap_or_default();
        let fits = |(class, byte): (u8, &u8)| match alphabet(class) {
            Some(letters) => letters.contains(byte),
            None => class == *byte,
        };
        if !self.tail.bytes().zip(rest).all(fits) {
            return Match::No;
        }
        let rest = rest.get(self.tail.len()..).unwrap_or_default();
        let whole = prefix.len() + self.tail.len() + suffix.len();
        match common_start(rest, suffix) {
            false => Match::No,
            true if text.len() >= whole => Match::Whole(whole),
            true => Match::Partial,
        }
    }
}

impl Match {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, other) => other,
            (found, _) => found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_shape_that_is_found_and_no_longer_than_the_limit() {
        for kind in Kind::ALL {
            for integer in [false, true] {
                for seed in 0..20 {
                    let text = write(*kind, integer, &[seed * 13; 32]);
                    assert!(text.len() <= PSEUDONYM_BYTES_MAX, "{text}");
                    for cut in 1..text.len() {
                        assert_eq!(match_at(&text.as_bytes()[..cut]), Match::Partial, "{text}");
                    }
                    let longer = format!("{text}9");
                    assert_eq!(match_at(longer.as_bytes()), Match::Whole(text.len()));
                }
            }
        }
    }

    #[test]
    fn no_shape_begins_another() {
        let all: Vec<_> = FIXED.iter().chain(WORDS.iter()).collect();
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                let (a, b) = (a.prefix.as_bytes(), b.prefix.as_bytes());
                assert!(!common_start(a, b), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn other_text_is_none() {
        for text in ["", "x", "person-AAAAAAAAAAAA@", "+998", "pseudonym-dog-", "f2:gg", "101"] {
            assert_eq!(match_at(text.as_bytes()), Match::No, "{text}");
        }
        let integer = write(Kind::Card, true, &[255; 32]);
        assert!(integer.parse::<u64>().unwrap() < 1 << 53, "exact as a double");
        let ip = write(Kind::Ipv4, false, &[3; 32]);
        assert!(ip.parse::<std::net::Ipv6Addr>().is_ok(), "{ip}");
    }
}
