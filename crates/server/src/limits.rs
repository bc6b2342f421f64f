//! Every limit of the API, by name.

use std::time::Duration;

/// Bytes of a request's body: the longest input of a run, and room for its JSON.
pub const BODY_BYTES_MAX: usize = 2 << 20;
/// Bytes of a request's head.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a request's head may take to come, and how long a connection may rest between two.
pub const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a request's body may take to come.
pub const BODY_WAIT: Duration = Duration::from_secs(30);
/// Connections served at once on each address.
pub const CONNECTIONS_MAX: usize = 128;
/// Connections beyond these that are told so; more are closed without a word.
pub const REFUSED_CONNECTIONS_MAX: usize = 32;
/// Pause after a connection that could not be accepted.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Records read of the log at once.
pub const PAGE_RECORDS_MAX: usize = 256;
/// Pieces of a stream that wait for a slow reader.
pub const PIECES_MAX: usize = 16;
/// How long a reader of a stream may take nothing before the stream is given up.
pub const STALLED_WAIT: Duration = Duration::from_secs(60);
/// After this long without a record a stream says that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Shortest pause between two looks whether the log has grown, while somebody waits for it.
pub const LOOK_MIN: Duration = Duration::from_millis(1);
/// Longest pause between two looks.
pub const LOOK_MAX: Duration = Duration::from_millis(20);
/// Folded runs that are kept for the next question.
pub const FOLDED_RUNS_MAX: usize = 64;
/// Bytes of a file that is given out.
pub const ARTIFACT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of an artifact read at once.
pub const ARTIFACT_PIECE_BYTES: usize = 256 << 10;
/// How long a step is waited for when its asker does not say.
pub const STEP_WAIT: Duration = Duration::from_secs(25);
/// Longest wait for a step; who wants to wait longer asks again.
pub const STEP_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a request is put to another owner when one dies over it.
pub const OWNERS_MAX: u32 = 3;
/// Bytes of standard input that are handed to the owner at once.
pub const INPUT_PIECE_BYTES: usize = 32 << 10;
/// Entries of a directory that are listed at once.
pub const ENTRIES_MAX: usize = 1_000;
/// Longest a command of a sandbox may run, in seconds, and as long as it may when its asker does not
/// say.
pub const EXEC_TIMEOUT_S_MAX: u64 = 3_600;
/// How often it is looked whether a command that is waited for still has its owner.
pub const LIVE_LOOK: Duration = Duration::from_secs(1);
