//! Cells: how a sealed piece is kept in a row, there or in a file of its own.

use crate::StoreError;
use crate::files::{FileId, Files, Staged};

/// Longest sealed piece kept in a row: 128 KiB. Longer ones are files.
pub(crate) const INLINE_BYTES_MAX: usize = 128 << 10;

const INLINE: u8 = 0;
const FILE: u8 = 1;

/// A cell as read from a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// The sealed bytes.
    Inline(&'a [u8]),
    /// The file that has them.
    File(FileId),
}

impl<'a> Cell<'a> {
    pub(crate) fn parse(cell: &'a [u8]) -> Option<Self> {
        match cell.split_first()? {
            (&INLINE, sealed) => Some(Self::Inline(sealed)),
            (&FILE, id) => Some(Self::File(id.try_into().ok()?)),
            _ => None,
        }
    }
}

/// The cell for a sealed piece; a long one is durable in its file on return.
pub(crate) fn store(
    blobs: &Files,
    sealed: &[u8],
    staged: &mut Vec<Staged>,
) -> Result<Vec<u8>, StoreError> {
    if sealed.len() <= INLINE_BYTES_MAX {
        return Ok([&[INLINE], sealed].concat());
    }
    let file = blobs.write(sealed)?;
    let cell = [&[FILE], file.id.as_slice()].concat();
    staged.push(file);
    Ok(cell)
}
