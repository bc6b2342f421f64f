//! A run that was set aside, from the request to go on up to the first output of its next command:
//! its log read, its sandbox made, the command decided and recorded.

use super::super::processes::{kill, owner_of};
use super::super::stepped::Stepped;
use super::super::{Samples, nanos_since};
use super::{Found, Ground};
use crate::error::Result;
use crate::session::block_on;
use runtime::Home;
use std::time::Instant;

/// Commands that the run has behind it.
const STEPS_BEFORE: u32 = 50;
/// Of `count` samples, one in so many finds its owner killed.
const KILLED_SHARE: u32 = 5;
/// What a command does.
const COMMAND: &str = "echo more | tee -a notes.txt";

pub(super) fn measure(ground: &Ground, found: &mut Found) -> Result<()> {
    let home = Home::at(&ground.dir.join("resumed"));
    let (there, killed) = block_on(async {
        let mut run = Stepped::open(&home, "resume").await?;
        for _ in 0..STEPS_BEFORE.min(ground.count * 10) {
            run.step(COMMAND).await?;
        }
        let (mut there, mut killed) = (Samples::default(), Samples::default());
        for _ in 0..ground.count {
            run.set_aside().await?;
            there.add(Some(next_output(&mut run).await?));
        }
        for _ in 0..ground.count.div_ceil(KILLED_SHARE) {
            run.set_aside().await?;
            kill(&[owner_of(&home)?]);
            killed.add(Some(next_output(&mut run).await?));
        }
        run.remove().await?;
        Result::Ok((there, killed))
    })?;
    found.add("resume to the next command's output", there);
    found.add("  the same, its owner killed before", killed);
    Ok(())
}

async fn next_output(run: &mut Stepped) -> Result<u64> {
    let begun = Instant::now();
    run.take_up().await?;
    let going = run.begin(COMMAND).await?;
    let nanos = nanos_since(begun);
    going.finish().await.map(|()| nanos)
}
