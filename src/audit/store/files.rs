//! The trail's files: made for their owner alone, locked for one gateway, and known again.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use super::{StoreError, beside};

/// Which files lie at a path: device and inode of the database and of its write-ahead log.
///
/// In WAL mode SQLite goes on committing, without an error, into files that were moved or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    database: (u64, u64),
    log: (u64, u64),
}

impl Files {
    /// Also gives the length of the log.
    pub(super) async fn at(path: &Path) -> Result<(Self, u64), StoreError> {
        let (path, log) = (path.to_owned(), beside(path, "-wal"));
        let look = move || {
            let (database, log) = (std::fs::metadata(&path)?, std::fs::metadata(&log)?);
            let identity = |file: &std::fs::Metadata| (file.dev(), file.ino());
            let files = Self {
                database: identity(&database),
                log: identity(&log),
            };
            Ok::<_, std::io::Error>((files, log.len()))
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked
            .map_err(|_| StoreError::Moved)?
            .map_err(|_| StoreError::Moved)
    }
}

/// Files that nobody but their owner reads: they say who did what.
const PRIVATE: u32 = 0o600;

/// Makes the database's file where there is none, for its owner alone whatever the umask; SQLite gives its own files
/// beside it the same mode. No connection is open yet, so none loses its locks by the file's being closed.
fn make(path: &Path) -> Result<(), StoreError> {
    let mut making = File::options();
    let made = making.write(true).create_new(true).mode(PRIVATE).open(path);
    let made = match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|file| file.set_permissions(Permissions::from_mode(PRIVATE))),
    };
    made.map_err(|source| StoreError::Beside {
        path: path.into(),
        source,
    })
}

pub(super) fn take_lock(path: &Path) -> Result<File, StoreError> {
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        let refused = |source| StoreError::Beside {
            path: directory.into(),
            source,
        };
        let mut folders = DirBuilder::new();
        folders.recursive(true).mode(0o700);
        folders.create(directory).map_err(refused)?;
    }
    let lock_path = beside(path, ".lock");
    let refused = |source| StoreError::Beside {
        path: lock_path.clone(),
        source,
    };
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(&lock_path)
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => {
            make(path)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}
