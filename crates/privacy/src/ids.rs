//! National identity numbers: how they are written, and their check digits.

use crate::kind::Kind;
use std::sync::LazyLock;

/// How a number may be written, and when that alone is enough.
pub(crate) struct Written {
    /// Digits of each group.
    pub(crate) groups: &'static [usize],
    /// What may stand between the groups: ` `, `-`, `.`.
    pub(crate) between: &'static [u8],
    /// Whether a word before must say what it is: the check digit alone is too weak.
    pub(crate) needs_word: bool,
}

pub(crate) struct Id {
    pub(crate) kind: Kind,
    pub(crate) written: &'static [Written],
    /// Judges the digits (as numbers 0 to 9) without separators.
    pub(crate) valid: fn(&[u8]) -> bool,
}

const fn alone(groups: &'static [usize], between: &'static [u8]) -> Written {
    Written { groups, between, needs_word: false }
}

const fn with_word(groups: &'static [usize], between: &'static [u8]) -> Written {
    Written { groups, between, needs_word: true }
}

/// Those of digits only; the others are read word by word.
pub(crate) const IDS: &[Id] = &[
    Id {
        kind: Kind::FrNir,
        written: &[alone(&[15], b""), alone(&[13, 2], b" "), alone(&[1, 2, 2, 2, 3, 3, 2], b" ")],
        valid: |d| fr_nir(d, false),
    },
    Id { kind: Kind::CnResidentId, written: &[alone(&[18], b"")], valid: cn_resident_id },
    Id {
        kind: Kind::SePersonnummer,
        written: &[
            alone(&[6, 4], b"-+"),
            alone(&[8, 4], b"-+"),
            with_word(&[10], b""),
            with_word(&[12], b""),
        ],
        valid: se_personnummer,
    },
    Id { kind: Kind::FiHetu, written: &[alone(&[6, 4], b"-")], valid: fi_hetu_digits },
    Id {
        kind: Kind::BrCpf,
        written: &[alone(&[3, 3, 3, 2], b".-"), alone(&[11], b"")],
        valid: br_cpf,
    },
    Id {
        kind: Kind::DeTaxId,
        written: &[alone(&[11], b""), alone(&[2, 3, 3, 3], b" ")],
        valid: de_tax_id,
    },
    Id { kind: Kind::PlPesel, written: &[alone(&[11], b"")], valid: pl_pesel },
    Id {
        kind: Kind::InAadhaar,
        written: &[alone(&[4, 4, 4], b" "), alone(&[4, 4, 4], b"-"), with_word(&[12], b"")],
        valid: in_aadhaar,
    },
    Id {
        kind: Kind::UsSsn,
        written: &[alone(&[3, 2, 4], b"-"), with_word(&[3, 2, 4], b" "), with_word(&[9], b"")],
        valid: us_ssn,
    },
    Id {
        kind: Kind::UkNhs,
        written: &[alone(&[3, 3, 4], b" "), with_word(&[3, 3, 4], b"-"), with_word(&[10], b"")],
        valid: uk_nhs,
    },
    Id {
        kind: Kind::NlBsn,
        written: &[with_word(&[9], b""), with_word(&[4, 2, 3], b"."), with_word(&[3, 3, 3], b" ")],
        valid: nl_bsn,
    },
];

/// The ways of writing, by the length of the first group.
pub(crate) static BY_LENGTH: LazyLock<Vec<Vec<(&'static Id, &'static Written)>>> =
    LazyLock::new(|| {
        let all = || IDS.iter().flat_map(|id| id.written.iter().map(move |way| (id, way)));
        let of = |length| all().filter(|(_, way)| way.groups[0] == length).collect();
        (0..=LENGTH_MAX).map(of).collect()
    });

/// Longest first group of a national number.
const LENGTH_MAX: usize = 18;

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |n, d| n * 10 + u64::from(*d))
}

fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(d, w)| u32::from(*d) * w).sum()
}

fn all_same(digits: &[u8]) -> bool {
    digits.iter().all(|d| *d == digits[0])
}

pub(crate) fn luhn(digits: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { d * 2 - 9 } else { d * 2 };
    let digits = digits.iter().rev().enumerate();
    let sum: u32 =
        digits.map(|(at, d)| u32::from(if at % 2 == 1 { doubled(*d) } else { *d })).sum();
    sum.is_multiple_of(10)
}

fn is_date(month: u64, day: u64) -> bool {
    let days = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    (1..=12).contains(&month) && (1..=days[month as usize - 1]).contains(&day)
}

/// Germany: among the first ten digits exactly one comes twice or three times; ISO 7064 MOD 11,10.
fn de_tax_id(d: &[u8]) -> bool {
    let mut counts = [0; 10];
    d[..10].iter().for_each(|digit| counts[usize::from(*digit)] += 1);
    let repeated: Vec<_> = counts.iter().filter(|c| **c > 1).collect();
    if d[0] == 0 || repeated.len() != 1 || *repeated[0] > 3 {
        return false;
    }
    let product = d[..10].iter().fold(10, |product, digit| {
        let sum = (u32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == u32::from(d[10])
}

/// France: sex, year, month, place, order, key. `corsica` when the department is 2A or 2B, whose
/// letter the caller has put as 2A = 19, 2B = 18.
pub(crate) fn fr_nir(d: &[u8], corsica: bool) -> bool {
    let (sex, month, department) = (d[0], number(&d[3..5]), number(&d[5..7]));
    let plausible = matches!(sex, 1..=4 | 7 | 8)
        && matches!(month, 1..=12 | 20..=42 | 50..=99)
        && (corsica || matches!(department, 1..=99));
    plausible && 97 - number(&d[..13]) % 97 == number(&d[13..15])
}

/// China: date of birth, and ISO 7064 MOD 11-2; `X` is 10.
pub(crate) fn cn_resident_id(d: &[u8]) -> bool {
    let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let year = number(&d[6..10]);
    let plausible = (1..=9).contains(&d[0])
        && (1900..2100).contains(&year)
        && is_date(number(&d[10..12]), number(&d[12..14]));
    plausible && (12 - weighted(&d[..17], &weights) % 11) % 11 == u32::from(d[17])
}

/// Sweden: date (day plus 60 for a coordination number) and Luhn over the last ten digits.
fn se_personnummer(d: &[u8]) -> bool {
    let (century, ten) = d.split_at(d.len() - 10);
    let day = number(&ten[4..6]);
    let day = if day > 60 { day - 60 } else { day };
    let century = century.is_empty() || matches!(number(century), 18..=20);
    century && is_date(number(&ten[2..4]), day) && luhn(ten)
}

/// Finland: date, individual number, a check character from the remainder by 31.
pub(crate) fn fi_hetu(digits: &[u8], check: u8) -> bool {
    const CHECKS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    let individual = number(&digits[6..9]);
    is_date(number(&digits[2..4]), number(&digits[..2]))
        && (2..=999).contains(&individual)
        && CHECKS[(number(&digits[..9]) % 31) as usize] == check
}

fn fi_hetu_digits(d: &[u8]) -> bool {
    fi_hetu(&d[..9], b'0' + d[9])
}

/// Brazil: two check digits.
fn br_cpf(d: &[u8]) -> bool {
    let check = |length: usize| {
        let weights: Vec<u32> = (2..=length as u32 + 1).rev().collect();
        let rest = weighted(&d[..length], &weights) * 10 % 11 % 10;
        rest == u32::from(d[length])
    };
    !all_same(d) && check(9) && check(10)
}

/// Poland: date with the century in the month, weights.
fn pl_pesel(d: &[u8]) -> bool {
    let sum = weighted(&d[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    is_date(number(&d[2..4]) % 20, number(&d[4..6])) && (10 - sum % 10) % 10 == u32::from(d[10])
}

/// India: the scheme of Verhoeff.
fn in_aadhaar(d: &[u8]) -> bool {
    // The dihedral group of ten elements, and the permutation of each place.
    let times = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + (b - 5)) % 5 + 5,
        (false, true) => (a - 5 + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let permuted = |place: usize, digit: u8| {
        (0..place % 8).fold(digit, |d, _| [1, 5, 7, 6, 2, 8, 3, 0, 9, 4][usize::from(d)])
    };
    let digits = d.iter().rev().enumerate();
    let check = digits.fold(0, |check, (place, digit)| times(check, permuted(place, *digit)));
    d[0] >= 2 && !all_same(d) && check == 0
}

/// United States: no check digit, but ranges that are never given out, and those known from
/// advertisements.
fn us_ssn(d: &[u8]) -> bool {
    let (area, group, serial) = (number(&d[..3]), number(&d[3..5]), number(&d[5..]));
    let never = area == 0 || area == 666 || area >= 900 || group == 0 || serial == 0;
    !never && !matches!(number(d), 78_051_120 | 219_099_999 | 123_456_789) && !all_same(d)
}

/// United Kingdom: weights 10 to 2.
fn uk_nhs(d: &[u8]) -> bool {
    let check = 11 - weighted(&d[..9], &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    !all_same(d) && check % 11 == u32::from(d[9])
}

/// Netherlands: the eleven test with the last digit counted negatively.
fn nl_bsn(d: &[u8]) -> bool {
    let sum = weighted(&d[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) + 11 * 11 - u32::from(d[8]);
    !all_same(d) && sum.is_multiple_of(11)
}

/// Spain: the letter is the remainder by 23; a foreigner's X, Y, Z stand for 0, 1, 2.
pub(crate) fn es_dni(digits: &[u8], letter: u8) -> bool {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    number(digits) > 0 && LETTERS[(number(digits) % 23) as usize] == letter
}

/// Italy: 6 letters, 2 digits, month letter, 2 digits, place, check letter. Digits may be replaced
/// by letters to tell two people apart.
pub(crate) fn it_fiscal_code(code: &[u8]) -> bool {
    const ODD: [u8; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let letter = |at: usize| code[at].is_ascii_uppercase();
    let digit = |at: usize| code[at].is_ascii_digit() || b"LMNPQRSTUV".contains(&code[at]);
    let shape = code.len() == 16
        && [0, 1, 2, 3, 4, 5, 11, 15].into_iter().all(letter)
        && [6, 7, 9, 10, 12, 13, 14].into_iter().all(digit)
        && b"ABCDEHLMPRST".contains(&code[8]);
    if !shape {
        return false;
    }
    let value = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'A' };
    let places = code[..15].iter().enumerate();
    let sum: u32 = places
        .map(|(at, b)| u32::from(if at % 2 == 0 { ODD[usize::from(value(*b))] } else { value(*b) }))
        .sum();
    code[15] == b'A' + (sum % 26) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples that the offices which give the numbers out have published, or common ones.
    #[test]
    fn published_examples_are_valid_and_fail_with_one_digit_changed() {
        let examples = [
            (Kind::DeTaxId, "86095742719"),
            (Kind::DeTaxId, "47036892816"),
            (Kind::PlPesel, "44051401359"),
            (Kind::BrCpf, "52998224725"),
            (Kind::FrNir, "255081416802538"),
            (Kind::CnResidentId, "110101199003070134"),
            (Kind::SePersonnummer, "8112189876"),
            (Kind::UkNhs, "9434765919"),
            (Kind::NlBsn, "111222333"),
            (Kind::InAadhaar, "234123412346"),
        ];
        for (kind, text) in examples {
            let id = IDS.iter().find(|id| id.kind == kind).unwrap();
            let digits: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
            assert!((id.valid)(&digits), "{kind} {text}");
            let mut wrong = digits;
            let last = wrong.len() - 1;
            wrong[last] = (wrong[last] + 1) % 10;
            assert!(!(id.valid)(&wrong), "{kind} {wrong:?}");
        }
    }

    #[test]
    fn numbers_with_letters() {
        let digits = |text: &str| -> Vec<u8> { text.bytes().map(|b| b - b'0').collect() };
        assert!(es_dni(&digits("12345678"), b'Z') && !es_dni(&digits("12345678"), b'A'));
        assert!(fi_hetu(&digits("131052308"), b'T') && !fi_hetu(&digits("131052308"), b'U'));
        assert!(it_fiscal_code(b"RSSMRA85T10A562S") && !it_fiscal_code(b"RSSMRA85T10A562T"));
        assert!(!us_ssn(&digits("666123456")) && !us_ssn(&digits("123006789")));
        assert!(us_ssn(&digits("536904399")));
    }
}
