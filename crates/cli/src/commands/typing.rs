//! What is typed here goes to a guest, by a connection of its own, and so does this terminal's size.

use crate::session::Session;
use runtime::client::Client;
use runtime::protocol::{Bytes64, Reply, Request, Screen};
use std::io::{IsTerminal as _, Read as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use types::RunId;

/// Bytes that go at once.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// Pieces that are read ahead of the guest.
const PIECES_MAX: usize = 4;

/// This terminal, when a guest can have one like it: both what is typed and what is shown.
pub(super) fn screen(session: &Session) -> Option<Screen> {
    let plain = session.json || session.jsonl;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let size = size.filter(|_| terminal && !plain)?;
    let kind = std::env::var("TERM").unwrap_or_default();
    Some(Screen { rows: size.ws_row, columns: size.ws_col, kind })
}

/// Begins to pass standard input on, in the background, until it ends or the owner is gone. What
/// the guest does not read is lost with the command.
pub(super) fn pass_on(session: &Session, run: &RunId) {
    let (pieces, mut typed) = mpsc::channel(PIECES_MAX);
    // A thread of its own: it may wait for input that never comes.
    std::thread::spawn(move || read(&pieces));
    let (session, run) = (session.clone(), run.clone());
    tokio::spawn(async move {
        let Ok(Some(mut owner)) = Client::connect(&session.home).await else { return };
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        loop {
            let request = tokio::select! {
                piece = typed.recv() => {
                    let bytes = Bytes64(piece.unwrap_or_default());
                    Request::Input { run: run.clone(), bytes }
                }
                _ = changes.recv() => {
                    let Some(screen) = screen(&session) else { continue };
                    Request::Resize { run: run.clone(), screen }
                }
            };
            let over = matches!(&request, Request::Input { bytes, .. } if bytes.0.is_empty());
            if send(&mut owner, &request).await.is_none() || over {
                return;
            }
        }
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
async fn send(owner: &mut Client, request: &Request) -> Option<()> {
    owner.send(request).await.ok()?;
    match owner.next().await.ok()?? {
        Reply::Accepted { .. } => Some(()),
        _ => None,
    }
}
