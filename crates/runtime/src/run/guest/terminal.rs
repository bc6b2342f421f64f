//! A guest on a terminal: what it prints is read from our end, what is typed is written there, and
//! the size follows that of the person's.

use super::{Kept, Ran};
use crate::seats::{Screen, Stage};
use sandbox::{Running, SandboxError, Terminal};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

/// Bytes that are read at once.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Follows a guest on its terminal to its end.
pub(super) async fn watch(
    mut running: Running,
    terminal: Terminal,
    stage: Stage,
    screen: watch::Receiver<Screen>,
) -> Result<Ran, SandboxError> {
    let ours = Arc::new(terminal.into_ours()?);
    let typing = tokio::spawn(type_into(Arc::clone(&ours), stage.input));
    let sizing = tokio::spawn(follow(Arc::clone(&ours), screen));
    let mut kept = Kept::new(Some(stage.output));
    let exit = {
        let mut exiting = std::pin::pin!(running.exit());
        loop {
            tokio::select! {
                biased;
                bytes = read(&ours) => match bytes {
                    Some(bytes) => kept.take(false, bytes).await,
                    // Nobody holds the other end any more.
                    None => break exiting.await,
                },
                exit = &mut exiting => break exit,
            }
        }
    };
    // All that the guest started is gone: what is left is there already.
    while let Some(bytes) = ready(&ours) {
        kept.take(false, bytes).await;
    }
    typing.abort();
    sizing.abort();
    Ok(kept.ran(exit?))
}

/// The next piece; nothing at the end.
async fn read(ours: &AsyncFd<OwnedFd>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    let read = ours
        .async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd.as_fd(), &mut buffer[..])?))
        .await;
    let count = read.ok().filter(|count| *count > 0)?;
    buffer.truncate(count);
    Some(buffer)
}

/// What can be read without waiting.
fn ready(ours: &AsyncFd<OwnedFd>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    let count =
        rustix::io::read(ours.get_ref(), &mut buffer[..]).ok().filter(|count| *count > 0)?;
    buffer.truncate(count);
    Some(buffer)
}

async fn type_into(ours: Arc<AsyncFd<OwnedFd>>, mut input: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = input.recv().await {
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::io::write(fd.as_fd(), left)?);
            match ours.async_io(Interest::WRITABLE, write).await {
                Ok(count) => left = &left[count..],
                Err(_) => return,
            }
        }
    }
}

async fn follow(ours: Arc<AsyncFd<OwnedFd>>, mut screen: watch::Receiver<Screen>) {
    while screen.changed().await.is_ok() {
        let (rows, columns) = {
            let now = screen.borrow_and_update();
            (now.rows, now.columns)
        };
        let _ = sandbox::resize(ours.get_ref(), rows, columns);
    }
}
