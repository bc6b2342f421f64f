//! Texts as tokens: numbers by value, words by letters, and how much each tells.

use std::collections::BTreeSet;

/// Bytes of one text that are looked at.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 10;
/// Shortest word that counts, in characters.
const WORD_CHARS_MIN: usize = 3;

/// A piece of a text that can be found again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    /// A number, written canonically: `1,234.50` and `1234.5` are the same.
    Number(String),
    /// A word in lower case.
    Word(String),
}

impl Token {
    /// The number's value.
    pub(super) fn value(&self) -> Option<f64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            Self::Word(_) => None,
        }
    }

    /// How much finding it again tells: a long number much, a short one or a plain word little.
    pub(super) fn weight(&self) -> f64 {
        match self {
            Self::Number(text) => match significant_digits(text) {
                0 | 1 => 0.1,
                2 => 0.6,
                3 => 2.0,
                _ => 3.0,
            },
            Self::Word(word) => {
                let coded = word.contains(|c: char| c.is_ascii_digit() || c == '_');
                if coded { 1.0 } else { 0.4 }
            }
        }
    }

    /// As people read it.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Number(text) | Self::Word(text) => text,
        }
    }
}

/// Digits that carry information: `1200` has two, `304.80` has four.
fn significant_digits(canonical: &str) -> usize {
    let digits: String = canonical.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    let whole = !canonical.contains('.');
    if whole { digits.trim_end_matches('0').len() } else { digits.len() }
}

/// The tokens of a text, each once.
pub(super) fn tokens(text: &str) -> BTreeSet<Token> {
    let mut found = BTreeSet::new();
    for piece in pieces(cut(text)) {
        match canonical_number(piece) {
            Some(number) => {
                found.insert(Token::Number(number));
            }
            None => words(piece, &mut found),
        }
    }
    found
}

/// The text up to the limit, on a character's boundary.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Runs of letters, digits and what stands inside numbers and names.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || "_.,-".contains(c)))
        .map(|piece| piece.trim_matches(|c| ".,-_".contains(c)))
        .filter(|piece| !piece.is_empty())
}

/// `1,234.50` as `1234.5`; `None` for what is no plain number. A unit may follow: `304.8m`.
fn canonical_number(piece: &str) -> Option<String> {
    let digits = piece.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    let unit = &piece[digits.len()..];
    if unit.len() > UNIT_CHARS_MAX || digits.is_empty() {
        return None;
    }
    let plain = without_thousands(digits)?;
    let value: f64 = plain.parse().ok()?;
    value.is_finite().then(|| {
        let text = if plain.contains('.') {
            plain.trim_end_matches('0').trim_end_matches('.')
        } else {
            &plain
        };
        let text = text.trim_start_matches('0');
        match text {
            "" => "0".to_owned(),
            text if text.starts_with('.') => format!("0{text}"),
            text => text.to_owned(),
        }
    })
}

/// Letters of a unit written right after its number.
const UNIT_CHARS_MAX: usize = 3;

/// A number without its thousands separators; `None` when commas do not stand where they do.
fn without_thousands(text: &str) -> Option<String> {
    let good = text.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',');
    if !good || text.matches('.').count() > 1 {
        return None;
    }
    let whole = text.split('.').next().unwrap_or_default();
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = groups.all(|group| group.len() == 3) && (1..=3).contains(&first.len());
    let separated = whole.contains(',');
    let fraction_has_comma = text.split('.').nth(1).is_some_and(|f| f.contains(','));
    if fraction_has_comma || (separated && !grouped) {
        return None;
    }
    Some(text.replace(',', ""))
}

/// The words of a piece: what stands between commas, as it stands and in its parts.
fn words(piece: &str, found: &mut BTreeSet<Token>) {
    for field in piece.split(',') {
        let whole = field.to_lowercase();
        for part in std::iter::once(whole.as_str()).chain(whole.split(['-', '_'])) {
            match canonical_number(part) {
                Some(number) => {
                    found.insert(Token::Number(number));
                }
                None if part.chars().count() >= WORD_CHARS_MIN => {
                    found.insert(Token::Word(part.to_owned()));
                }
                None => {}
            }
        }
    }
}

/// Factors between units and scales that people mix up, and their names.
const FACTORS: [(f64, &str); 16] = [
    (3.280_84, "metres and feet"),
    (1.609_344, "miles and kilometres"),
    (1.852, "nautical miles and kilometres"),
    (1.150_78, "knots and miles per hour"),
    (0.514_444, "knots and metres per second"),
    (2.54, "inches and centimetres"),
    (2.204_62, "kilograms and pounds"),
    (28.349_5, "ounces and grams"),
    (3.785_41, "gallons and litres"),
    (33.863_9, "inches of mercury and hectopascals"),
    (12.0, "dozens or months, or feet and inches"),
    (24.0, "days and hours"),
    (60.0, "minutes and seconds, or hours and minutes"),
    (100.0, "a share and per cent, or cents"),
    (1_000.0, "a thousandfold unit"),
    (3_600.0, "hours and seconds"),
];
/// How far a conversion may be off: people round.
const FACTOR_TOLERANCE: f64 = 0.002;

/// How far rounding may bring a number.
const ROUNDING_MAX: f64 = 0.002;

/// What `a` and `b` have to do with each other as quantities, when they are not the same number.
pub(super) fn relation(a: f64, b: f64) -> Option<&'static str> {
    if a <= 0.0 || b <= 0.0 {
        return None;
    }
    let ratio = (a / b).max(b / a);
    if a != b && ratio - 1.0 < ROUNDING_MAX {
        return Some("rounded");
    }
    let close = |factor: f64| {
        let factor = factor.max(1.0 / factor);
        (ratio / factor - 1.0).abs() < FACTOR_TOLERANCE
    };
    if let Some((_, name)) = FACTORS.iter().find(|(factor, _)| close(*factor)) {
        return Some(name);
    }
    let fahrenheit = |celsius: f64| celsius * 9.0 / 5.0 + 32.0;
    let near = |x: f64, y: f64| (x - y).abs() < 0.06;
    (near(fahrenheit(a), b) || near(fahrenheit(b), a)).then_some("degrees Celsius and Fahrenheit")
}

/// Units of one quantity, each by its spellings. The first spelling names it.
const FAMILIES: [&[&[&str]]; 9] = [
    &[
        &["metres", "meters", "metre", "meter", "m"],
        &["feet", "foot", "ft"],
        &["kilometres", "kilometers", "kilometre", "kilometer", "km"],
        &["miles", "mile", "mi"],
        &["inches", "inch"],
        &["centimetres", "centimeters", "cm"],
        &["millimetres", "millimeters", "mm"],
        &["yards", "yard", "yd"],
    ],
    &[
        &["kilograms", "kilogram", "kg"],
        &["pounds", "pound", "lb", "lbs"],
        &["grams", "gram", "g"],
        &["tonnes", "tonne", "tons"],
    ],
    &[&["celsius", "degc", "c"], &["fahrenheit", "degf", "f"], &["kelvin", "k"]],
    &[&["knots", "knot", "kt", "kts"], &["kmh", "kph"], &["mph"], &["mps"]],
    &[&["hectopascals", "hpa", "millibars", "mbar"], &["inhg"], &["kpa"], &["psi"]],
    &[
        &["seconds", "second", "sec", "s"],
        &["milliseconds", "millisecond", "ms"],
        &["minutes", "minute", "min"],
        &["hours", "hour", "h"],
    ],
    &[
        &["dollars", "dollar", "usd"],
        &["euros", "euro", "eur"],
        &["cents", "cent"],
        &["pence", "gbp"],
    ],
    &[
        &["litres", "liters", "litre", "liter", "l"],
        &["gallons", "gallon", "gal"],
        &["millilitres", "milliliters", "ml"],
    ],
    &[&["percent", "pct"], &["fraction", "ratio"]],
];
/// Spellings this short count only where a unit stands: after a number, as a value, as a suffix.
const AMBIGUOUS_CHARS_MAX: usize = 3;

/// A unit of a quantity: family, then which.
pub(super) type Unit = (usize, usize);

/// The units that a text names.
pub(super) fn units(text: &str) -> BTreeSet<Unit> {
    let text = cut(text).to_lowercase();
    let mut found = BTreeSet::new();
    let mut after_number = false;
    for piece in text.split(|c: char| !(c.is_alphanumeric() || "_.\"".contains(c))) {
        let quoted = piece.len() > 2 && piece.starts_with('"') && piece.ends_with('"');
        let bare = piece.trim_matches(|c| "\".".contains(c));
        if bare.is_empty() {
            continue;
        }
        let letters = bare.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = letters.is_empty();
        let attached = !number && letters.len() < bare.len();
        let suffix = bare.rsplit_once('_').map(|(_, suffix)| suffix);
        found.extend(unit(letters, quoted || attached || after_number));
        found.extend(suffix.and_then(|suffix| unit(suffix, true)));
        after_number = number;
    }
    found
}

fn unit(word: &str, stands_as_unit: bool) -> Option<Unit> {
    if word.chars().count() <= AMBIGUOUS_CHARS_MAX && !stands_as_unit {
        return None;
    }
    FAMILIES.iter().enumerate().find_map(|(family, units)| {
        let which = units.iter().position(|spellings| spellings.contains(&word))?;
        Some((family, which))
    })
}

/// A unit's name.
pub(super) fn unit_name((family, which): Unit) -> &'static str {
    FAMILIES[family][which][0]
}

/// File names in a text: words with an extension, or with a slash.
pub(super) fn files(text: &str) -> BTreeSet<String> {
    const EXTENSION_CHARS_MAX: usize = 8;
    let is_file = |word: &&str| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').is_some_and(|(stem, extension)| {
            let letters = extension.chars().all(|c| c.is_ascii_alphanumeric());
            let begins = extension.starts_with(|c: char| c.is_ascii_alphabetic());
            !stem.is_empty() && letters && begins && extension.len() <= EXTENSION_CHARS_MAX
        })
    };
    cut(text)
        .split(|c: char| !(c.is_alphanumeric() || "_./-".contains(c)))
        .map(|word| word.trim_start_matches('-').trim_end_matches('.'))
        .filter(is_file)
        .map(|word| word.trim_start_matches("/workspace/").trim_start_matches("./").to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_value_however_they_are_written() {
        let check = |text: &str, expected: &[&str]| {
            let numbers: Vec<String> = tokens(text)
                .into_iter()
                .filter_map(|token| match token {
                    Token::Number(text) => Some(text),
                    Token::Word(_) => None,
                })
                .collect();
            assert_eq!(numbers, expected, "{text}");
        };
        check("altitude 304.80 m", &["304.8"]);
        check("304.8m", &["304.8"]);
        check("1,234.5 and 1234.50", &["1234.5"]);
        check("{\"altitude\":3048}", &["3048"]);
        check("007", &["7"]);
        check("0.25%", &["0.25"]);
        check("1,2", &["1", "2"]);
        check("north,304.8,x", &["304.8"]);
        check("v1.2.3", &[]);
        check("2024-05-01", &["1", "2024", "5"]);
        check("0", &["0"]);
    }

    #[test]
    fn long_numbers_tell_more_than_short_ones_and_words() {
        let weight = |text: &str| tokens(text).iter().map(Token::weight).fold(0.0, f64::max);
        assert!(weight("304.8") > weight("305"));
        assert!(weight("305") > weight("12"));
        assert!(weight("12") > weight("1000"));
        assert!(weight("sensor_7") > weight("altitude"));
    }

    #[test]
    fn quantities_that_people_mix_up_are_related() {
        let check = |a: f64, b: f64, expected: Option<&str>| {
            let found = relation(a, b);
            assert_eq!(found.is_some(), expected.is_some(), "{a} {b}: {found:?}");
            let (found, expected) = (found.unwrap_or_default(), expected.unwrap_or_default());
            assert!(found.starts_with(expected), "{a} {b}: {found}");
        };
        check(304.8, 1000.0, Some("metres and feet"));
        check(1000.0, 304.8, Some("metres and feet"));
        check(100.0, 62.14, Some("miles and"));
        check(20.0, 68.0, Some("degrees"));
        check(0.12, 12.0, Some("a share"));
        check(5.0, 7.0, None);
        check(304.8, 305.0, Some("rounded"));
        check(305.0, 305.0, None);
        check(0.0, 7.0, None);
        check(-3.0, 7.0, None);
    }

    #[test]
    fn units_count_where_units_stand() {
        let check = |text: &str, expected: &[&str]| {
            let names: Vec<&str> = units(text).into_iter().map(unit_name).collect();
            assert_eq!(names, expected, "{text}");
        };
        check("{\"unit\": \"m\"}", &["metres"]);
        check("304.8 m", &["metres"]);
        check("304.8m", &["metres"]);
        check("altitude_ft", &["feet"]);
        check("Report the altitude in feet.", &["feet"]);
        check("I'm here; plan c", &[]);
        check("20 c", &["celsius"]);
    }

    #[test]
    fn files_are_words_with_an_extension() {
        let check = |text: &str, expected: &[&str]| {
            let found: Vec<String> = files(text).into_iter().collect();
            assert_eq!(found, expected, "{text}");
        };
        check("python3 check.py report.md", &["check.py", "report.md"]);
        check("grep -q 3.14 /workspace/out/a.txt", &["out/a.txt"]);
        check("It failed. See line 3.", &[]);
        check("cat ./a.csv > b.csv", &["a.csv", "b.csv"]);
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = format!("{}é 4711", "x".repeat(TEXT_BYTES_MAX - 1));
        assert!(!tokens(&text).contains(&Token::Number("4711".to_owned())));
        let fits = format!("{} 4711", "x".repeat(TEXT_BYTES_MAX - 5));
        assert!(tokens(&fits).contains(&Token::Number("4711".to_owned())));
    }
}
