//! The limits of the boundary. What a program of the sandbox can reach has a test at its edge, but
//! for streams of one HTTP/2 connection and idle upstream connections, which the HTTP library and a
//! bounded list keep. Times of resolving and dialling and the number of addresses tried need a world
//! outside and have none.

/// Names that may have synthetic addresses in one sandbox.
pub const NAMES_MAX: usize = 4096;
/// Seconds a program may keep a synthetic address.
pub const DNS_TTL_S: u32 = 30;
/// Bytes of one DNS message taken or given over UDP.
pub const DNS_UDP_BYTES_MAX: usize = 1232;
/// DNS questions a sandbox may ask within a second; those above are dropped.
pub const DNS_PER_SECOND_MAX: u32 = 200;
/// DNS questions of a sandbox that are being answered at once.
pub const DNS_ASKS_MAX: usize = 64;
/// DNS connections over TCP at once.
pub const DNS_CONNECTIONS_MAX: usize = 16;
/// Questions on one DNS connection.
pub const DNS_CONNECTION_ASKS_MAX: usize = 64;
/// Connections of a sandbox at once; those above are reset.
pub const CONNECTIONS_MAX: usize = 256;
/// Requests that wait for the judge at once; one above is refused. Connections ask once each and
/// are bounded by their own number.
pub const ASKS_MAX: usize = 64;
/// Requests of one HTTP/2 connection at once.
pub const STREAMS_MAX: u32 = 64;
/// Bytes of a request's head, and of a response's.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request, and of a response.
pub const HEADERS_MAX: usize = 128;
/// Bytes of the trailers of a chunked body, and of a line that says a chunk's size.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;
/// Bytes of a request's path and query together.
pub const TARGET_BYTES_MAX: usize = 16 << 10;
/// Bytes of a body that are read before the judge is asked.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of bodies that one sandbox may have read ahead at once; a request above is refused.
pub const BODIES_BYTES_MAX: usize = 32 << 20;
/// How long a body may take before it is judged as a stream, milliseconds.
pub const BODY_MS_MAX: u64 = 10_000;
/// How long a body may stand still before it is judged as a stream, milliseconds.
pub const BODY_STILL_MS_MAX: u64 = 1_000;
/// Facts of one kind that are told of one body; a body with more is not understood.
pub const FACTS_MAX: usize = 2_000;
/// Levels of nesting of JSON that is read.
pub const JSON_DEPTH_MAX: usize = 64;
/// Placeholders in one request; a request with more is refused.
pub const PLACEHOLDERS_MAX: usize = 16;
/// How long the first bytes of a connection may take, milliseconds.
pub const FIRST_BYTES_MS_MAX: u64 = 10_000;
/// How long a connection that is denied may take to show that it can be told why, milliseconds.
pub const DENIED_MS_MAX: u64 = 250;
/// How long a request's head may take from its first byte, milliseconds.
pub const HEAD_MS_MAX: u64 = 10_000;
/// How long a TLS handshake may take, milliseconds.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;
/// How long a connection may idle between requests, milliseconds.
pub const IDLE_MS_MAX: u64 = 120_000;
/// How long a name may take to resolve, milliseconds.
pub const RESOLVE_MS_MAX: u64 = 5_000;
/// How long one address may take to answer, milliseconds.
pub const DIAL_MS_MAX: u64 = 5_000;
/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 4;
/// Bytes of an answer's body that is kept; a longer one is not.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of answers that one sandbox may have in keeping at once; one above is not kept.
pub const ANSWERS_BYTES_MAX: usize = 64 << 20;
/// How long an upstream may take to answer a request's head, milliseconds.
pub const ANSWER_MS_MAX: u64 = 600_000;
/// Bytes of an answer that are read for how old it is; a longer one cannot be read for that.
pub const DATED_BYTES_MAX: usize = 256 << 10;
/// How long that may take, milliseconds.
pub const DATED_MS_MAX: u64 = 10_000;
/// Idle upstream connections kept for one connection of the sandbox.
pub const IDLE_UPSTREAM_MAX: usize = 8;
/// Leaf certificates kept.
pub const LEAVES_MAX: usize = 256;
/// Bytes of a TLS greeting that are looked at for its name.
pub const HELLO_BYTES_MAX: usize = 64 << 10;
/// How long the judge may take to say whether an open stream may go on, milliseconds; no answer
/// closes it.
pub const RECHECK_MS_MAX: u64 = 200;
/// Bytes of one WebSocket frame.
pub const FRAME_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a token server's answer.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
