//! The one place where time is read.

use std::time::Duration;
use types::Record;

/// A moment, as records carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall milliseconds since 1970.
    pub time_ms: u64,
    /// Milliseconds since boot.
    pub mono_ms: u64,
    /// Which boot.
    pub boot: u64,
}

/// The host's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot: u64,
}

impl Clock {
    /// The clock of this boot.
    #[must_use]
    pub fn new() -> Self {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let hex: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        Self { boot: u64::from_str_radix(&hex, 16).unwrap_or(0) }
    }

    /// Wall milliseconds now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    pub fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }

    /// Now, never before the last record.
    #[must_use]
    pub fn moment(&self, last_ms: u64) -> Moment {
        let boot_time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(boot_time.tv_sec).unwrap_or(0);
        let millis = u64::try_from(boot_time.tv_nsec).unwrap_or(0) / 1_000_000;
        Moment {
            time_ms: self.now_ms().max(last_ms),
            mono_ms: seconds * 1_000 + millis,
            boot: self.boot,
        }
    }

    /// How far the wall clock is behind what monotonic time says it should be since `record`;
    /// `None` across boots.
    #[must_use]
    pub fn backward_jump(&self, record: &Record) -> Option<Duration> {
        let now = self.moment(0);
        if now.boot != record.stamp.boot {
            return None;
        }
        let expected = record.stamp.time_ms + now.mono_ms.saturating_sub(record.stamp.mono_ms);
        Some(Duration::from_millis(expected.saturating_sub(now.time_ms)))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
