//! The trail's files: made for their owner alone, locked for one gateway, and known again.

use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
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
    pub(super) fn at(path: &Path, log: &Path) -> Result<(Self, u64), StoreError> {
        let look = |path| look(path).map_err(|_| StoreError::Moved);
        let (database, _) = look(path)?;
        let (log, log_bytes) = look(log)?;
        Ok((Self { database, log }, log_bytes))
    }
}

/// Which file lies there, and how long it is.
///
/// Nothing else is asked for: whoever asks Linux when a file was changed makes its next change bear a time of its own, and
/// the next commit waits for that to be on disk too (multigrain timestamps, since Linux 6.13; measured: one wait and 40 µs
/// of CPU a commit).
#[cfg(target_os = "linux")]
fn look(path: &Path) -> std::io::Result<((u64, u64), u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let wanted = StatxFlags::INO | StatxFlags::SIZE;
    let file = match statx(CWD, path, AtFlags::empty(), wanted) {
        // A sandbox of system calls may know nothing of it.
        Err(rustix::io::Errno::NOSYS) => return look_by_stat(path),
        file => file?,
    };
    let device = u64::from(file.stx_dev_major) << 32 | u64::from(file.stx_dev_minor);
    Ok(((device, file.stx_ino), file.stx_size))
}

#[cfg(not(target_os = "linux"))]
fn look(path: &Path) -> std::io::Result<((u64, u64), u64)> {
    look_by_stat(path)
}

fn look_by_stat(path: &Path) -> std::io::Result<((u64, u64), u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(path)?;
    Ok(((file.dev(), file.ino()), file.len()))
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
