//! Frames between owner and spawner: one JSON document per packet, descriptors beside it.

use crate::SandboxError;
use crate::spec::{CreateSpec, ExecExit, FileOp, Sandbox, SandboxId, Trees};
use crate::weaken::Weakened;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Bytes one frame may have.
pub(crate) const FRAME_BYTES_MAX: usize = 160 << 10;
/// Descriptors one frame may carry: init sends its namespaces and its listeners.
pub(crate) const FRAME_FDS_MAX: usize = 16;

/// What the owner sends first: how the spawner is to work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Containment to leave out: none, but in tests of the tests.
    pub(crate) weakened: Weakened,
}

/// What the owner asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Build a sandbox.
    Create(Box<CreateSpec>),
    /// Run a program; carries its standard input, output and error.
    Exec {
        sandbox: SandboxId,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        cwd: Option<String>,
        timeout_ms: Option<u64>,
        trees: Option<Trees>,
        trust: Option<PathBuf>,
    },
    /// Do a file operation; carries the pipe of the bytes to write and the pipe of the answer.
    File { sandbox: SandboxId, op: FileOp, trees: Option<Trees> },
    /// Kill everything inside but init.
    KillAll { sandbox: SandboxId },
    /// End a sandbox.
    Destroy { sandbox: SandboxId },
}

/// A question with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AskFrame {
    pub(crate) seq: u64,
    pub(crate) ask: Ask,
}

/// What the spawner answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The spawner is ready; where its cgroups are, so that they can be removed after its death.
    Ready { cgroups: Vec<String> },
    /// A sandbox is built.
    Created(Sandbox),
    /// A program was started.
    Started { pid: i32 },
    /// It ended, and everything it started.
    Exited(ExecExit),
    /// Done.
    Done,
}

/// An answer with the number of its question. `Exec` has two: started, exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnswerFrame {
    pub(crate) seq: u64,
    pub(crate) answer: Result<Answer, SandboxError>,
}

/// A frame's bytes.
pub(crate) fn encode<T: Serialize>(frame: &T) -> Result<Vec<u8>, SandboxError> {
    let bytes = serde_json::to_vec(frame)
        .map_err(|error| SandboxError::Frame { why: error.to_string() })?;
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(SandboxError::Frame {
            why: format!("{} bytes, and at most {FRAME_BYTES_MAX} fit", bytes.len()),
        });
    }
    Ok(bytes)
}

/// A frame from its bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SandboxError> {
    serde_json::from_slice(bytes).map_err(|error| SandboxError::Frame { why: error.to_string() })
}

/// Sends one packet without waiting; `WOULDBLOCK` when the other side is slow.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = fds.len() <= FRAME_FDS_MAX;
    if !fits || (!fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds))) {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    assert_eq!(sent, bytes.len(), "a packet socket sends whole packets");
    Ok(())
}

/// Sends descriptors in one packet with a number that says what they are for. Never waits.
///
/// # Errors
/// When there are too many of them, or the other side is slow or gone.
pub fn send_descriptors(
    socket: impl AsFd,
    number: u64,
    fds: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    Ok(send(socket, &number.to_be_bytes(), fds)?)
}

/// Takes what [`send_descriptors`] sent; `None` when nothing waits. Never waits.
///
/// # Errors
/// When the other side is gone or sent something else.
pub fn receive_descriptors(socket: impl AsFd) -> std::io::Result<Option<(u64, Vec<OwnedFd>)>> {
    let mut buffer = [0; size_of::<u64>()];
    match receive(socket, &mut buffer) {
        Ok(Some(Packet { bytes, fds })) => {
            let number: Result<[u8; 8], _> = bytes.try_into();
            let number = number.map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData));
            Ok(Some((u64::from_be_bytes(number?), fds)))
        }
        Ok(None) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Err(rustix::io::Errno::AGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// One received packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Receives one packet without waiting. `None` at end of file.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<Option<Packet>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if got.bytes == 0 {
        return Ok(None);
    }
    if got.flags.contains(rustix::net::ReturnFlags::TRUNC)
        || got.flags.contains(rustix::net::ReturnFlags::CTRUNC)
    {
        return Err(rustix::io::Errno::MSGSIZE);
    }
    Ok(Some(Packet { bytes: buffer[..got.bytes].to_vec(), fds }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use types::Coded;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn frames_have_a_limit_at_its_edge() {
        let text = |len: usize| "x".repeat(len);
        assert!(encode(&text(FRAME_BYTES_MAX - 2)).is_ok());
        assert_eq!(encode(&text(FRAME_BYTES_MAX - 1)).unwrap_err().code(), "BP-SANDBOX-003");
        assert_eq!(decode::<AskFrame>(b"{\"seq\":").unwrap_err().code(), "BP-SANDBOX-003");
    }

    #[test]
    fn packets_keep_their_bounds_and_their_descriptors() {
        let (a, b) = pair();
        let mut buffer = vec![0; 64];
        assert_eq!(receive(&b, &mut buffer).unwrap_err(), rustix::io::Errno::AGAIN);
        send(&a, b"one", &[a.as_fd()]).unwrap();
        send(&a, b"two", &[]).unwrap();
        let first = receive(&b, &mut buffer).unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.fds.len()), (&b"one"[..], 1));
        assert!(
            rustix::io::fcntl_getfd(&first.fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
        );
        assert_eq!(receive(&b, &mut buffer).unwrap().unwrap().bytes, b"two");
        // Too long for the reader is an error, never a cut-off frame.
        send(&a, &[1; 65], &[]).unwrap();
        assert_eq!(receive(&b, &mut buffer).unwrap_err(), rustix::io::Errno::MSGSIZE);
        drop((a, first));
        assert!(receive(&b, &mut buffer).unwrap().is_none());
    }

    #[test]
    fn more_descriptors_than_announced_are_refused() {
        let (a, _b) = pair();
        let many = vec![a.as_fd(); FRAME_FDS_MAX + 1];
        assert_eq!(send(&a, b"x", &many).unwrap_err(), rustix::io::Errno::MSGSIZE);
    }
}
