//! Whether the log has changed since the last look, without reading it.

use crate::StoreError;
use crate::home::Home;
use crate::rows::read_failed;
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// Looks at a log that another process writes.
#[derive(Debug)]
pub struct Changes {
    home: Home,
    conn: Option<Connection>,
    version: Option<u64>,
}

impl Changes {
    /// Of the log in a home directory, which need not be there yet.
    #[must_use]
    pub fn of(home: &Path) -> Self {
        Self { home: Home::at(home), conn: None, version: None }
    }

    /// Whether anything was committed since the last call; the first call says yes when there is a
    /// log.
    ///
    /// # Errors
    /// When what is there is not a log this program reads.
    pub fn came(&mut self) -> Result<bool, StoreError> {
        if self.conn.is_none() {
            if !self.home.check_readable()? {
                return Ok(false);
            }
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let opened = Connection::open_with_flags(self.home.db(), flags);
            self.conn = Some(opened.map_err(read_failed)?);
        }
        let conn = self.conn.as_ref().expect("opened above");
        // Counts the commits of other connections, as this one sees them.
        let version = conn.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
        let version = version.map_err(read_failed)?.unsigned_abs();
        Ok(self.version.replace(version) != Some(version))
    }
}
