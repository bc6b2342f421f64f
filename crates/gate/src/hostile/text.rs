//! Output of commands and tools as a model and a person may read it.
//!
//! No character of it can move a cursor, hide or reorder other text: control characters become
//! visible signs, colour sequences are dropped, invisible characters are written out. When it is
//! longer than the cap, its head and its tail remain, with a line between that says how many bytes
//! are left out.

use crate::error::GateError;
use crate::limits::OUTPUT_BYTES_MAX;
use crate::message::ReadText;
use std::fmt::Write as _;

/// The smallest cap: room for the line that says what is left out and a little text.
pub(crate) const CAP_BYTES_MIN: usize = 128;
/// The longest escape sequence that is recognised.
const SEQUENCE_BYTES_MAX: usize = 32;

/// Makes output readable, in at most `cap` bytes.
///
/// # Errors
/// [`GateError::InputTooLarge`] above [`OUTPUT_BYTES_MAX`].
pub(crate) fn read_output(bytes: &[u8], cap: usize) -> Result<ReadText, GateError> {
    if bytes.len() > OUTPUT_BYTES_MAX {
        return Err(GateError::InputTooLarge {
            bytes: bytes.len() as u64,
            limit: OUTPUT_BYTES_MAX as u64,
        });
    }
    let cap = cap.max(CAP_BYTES_MIN);
    let mut whole = String::new();
    let mut total = 0;
    for unit in Units(bytes) {
        total += unit.shown_bytes();
        if total <= cap {
            unit.show(&mut whole);
        }
    }
    if total <= cap {
        return Ok(ReadText { text: whole, truncated: false });
    }
    Ok(ReadText { text: head_and_tail(bytes, total, cap), truncated: true })
}

/// The units within the first and the last part of what would be shown.
fn head_and_tail(bytes: &[u8], total: usize, cap: usize) -> String {
    let line = |left_out: usize| format!("\n[... {left_out} bytes left out ...]\n");
    let room = cap - line(bytes.len()).len();
    let (head_end, tail_start) = (room / 2, total - (room - room / 2));
    let (mut head, mut tail) = (String::new(), String::new());
    let (mut at, mut left_out) = (0, 0);
    for unit in Units(bytes) {
        let end = at + unit.shown_bytes();
        if end <= head_end {
            unit.show(&mut head);
        } else if at >= tail_start {
            unit.show(&mut tail);
        } else {
            left_out += unit.raw_bytes;
        }
        at = end;
    }
    format!("{head}{}{tail}", line(left_out))
}

/// One line of a stranger's text, cut to so many characters.
pub(crate) fn one_line(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for unit in Units(text.as_bytes()) {
        unit.show(&mut shown);
    }
    let mut line: String = shown
        .chars()
        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
        .take(chars_max)
        .collect();
    if shown.chars().nth(chars_max).is_some() {
        line.push_str(" ...");
    }
    line
}

/// Splits bytes into units that are shown or left out whole.
struct Units<'a>(&'a [u8]);

struct Unit {
    raw_bytes: usize,
    shown: Shown,
}

enum Shown {
    Nothing,
    Plain(char),
    WrittenOut(char),
}

impl Unit {
    fn shown_bytes(&self) -> usize {
        match self.shown {
            Shown::Nothing => 0,
            Shown::Plain(c) => c.len_utf8(),
            Shown::WrittenOut(c) => {
                let digits = if u32::from(c) > 0xffff { 5 } else { 4 };
                "<U+>".len() + digits
            }
        }
    }

    fn show(&self, to: &mut String) {
        match self.shown {
            Shown::Nothing => {}
            Shown::Plain(c) => to.push(c),
            Shown::WrittenOut(c) => {
                write!(to, "<U+{:04X}>", u32::from(c)).expect("a string takes everything");
            }
        }
    }
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        let (c, raw_bytes) = first_char(self.0)?;
        let (raw_bytes, shown) = match c {
            '\u{1b}' => match sequence_bytes(self.0) {
                Some(bytes) => (bytes, Shown::Nothing),
                None => (1, Shown::Plain('\u{241b}')),
            },
            '\r' if self.0.get(1) == Some(&b'\n') => (1, Shown::Nothing),
            '\n' | '\t' => (1, Shown::Plain(c)),
            '\0'..='\u{1f}' => (1, Shown::Plain(picture(c))),
            '\u{7f}' => (1, Shown::Plain('\u{2421}')),
            c if c.is_control() || is_invisible(c) => (raw_bytes, Shown::WrittenOut(c)),
            c => (raw_bytes, Shown::Plain(c)),
        };
        self.0 = &self.0[raw_bytes..];
        Some(Unit { raw_bytes, shown })
    }
}

/// The sign Unicode has for a control character below the space.
fn picture(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).expect("there is a picture for each of the 32")
}

/// The first character and its bytes; bytes that are no UTF-8 give the replacement character.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let start = &bytes[..bytes.len().min(4)];
    let chunk = start.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, chunk.invalid().len())),
    }
}

/// Bytes of a complete control sequence (colours, cursor), which shows nothing.
fn sequence_bytes(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.strip_prefix(b"\x1b[")?;
    let end =
        rest.iter().take(SEQUENCE_BYTES_MAX).position(|byte| !(0x20..=0x3f).contains(byte))?;
    (0x40..=0x7e).contains(&rest[end]).then_some(2 + end + 1)
}

/// Characters that are not seen, or that change how others are shown.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        && c != '\u{200d}'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use types::Coded as _;

    #[test]
    fn what_cannot_be_seen_is_shown() {
        let check = |bytes: &[u8], expected: &str| {
            let read = read_output(bytes, 1000).expect("short");
            assert_eq!((read.text.as_str(), read.truncated), (expected, false));
        };
        check(b"plain\ttext\n", "plain\ttext\n");
        check(b"dos\r\nunix\n", "dos\nunix\n");
        check(b"10%\r20%", "10%\u{240d}20%");
        check(b"\x1b[1;31mred\x1b[0m", "red");
        check(b"\x1b]0;title\x07", "\u{241b}]0;title\u{2407}");
        check(b"\x1b", "\u{241b}");
        check(b"\x00\x08\x7f", "\u{2400}\u{2408}\u{2421}");
        check(b"a\xff\xfeb\xc3", "a\u{fffd}\u{fffd}b\u{fffd}");
        check("\u{9b}31m \u{202e}x \u{e0041}".as_bytes(), "<U+009B>31m <U+202E>x <U+E0041>");
        check("ünï 日本 👩\u{200d}🔬".as_bytes(), "ünï 日本 👩\u{200d}🔬");
    }

    #[test]
    fn long_output_keeps_head_and_tail_and_counts_the_rest() {
        let bytes: Vec<u8> = (0..10_000).map(|i| b'a' + (i % 26) as u8).collect();
        let read = read_output(&bytes, 200).expect("below the limit");
        assert!(read.truncated);
        assert!(read.text.len() <= 200, "{}", read.text.len());
        let (head, rest) = read.text.split_once("\n[... ").expect("says it");
        let (left_out, tail) = rest.split_once(" bytes left out ...]\n").expect("says how many");
        assert!(bytes.starts_with(head.as_bytes()) && bytes.ends_with(tail.as_bytes()));
        let left_out: usize = left_out.parse().expect("a number");
        assert_eq!(head.len() + left_out + tail.len(), bytes.len());
    }

    #[test]
    fn the_cap_holds_whatever_the_bytes() {
        for pattern in ["\u{e0041}", "\0", "日", "\u{1b}[31mx", "\u{1b}", "\r\n"] {
            let bytes = pattern.repeat(500);
            for cap in [0, CAP_BYTES_MIN, 129, 130, 131, 1000] {
                let read = read_output(bytes.as_bytes(), cap).expect("below the limit");
                assert!(read.text.len() <= cap.max(CAP_BYTES_MIN), "{pattern:?} {cap}");
            }
        }
        let exact = vec![b'x'; 500];
        assert!(!read_output(&exact, 500).expect("short").truncated);
        assert!(read_output(&exact, 499).expect("short").truncated);
    }

    #[test]
    fn output_is_limited_at_its_edge() {
        assert!(read_output(&vec![b'x'; OUTPUT_BYTES_MAX], 1000).is_ok());
        let error = read_output(&vec![b'x'; OUTPUT_BYTES_MAX + 1], 1000).expect_err("refused");
        assert_eq!(error.code(), "BP-GATE-013");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_readable_and_within_the_cap(
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
            cap in 0usize..1500,
        ) {
            let read = read_output(&bytes, cap).expect("below the limit");
            prop_assert!(read.text.len() <= cap.max(CAP_BYTES_MIN));
            let unreadable = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || is_invisible(c);
            prop_assert!(!read.text.contains(unreadable), "{:?}", read.text);
        }
    }
}
