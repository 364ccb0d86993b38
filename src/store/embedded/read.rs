//! Reads of single records, repeated while the process lacks file descriptors.
//!
//! A lack of descriptors says nothing about the disk or the record, and it ends when a connection
//! closes. A claim that fails at once would be a needless refusal, and a completion that fails at
//! once would leave a known outcome unknown.

use std::io;
use std::time::Duration;

use super::disk::{io_error, lacks_descriptors};
use crate::store::StoreError;

/// Pause before a file is opened again.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Number of pauses until a read fails: 5 seconds in total.
const PAUSES: u32 = 100;

/// Reason why a record could not be read.
#[derive(Debug)]
pub(super) enum RecordReadError {
    /// This process, or the machine, has too many files open for the moment.
    Descriptors(io::Error),
    /// The record or the disk is at fault.
    Failed(StoreError),
}

impl From<StoreError> for RecordReadError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<lsm_tree::Error> for RecordReadError {
    fn from(error: lsm_tree::Error) -> Self {
        let error = io_error(error);
        if lacks_descriptors(&error) {
            return Self::Descriptors(error);
        }
        Self::Failed(StoreError::Unavailable(format!(
            "reading failed ({error}); check the disk, then run `oncegate store verify`"
        )))
    }
}

impl From<RecordReadError> for StoreError {
    fn from(error: RecordReadError) -> Self {
        match error {
            RecordReadError::Failed(error) => error,
            RecordReadError::Descriptors(error) => Self::Unavailable(format!(
                "a file could not be opened ({error}); raise the limit of open files, or allow \
                 fewer connections, and try again"
            )),
        }
    }
}

impl std::fmt::Display for RecordReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Descriptors(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// The pauses that are left to a read, or to all reads of a group of changes.
pub(super) struct Pauses {
    left: u32,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { left: PAUSES }
    }
}

impl Pauses {
    /// Counts a pause if `read` failed for a lack of descriptors and a pause is left; returns true
    /// if the read is to be repeated after [`PAUSE`].
    pub(super) fn permit<T>(&mut self, read: &Result<T, RecordReadError>) -> bool {
        let permitted = self.left > 0 && matches!(read, Err(RecordReadError::Descriptors(_)));
        self.left -= u32::from(permitted);
        permitted
    }
}

/// Result of a read, repeated while descriptors are lacking.
pub(super) async fn repeated<T>(
    mut read: impl FnMut() -> Result<T, RecordReadError>,
) -> Result<T, StoreError> {
    let mut pauses = Pauses::default();
    loop {
        let result = read();
        if !pauses.permit(&result) {
            return Ok(result?);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    fn failed(errno: Errno) -> RecordReadError {
        lsm_tree::Error::Io(io::Error::from_raw_os_error(errno.raw_os_error())).into()
    }

    #[tokio::test]
    async fn a_read_is_repeated_while_descriptors_are_lacking() {
        for errno in [Errno::MFILE, Errno::NFILE] {
            for failures in [0, 1, 3] {
                let mut reads = 0;
                let result = repeated(|| {
                    reads += 1;
                    if reads <= failures { Err(failed(errno)) } else { Ok(reads) }
                });
                assert_eq!(result.await, Ok(failures + 1), "{errno}");
            }
        }
    }

    #[test]
    fn a_lack_that_lasts_ends_in_an_error_with_the_remedy() {
        let mut pauses = Pauses::default();
        let result: Result<(), _> = Err(failed(Errno::MFILE));
        for _ in 0..PAUSES {
            assert!(pauses.permit(&result));
        }
        assert!(!pauses.permit(&result));
        let message = StoreError::from(failed(Errno::MFILE)).to_string();
        assert!(message.contains("raise the limit of open files"), "{message}");
        assert!(!message.contains("store verify"), "{message}");
    }

    #[test]
    fn a_lack_is_found_in_errors_that_add_a_path() {
        let system = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let with_path = |errno| io::Error::other(format!("{} at path \"/24\"", system(errno)));
        for errno in [Errno::MFILE, Errno::NFILE] {
            for error in [system(errno), io::Error::other(system(errno)), with_path(errno)] {
                assert!(lacks_descriptors(&error), "{error:?}");
            }
        }
        for error in [system(Errno::NOSPC), with_path(Errno::IO), io::Error::other("code: 24")] {
            assert!(!lacks_descriptors(&error), "{error:?}");
        }
        // The error as the library makes it, from a directory that does not exist.
        let missing = tempfile::NamedTempFile::new_in("/nowhere").expect_err("no directory");
        assert!(missing.raw_os_error().is_none(), "the code is accessible: use it");
        let code = format!("(os error {})", Errno::NOENT.raw_os_error());
        assert!(missing.to_string().contains(&code), "{missing}");
    }

    #[tokio::test]
    async fn any_other_failure_is_not_repeated() {
        let corrupt = || StoreError::Unavailable("a record is damaged".to_owned());
        let failures: [fn() -> RecordReadError; 3] = [
            || failed(Errno::IO),
            || lsm_tree::Error::Unrecoverable.into(),
            || RecordReadError::Failed(StoreError::Unavailable("a record is damaged".to_owned())),
        ];
        for failure in failures {
            let mut reads = 0;
            let result: Result<(), _> = repeated(|| {
                reads += 1;
                Err(failure())
            })
            .await;
            assert!(result.is_err());
            assert_eq!(reads, 1);
        }
        assert_eq!(StoreError::from(RecordReadError::from(corrupt())), corrupt());
    }
}
