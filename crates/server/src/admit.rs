//! Who is served: on the Unix socket whoever the kernel says is its owner, on TCP whoever shows the
//! token. A request that names another host, or comes from a page, is refused on both: a name that a
//! page's server points at 127.0.0.1 is another host.

use crate::ServeError;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use std::net::SocketAddr;
use std::path::PathBuf;
use subtle::ConstantTimeEq;

/// Random bytes of a token.
pub(crate) const TOKEN_BYTES: usize = 32;

/// By what door a request came.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// The Unix socket, whose other end the kernel has named.
    Local,
    /// TCP on this loopback address.
    Tcp { address: SocketAddr, token: String, file: PathBuf },
}

impl Door {
    /// Whether a request with this head is for us.
    pub(crate) fn faces(&self, head: &HeaderMap) -> Result<(), ServeError> {
        let foreign = |name: &HeaderName, value: &[u8]| {
            let value: String = String::from_utf8_lossy(value).chars().take(80).collect();
            Err(ServeError::ForeignHost { header: format!("{name} '{value}'") })
        };
        let Self::Tcp { address, .. } = self else {
            // No browser speaks to a Unix socket.
            return match head.get(ORIGIN) {
                Some(origin) => foreign(&ORIGIN, origin.as_bytes()),
                None => Ok(()),
            };
        };
        let names = names_of(*address);
        let hosts: Vec<&[u8]> = head.get_all(HOST).iter().map(|h| h.as_bytes()).collect();
        let [host] = hosts.as_slice() else {
            return foreign(&HOST, hosts.concat().as_slice());
        };
        if !names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(host)) {
            return foreign(&HOST, host);
        }
        for origin in head.get_all(ORIGIN) {
            let ours = names.iter().any(|name| {
                format!("http://{name}").as_bytes().eq_ignore_ascii_case(origin.as_bytes())
            });
            if !ours {
                return foreign(&ORIGIN, origin.as_bytes());
            }
        }
        Ok(())
    }

    /// Whether it may ask for anything.
    pub(crate) fn opens(&self, head: &HeaderMap) -> Result<(), ServeError> {
        let Self::Tcp { token, file, .. } = self else {
            return Ok(());
        };
        let mut shown = head.get_all(AUTHORIZATION).iter();
        let given = shown.next().and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let right = given.is_some_and(|given| bool::from(given.ct_eq(token.as_bytes())));
        if right && shown.next().is_none() {
            return Ok(());
        }
        Err(ServeError::Unauthorised { file: file.clone() })
    }
}

/// What a program may call this address.
fn names_of(address: SocketAddr) -> [String; 2] {
    [address.to_string(), format!("localhost:{}", address.port())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    fn tcp() -> Door {
        let address = "127.0.0.1:8700".parse().expect("an address");
        Door::Tcp { address, token: "t0ken".to_owned(), file: "/h/serve.token".into() }
    }

    fn head(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in pairs {
            head.append(*name, value.parse().expect("a value"));
        }
        head
    }

    #[test]
    fn a_page_and_a_name_pointed_at_us_are_refused() {
        let check = |door: &Door, pairs: &[(&HeaderName, &str)], admitted: bool| {
            let got = door.faces(&head(pairs)).map_err(|error| error.code());
            let expected = if admitted { Ok(()) } else { Err("BP-SERVE-003") };
            assert_eq!(got, expected, "{pairs:?}");
        };
        let (local, tcp) = (Door::Local, tcp());
        check(&tcp, &[(&HOST, "127.0.0.1:8700")], true);
        check(&tcp, &[(&HOST, "LocalHost:8700")], true);
        check(&tcp, &[(&HOST, "127.0.0.1:8700"), (&ORIGIN, "http://localhost:8700")], true);
        check(&tcp, &[], false);
        check(&tcp, &[(&HOST, "")], false);
        check(&tcp, &[(&HOST, "127.0.0.1")], false);
        check(&tcp, &[(&HOST, "127.0.0.1:8701")], false);
        check(&tcp, &[(&HOST, "evil.example:8700")], false);
        check(&tcp, &[(&HOST, "127.0.0.1:8700.evil.example")], false);
        check(&tcp, &[(&HOST, "127.0.0.1:8700"), (&HOST, "evil.example")], false);
        check(&tcp, &[(&HOST, "127.0.0.1:8700"), (&ORIGIN, "https://evil.example")], false);
        check(&tcp, &[(&HOST, "127.0.0.1:8700"), (&ORIGIN, "null")], false);
        check(&local, &[(&HOST, "anything")], true);
        check(&local, &[], true);
        check(&local, &[(&ORIGIN, "http://localhost:8700")], false);
    }

    #[test]
    fn only_the_whole_token_opens() {
        let check = |shown: &[&str], opens: bool| {
            let pairs: Vec<_> = shown.iter().map(|text| (&AUTHORIZATION, *text)).collect();
            let got = tcp().opens(&head(&pairs)).map_err(|error| error.code());
            assert_eq!(got, if opens { Ok(()) } else { Err("BP-SERVE-002") }, "{shown:?}");
        };
        check(&["Bearer t0ken"], true);
        check(&[], false);
        check(&["Bearer "], false);
        check(&["Bearer t0ke"], false);
        check(&["Bearer t0kenn"], false);
        check(&["Bearer T0ken"], false);
        check(&["bearer t0ken"], false);
        check(&["Basic t0ken"], false);
        check(&["Bearer t0ken", "Bearer t0ken"], false);
        assert_eq!(Door::Local.opens(&HeaderMap::new()), Ok(()));
    }
}
