//! What is typed here goes to a guest's standard input, by a connection of its own.

use crate::session::Session;
use runtime::client::Client;
use runtime::protocol::{Bytes64, Reply, Request};
use std::io::Read as _;
use tokio::sync::mpsc;
use types::RunId;

/// Bytes that go at once.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// Pieces that are read ahead of the guest.
const PIECES_MAX: usize = 4;

/// Begins to pass standard input on, in the background, until it ends or the owner is gone. What
/// the guest does not read is lost with the command.
pub(super) fn pass_on(session: &Session, run: &RunId) {
    let (pieces, mut typed) = mpsc::channel(PIECES_MAX);
    // A thread of its own: it may wait for input that never comes.
    std::thread::spawn(move || read(&pieces));
    let (home, run) = (session.home.clone(), run.clone());
    tokio::spawn(async move {
        let Ok(Some(mut owner)) = Client::connect(&home).await else { return };
        while let Some(bytes) = typed.recv().await {
            if send(&mut owner, &run, bytes).await.is_none() {
                return;
            }
        }
        let _ = send(&mut owner, &run, Vec::new()).await;
    });
}

fn read(pieces: &mpsc::Sender<Vec<u8>>) {
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    while let Ok(count @ 1..) = input.read(&mut buffer) {
        if pieces.blocking_send(buffer[..count].to_vec()).is_err() {
            return;
        }
    }
}

/// Nothing when the owner is gone or wants no more.
async fn send(owner: &mut Client, run: &RunId, bytes: Vec<u8>) -> Option<()> {
    let request = Request::Input { run: run.clone(), bytes: Bytes64(bytes) };
    owner.send(&request).await.ok()?;
    match owner.next().await.ok()?? {
        Reply::Accepted { .. } => Some(()),
        _ => None,
    }
}
