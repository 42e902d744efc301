//! A copy of the trail that can be put in its place.
//!
//! It bears its name only once it is whole, on disk and verified: a copy that was broken off never looks like a backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::Head;
use super::progress::{Progress, ProgressUnit, TellProgress};
use super::store::{self, StoreError};
use super::verify::{Break, Report, verify_and_tell};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something lies in its place already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// SQLite cannot be given such a name.
    #[error("{} is not UTF-8", .0.display())]
    Name(PathBuf),
    /// It cannot be written there.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The trail cannot be read, or the copy not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The copy is no intact trail, since the trail itself is none.
    #[error("the trail is broken at sequence {} of the chain {}: {}", .0.sequence, .0.chain_id, .0.what)]
    Broken(Break),
}

/// How often it is looked at how much is copied.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Copies the trail at `path`, also while a gateway runs, into a new file, and verifies the copy. Gives its head; none for
/// a trail without rows. Says how far it is.
///
/// # Errors
/// See [`BackupError`]; nothing is left at `to` then.
pub async fn backup(
    path: &Path,
    to: &Path,
    tell: TellProgress<'_>,
) -> Result<Option<Head>, BackupError> {
    // SQLite takes UTF-8, and what begins with `file:` for a URI: an absolute path is neither.
    let write = |source| BackupError::Write {
        path: to.into(),
        source,
    };
    let to = &std::path::absolute(to).map_err(write)?;
    if to.to_str().is_none() {
        return Err(BackupError::Name(to.clone()));
    }
    if tokio::fs::symlink_metadata(to).await.is_ok() {
        return Err(BackupError::Exists(to.clone()));
    }
    let partial = Partial::make(to)?;
    copy(path, &partial.path, tell).await?;
    let head = match verify_and_tell(&partial.path, &[], tell).await? {
        Report::Intact(head) => head,
        Report::Broken(broken) => return Err(BackupError::Broken(broken)),
    };
    partial.finish(to)?;
    Ok(head)
}

/// Copies the trail and looks how long the copy is meanwhile.
async fn copy(path: &Path, to: &Path, tell: TellProgress<'_>) -> Result<(), StoreError> {
    let copied = store::copy(path, to);
    tokio::pin!(copied);
    loop {
        tokio::select! {
            copied = &mut copied => return copied,
            () = tokio::time::sleep(LOOK_INTERVAL) => tell(Progress {
                done: bytes(to).await.unwrap_or_default(),
                total: bytes(path).await,
                unit: ProgressUnit::Bytes,
            }),
        }
    }
}

async fn bytes(path: &Path) -> Option<u64> {
    Some(tokio::fs::metadata(path).await.ok()?.len())
}

/// A copy that is not whole yet; gone with what holds it.
struct Partial {
    path: PathBuf,
}

impl Partial {
    /// Made for its owner alone, as the trail is.
    fn make(to: &Path) -> Result<Self, BackupError> {
        let path = store::beside(to, &format!(".partial-{}", Uuid::new_v4().simple()));
        let made = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match made {
            Ok(_) => Ok(Self { path }),
            Err(source) => Err(BackupError::Write { path, source }),
        }
    }

    /// Gives it its name, where nobody took that meanwhile.
    fn finish(self, to: &Path) -> Result<(), BackupError> {
        let write = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(to.into()),
            _ => BackupError::Write {
                path: to.into(),
                source,
            },
        };
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .map_err(write)?;
        // A rename would replace what came there meanwhile; a link does not. Some file systems have none.
        match std::fs::hard_link(&self.path, to) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !to.exists() => {
                std::fs::rename(&self.path, to).map_err(write)?;
            }
            linked => linked.map_err(write)?,
        }
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(write)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Where it cannot be taken away its name says what it is.
        let _ = std::fs::remove_file(&self.path);
        for suffix in ["-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(store::beside(&self.path, suffix));
        }
    }
}
