//! The last head that this host knows of, in a file beside the trail.
//!
//! A chain shows what was changed in it, but not that its tail was cut off. So each head that goes to the log is also
//! noted in `PATH.head`, and a start on a trail that ends before it, or has another row there, is refused.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::chain::{Head, InvalidHead};
use super::store::{StoreError, beside};

/// The file that a head is noted in.
#[derive(Debug, Clone)]
pub(super) struct HeadFile(PathBuf);

impl HeadFile {
    /// That of the trail at `path`.
    pub(super) fn beside(path: &Path) -> Self {
        Self(beside(path, ".head"))
    }

    fn refused(&self, source: std::io::Error) -> StoreError {
        StoreError::Beside {
            path: self.0.clone(),
            source,
        }
    }

    /// The head that was noted, where one was.
    pub(super) async fn read(&self) -> Result<Option<Result<Head, InvalidHead>>, StoreError> {
        match tokio::fs::read_to_string(&self.0).await {
            Ok(text) => Ok(Some(text.trim().parse())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Ok(Some(Err(InvalidHead)))
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Notes a head in the place of the one before: a crash leaves the one or the other.
    pub(super) async fn write(&self, head: &Head) -> Result<(), StoreError> {
        let (path, text) = (self.0.clone(), format!("{head}\n"));
        let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
        written
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|source| self.refused(source))
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let aside = beside(path, ".new");
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}
