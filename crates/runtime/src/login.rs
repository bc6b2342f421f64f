//! Who is at the other end of the owner's socket, as the kernel says.

use crate::error::RuntimeError;
use tokio::net::UnixStream;

/// Where logins have their numbers.
const PASSWD: &str = "/etc/passwd";

/// The login of the process that connected.
///
/// # Errors
/// When the kernel does not say.
pub(crate) fn of_peer(stream: &UnixStream) -> Result<String, RuntimeError> {
    let peer = stream.peer_cred();
    let peer = peer.map_err(|error| RuntimeError::Frame { reason: error.to_string() })?;
    Ok(of_uid(peer.uid()))
}

/// A user's login, else `uidN`.
#[must_use]
pub fn of_uid(uid: u32) -> String {
    let table = std::fs::read_to_string(PASSWD).unwrap_or_default();
    named(&table, uid).unwrap_or_else(|| format!("uid{uid}"))
}

fn named(table: &str, uid: u32) -> Option<String> {
    let mut users = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = users.find(|user| user.get(2).and_then(|id| id.parse().ok()) == Some(uid))?;
    found.first().filter(|name| !name.is_empty()).map(|name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_its_login() {
        let table = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbad\n";
        assert_eq!(named(table, 0).as_deref(), Some("root"));
        assert_eq!(named(table, 1000).as_deref(), Some("ada"));
        assert_eq!(named(table, 7), None);
        assert_eq!(of_uid(u32::MAX - 7), format!("uid{}", u32::MAX - 7));
    }
}
