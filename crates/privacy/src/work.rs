//! Counts the work of a scan, in tests only: steps that a hostile text could multiply.

#[cfg(test)]
thread_local! {
    static STEPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Adds steps to the count.
#[cfg(test)]
pub(crate) fn add(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// Nothing is counted outside of tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn add(_steps: usize) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Detector, DetectorConfig, FingerprintKey, Fingerprints};

    /// Most steps that a byte of any text may cost.
    const STEPS_PER_BYTE_MAX: usize = 60;

    fn steps(detector: &Detector, pattern: &str, bytes: usize) -> usize {
        let text = pattern.repeat(bytes / pattern.len());
        STEPS.set(0);
        let _ = detector.find(&text);
        STEPS.get()
    }

    #[test]
    fn twice_the_text_is_twice_the_work_whatever_stands_in_it() {
        let key = FingerprintKey::new([1; 32]);
        let pem = "-----BEGIN PRIVATE KEY-----\nabcdefgh\n-----END PRIVATE KEY-----";
        let prints = Fingerprints::of("key", pem.as_bytes(), &key).unwrap();
        let config =
            DetectorConfig { names: vec!["Anna Berg".to_owned()], ..DetectorConfig::default() };
        let detector = Detector::new(&config, Some(prints)).unwrap();
        let patterns = [
            "7",
            "7 ",
            "4111 1111 1111 1112 ",
            "1.2.3.4.",
            "12-34-",
            "+1 ",
            "(4",
            "@",
            "a@",
            "a.",
            "a@b.",
            ":",
            "a:",
            "1:",
            "fe80::",
            "%41",
            "%41 ",
            "%",
            "QUJD",
            "414243",
            "=",
            "password=",
            "password=a1",
            "token: ",
            "sk-",
            "eyJ",
            "eyJhbGciOiJub25lIn0.",
            "-----BEGIN PRIVATE KEY-----",
            "-----END ",
            "PRIVATE KEY-----",
            "https://",
            "https://a:",
            "://a:b@",
            "Anna ",
            "AnnaBerg",
            "DE89 ",
            "00-",
            "AA-",
            "version ",
            "phone 1 ",
            "ä",
            "山",
            "person-",
            "\u{0}",
        ];
        for pattern in patterns {
            let (once, twice) =
                (steps(&detector, pattern, 32 << 10), steps(&detector, pattern, 64 << 10));
            assert!(
                twice <= once * 2 + once / 10 + 4_096,
                "{pattern:?}: {once}, then {twice} steps"
            );
            assert!(twice <= STEPS_PER_BYTE_MAX * (64 << 10), "{pattern:?}: {twice} steps");
        }
    }
}
