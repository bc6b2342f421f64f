//! Strict reading of `[memory]`.

use super::parse::{ManifestError, bad, size};
use super::{MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MAX, Manifest, Memory, MemoryAccess, Serves};
use serde::Deserialize;

/// `[memory]` as written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMemory {
    access: Option<MemoryAccess>,
    serves: Option<Serves>,
    limit: Option<String>,
}

impl RawMemory {
    pub(super) fn check(self) -> Result<Memory, ManifestError> {
        const KEY: &str = "memory.limit";
        let limit = self.limit.as_deref().map(|text| size(KEY, text)).transpose()?;
        let bytes_max = limit.unwrap_or(MEMORY_BYTES_DEFAULT);
        if !(1..=MEMORY_BYTES_MAX).contains(&bytes_max) {
            return Err(bad(KEY, "must be from 1 byte to 1GiB"));
        }
        Ok(Memory {
            access: self.access.unwrap_or(MemoryAccess::Write),
            serves: self.serves.unwrap_or(Serves::User),
            bytes_max,
        })
    }
}

/// Memory of a team needs a team.
pub(super) fn check_team(manifest: &Manifest) -> Result<(), ManifestError> {
    let of_team = manifest.memory.is_some_and(|memory| memory.serves == Serves::Team);
    if of_team && manifest.agent.team.is_empty() {
        return Err(bad("memory.serves", "is team, and [agent] team names none"));
    }
    Ok(())
}
