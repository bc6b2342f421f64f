//! A home with images, and what is left in it.

use image::{Held, ImageError, Images};
use std::path::{Path, PathBuf};
use types::ImageSource;

pub(crate) const HARNESS: &str = env!("CARGO_BIN_EXE_image-harness");

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(crate) images: Images,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::new(&dir.path().join("home"), HARNESS);
        Self { dir, images }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) async fn pull(&self, source: &str) -> Result<Held, ImageError> {
        let source: ImageSource = source.parse().unwrap();
        self.images.pull(&source, self.path()).await
    }

    fn count(&self, part: &str) -> usize {
        std::fs::read_dir(self.home().join("images").join(part)).map_or(0, Iterator::count)
    }

    /// Layers, records and half-made things in the store.
    pub(crate) fn kept(&self) -> [usize; 3] {
        ["layers", "records", "staging"].map(|part| self.count(part))
    }
}
