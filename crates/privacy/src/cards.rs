//! Payment cards and IBANs.

use crate::ids::luhn;
use crate::kind::Kind;
use crate::marks::Context;
use crate::numbers::{Digits, Group, ends, matches_groups};

/// How card numbers are written.
const WRITTEN: [&[usize]; 10] = [
    &[16],
    &[4, 4, 4, 4],
    &[15],
    &[4, 6, 5],
    &[14],
    &[4, 6, 4],
    &[19],
    &[4, 4, 4, 4, 3],
    &[18],
    &[6, 13],
];

/// How many groups from here are a card number.
pub(crate) fn take(bytes: &[u8], groups: &[Group], context: &Context) -> Option<usize> {
    let is_card = |way: &&&[usize]| {
        matches_groups(groups, way, b" -")
            && ends(bytes, groups, way.len())
            && Digits::of(bytes, &groups[..way.len()])
                .is_some_and(|d| issued(d.all()) && luhn(d.all()))
    };
    // The first digits of all issuers are 1 (JCB in 15 digits) to 6, 8 and 9 (Troy).
    let lengths = matches!(groups[0].len(), 4 | 6 | 13..=16 | 18 | 19);
    if !lengths || matches!(bytes[groups[0].start], b'0' | b'7') {
        return None;
    }
    if let Some(way) = WRITTEN.iter().find(is_card) {
        return Some(way.len());
    }
    // Visa's old 13 digits look like any article number: only where a word speaks of a card.
    let old = groups[0].len() == 13 && context.says(Kind::Card, groups[0].start);
    let digits = old.then(|| Digits::of(bytes, &groups[..1]))??;
    (digits.all()[0] == 4 && luhn(digits.all()) && ends(bytes, groups, 1)).then_some(1)
}

/// Whether an issuer gives out numbers with this prefix in this length.
fn issued(digits: &[u8]) -> bool {
    let prefix = |length: usize| digits[..length].iter().fold(0, |n, d| n * 10 + u32::from(*d));
    match digits.len() {
        14 => matches!(prefix(3), 300..=305 | 309 | 360..=369 | 380..=399),
        15 => matches!(prefix(2), 34 | 37) || matches!(prefix(4), 2014 | 2149 | 1800 | 2131),
        16 => {
            matches!(prefix(1), 4)
                || matches!(prefix(2), 50..=58 | 60 | 62..=65 | 67 | 81 | 82)
                || matches!(prefix(4), 2200..=2204 | 2221..=2720 | 3528..=3589 | 9792)
        }
        18 => matches!(prefix(2), 50 | 56..=58 | 62 | 67),
        19 => matches!(prefix(2), 40..=49 | 50 | 56..=58 | 60 | 62 | 64 | 65 | 67),
        _ => false,
    }
}

/// Length of an IBAN by country.
const IBANS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// The end of the IBAN whose first word is `bytes[start..word_end]`, in one word or in groups with
/// single spaces or dashes.
pub(crate) fn iban(bytes: &[u8], start: usize, word_end: usize) -> Option<usize> {
    let word = &bytes[start..word_end];
    let check = word.get(2..4)?.iter().all(u8::is_ascii_digit);
    let country = [word[0].to_ascii_uppercase(), word[1].to_ascii_uppercase()];
    let (_, length) = IBANS.iter().find(|(known, _)| check && **known == country)?;
    let (mut at, mut count, mut remainder, mut head) = (start, 0, 0_u64, 0_u64);
    while count < *length {
        let b = *bytes.get(at)?;
        if b.is_ascii_alphanumeric() {
            let value = u64::from(char::from(b).to_digit(36)?);
            let shift = if value > 9 { 100 } else { 10 };
            let sum = if count < 4 { &mut head } else { &mut remainder };
            *sum = *sum * shift + value;
            remainder %= 97;
            count += 1;
        } else if !matches!(b, b' ' | b'-') || !bytes.get(at + 1)?.is_ascii_alphanumeric() {
            return None;
        }
        at += 1;
    }
    let whole = !bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    // The country and the check digits go to the end: six digits.
    let right = (remainder * 1_000_000 + head) % 97 == 1;
    (whole && right).then_some(at)
}
