//! Telephone numbers: E.164, and as people of several countries write them.
//!
//! A number with a country code needs no word before it. One without is taken when its groups are
//! those of a country's custom; one in a single block, or in groups that amounts of money share,
//! only when a word before speaks of a telephone.

use crate::kind::Kind;
use crate::marks::Context;
use crate::numbers::{Between, Group};

/// Fewest digits of one number.
const DIGITS_MIN: usize = 7;
/// Most groups of one number.
const GROUPS_MAX: usize = 7;

/// Country codes of one and two digits; those of three start with the pairs in [`TRIPLES`].
const SHORT: [u32; 46] = [
    1, 7, 20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54,
    55, 56, 57, 58, 60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
];
const TRIPLES: [u32; 16] = [21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 85];
const TRIPLES_OF_ASIA: [u32; 4] = [88, 96, 97, 99];

/// Digits of a whole number, country code included, by country code.
fn whole_lengths(code: u32) -> std::ops::RangeInclusive<usize> {
    match code {
        1 | 7 | 31 | 33 | 34 | 48 | 61 => 11..=11,
        39 => 10..=13,
        43 | 49 => 10..=14,
        44 | 90 | 91 => 11..=12,
        46 => 9..=12,
        55 => 12..=13,
        81 | 82 => 11..=12,
        86 => 11..=13,
        351 | 966 | 971 => 11..=12,
        100.. => 10..=13,
        _ => 10..=13,
    }
}

/// Groups of national numbers with their leading 0.
const TRUNK: &[&[usize]] = &[
    &[2, 2, 2, 2, 2],
    &[3, 6],
    &[3, 7],
    &[3, 8],
    &[4, 6],
    &[4, 7],
    &[4, 8],
    &[5, 5],
    &[5, 6],
    &[4, 3, 4],
    &[4, 4, 3],
    &[3, 4, 4],
    &[3, 3, 4],
    &[2, 4, 4],
    &[2, 8],
    &[4, 2, 4],
    &[5, 3, 3],
    &[4, 3, 3],
    &[4, 3, 2, 2],
    &[3, 3, 2, 2],
    &[3, 2, 2, 2],
    &[3, 2, 2, 3],
    &[2, 3, 2, 2],
    &[2, 3, 3, 2],
    &[4, 2, 2, 2],
    &[3, 3, 3],
    &[4, 3, 4],
    &[3, 2, 2, 2, 2],
    &[2, 3, 4],
    &[2, 2, 2, 2, 2, 2],
    &[3, 4, 3],
    &[4, 2, 2, 3],
];

/// How many groups from here are a telephone number.
pub(crate) fn take(bytes: &[u8], groups: &[Group], context: &Context) -> Option<usize> {
    let groups = &groups[..groups.len().min(GROUPS_MAX)];
    crate::work::add(groups.len());
    let mut lengths = groups.iter().scan(true, |joined, group| {
        let length = joined.then_some(group.len());
        *joined &= group.after != Between::End;
        length
    });
    lengths.try_fold(0, |sum, l| if sum + l < DIGITS_MIN { Ok(sum + l) } else { Err(()) }).err()?;
    let first = &bytes[groups[0].start..groups[0].end];
    if groups[0].before == b'+' {
        let sign = groups[0].start.checked_sub(2).map(|at| bytes[at]);
        let escape = bytes[..groups[0].start - 1].ends_with(b"\\t")
            || bytes[..groups[0].start - 1].ends_with(b"\\n");
        let sum = sign.is_some_and(|b| b.is_ascii_alphanumeric()) && !escape;
        return if sum { None } else { international(bytes, groups, 0) };
    }
    let continues = bytes[..groups[0].start].ends_with(b" ")
        && groups[0].start > 1
        && bytes[groups[0].start - 2].is_ascii_digit();
    if first.starts_with(b"00") && first.len() > 3 && !continues {
        let spoken = groups.len() > 1 || context.says(Kind::Phone, groups[0].start);
        if let Some(taken) = spoken.then(|| international(bytes, groups, 2)).flatten() {
            return Some(taken);
        }
    }
    let spoken = context.says(Kind::Phone, groups[0].start);
    north_american(bytes, groups, spoken)
        .or_else(|| with_trunk(bytes, groups, spoken))
        .or_else(|| by_custom(bytes, groups, spoken))
}

/// With a country code, behind `+` or `skip` zeros.
fn international(bytes: &[u8], groups: &[Group], skip: usize) -> Option<usize> {
    let digits = |group: &Group| &bytes[group.start..group.end];
    let all = groups.iter().flat_map(digits).skip(skip).take(3);
    let start = all.fold(0, |n, b| n * 10 + u32::from(b - b'0'));
    let code = country(start)?;
    let lengths = whole_lengths(code);
    let (mut count, mut best) = (0, None);
    for (at, group) in groups.iter().enumerate() {
        // The 0 in `+44 (0)20` is not dialled from abroad.
        let optional = group.before == b'(' && digits(group) == b"0";
        count += if optional { 0 } else { group.len() };
        if count > skip + lengths.end() {
            break;
        }
        if count >= skip + lengths.start() {
            best = Some(at + 1);
        }
        let joined =
            matches!(group.after, Between::One(b' ' | b'-' | b'.' | b'/') | Between::Bracket);
        if !joined {
            break;
        }
    }
    best
}

/// The country code that three digits start with.
fn country(three: u32) -> Option<u32> {
    let (one, two) = (three / 100, three / 10);
    if one == 0 {
        return None;
    }
    if matches!(one, 1 | 7) {
        return Some(one);
    }
    if SHORT.contains(&two) {
        return Some(two);
    }
    (TRIPLES.contains(&two) || TRIPLES_OF_ASIA.contains(&two) && three != 999).then_some(three)
}

fn lengths_are(groups: &[Group], lengths: &[usize]) -> bool {
    groups.len() >= lengths.len() && groups.iter().zip(lengths).all(|(g, l)| g.len() == *l)
}

/// Whether so many groups are joined by one kind of separator, and no further digits follow.
fn joined(groups: &[Group], count: usize, separators: &[u8]) -> bool {
    let inner = &groups[..count - 1];
    let one = |g: &Group| matches!(g.after, Between::One(b) if separators.contains(&b));
    let ends = match groups[count - 1].after {
        Between::One(b' ') => {
            groups.get(count).is_none_or(|next| next.len() > 4 || next.len() == 1)
        }
        Between::One(_) | Between::Bracket => false,
        Between::End => true,
    };
    inner.iter().all(one) && ends
}

/// `(415) 555-2671`, `415-555-2671`, `1-415-555-2671`; with spaces or in one block when spoken of.
fn north_american(bytes: &[u8], groups: &[Group], spoken: bool) -> Option<usize> {
    let one = bytes[groups[0].start..groups[0].end] == *b"1";
    let skip = usize::from(one && groups.len() > 1);
    let rest = &groups[skip..];
    let leads = |g: &Group| matches!(bytes[g.start], b'2'..=b'9');
    if rest[0].len() == 10 && spoken && leads(&rest[0]) && joined(rest, 1, b"") {
        return Some(1 + skip);
    }
    if !lengths_are(rest, &[3, 3, 4]) || !leads(&rest[0]) || !leads(&rest[1]) {
        return None;
    }
    let bracket = rest[0].before == b'('
        && rest[0].after == Between::Bracket
        && matches!(rest[1].after, Between::One(b'-' | b' ' | b'.'));
    let dashed = joined(rest, 3, b"-") || joined(rest, 3, b".");
    let spaced = joined(rest, 3, b" ") && (spoken || skip == 1);
    (bracket || dashed || spaced).then_some(3 + skip)
}

/// National numbers with a leading 0.
fn with_trunk(bytes: &[u8], groups: &[Group], spoken: bool) -> Option<usize> {
    let first = &bytes[groups[0].start..groups[0].end];
    if first[0] != b'0' || first.get(1).is_some_and(|b| *b == b'0') {
        return None;
    }
    if spoken && (9..=12).contains(&first.len()) && joined(groups, 1, b"") {
        return Some(1);
    }
    let bracket = groups[0].before == b'(' && groups[0].after == Between::Bracket;
    let ways = TRUNK.iter().filter(|way| lengths_are(groups, way));
    let fits = |way: &&&[usize]| {
        let rest = &groups[usize::from(bracket)..];
        let count = way.len() - usize::from(bracket);
        // `089/123 456` and `070-123 45 67`: the first separator may be another.
        let mixed = matches!(groups[0].after, Between::One(b'/' | b'-'))
            && way.len() > 2
            && joined(&groups[1..], way.len() - 1, b" ");
        let plain = [&b" "[..], b"-", b"/", b"."].iter().any(|s| joined(rest, count, s));
        let dotted = groups[0].after == Between::One(b'.') && way.len() < 4;
        (plain && !dotted) || mixed
    };
    ways.into_iter().filter(fits).map(|way| way.len()).max()
}

/// Without a leading 0, as some countries write; most of it only where a word speaks of it.
fn by_custom(bytes: &[u8], groups: &[Group], spoken: bool) -> Option<usize> {
    let first = &bytes[groups[0].start..groups[0].end];
    let bracket = groups[0].before == b'(' && groups[0].after == Between::Bracket;
    // Brazil: (11) 98765-4321. Russia: 8 (912) 345-67-89.
    if bracket
        && (lengths_are(groups, &[2, 5, 4]) || lengths_are(groups, &[2, 4, 4]))
        && joined(&groups[1..], 2, b"-")
    {
        return Some(3);
    }
    let russian = lengths_are(groups, &[1, 3, 3, 2, 2]) && matches!(first, b"8" | b"7");
    let bracketed = groups[0].after == Between::Bracket && joined(groups.get(2..)?, 3, b"-");
    if russian && (bracketed || joined(groups, 5, b"-") || joined(groups, 5, b" ")) {
        return Some(5);
    }
    let chinese = lengths_are(groups, &[3, 4, 4]) && first[0] == b'1' && first[1] > b'2';
    if chinese && (joined(groups, 3, b" ") || joined(groups, 3, b"-")) {
        return Some(3);
    }
    let indian = lengths_are(groups, &[5, 5]) && first[0] > b'5' && joined(groups, 2, b" -");
    if indian {
        return Some(2);
    }
    if !spoken || groups[0].before == b'/' {
        return None;
    }
    // Told to be a telephone number: any block or groups of seven to thirteen digits.
    let mut count = 0;
    for taken in 1..=groups.len() {
        count += groups[taken - 1].len();
        let separators: &[&[u8]] = &[b" ", b"-", b"."];
        let whole = separators.iter().any(|s| joined(groups, taken, s));
        if whole
            && (DIGITS_MIN..=13).contains(&count)
            && groups[..taken].iter().all(|g| g.len() > 1)
        {
            return Some(taken);
        }
    }
    None
}
