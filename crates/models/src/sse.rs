//! Server-sent events, read incrementally.
//!
//! Bytes may be cut anywhere. Lines end with LF, CRLF or CR; comments and fields we do not use are
//! skipped; an event that the end of the stream cut off before its empty line still counts, as
//! several servers leave that line out.

use crate::limits::LINE_BYTES_MAX;

/// A line or an event is longer than [`LINE_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineTooLong;

/// Splits a stream into the data of its events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    past_start: bool,
}

impl Events {
    /// Takes bytes; gives the data of every event that they complete to `on_event`, until it
    /// returns an error.
    pub(crate) fn feed<E: From<LineTooLong>>(
        &mut self,
        bytes: &[u8],
        on_event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                if rest[0] == b'\n' {
                    rest = &rest[1..];
                    continue;
                }
            }
            let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                return Ok(self.extend(rest)?);
            };
            self.extend(&rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            self.end_line(on_event)?;
            rest = &rest[end + 1..];
        }
        Ok(())
    }

    /// The stream is over: the last line and event count even if nothing closed them.
    pub(crate) fn finish<E: From<LineTooLong>>(
        &mut self,
        on_event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.line.is_empty() {
            self.end_line(on_event)?;
        }
        self.dispatch(on_event)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        if self.line.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(LineTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line<E: From<LineTooLong>>(
        &mut self,
        on_event: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !self.past_start {
            self.past_start = true;
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(on_event);
        }
        if let Some(value) = line.strip_prefix(b"data") {
            let value = match value.split_first() {
                None => value,
                Some((b':', value)) => value.strip_prefix(b" ").unwrap_or(value),
                Some(_) => return Ok(()),
            };
            if self.data.len() + value.len() > LINE_BYTES_MAX {
                return Err(LineTooLong.into());
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(value);
        }
        Ok(())
    }

    fn dispatch<E>(&mut self, on_event: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        let data = std::mem::take(&mut self.data);
        on_event(&data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(chunks: &[&[u8]]) -> Result<Vec<String>, LineTooLong> {
        let mut seen = Vec::new();
        let mut reader = Events::default();
        let mut keep = |data: &[u8]| {
            seen.push(String::from_utf8_lossy(data).into_owned());
            Ok::<_, LineTooLong>(())
        };
        for chunk in chunks {
            reader.feed(chunk, &mut keep)?;
        }
        reader.finish(&mut keep)?;
        Ok(seen)
    }

    #[test]
    fn streams_as_servers_write_them() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(events(&[text.as_bytes()]).expect("short"), expected, "{text:?}");
        };
        check("data: a\n\ndata: b\n\n", &["a", "b"]);
        check("data: a\r\n\r\ndata:b\r\n\r\n", &["a", "b"]);
        check("data: a\r\rdata: b\r\r", &["a", "b"]);
        check("data: a\r\ndata: b\r\n\r\n", &["a\nb"]);
        check(": hello\n\nevent: x\nid: 1\ndata: a\ndata: b\n\n", &["a\nb"]);
        check("\u{feff}data: a\n\n", &["a"]);
        check("data: a", &["a"]);
        check("data\n\n", &[""]);
        check("database: a\n\n", &[]);
        check("", &[]);
    }

    #[test]
    fn a_line_may_have_exactly_its_limit() {
        let line = |bytes: usize| [b"data: ".as_slice(), &vec![b'x'; bytes - 6], b"\n\n"].concat();
        assert_eq!(events(&[&line(LINE_BYTES_MAX)]).map(|e| e.len()), Ok(1));
        assert_eq!(events(&[&line(LINE_BYTES_MAX + 1)]), Err(LineTooLong));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            text in "(data: ?[ab]?|:c|event: x|\r|\n|\r\n|\n\n){0,20}",
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let bytes = text.as_bytes();
            let whole = events(&[bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            prop_assert_eq!(events(&chunks), whole);
        }
    }
}
