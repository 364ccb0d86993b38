//! The files of a configuration, and digests of their contents, by which a change is noticed.
//!
//! A digest follows symbolic links, so that a link which is turned to another directory (as
//! Kubernetes does with `..data`) changes all files behind it at once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::hex;

/// Bytes of a file that are read; certificates and configurations are far smaller.
const MOST_READ: u64 = 16 << 20;

/// The configuration file and the files that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFiles {
    paths: Vec<PathBuf>,
}

/// Digests of the contents of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDigests {
    /// By path; `None`: the file cannot be read.
    files: BTreeMap<PathBuf, Option<[u8; 32]>>,
}

impl ConfigFiles {
    /// Adds a file.
    pub fn add(&mut self, path: &Path) {
        if !self.paths.iter().any(|other| other == path) {
            self.paths.push(path.to_owned());
        }
    }

    /// Adds all files of `others`.
    pub fn add_all(&mut self, others: &Self) {
        others.paths.iter().for_each(|path| self.add(path));
    }

    /// Reads all files. Blocks the thread.
    pub fn digests(&self) -> FileDigests {
        let digests = self.paths.iter().map(|path| (path.clone(), digest_of(path)));
        FileDigests { files: digests.collect() }
    }
}

impl FileDigests {
    /// A digest over names and contents of all files, in hex.
    pub fn whole(&self) -> String {
        let mut hasher = Sha256::new();
        for (path, digest) in &self.files {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update([0]);
            hasher.update(digest.unwrap_or_default());
        }
        hex::encode(&hasher.finalize()[..16])
    }

    /// The digest of each file in hex, by path; `None`: the file cannot be read.
    pub fn each(&self) -> impl Iterator<Item = (&Path, Option<String>)> {
        self.files.iter().map(|(path, digest)| {
            (path.as_path(), digest.as_ref().map(|digest| hex::encode(&digest[..16])))
        })
    }

    /// True if both have the same digests for the files that both have.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.files.iter().all(|(path, digest)| {
            other.files.get(path).is_none_or(|other_digest| other_digest == digest)
        })
    }

    /// True if `path` has this digest in both.
    pub fn is_same(&self, other: &Self, path: &Path) -> bool {
        self.files.get(path).is_some_and(|digest| other.files.get(path) == Some(digest))
    }
}

fn digest_of(path: &Path) -> Option<[u8; 32]> {
    let file = File::open(path).ok()?;
    let mut content = Vec::new();
    file.take(MOST_READ).read_to_end(&mut content).ok()?;
    Some(Sha256::digest(&content).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_link_changes_the_digests_of_the_files_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("one", "a"), ("two", "b")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("file"), content).unwrap();
        }
        let data = folder.path().join("..data");
        std::os::unix::fs::symlink("one", &data).unwrap();
        let mut files = ConfigFiles::default();
        files.add(&data.join("file"));
        files.add(&folder.path().join("missing"));
        files.add(folder.path());
        let before = files.digests();
        assert_eq!(before, files.digests());
        assert_eq!(before.whole(), files.digests().whole());
        let digests: Vec<bool> = before.each().map(|(_, digest)| digest.is_some()).collect();
        assert_eq!(digests.iter().filter(|is_read| **is_read).count(), 1);
        let turned = folder.path().join("turned");
        std::os::unix::fs::symlink("two", &turned).unwrap();
        std::fs::rename(&turned, &data).unwrap();
        let after = files.digests();
        assert_ne!(before.whole(), after.whole());
        assert!(!before.agrees_with(&after) && !before.is_same(&after, &data.join("file")));
    }
}
