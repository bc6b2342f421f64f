//! The process that holds the layers, and is killed.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");
/// What nobody has said by then is never said.
const ANSWER: Duration = Duration::from_secs(120);

/// A live holder. Dropped, it is killed.
pub(crate) struct Holder {
    child: Child,
    lines: Receiver<String>,
}

impl Holder {
    pub(crate) fn start(home: &Path, program: &str) -> Self {
        let mut command = Command::new(HARNESS);
        command.arg("holder").arg(home).arg(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (said, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Ends with the holder.
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        Self { child, lines }
    }

    /// Kills it, as a power cut of this process alone, and starts another.
    pub(crate) fn replace(&mut self, home: &Path, program: &str) -> Self {
        self.kill();
        Self::start(home, program)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn send(&mut self, wish: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{wish}").unwrap();
    }

    fn line(&self) -> Result<String, String> {
        self.lines.recv_timeout(ANSWER).map_err(|error| format!("the holder: {error}"))
    }

    /// Waits for a line that a program prints.
    pub(crate) fn wait_for(&self, wanted: &str) -> Result<(), String> {
        while self.line()? != wanted {}
        Ok(())
    }

    /// What a program prints until the holder answers, and its answer.
    fn answer(&self, wish: &str) -> Result<(Vec<String>, String), String> {
        let mut said = Vec::new();
        loop {
            let line = self.line()?;
            match line.strip_prefix("answer ") {
                Some(answer) if answer.starts_with("failed") => {
                    return Err(format!("{wish}: {answer}"));
                }
                Some(answer) => return Ok((said, answer.to_owned())),
                None => said.push(line),
            }
        }
    }

    pub(crate) fn ask(&mut self, wish: &str) -> Result<String, String> {
        self.send(wish);
        self.answer(wish).map(|(_, answer)| answer)
    }

    /// What the program says on an upper.
    pub(crate) fn run(&mut self, upper: &str, file: &Path) -> Result<Vec<String>, String> {
        self.send(&format!("exec {upper} {}", file.display()));
        self.output()
    }

    /// What a program says that was started before.
    pub(crate) fn output(&self) -> Result<Vec<String>, String> {
        match self.answer("exec")? {
            (said, answer) if answer == "ended 0" => Ok(said),
            (said, answer) => Err(format!("the program {answer}: {said:#?}")),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
