//! Fifty actions of a scripted agent, in all, beside the same fifty commands without anything around
//! them: what is over is the runtime's, from the request for a run to its rest.

use super::super::{Samples, fail, nanos_since, timed};
use super::{Found, Ground};
use crate::error::Result;
use crate::session::{block_on, next_reply, this_program};
use runtime::client::Client;
use runtime::protocol::{Keys, NewRun, Reply, Request};
use runtime::{Home, config};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use types::{Body, EndStatus};

/// Actions of the agent.
const ACTIONS: u32 = 50;
/// Of `count`, one in so many is a whole trajectory.
const SHARE: u32 = 10;
/// What the agent does in turns; `N` is the action's number.
const COMMANDS: [&str; 5] = [
    "echo line N >> notes.txt",
    "cat notes.txt | wc -l",
    "mkdir -p dN && cp notes.txt dN/copy.txt",
    "grep -c line notes.txt",
    "ls -R | sort | tail -n 3",
];

pub(super) fn measure(ground: &Ground, found: &mut Found) -> Result<()> {
    let dir = ground.dir.join("trajectory");
    let agent = dir.join("agent");
    write_agent(&agent).map_err(|error| fail("the agent", error))?;
    let home = Home::at(&dir.join("home"));
    let (mut whole, mut bare, mut over) =
        (Samples::default(), Samples::default(), Samples::default());
    block_on(async {
        // One that is not counted, and whose connection keeps the owner.
        let _warm = trajectory(&home, &agent).await?;
        for number in 0..ground.count.div_ceil(SHARE) {
            let (_, took) = trajectory(&home, &agent).await?;
            let alone = commands(&dir.join(format!("bare-{number}")))?;
            whole.add(Some(took));
            bare.add(Some(alone));
            over.add(Some(took.saturating_sub(alone)));
        }
        Result::Ok(())
    })?;
    found.add(format!("{ACTIONS} actions, runtime overhead in all"), over);
    found.add("  the whole run", whole);
    found.add("  the commands bare on the host", bare);
    Ok(())
}

fn command(number: u32) -> String {
    COMMANDS[number as usize % COMMANDS.len()].replace('N', &number.to_string())
}

fn write_agent(dir: &Path) -> std::io::Result<()> {
    let manifest = "schema = 1\n[agent]\nname = \"bench\"\ninstructions = \"Do it.\"\n\
                    model = \"default\"\n[routes]\ndefault = [\"script/turns.toml\"]\n\
                    [permissions]\npreset = \"observe\"\nallow = [\"shell\"]\n";
    let mut turns = String::new();
    for number in 0..ACTIONS {
        let command = command(number);
        let _ = writeln!(
            turns,
            "[[turn]]\ntext = \"On it.\"\ntool = \"shell\"\narguments = {{ command = \"{command}\" }}"
        );
    }
    turns.push_str("[[turn]]\ntext = \"Done.\"\n");
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join(config::MANIFEST_FILE), manifest)?;
    std::fs::write(dir.join("turns.toml"), turns)
}

/// Nanoseconds of one whole run, all of whose actions ended well; and its connection.
async fn trajectory(home: &Home, agent: &Path) -> Result<(Client, u64)> {
    let project = config::load(agent, None)?;
    let new = NewRun {
        manifest: Box::new(project.manifest),
        dir: Some(project.dir.to_string_lossy().into_owned()),
        workspace: None,
        input: "Do it.".to_owned(),
        by: "bench".to_owned(),
    };
    let mut owner = Client::connect_or_start(home, &this_program()).await?;
    let (keys, detach, screen) = (Keys::default(), false, None);
    let begun = Instant::now();
    owner.send(&Request::Start { new: Box::new(new), keys, detach, screen }).await?;
    let (mut done, mut status) = (0, None);
    loop {
        match next_reply(&mut owner).await? {
            Reply::Record { record } => match record.body {
                Body::ActionFinished { exit: Some(0), .. } => done += 1,
                Body::RunEnded { status: ended, .. } => status = Some(ended),
                _ => {}
            },
            Reply::AtRest => break,
            _ => {}
        }
    }
    let nanos = nanos_since(begun);
    if done == ACTIONS && status == Some(EndStatus::Done) {
        return Ok((owner, nanos));
    }
    let what = format!("{done} of {ACTIONS} actions ended well, and the run as {status:?}");
    Err(fail("the trajectory", what).into())
}

/// Nanoseconds of the commands alone, each by a shell of its own in the same directory.
fn commands(dir: &Path) -> Result<u64> {
    std::fs::create_dir_all(dir).map_err(|error| fail("the bare commands", error))?;
    let mut sum = 0;
    for number in 0..ACTIONS {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command(number)]).current_dir(dir);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let took = timed(|| shell.status().is_ok_and(|status| status.success()));
        sum += took.ok_or_else(|| fail("the bare commands", command(number)))?;
    }
    Ok(sum)
}
