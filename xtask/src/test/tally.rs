//! Counting: what libtest says about itself, and nothing it does not say.

use std::fmt;

/// Passed and failed, tests or stages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Tally {
    /// A stage that is no test counts once.
    pub(super) fn of_stage(ok: bool) -> Self {
        Self { passed: u64::from(ok), failed: u64::from(!ok) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }

    /// The same, unless no test ran at all: that is a failure.
    pub(super) fn of_tests(self) -> Self {
        if self == Self::default() { Self::of_stage(false) } else { self }
    }

    pub(super) fn word(self) -> &'static str {
        if self.failed == 0 { "ok" } else { "FAIL" }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Sums the `test result:` lines. An ignored test counts as failed; so does a bad exit that no
/// result explains (a crash, a limit), beside the tests that had ended by then.
pub(super) fn of_output(output: &str, ended_well: bool) -> Tally {
    let mut sum = Tally::default();
    for line in output.lines().filter(|l| l.starts_with("test result: ")) {
        let count = |word| count_before(line, word);
        let failed = count(" failed") + count(" ignored");
        sum = sum.plus(Tally { passed: count(" passed"), failed });
    }
    if ended_well || sum.failed > 0 {
        return sum;
    }
    let ended = if sum == Tally::default() { of_cut_output(output) } else { sum };
    ended.plus(Tally::of_stage(false))
}

/// What had ended when a test executable died: `test NAME ... ok`.
fn of_cut_output(output: &str) -> Tally {
    let ended = |how| {
        let lines = output.lines().filter(|line| line.starts_with("test "));
        u64::try_from(lines.filter(|line| line.ends_with(how)).count()).unwrap_or(u64::MAX)
    };
    Tally { passed: ended(" ... ok"), failed: ended(" ... FAILED") }
}

/// A script is one test; what it says is for people.
pub(super) fn of_script(_: &str, ended_well: bool) -> Tally {
    Tally::of_stage(ended_well)
}

fn count_before(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().filter(|b| b.len() < line.len()).unwrap_or_default();
    before.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.1s";

    fn check(output: &str, ended_well: bool, passed: u64, failed: u64) {
        assert_eq!(of_output(output, ended_well), Tally { passed, failed }, "{output}");
    }

    #[test]
    fn results_are_summed() {
        check(&format!("running 5 tests\n{OK}\nnoise\n{OK}\n"), true, 10, 0);
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured", false, 3, 2);
        check("said: test result: ok. 5 passed; 0 failed", true, 0, 0);
    }

    #[test]
    fn an_ignored_test_fails() {
        check("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured", true, 3, 1);
    }

    #[test]
    fn a_crash_without_a_result_fails() {
        check("running 5 tests\n", false, 0, 1);
        check(OK, false, 5, 1);
        check("test a ... ok\ntest b ... FAILED\ntest c has been running", false, 1, 2);
    }

    #[test]
    fn no_tests_at_all_is_a_failure() {
        assert_eq!(Tally::default().of_tests(), Tally { passed: 0, failed: 1 });
        assert_eq!(Tally { passed: 1, failed: 0 }.of_tests(), Tally { passed: 1, failed: 0 });
        assert_eq!(Tally { passed: 3, failed: 1 }.to_string(), "3 passed, 1 failed");
    }
}
