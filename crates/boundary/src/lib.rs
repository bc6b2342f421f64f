//! The network boundary of a sandbox: names, connections and requests, each judged before it
//! leaves.
//!
//! A [`Boundary`] serves the sockets that were opened inside one sandbox. It answers DNS from
//! synthetic addresses, finds the name again when the program connects, ends TLS with the
//! sandbox's own authority, and asks the [`Judge`] about every name, connection and request. Only
//! after a permit is a name resolved, an address checked and dialled, a secret put in; what comes
//! back is searched for that secret. It runs where hostile bytes are read: it decides nothing,
//! holds no policy and no log, and keeps a secret no longer than one request.

mod accept;
mod address;
mod age;
mod authority;
mod body;
mod boundary;
mod dns;
mod endpoint;
mod error;
mod exchange;
mod facts;
mod head;
mod host;
mod judge;
mod kept;
pub mod limits;
mod mask;
mod mint;
mod opaque;
mod path;
mod pool;
mod request;
mod secrets;
mod sigv4;
mod standing;
mod stream;
mod synthetic;
mod upstream;
mod websocket;

pub use address::barred;
pub use boundary::{Boundary, Clock, Config, Listeners, OriginalDestination};
pub use endpoint::{Endpoint, EndpointAnswer, EndpointBody, MODELS_HOST};
pub use error::BoundaryError;
pub use host::Host;
pub use judge::{
    Answer, Client, ConnectAsk, ConnectVerdict, Denial, Event, How, Judge, Place, Placeholder,
    RequestAsk, RequestVerdict, Scan, SecretUse, Standing,
};
pub use kept::KeptAnswer;
pub use mint::TOKEN_OPERATION;
pub use secrets::by_name;
pub use standing::Rechecked;
