//! Numbers that mean something: the walk over words with digits and groups of digits.
//!
//! A *run* is a sequence of groups of digits with single separators between. Each recogniser looks
//! at the groups from one place and says how many it takes. What is written like a date is passed
//! over first. Numbers are found only as whole groups: a part of a longer number is none.

use crate::address;
use crate::cards;
use crate::detect::Found;
use crate::ids::{self, Written};
use crate::kind::{Confidence, Kind};
use crate::marks::Context;
use crate::phones;
use crate::work;
use std::net::Ipv4Addr;

/// Longest number that is anything, in digits.
pub(crate) const DIGITS_MAX: usize = 24;

/// Fewest digits of anything but an IPv4 address: those before the sign in a Finnish number.
const DIGITS_MIN: usize = 6;

/// What stands behind a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    /// Another group does not follow.
    End,
    /// One separator; any kind of space is b' '.
    One(u8),
    /// `(`, `)`, with or without a space: only in telephone numbers.
    Bracket,
}

/// Digits with nothing alphanumeric around them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) after: Between,
    /// The byte before, 0 at the start of the text.
    pub(crate) before: u8,
}

impl Group {
    pub(crate) const fn len(&self) -> usize {
        self.end - self.start
    }
}

/// The digits of some groups, as numbers 0 to 9.
pub(crate) struct Digits {
    digits: [u8; DIGITS_MAX],
    count: usize,
}

impl Digits {
    /// None when there are more than [`DIGITS_MAX`].
    pub(crate) fn of(bytes: &[u8], groups: &[Group]) -> Option<Self> {
        let mut all = Self { digits: [0; DIGITS_MAX], count: 0 };
        for group in groups {
            for b in bytes.get(group.start..group.end)? {
                *all.digits.get_mut(all.count)? = b.checked_sub(b'0')?;
                all.count += 1;
            }
        }
        Some(all)
    }

    pub(crate) fn all(&self) -> &[u8] {
        &self.digits[..self.count]
    }
}

/// The walk through the numbers of one text.
pub(crate) struct Walk<'a> {
    text: &'a str,
    bytes: &'a [u8],
    context: &'a Context,
    groups: Vec<Group>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(text: &'a str, context: &'a Context) -> Self {
        Self { text, bytes: text.as_bytes(), context, groups: Vec::new() }
    }

    /// Looks at the word around the first digit of it, and at what belongs to it; returns where to
    /// go on, always behind `at`.
    pub(crate) fn word(&mut self, at: usize, found: &mut Found) -> usize {
        let alphanumeric = |b: &&u8| b.is_ascii_alphanumeric();
        let start = at - self.bytes[..at].iter().rev().take_while(alphanumeric).count();
        let end = at + self.bytes[at..].iter().take_while(alphanumeric).count();
        work::add(end - start);
        let pure = start == at && self.bytes[at..end].iter().all(u8::is_ascii_digit);
        if end - start == 2
            && let Some(end) = address::dashes(self.text, start, found)
        {
            return end;
        }
        if !pure {
            return self.mixed(start, end, found).unwrap_or(end).max(end);
        }
        self.read_run(start);
        let mut next = self.groups.last().map_or(end, |group| group.end);
        // Too little for anything: most numbers in any text.
        let digits: usize = self.groups.iter().take(4).map(Group::len).sum();
        if digits < DIGITS_MIN && self.groups.len() < 4 {
            return next;
        }
        let mut first = 0;
        while first < self.groups.len() {
            let (taken, reach) = self.recognise(first, found);
            next = next.max(reach);
            first += taken.max(1);
        }
        next
    }

    /// Reads the groups of the run that starts here.
    fn read_run(&mut self, start: usize) {
        self.groups.clear();
        let mut at = start;
        loop {
            let rest = &self.bytes[at..];
            let length = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let end = at + length;
            let whole = !self.bytes.get(end).is_some_and(u8::is_ascii_alphanumeric);
            if length == 0 || !whole {
                break;
            }
            let before = at.checked_sub(1).map_or(0, |at| self.bytes[at]);
            let (after, step) = between(&self.bytes[end..]);
            self.groups.push(Group { start: at, end, after, before });
            at = end + step;
            if after == Between::End {
                return;
            }
        }
        if let Some(last) = self.groups.last_mut() {
            last.after = Between::End;
        }
    }

    /// How many groups from `first` are something, and how far that reaches.
    fn recognise(&self, first: usize, found: &mut Found) -> (usize, usize) {
        work::add(1);
        let groups = &self.groups[first..];
        let start = groups[0].start;
        if self.is_part(start) {
            return (1, 0);
        }
        if let Some(taken) = self.ipv4(groups, found) {
            return (taken, 0);
        }
        if is_date(self.bytes, groups) {
            return (3, 0);
        }
        if let Some(end) = self.with_letter(groups, found) {
            return (1, end);
        }
        let Some((kind, taken)) = self.number(groups) else { return (1, 0) };
        let plus = groups[0].before == b'+' || (kind == Kind::Phone && groups[0].before == b'(');
        let (start, end) = (start - usize::from(plus), groups[taken - 1].end);
        let sure = if kind == Kind::Phone || kind == Kind::UsSsn {
            Confidence::Likely
        } else {
            Confidence::Certain
        };
        found.add(start, end, kind, sure);
        (taken, 0)
    }

    /// What the groups are and how many of them, by their own digits and the words before.
    fn number(&self, groups: &[Group]) -> Option<(Kind, usize)> {
        let start = groups[0].start;
        if let Some(taken) = cards::take(self.bytes, groups, self.context) {
            return Some((Kind::Card, taken));
        }
        let phone = || Some((Kind::Phone, phones::take(self.bytes, groups, self.context)?));
        let Some(id) = self.id(groups) else { return phone() };
        // The word right before decides between what a number could be.
        let called = groups[0].before == b'+' || self.context.nearest(start) == Some(Kind::Phone);
        called.then(phone).flatten().or(Some(id))
    }

    /// Whether a number here continues one before: the fraction of a decimal, a part of a code.
    fn is_part(&self, start: usize) -> bool {
        let before = |back: usize| start.checked_sub(back).map(|at| self.bytes[at]);
        matches!(before(1), Some(b'.' | b'-')) && before(2).is_some_and(|b| b.is_ascii_digit())
    }

    /// Whether a group of four with a space or dash stands before: what has groups of four and a
    /// weak check would be found in the middle of longer numbers.
    fn continues_fours(&self, start: usize) -> bool {
        let before = start.checked_sub(5).map(|at| &self.bytes[at..start]);
        matches!(before, Some([fours @ .., b' ' | b'-']) if fours.iter().all(u8::is_ascii_digit))
    }

    /// A national number of digits only; one that a word speaks of first.
    fn id(&self, groups: &[Group]) -> Option<(Kind, usize)> {
        let start = groups[0].start;
        let mut unnamed = None;
        let ways = ids::BY_LENGTH.get(groups[0].len()).map_or(&[][..], Vec::as_slice);
        for (id, way) in ways {
            if !self.is_written(id, way, groups) {
                continue;
            }
            let found = Some((id.kind, way.groups.len()));
            if self.context.says(id.kind, start) {
                return found;
            }
            let weak = id.kind == Kind::InAadhaar && self.continues_fours(start);
            if !way.needs_word && !weak {
                unnamed = unnamed.or(found);
            }
        }
        unnamed
    }

    fn is_written(&self, id: &ids::Id, way: &Written, groups: &[Group]) -> bool {
        matches_groups(groups, way.groups, way.between)
            && ends(self.bytes, groups, way.groups.len())
            && Digits::of(self.bytes, &groups[..way.groups.len()])
                .is_some_and(|digits| (id.valid)(digits.all()))
    }

    fn ipv4(&self, groups: &[Group], found: &mut Found) -> Option<usize> {
        let dotted = |g: &Group| g.after == Between::One(b'.');
        if groups.len() < 4 || !groups[..3].iter().all(dotted) || dotted(&groups[3]) {
            return None;
        }
        let (start, end) = (groups[0].start, groups[3].end);
        let address = self.text[start..end].parse::<Ipv4Addr>().ok()?;
        let before = |back: usize| start.checked_sub(back).map(|at| self.bytes[at]);
        let letter = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphabetic());
        // `Name/1.2.3.4`, `name-1.2.3.4` and what is called a version are none.
        let product = matches!(before(1), Some(b'/' | b'-' | b'_' | b'=' | b'^' | b'~'))
            && letter(before(2))
            && before(1) != Some(b'=');
        let suffix = matches!(self.bytes.get(end), Some(b'-' | b'+' | b'_'))
            && self.bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic);
        if !product && !suffix && address::is_ipv4(address) && !self.context.says_version(start) {
            found.add(start, end, Kind::Ipv4, Confidence::Certain);
        }
        Some(4)
    }

    /// Eight digits and a letter with a dash (Spain), or six digits, a sign and four characters
    /// (Finland): the first group is of digits only.
    fn with_letter(&self, groups: &[Group], found: &mut Found) -> Option<usize> {
        let group = groups[0];
        let digits =
            matches!(group.len(), 6 | 8).then(|| Digits::of(self.bytes, &groups[..1]))??;
        let rest = &self.bytes[group.end..];
        let ends = |at: usize| !rest.get(at).is_some_and(u8::is_ascii_alphanumeric);
        if group.len() == 8
            && matches!(rest, [b'-' | b' ', letter, ..] if ends(2) && ids::es_dni(digits.all(), *letter))
        {
            let end = group.end + 2;
            found.add(group.start, end, Kind::EsDni, Confidence::Certain);
            return Some(end);
        }
        if group.len() == 6
            && matches!(rest.first(), Some(b'-' | b'+'))
            && ends(5)
            && rest.len() > 4
        {
            return self.hetu(group.start, group.end + 5, found);
        }
        None
    }

    fn hetu(&self, start: usize, end: usize, found: &mut Found) -> Option<usize> {
        let code = &self.bytes[start..end];
        let mut digits = [0; 9];
        for (place, b) in digits.iter_mut().zip(code[..6].iter().chain(&code[7..10])) {
            *place = b.is_ascii_digit().then(|| b - b'0')?;
        }
        let valid = ids::fi_hetu(&digits, code[10].to_ascii_uppercase());
        valid.then(|| found.add(start, end, Kind::FiHetu, Confidence::Certain))?;
        Some(end)
    }

    /// Looks at a word of letters and digits; returns the end of what it is.
    fn mixed(&self, start: usize, end: usize, found: &mut Found) -> Option<usize> {
        let word = &self.bytes[start..end];
        if let Some(end) = cards::iban(self.bytes, start, end) {
            found.add(start, end, Kind::Iban, Confidence::Certain);
            return Some(end);
        }
        let digits = |part: &[u8], out: &mut [u8]| {
            part.len() == out.len()
                && part.iter().zip(out).all(|(b, place)| {
                    *place = b.wrapping_sub(b'0');
                    *place < 10
                })
        };
        let kind = match word.len() {
            9 => {
                let (mut number, letter) = ([0; 8], word[8].to_ascii_uppercase());
                let foreign = b"XYZ".iter().position(|b| *b == word[0].to_ascii_uppercase());
                let whole = match foreign {
                    Some(first) => {
                        number[0] = first as u8;
                        digits(&word[1..8], &mut number[1..])
                    }
                    None => digits(&word[..8], &mut number),
                };
                (whole && ids::es_dni(&number, letter)).then_some(Kind::EsDni)
            }
            11 if matches!(word[6].to_ascii_uppercase(), b'A'..=b'F' | b'U'..=b'Y') => {
                return self.hetu(start, end, found);
            }
            15 => {
                let mut number = [0; 15];
                let letter = word[6].to_ascii_uppercase();
                let mut code: [u8; 15] = word.try_into().ok()?;
                // 2A counts as 19 and 2B as 18.
                code[5..7].copy_from_slice(if letter == b'A' { b"19" } else { b"18" });
                let corsica = word[5] == b'2' && matches!(letter, b'A' | b'B');
                (corsica && digits(&code, &mut number) && ids::fr_nir(&number, true))
                    .then_some(Kind::FrNir)
            }
            16 => ids::it_fiscal_code(&word.to_ascii_uppercase()).then_some(Kind::ItFiscalCode),
            18 => {
                let mut number = [10; 18];
                let whole =
                    word[17].eq_ignore_ascii_case(&b'x') && digits(&word[..17], &mut number[..17]);
                (whole && ids::cn_resident_id(&number)).then_some(Kind::CnResidentId)
            }
            _ => None,
        };
        found.add(start, end, kind?, Confidence::Certain);
        Some(end)
    }
}

/// Whether the groups start as a way of writing says, with one separator throughout (or, when `.`
/// and `-` are both possible, each in its place).
#[inline]
pub(crate) fn matches_groups(groups: &[Group], lengths: &[usize], between: &[u8]) -> bool {
    if groups.len() < lengths.len() || groups[0].len() != lengths[0] {
        return false;
    }
    let inner = &groups[..lengths.len() - 1];
    let same = |g: &Group| g.after == groups[0].after || between == b".-";
    let joined =
        inner.iter().all(|g| matches!(g.after, Between::One(b) if between.contains(&b)) && same(g));
    joined && groups.iter().zip(lengths).all(|(group, length)| group.len() == *length)
}

/// Whether a number of so many groups ends there: what follows is no further part of it.
pub(crate) fn ends(bytes: &[u8], groups: &[Group], count: usize) -> bool {
    let last = groups[count - 1];
    let digit_behind = bytes.get(last.end + 1).is_some_and(u8::is_ascii_digit);
    match last.after {
        Between::One(b'-' | b'.') => !digit_behind,
        Between::One(b' ') if count > 1 && groups[count - 2].after == last.after => {
            groups.get(count).is_none_or(|next| next.len() != last.len())
        }
        _ => true,
    }
}

/// What is between this place and the next group, and how long it is.
fn between(rest: &[u8]) -> (Between, usize) {
    let (between, step) = match rest {
        [b @ (b' ' | b'-' | b'.' | b'/' | b'+'), ..] if rest.get(1) != Some(&b'(') => {
            (Between::One(*b), 1)
        }
        [0xc2, 0xa0, ..] => (Between::One(b' '), 2),
        [0xe2, 0x80, 0xaf | 0x89 | 0x87, ..] => (Between::One(b' '), 3),
        [0xe2, 0x80, 0x90..=0x93, ..] => (Between::One(b'-'), 3),
        [b')', b' ' | b'-', ..] | [b' ', b'(', ..] => (Between::Bracket, 2),
        [b')' | b'(', ..] => (Between::Bracket, 1),
        _ => (Between::End, 0),
    };
    match rest.get(step) {
        Some(b) if b.is_ascii_digit() => (between, step),
        _ => (Between::End, 0),
    }
}

/// Whether three groups are a day, a month and a year in any order people write.
fn is_date(bytes: &[u8], groups: &[Group]) -> bool {
    let [a, b, c, ..] = groups else { return false };
    let joined = a.after == b.after && matches!(a.after, Between::One(b'-' | b'.' | b'/' | b' '));
    let value = |g: &Group| {
        bytes[g.start..g.end].iter().take(4).fold(0, |n, b| n * 10 + u32::from(b - b'0'))
    };
    let year = |g: &Group| g.len() == 4 && (1800..2200).contains(&value(g));
    let small = |g: &Group, max: u32| (1..=2).contains(&g.len()) && (1..=max).contains(&value(g));
    let spaced = a.after == Between::One(b' ');
    let first = year(a) && small(b, 12) && small(c, 31);
    let last = year(c) && ((small(a, 31) && small(b, 12)) || (small(a, 12) && small(b, 31)));
    joined && (first || (last && !spaced))
}
