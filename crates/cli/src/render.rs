//! Values as words for people: times, sizes, actions. Pure.

use serde_json::Value;
use types::{ActionRequest, Item};

/// Characters of a command or an argument on one line.
const ARGUMENT_CHARS_MAX: usize = 72;

/// Wall milliseconds as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(time_ms: u64) -> String {
    let (date, clock) = date_and_clock(time_ms);
    format!("{date}T{clock}.{:03}Z", time_ms % 1_000)
}

/// Wall milliseconds as people read them, in UTC.
pub(crate) fn moment(time_ms: u64) -> String {
    let (date, clock) = date_and_clock(time_ms);
    format!("{date} {clock}")
}

/// The time of day, in UTC.
pub(crate) fn clock(time_ms: u64) -> String {
    date_and_clock(time_ms).1
}

/// Days since 1970 to a date of the Gregorian calendar (the algorithm of Howard Hinnant's
/// `civil_from_days`, with years that begin in March).
fn date_and_clock(time_ms: u64) -> (String, String) {
    const DAYS_PER_ERA: u64 = 146_097;
    const DAYS_0000_03_01_TO_1970: u64 = 719_468;
    let seconds = time_ms / 1_000;
    let days = seconds / 86_400 + DAYS_0000_03_01_TO_1970;
    let era = days / DAYS_PER_ERA;
    let day_of_era = days % DAYS_PER_ERA;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let of_day = seconds % 86_400;
    let clock = format!("{:02}:{:02}:{:02}", of_day / 3_600, of_day / 60 % 60, of_day % 60);
    (format!("{year:04}-{month:02}-{day:02}"), clock)
}

/// A duration, with the precision that matters: `0.4s`, `12s`, `3m05s`, `2h10m`.
pub(crate) fn took(milliseconds: u64) -> String {
    let tenths = (milliseconds + 50) / 100;
    let seconds = (milliseconds + 500) / 1_000;
    match seconds {
        _ if tenths < 100 => format!("{}.{}s", tenths / 10, tenths % 10),
        0..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// An age in seconds, as people say it: `3 s old`, `2 h old`, `93 days old`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s old"),
        120..=7_199 => format!("{} min old", seconds / 60),
        7_200..=172_799 => format!("{} h old", seconds / 3_600),
        _ if seconds > 100 * 366 * 86_400 / 2 => "of unknown age".to_owned(),
        _ => format!("{} days old", seconds / 86_400),
    }
}

/// A number of bytes: `512 B`, `1.5 KiB`, `3.0 MiB`.
#[expect(clippy::cast_precision_loss, reason = "display only")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `1 record`, `2 records`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// The most telling argument of a call on one line: the command, the path, else the whole object.
/// Not made safe.
pub(crate) fn argument(tool: &str, arguments: &Value) -> String {
    let telling = match tool {
        "shell" => arguments.get("command"),
        "python" => arguments.get("code").or_else(|| arguments.get("command")),
        "read_file" | "write_file" | "edit_file" => arguments.get("path"),
        "check" => arguments.get("name"),
        "wait" => arguments.get("signal").or_else(|| arguments.get("seconds")),
        _ => None,
    };
    match telling.unwrap_or(arguments) {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.is_empty() => String::new(),
        other => other.to_string(),
    }
}

/// A call on one line, safe: `shell wc -l *.csv`.
pub(crate) fn call(tool: &str, arguments: &Value) -> String {
    let line = crate::terminal::short(&argument(tool, arguments), ARGUMENT_CHARS_MAX);
    format!("{} {line}", crate::terminal::safe(tool)).trim_end().to_owned()
}

/// What was asked of policy, safe: `shell`, `GET example.org/x`, `write_file /workspace/a`.
pub(crate) fn request(request: &ActionRequest) -> String {
    let resource = crate::terminal::short(&request.resource(), ARGUMENT_CHARS_MAX);
    match request {
        ActionRequest::Path { .. }
        | ActionRequest::Connect { .. }
        | ActionRequest::UseSecret { .. }
        | ActionRequest::CallModel { .. } => format!("{} {resource}", request.name()),
        _ => resource,
    }
}

/// An item in a few words, safe.
pub(crate) fn item(item: &Item, chars_max: usize) -> String {
    use crate::terminal::short;
    match item {
        Item::UserMessage { text } => format!("user: {}", short(text, chars_max)),
        Item::AssistantMessage { text } => format!("agent: {}", short(text, chars_max)),
        Item::Reasoning { summary, .. } => format!("reasoning: {}", short(summary, chars_max)),
        Item::ToolCall { name, arguments, .. } => format!("calls {}", call(name, arguments)),
        Item::ToolResult { output, is_error, .. } => {
            let word = if *is_error { "failed" } else { "result" };
            format!("{word}: {}", short(output, chars_max))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_dates_of_the_calendar() {
        let check = |time_ms: u64, expected: &str| assert_eq!(rfc3339(time_ms), expected);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(951_868_799_999, "2000-02-29T23:59:59.999Z");
        check(1_709_164_800_000, "2024-02-29T00:00:00.000Z");
        check(1_735_689_599_000, "2024-12-31T23:59:59.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
        assert_eq!(moment(1_735_689_599_000), "2024-12-31 23:59:59");
    }

    #[test]
    fn durations_and_sizes() {
        let check = |ms: u64, expected: &str| assert_eq!(took(ms), expected);
        check(0, "0.0s");
        check(349, "0.3s");
        check(350, "0.4s");
        check(9_949, "9.9s");
        check(9_950, "10s");
        check(61_000, "1m01s");
        check(7_800_000, "2h10m");
        let check = |count: u64, expected: &str| assert_eq!(bytes(count), expected);
        let old = |seconds: u64, expected: &str| assert_eq!(age(seconds), expected);
        old(119, "119 s old");
        old(120, "2 min old");
        old(7_200, "2 h old");
        old(93 * 86_400, "93 days old");
        old(1_800_000_000, "of unknown age");
        check(1_023, "1023 B");
        check(1_024, "1.0 KiB");
        check(1_572_864, "1.5 MiB");
        assert_eq!(
            (count(1, "record"), count(0, "record")),
            ("1 record".into(), "0 records".into())
        );
    }

    #[test]
    fn calls_show_what_tells_most_and_nothing_dangerous() {
        let check = |tool: &str, arguments: Value, expected: &str| {
            assert_eq!(call(tool, &arguments), expected);
        };
        check("shell", json!({"command": "wc -l\n*.csv"}), "shell wc -l *.csv");
        check("read_file", json!({"path": "a\u{202e}b"}), "read_file a\\u{202e}b");
        check("open_ticket", json!({"n": 1}), "open_ticket {\"n\":1}");
        check("open_ticket", json!({}), "open_ticket");
        check("wait", json!({"seconds": 3}), "wait 3");
        check("shell", json!("not an object"), "shell not an object");
    }
}
