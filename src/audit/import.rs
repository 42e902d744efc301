//! A trail's move from a file into a database: every row and hash as it is, so that a head noted before holds after.

use std::path::Path;

use super::Head;
use super::progress::{Progress, ProgressUnit, TellProgress};
use super::store::{Import, RowReader, StoreError};
use super::verify::{Break, Expected, Report, verify_and_tell, walk};
use crate::config::{ServerUrl, TrailPlace};

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// One of them cannot be used, or has a trail already.
    #[error(transparent)]
    Start(StoreError),
    /// The trail that should be copied is broken.
    #[error("the trail is broken at sequence {} of the chain {}: {}", .0.sequence, .0.chain_id, .0.what)]
    Broken(Break),
    /// It could not be read or written to its end.
    #[error("the import was broken off")]
    Copy(#[source] StoreError),
    /// It is not known whether the database committed it.
    #[error(
        "it is not known whether the copy was committed: audit verify says whether it is there"
    )]
    Commit(#[source] StoreError),
    /// What was copied is not what was there.
    #[error("the copy does not verify at sequence {} of the chain {}: {}", .0.sequence, .0.chain_id, .0.what)]
    Differs(Break),
}

/// A copy that is whole and verified, and not there for others yet. Without [`Self::commit`] there is none.
pub struct Copied {
    import: Import,
    head: Option<Head>,
}

impl Copied {
    /// Makes it durable. Gives its head; none for a trail without rows.
    ///
    /// # Errors
    /// [`ImportError::Commit`] where the database does not say that it did: it may hold all of it, or none.
    pub async fn commit(self) -> Result<Option<Head>, ImportError> {
        self.import.commit().await.map_err(ImportError::Commit)?;
        Ok(self.head)
    }
}

/// Copies the trail in the file `from` into the empty database `to`, once it is verified, and verifies the copy. What is written
/// to the file meanwhile is not copied: stop its gateway first. Says how far it is.
///
/// # Errors
/// See [`ImportError`]; the database holds no row then.
pub async fn import(
    from: &Path,
    to: &ServerUrl,
    tell: TellProgress<'_>,
) -> Result<Copied, ImportError> {
    let verified = verify_and_tell(from, &[], tell).await;
    let head = match verified.map_err(ImportError::Start)? {
        Report::Intact(head) => head,
        Report::Broken(broken) => return Err(ImportError::Broken(broken)),
    };
    let mut import = Import::begin(to).await.map_err(ImportError::Start)?;
    if let Some(head) = &head {
        let copied = copy(from, head, &mut import, tell).await;
        copied.map_err(ImportError::Copy)?;
        let expected = [Expected::from(head)];
        let walked = walk(&mut import.rows(), &expected, tell).await;
        for report in walked.map_err(ImportError::Copy)? {
            if let Report::Broken(broken) = report {
                return Err(ImportError::Differs(broken));
            }
        }
    }
    Ok(Copied { import, head })
}

/// Copies the rows up to the head.
async fn copy(
    from: &Path,
    head: &Head,
    import: &mut Import,
    tell: TellProgress<'_>,
) -> Result<(), StoreError> {
    let mut rows = RowReader::open(&TrailPlace::File(from.into())).await?;
    rows.begin(&head.chain_id);
    let mut page = rows.page().await?;
    while !page.is_empty() {
        while let Some(last) = page.last()
            && last.sequence()?.is_none_or(|last| last > head.sequence)
        {
            page.pop();
        }
        let Some(last) = page.last() else {
            break;
        };
        let last = last.sequence()?.unwrap_or_default();
        // The next page is read while this one is written.
        let (next, added) = futures_util::join!(rows.page(), import.add(&page));
        added?;
        tell(Progress {
            done: u64::try_from(last).unwrap_or_default(),
            total: u64::try_from(head.sequence).ok(),
            unit: ProgressUnit::Rows,
        });
        page = next?;
    }
    import.end(head).await
}
