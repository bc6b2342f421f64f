//! A host, in the one form in which it is judged: a lower-case name, or an address.
//!
//! What could be read as two hosts is none: userinfo, percent signs, letters beyond ASCII, names
//! that end in a number and so could be an address in another notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 253;
/// Bytes of a label.
const LABEL_BYTES_MAX: usize = 63;

/// A host by name or by address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower case, without a trailing dot.
    Name(Arc<str>),
    /// Never an IPv4 address in the clothes of IPv6.
    Ip(IpAddr),
}

impl Host {
    /// A host from its text: a name in any case, perhaps with one trailing dot, or an address in
    /// plain notation without brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(v4) = text.parse::<Ipv4Addr>() {
            return Some(Self::Ip(v4.into()));
        }
        if let Ok(v6) = text.parse::<Ipv6Addr>() {
            return Some(Self::ip(v6.into()));
        }
        name(text).map(Self::Name)
    }

    /// A host from an address.
    #[must_use]
    pub fn ip(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }

    /// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`.
    #[must_use]
    pub fn parse_authority(text: &str, default_port: u16) -> Option<(Self, u16)> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inside, after) = rest.split_once(']')?;
                let v6 = inside.parse::<Ipv6Addr>().ok()?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':')?),
                };
                return Some((Self::ip(v6.into()), parse_port(port, default_port)?));
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        Some((Self::parse(host)?, parse_port(port, default_port)?))
    }

    /// The text that stands in `Host`: without the port where it is the scheme's own.
    #[must_use]
    pub fn authority(&self, port: u16, default_port: u16) -> String {
        let host = match self {
            Self::Ip(IpAddr::V6(v6)) => format!("[{v6}]"),
            other => other.to_string(),
        };
        if port == default_port { host } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

impl From<SocketAddr> for Host {
    fn from(address: SocketAddr) -> Self {
        Self::ip(address.ip())
    }
}

fn parse_port(text: Option<&str>, default: u16) -> Option<u16> {
    let Some(text) = text else { return Some(default) };
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = plain.then(|| text.parse().ok()).flatten()?;
    (port != 0).then_some(port)
}

/// A name in the form in which it is judged, if it is one.
pub(crate) fn name(text: &str) -> Option<Arc<str>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.split('.').all(is_label) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let last = lower.rsplit('.').next().unwrap_or_default();
    (!is_number(last)).then(|| lower.into())
}

/// Letters, digits, hyphens inside, and the underscore that service names begin with.
fn is_label(label: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(known)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether some reader would take a name with this last label for an IPv4 address.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").is_some_and(|x| x.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || label.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let got = Host::parse(text).map(|host| host.to_string());
        assert_eq!(got.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn one_form_for_each_host() {
        for (text, expected) in [
            ("A.Example.TEST", "a.example.test"),
            ("a.test.", "a.test"),
            ("_dmarc.a.test", "_dmarc.a.test"),
            ("xn--bcher-kva.test", "xn--bcher-kva.test"),
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2606:4700:0:0::1", "2606:4700::1"),
        ] {
            check(text, Some(expected));
        }
    }

    #[test]
    fn what_could_be_two_hosts_is_none() {
        for text in [
            "",
            ".",
            "a..test",
            "a.test..",
            "-a.test",
            "a-.test",
            "a b.test",
            "a\0.test",
            "a%2etest",
            "ok@evil.test",
            "bücher.test",
            "127.1",
            "0x7f.1",
            "2130706433",
            "0x7f000001",
            "a.1",
            "0177.0.0.1",
            "1.2.3.4.5",
            "a.0x1f",
            "fe80::1%eth0",
            "a/b",
            "a.test:80",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn names_have_a_limit_at_its_edge() {
        let label = "a".repeat(63);
        check(&format!("{label}.test"), Some(&format!("{label}.test")));
        check(&format!("a{label}.test"), None);
        let long = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(long.len(), 253);
        check(&long, Some(&long));
        check(&format!("{long}a"), None);
    }

    #[test]
    fn authorities_have_one_port() {
        for (text, expected) in [
            ("a.test", Some(("a.test", 80))),
            ("A.test.:8080", Some(("a.test", 8080))),
            ("[::1]:81", Some(("::1", 81))),
            ("[::1]", Some(("::1", 80))),
            ("a.test:0", None),
            ("a.test:65536", None),
            ("a.test:", None),
            ("a.test:+80", None),
            ("a.test:80:80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[a.test]", None),
        ] {
            let got = Host::parse_authority(text, 80).map(|(host, port)| (host.to_string(), port));
            assert_eq!(got, expected.map(|(h, p)| (h.to_owned(), p)), "{text:?}");
        }
        assert_eq!(Host::parse("::2").unwrap().authority(8080, 80), "[::2]:8080");
        assert_eq!(Host::parse("a.test").unwrap().authority(80, 80), "a.test");
    }
}
