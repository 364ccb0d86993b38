//! Directories for stores that end with their process.

use std::path::{Path, PathBuf};

/// A directory removed on drop.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// Creates an empty directory that nobody else can read; `purpose` is a part of its name.
    pub(crate) fn create(purpose: &str) -> Result<Self, String> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("oncegate-{purpose}-{}", uuid::Uuid::new_v4());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            format!("cannot create the folder {} for a temporary store: {error}", path.display())
        })?;
        Ok(Self(path))
    }

    /// Path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        // A directory that cannot be removed now is left to the cleaning of the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
