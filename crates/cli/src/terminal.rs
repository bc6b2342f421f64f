//! The only place that writes to the terminal.
//!
//! Answers go to standard output, everything for people to standard error. Text of models, tools
//! and files is made visible first: [`safe`] for a line, [`safe_block`] for several.

use rustix::termios::{LocalModes, OptionalActions, Termios};
use std::io::{BufRead, IsTerminal, Write};

/// What a line of text may be at most before it is cut for people, in characters.
const LINE_CHARS_MAX: usize = 240;
/// Longest answer to a question, in bytes.
const ANSWER_BYTES_MAX: u64 = 1024;

/// How to speak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// Whether standard error shows colours.
    pub(crate) colour: bool,
    /// Whether progress is left out.
    pub(crate) quiet: bool,
    /// Whether a person can be asked: standard input and error are terminals.
    pub(crate) interactive: bool,
}

/// Colours of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Done, permitted.
    Green,
    /// Denied, failed.
    Red,
    /// Wants attention.
    Yellow,
    /// Beside the point.
    Dim,
    /// Headings.
    Bold,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

/// Width of a bar.
const BAR_CHARS: usize = 30;

impl Terminal {
    /// What the file descriptors and the environment say.
    pub(crate) fn new(quiet: bool) -> Self {
        let error_is_terminal = std::io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            colour: error_is_terminal && !plain,
            quiet,
            interactive: error_is_terminal && std::io::stdin().is_terminal(),
        }
    }

    /// The text in a colour, where there are colours.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", paint.code()) } else { text.to_owned() }
    }

    /// A line for people that may be left out with `--quiet`.
    pub(crate) fn progress(&self, line: &str) {
        if !self.quiet {
            Self::say(line);
        }
    }

    /// How far something is, on one line that is written over; nothing where nobody looks.
    pub(crate) fn bar(&self, done: usize, all: usize, beside: &str) {
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        let full = (done * BAR_CHARS).checked_div(all).unwrap_or(BAR_CHARS);
        let (full, empty) = ("#".repeat(full), ".".repeat(BAR_CHARS - full));
        let end = if done == all { "\n" } else { "" };
        let _ = write!(std::io::stderr().lock(), "\r[{full}{empty}] {done}/{all}  {beside}{end}");
    }

    /// A line for people. A reader that is gone is no error: there is nobody left to tell.
    pub(crate) fn say(line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// A line of the answer.
    pub(crate) fn answer(line: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// Bytes of the answer, as they are.
    pub(crate) fn answer_bytes(bytes: &[u8]) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(bytes);
        let _ = out.flush();
    }

    /// Bytes beside the answer, as they are.
    pub(crate) fn error_bytes(bytes: &[u8]) {
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(bytes);
        let _ = err.flush();
    }

    /// A JSON document as the answer.
    pub(crate) fn answer_json(value: &serde_json::Value) {
        Self::answer(&value.to_string());
    }

    /// Asks a question and reads one line; `None` at the end of input.
    pub(crate) fn ask(question: &str) -> Option<String> {
        {
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "{question} ");
            let _ = err.flush();
        }
        let mut line = String::new();
        let mut input = std::io::Read::take(std::io::stdin().lock(), ANSWER_BYTES_MAX);
        match input.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim().to_ascii_lowercase()),
        }
    }
}

/// While it lives, every key on this terminal goes on as it is typed.
#[derive(Debug)]
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Nothing changes when standard input is no terminal.
    pub(crate) fn of_input() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(&stdin, OptionalActions::Drain, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// While it lives, a terminal on standard input does not show what is typed.
#[derive(Debug)]
pub(crate) struct Silence(Option<Termios>);

impl Silence {
    /// Nothing to silence when standard input is no terminal.
    pub(crate) fn of_input() -> Self {
        let stdin = std::io::stdin();
        let Ok(before) = rustix::termios::tcgetattr(&stdin) else {
            return Self(None);
        };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let _ = rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &silent);
        Self(Some(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Whether a character changes how others are shown, or shows nothing at all.
const fn is_treacherous(c: char) -> bool {
    matches!(c,
        '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e0fff}')
}

fn push_safe(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if is_treacherous(c) => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        c => out.push(c),
    }
}

/// Text on one line, with everything that could deceive a terminal made visible.
pub(crate) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_safe(&mut out, c));
    out
}

/// Text of several lines: line ends and tabs stay, everything else that could deceive is visible.
pub(crate) fn safe_block(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') {
            out.push(c);
        } else {
            push_safe(&mut out, c);
        }
    }
    out
}

/// At most `chars_max` characters of the text on one line, made safe; a cut is shown.
pub(crate) fn short(text: &str, chars_max: usize) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cut: String = line.chars().take(chars_max.min(LINE_CHARS_MAX)).collect();
    if cut.chars().count() < line.chars().count() {
        cut.push_str("...");
    }
    safe(&cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_deceive_a_terminal_is_made_visible() {
        let check = |text: &str, expected: &str| assert_eq!(safe(text), expected);
        check("plain text, ü and 漢字", "plain text, ü and 漢字");
        check("\x1b[2Jgone", "\\x1b[2Jgone");
        check("a\nb\r\tc", "a\\nb\\r\\tc");
        check("\u{9b}31m", "\\x9b31m");
        check("txt.\u{202e}exe", "txt.\\u{202e}exe");
        check("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}");
        check("\u{e0041}\u{e0100}", "\\u{e0041}\\u{e0100}");
        check("a\u{3164}\u{2800}\u{fe0f}b", "a\\u{3164}\\u{2800}\\u{fe0f}b");
        check("bell\u{7}", "bell\\x07");
    }

    #[test]
    fn a_block_keeps_its_lines_and_nothing_else() {
        assert_eq!(safe_block("a\n\tb\x1b[0m\r\n"), "a\n\tb\\x1b[0m\\r\n");
    }

    #[test]
    fn short_is_one_line_and_shows_the_cut() {
        assert_eq!(short("a  b\n c", 10), "a b c");
        assert_eq!(short("abcdef", 3), "abc...");
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("\x1b\x1b", 5), "\\x1b\\x1b");
        assert_eq!(short(&"x".repeat(1000), 1000).len(), LINE_CHARS_MAX + 3);
    }

    #[test]
    fn colours_only_where_they_are_shown() {
        let plain = Terminal { colour: false, quiet: false, interactive: false };
        assert_eq!(plain.paint(Paint::Red, "x"), "x");
        let colour = Terminal { colour: true, ..plain };
        assert_eq!(colour.paint(Paint::Red, "x"), "\x1b[31mx\x1b[0m");
    }
}
