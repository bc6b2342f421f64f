//! Where it listens: a Unix socket that only its owner may open, and loopback TCP with a token.
//!
//! One server a home: a lock says so. The token is new with each start, and its file is gone when
//! the server is.

use crate::ServeError;
use crate::admit::{Door, TOKEN_BYTES};
use runtime::Home;
use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The Unix socket; `HOME/serve.sock` when none is named.
    pub socket: Option<PathBuf>,
    /// A loopback address for TCP.
    pub listen: Option<SocketAddr>,
}

/// Where it listens, to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The TCP address.
    pub address: Option<SocketAddr>,
    /// Where the token for TCP lies.
    pub token_file: Option<PathBuf>,
}

/// Open doors. What they left in the file system goes with them.
#[derive(Debug)]
pub(crate) struct Doors {
    pub(crate) unix: Option<UnixListener>,
    pub(crate) tcp: Option<(TcpListener, Door)>,
    pub(crate) listening: Listening,
    /// Held as long as this is the home's server.
    _lock: File,
}

impl Drop for Doors {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.listening.socket);
        if let Some(file) = &self.listening.token_file {
            let _ = std::fs::remove_file(file);
        }
    }
}

fn fail(place: &Path, reason: impl ToString) -> ServeError {
    ServeError::Listen { place: place.display().to_string(), reason: reason.to_string() }
}

impl Doors {
    /// Opens them.
    ///
    /// # Errors
    /// When the home has a server, an address is not ours or not loopback.
    pub(crate) async fn open(home: &Home, places: &Places) -> Result<Self, ServeError> {
        let loopback = places.listen.is_none_or(|address| address.ip().is_loopback());
        if let (false, Some(address)) = (loopback, places.listen) {
            let reason = "it is not a loopback address, and the API is for this machine only";
            return Err(fail(Path::new(&address.to_string()), reason));
        }
        let lock = lock(home)?;
        let socket = places.socket.clone().unwrap_or_else(|| home.path().join("serve.sock"));
        let unix = bind(&socket)?;
        let mut doors = Self {
            unix: Some(unix),
            tcp: None,
            listening: Listening { socket, address: None, token_file: None },
            _lock: lock,
        };
        if let Some(address) = places.listen {
            doors.open_tcp(home, address).await?;
        }
        Ok(doors)
    }

    async fn open_tcp(&mut self, home: &Home, address: SocketAddr) -> Result<(), ServeError> {
        let place = address.to_string();
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| fail(Path::new(&place), error))?;
        let address = listener.local_addr().map_err(|error| fail(Path::new(&place), error))?;
        let file = home.path().join("serve.token");
        let token = write_token(&file)?;
        self.listening.address = Some(address);
        self.listening.token_file = Some(file.clone());
        self.tcp = Some((listener, Door::Tcp { address, token, file }));
        Ok(())
    }
}

/// The home's one server.
fn lock(home: &Home) -> Result<File, ServeError> {
    let path = home.path().join("serve.lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(|error| fail(&path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(fail(home.path(), "this home has a server")),
        Err(error) => Err(fail(&path, error)),
    }
}

/// A socket that nobody else may open, from its first moment. What lies there is removed only when
/// it is a socket that nobody answers.
fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::FileTypeExt as _;
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(fail(path, "something else lies there"));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(fail(path, "somebody listens there"));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|error| fail(path, error))?,
        Err(_) => {}
    }
    let address = SocketAddrUnix::new(path).map_err(|error| fail(path, error))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let bound = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .and_then(|socket| {
            // The name gets the socket's own mode: there is no moment in which it is open to all.
            rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            rustix::net::bind(&socket, &address)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(socket)
        });
    let socket = bound.map_err(|error| fail(path, error))?;
    let mode = path.metadata().map_or(0, |meta| meta.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let _ = std::fs::remove_file(path);
        return Err(fail(path, format!("others could open it (mode {mode:o})")));
    }
    UnixListener::from_std(socket.into()).map_err(|error| fail(path, error))
}

/// A new token, in a file of its own that nobody else can read.
fn write_token(path: &Path) -> Result<String, ServeError> {
    let mut random = [0u8; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| fail(path, error))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(fail(path, error));
        }
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let written = options.open(path).and_then(|mut file| writeln!(file, "{token}"));
    written.map_err(|error| fail(path, error))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    fn open(home: &Path, places: &Places) -> Result<Doors, &'static str> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("builds");
        let _inside = runtime.enter();
        runtime.block_on(Doors::open(&Home::at(home), places)).map_err(|error| error.code())
    }

    const PLAIN: Places = Places { socket: None, listen: None };

    #[test]
    fn its_files_are_its_owner_s_alone_and_go_with_it() {
        let home = tempfile::tempdir().expect("a directory");
        let tcp = Places { listen: Some("127.0.0.1:0".parse().expect("address")), ..PLAIN };
        let doors = open(home.path(), &tcp).expect("opens");
        for name in ["serve.sock", "serve.token", "serve.lock"] {
            let meta = std::fs::metadata(home.path().join(name)).expect("there");
            assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
        }
        let token = std::fs::read_to_string(home.path().join("serve.token")).expect("a token");
        assert_eq!(token.trim().len(), 2 * TOKEN_BYTES);
        assert_eq!(open(home.path(), &PLAIN).err(), Some("BP-SERVE-001"), "one server a home");
        drop(doors);
        assert!(!home.path().join("serve.sock").exists());
        assert!(!home.path().join("serve.token").exists());
        let again = open(home.path(), &tcp).expect("opens again");
        let other = std::fs::read_to_string(home.path().join("serve.token")).expect("a token");
        assert_ne!(token, other, "a new start, a new token");
        drop(again);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let refused = |socket: Option<PathBuf>, listen: Option<&str>| {
            let listen = listen.map(|text| text.parse().expect("an address"));
            let got = open(home.path(), &Places { socket, listen }).err();
            assert_eq!(got, Some("BP-SERVE-001"));
        };
        refused(None, Some("0.0.0.0:0"));
        refused(None, Some("[::]:0"));
        refused(None, Some("192.0.2.1:0"));
        let file = home.path().join("file");
        std::fs::write(&file, "mine").expect("written");
        refused(Some(file.clone()), None);
        assert_eq!(std::fs::read_to_string(&file).expect("there"), "mine");
        let taken = home.path().join("taken.sock");
        let listener = std::os::unix::net::UnixListener::bind(&taken).expect("bound");
        refused(Some(taken.clone()), None);
        drop(listener);
        // Nobody answers there any more.
        open(home.path(), &Places { socket: Some(taken), listen: None }).expect("opens");
    }
}
