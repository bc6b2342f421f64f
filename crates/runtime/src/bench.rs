//! A sandbox's whole life, measured inside the owner.

use crate::error::RuntimeError;
use crate::parts::Parts;
use sandbox::{CreateSpec, ExecSpec};
use std::sync::Arc;
use std::time::Instant;

/// Most lives in one measurement.
const LIVES_MAX: u32 = 100_000;

/// Nanoseconds of create, `/bin/true` and destroy, once per life.
pub(crate) async fn sandbox_lives(
    parts: &Arc<Parts>,
    count: u32,
) -> Result<Vec<u64>, RuntimeError> {
    if count > LIVES_MAX {
        let what = "the number of lives".to_owned();
        let (bytes, limit) = (u64::from(count), u64::from(LIVES_MAX));
        return Err(RuntimeError::TooLarge { what, bytes, limit });
    }
    let base = parts.layers.empty().map_err(|error| RuntimeError::part(&error))?;
    let mut nanos = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let begun = Instant::now();
        let upper = parts.layers.begin(&base).map_err(|error| RuntimeError::part(&error))?;
        let spec = CreateSpec::new(upper.overlay());
        let made = parts.spawner.create(spec).await.map_err(|error| RuntimeError::part(&error))?;
        let running = parts.spawner.exec(&made.id, ExecSpec::new(["/bin/true"])).await;
        let running = running.map_err(|error| RuntimeError::part(&error))?;
        running.finish().await.map_err(|error| RuntimeError::part(&error))?;
        parts.spawner.destroy(&made.id).await.map_err(|error| RuntimeError::part(&error))?;
        parts.layers.recycle(upper).map_err(|error| RuntimeError::part(&error))?;
        nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(nanos)
}
