//! Messages to the kernel's network configuration: built here, sent at once, each acknowledged.
//!
//! Only what [`crate::boundary`] needs. Nothing is ever read but acknowledgements.

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;

/// Ask, and answer when it is done.
const REQUEST_AND_ACK: u16 = 1 | 4;
/// Make what is not there.
pub(crate) const CREATE: u16 = 0x400;
/// At the end of its list.
pub(crate) const APPEND: u16 = 0x800;
/// An answer: an error number, 0 for none.
const ERROR: u16 = 2;
/// An attribute that holds attributes.
const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
const ALIGN: usize = 4;
/// Bytes of answers taken at once.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// A kernel's half of the conversation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Family {
    /// Links, addresses, routes.
    Route,
    /// nftables.
    Netfilter,
}

/// Messages that go out together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Acknowledgements to wait for.
    acks: usize,
}

/// A list of attributes under construction.
#[derive(Debug, Default, Clone)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(ALIGN + value.len()).expect("attributes are short");
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
        self
    }

    /// A number as nftables has them: the high byte first.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

impl Batch {
    /// Adds a message that is acknowledged. `fixed` is the structure that comes before the
    /// attributes.
    pub(crate) fn add(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: &Attributes) {
        self.acks += 1;
        self.push(kind, flags | REQUEST_AND_ACK, fixed, attributes);
    }

    /// Adds a message that is not: the brackets of a transaction.
    pub(crate) fn bracket(&mut self, kind: u16, fixed: &[u8]) {
        self.push(kind, 1, fixed, &Attributes::default());
    }

    fn push(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: &Attributes) {
        let start = self.bytes.len();
        let len = HEADER_BYTES + fixed.len().next_multiple_of(ALIGN) + attributes.0.len();
        self.bytes.extend(u32::try_from(len).expect("messages are short").to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        // Which message is answered does not matter: the first error ends all.
        self.bytes.extend([0; 8]);
        self.bytes.extend(fixed);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        self.bytes.extend(&attributes.0);
        assert_eq!(self.bytes.len() - start, len, "everything is aligned");
    }

    /// Sends all messages and waits until each is done.
    ///
    /// # Errors
    /// The first error the kernel answers.
    pub(crate) fn send(&self, family: Family) -> io::Result<()> {
        let protocol = match family {
            // The protocol numbered 0.
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&socket, &self.bytes, SendFlags::empty(), &kernel)?;
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let mut left = self.acks;
        while left > 0 {
            let (count, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
            left = left.saturating_sub(acknowledged(&buffer[..count])?);
        }
        Ok(())
    }
}

/// How many messages a packet of answers acknowledges.
fn acknowledged(mut packet: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    while !packet.is_empty() {
        let word = |at: usize| -> io::Result<u32> {
            let bytes = packet.get(at..at + 4).ok_or_else(bad)?;
            Ok(u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
        };
        let len = word(0)? as usize;
        let kind = word(4)? & 0xffff;
        if kind == u32::from(ERROR) {
            match word(HEADER_BYTES)?.cast_signed() {
                0 => count += 1,
                error => return Err(io::Error::from_raw_os_error(error.saturating_neg())),
            }
        }
        if len < HEADER_BYTES {
            return Err(bad());
        }
        packet = packet.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_aligned_and_nest() {
        let inner = Attributes::default().text(1, "ab");
        let outer = Attributes::default().be32(2, 7).nested(3, &inner);
        let mut expected = vec![8, 0, 2, 0, 0, 0, 0, 7];
        expected.extend([12, 0, 3, 0x80, 7, 0, 1, 0, b'a', b'b', 0, 0]);
        assert_eq!(outer.0, expected);
    }

    #[test]
    fn answers_are_counted_and_the_first_error_is_told() {
        let answer = |error: i32| {
            let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(error.to_ne_bytes());
            bytes.extend([0; 16]);
            bytes
        };
        let two = [answer(0), answer(0)].concat();
        assert_eq!(acknowledged(&two).unwrap(), 2);
        let failed = [answer(0), answer(-1)].concat();
        assert_eq!(acknowledged(&failed).unwrap_err().raw_os_error(), Some(1));
        assert!(acknowledged(&two[..10]).is_err());
        assert!(acknowledged(&[0; 16]).is_err());
    }

    #[test]
    fn a_message_without_rights_is_refused() {
        // A test runs without the right to change its host's network, or the address is no one's.
        let mut batch = Batch::default();
        batch.add(20, CREATE, &[0xff, 32, 0, 0, 0, 0, 0, 0], &Attributes::default());
        assert!(batch.send(Family::Route).is_err());
    }
}
