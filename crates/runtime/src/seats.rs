//! Where a command sits whose terminal is a guest's: what the guest prints goes there, and what is
//! typed there goes to the guest.
//!
//! ```text
//!  command --Start--> a seat for the run: output <- the guest's task
//!          --Input--> input of the seat  -> the guest's standard input
//! ```
//!
//! A run has one seat at most; the last that sits down has it. Who leaves takes the guest's input
//! away and nothing else: a guest that nobody watches goes on, and its output is kept in the log.

pub(crate) use crate::protocol::Screen;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use types::RunId;

/// Pieces of output that wait for a slow terminal; then the guest waits.
const OUTPUT_PIECES_MAX: usize = 16;
/// Pieces of input that wait for a slow guest; then whoever types waits.
const INPUT_PIECES_MAX: usize = 16;

/// A piece of what a guest printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Printed {
    /// Whether on standard error.
    pub(crate) error: bool,
    pub(crate) bytes: Vec<u8>,
}

/// The guest's side of a seat.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) output: mpsc::Sender<Printed>,
    pub(crate) input: mpsc::Receiver<Vec<u8>>,
    /// The terminal that the guest's is to be like, if it is to have one.
    pub(crate) screen: Option<watch::Receiver<Screen>>,
}

#[derive(Debug)]
struct Taken {
    number: u64,
    stage: Option<Stage>,
    input: Option<mpsc::Sender<Vec<u8>>>,
    screen: Option<watch::Sender<Screen>>,
}

/// The seats of all runs.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Mutex<(u64, BTreeMap<RunId, Taken>)>,
}

/// A command's seat. Dropping it leaves.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    seats: &'a Seats,
    run: RunId,
    number: u64,
    output: mpsc::Receiver<Printed>,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<RunId, Taken>)> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sits down, on a terminal or not.
    pub(crate) fn take(&self, run: &RunId, screen: Option<Screen>) -> Seat<'_> {
        let (sender, output) = mpsc::channel(OUTPUT_PIECES_MAX);
        let (typed, input) = mpsc::channel(INPUT_PIECES_MAX);
        let mut taken = self.lock();
        taken.0 += 1;
        let number = taken.0;
        let (screen, seen) = screen.map(watch::channel).unzip();
        let stage = Some(Stage { output: sender, input, screen: seen });
        taken.1.insert(run.clone(), Taken { number, stage, input: Some(typed), screen });
        drop(taken);
        Seat { seats: self, run: run.clone(), number, output }
    }

    /// The guest's side, once, when somebody sits there.
    pub(crate) fn stage(&self, run: &RunId) -> Option<Stage> {
        self.lock().1.get_mut(run)?.stage.take()
    }

    /// Where typed bytes go; nothing when nobody sits there or the input has ended.
    pub(crate) fn input(&self, run: &RunId) -> Option<mpsc::Sender<Vec<u8>>> {
        self.lock().1.get(run)?.input.clone()
    }

    /// The terminal has another size.
    pub(crate) fn resize(&self, run: &RunId, screen: Screen) {
        if let Some(now) = self.lock().1.get(run).and_then(|taken| taken.screen.as_ref()) {
            now.send_replace(screen);
        }
    }

    /// No more is typed.
    pub(crate) fn end_input(&self, run: &RunId) {
        if let Some(taken) = self.lock().1.get_mut(run) {
            taken.input = None;
        }
    }
}

impl Seat<'_> {
    /// The next piece of output; `None` when the guest is over.
    pub(crate) async fn next(&mut self) -> Option<Printed> {
        self.output.recv().await
    }

    /// What has come already.
    pub(crate) fn ready(&mut self) -> Option<Printed> {
        self.output.try_recv().ok()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        if taken.1.get(&self.run).is_some_and(|taken| taken.number == self.number) {
            taken.1.remove(&self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::from_random([1; 8])
    }

    #[tokio::test]
    async fn what_is_printed_and_typed_comes_to_the_other_side() {
        let (seats, run) = (Seats::default(), run());
        assert!(seats.stage(&run).is_none(), "nobody sits there");
        let mut seat = seats.take(&run, None);
        let mut stage = seats.stage(&run).expect("a seat");
        assert!(seats.stage(&run).is_none(), "it is taken once");
        let printed = Printed { error: true, bytes: b"out".to_vec() };
        stage.output.send(printed.clone()).await.expect("somebody reads");
        assert_eq!(seat.next().await, Some(printed));
        let input = seats.input(&run).expect("somebody sits there");
        input.send(b"in".to_vec()).await.expect("the guest reads");
        drop(input);
        seats.end_input(&run);
        assert_eq!(stage.input.recv().await, Some(b"in".to_vec()));
        assert_eq!(stage.input.recv().await, None, "the end of the input");
    }

    #[tokio::test]
    async fn a_terminal_follows_the_person_s() {
        let (seats, run) = (Seats::default(), run());
        let size = |rows| Screen { rows, columns: 80, kind: "xterm".to_owned() };
        let _seat = seats.take(&run, Some(size(24)));
        let mut screen = seats.stage(&run).and_then(|stage| stage.screen).expect("a terminal");
        assert_eq!(*screen.borrow_and_update(), size(24));
        seats.resize(&run, size(50));
        screen.changed().await.expect("somebody sits there");
        assert_eq!(*screen.borrow(), size(50));
    }

    #[tokio::test]
    async fn who_leaves_takes_the_input_away_and_no_other_s_seat() {
        let (seats, run) = (Seats::default(), run());
        let first = seats.take(&run, None);
        let mut stage = seats.stage(&run).expect("a seat");
        let second = seats.take(&run, None);
        drop(first);
        assert!(seats.input(&run).is_some(), "the second sits there");
        drop(second);
        assert!(seats.input(&run).is_none());
        assert_eq!(stage.input.recv().await, None);
        let lost = Printed { error: false, bytes: vec![1] };
        assert!(stage.output.send(lost).await.is_err(), "nobody reads");
    }

    #[tokio::test]
    async fn a_slow_reader_holds_up_at_the_limit() {
        let (seats, run) = (Seats::default(), run());
        let mut seat = seats.take(&run, None);
        let stage = seats.stage(&run).expect("a seat");
        let piece = || Printed { error: false, bytes: vec![1] };
        for _ in 0..OUTPUT_PIECES_MAX {
            stage.output.try_send(piece()).expect("there is room");
        }
        assert!(stage.output.try_send(piece()).is_err());
        assert!(seat.ready().is_some());
        stage.output.try_send(piece()).expect("there is room again");
        let input = seats.input(&run).expect("somebody sits there");
        for _ in 0..INPUT_PIECES_MAX {
            input.try_send(vec![1]).expect("there is room");
        }
        assert!(input.try_send(vec![1]).is_err());
    }
}
