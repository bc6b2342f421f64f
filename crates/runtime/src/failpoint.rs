//! Kill points at record boundaries, for the crash harness. Compiled in only with the feature
//! `failpoints`; a release build has none.

/// Counts appends, and kills this process at the one that `BEDPLATE_CRASH` names:
/// `before:N` or `after:N`, N from 1.
#[derive(Debug, Default)]
pub(crate) struct Failpoints {
    #[cfg(feature = "failpoints")]
    appends: std::sync::atomic::AtomicU64,
}

impl Failpoints {
    #[cfg(not(feature = "failpoints"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(crate) fn before_append(&self) {}

    #[cfg(not(feature = "failpoints"))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(crate) fn after_append(&self) {}

    #[cfg(feature = "failpoints")]
    pub(crate) fn before_append(&self) {
        let count = self.appends.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        Self::die_at("before", count);
    }

    #[cfg(feature = "failpoints")]
    pub(crate) fn after_append(&self) {
        Self::die_at("after", self.appends.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[cfg(feature = "failpoints")]
    fn die_at(side: &str, count: u64) {
        let named = std::env::var("BEDPLATE_CRASH").unwrap_or_default();
        if named == format!("{side}:{count}") {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }
}
