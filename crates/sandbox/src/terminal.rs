//! A terminal for one program: the program gets one end as its streams, and we keep the other.
//!
//! It is a terminal of its own, never the person's: what a program does to it, or types into it,
//! stays within it. The program's session takes it as its controlling terminal, so that keys such as
//! Ctrl-C and a change of size reach the program as signals.

use crate::{SandboxError, sys};
use rustix::fs::{Mode, OFlags};
use rustix::termios::Winsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Terminal {
    ours: OwnedFd,
    program: OwnedFd,
}

impl Terminal {
    /// A terminal of this size, in characters.
    ///
    /// # Errors
    /// [`SandboxError::Setup`] when the host gives none.
    pub fn open(rows: u16, columns: u16) -> Result<Self, SandboxError> {
        let fail = |error: std::io::Error| SandboxError::setup("a terminal", error);
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ours = rustix::fs::open("/dev/ptmx", flags, Mode::empty());
        let ours = ours.map_err(|error| fail(error.into()))?;
        let program = sys::terminal_peer(ours.as_fd()).map_err(fail)?;
        resize(&ours, rows, columns).map_err(fail)?;
        Ok(Self { ours, program })
    }

    /// The program's end, for all its streams: see [`crate::Spawner::exec_with`].
    #[must_use]
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Our end, to be waited for in a tokio runtime, once the program has its own. Reading fails when the program
    /// and all it started have let go of theirs.
    ///
    /// # Errors
    /// [`SandboxError::Setup`].
    pub fn into_ours(self) -> Result<AsyncFd<OwnedFd>, SandboxError> {
        let fail = |error: std::io::Error| SandboxError::setup("a terminal", error);
        rustix::io::ioctl_fionbio(&self.ours, true).map_err(|error| fail(error.into()))?;
        sys::watch_async(self.ours).map_err(fail)
    }
}

/// Changes the size of a terminal, by our end.
///
/// # Errors
/// When it is none.
pub fn resize(ours: &OwnedFd, rows: u16, columns: u16) -> std::io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(ours, size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_at_one_end_is_read_at_the_other() {
        let terminal = Terminal::open(24, 80).expect("a terminal");
        assert!(rustix::termios::isatty(terminal.program()));
        rustix::io::write(&terminal.ours, b"typed\n").expect("written");
        let mut buffer = [0; 16];
        let count = rustix::io::read(terminal.program(), &mut buffer).expect("read");
        assert_eq!(&buffer[..count], b"typed\n");
        resize(&terminal.ours, 7, 9).expect("resized");
        let size = rustix::termios::tcgetwinsize(terminal.program()).expect("a size");
        assert_eq!((size.ws_row, size.ws_col), (7, 9));
    }
}
