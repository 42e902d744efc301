//! A copy of the whole trail, of one moment.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _};

use super::StoreError;
use super::reading::{check_there, reading};

/// Copies the trail at `path`, also while a gateway writes it, into the file `to`, which is empty or not there. What the
/// gateway writes meanwhile is not in it.
pub(in crate::audit) async fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
    check_there(path).await?;
    let open = |error| StoreError::open(path, error);
    let options = reading(path, "SELECT sequence FROM audit_entries LIMIT 0")
        .await
        .map_err(open)?;
    let mut connection = options.connect().await.map_err(open)?;
    // By one read transaction: the copy is of one moment, and as durable as the trail's own commits
    // (sqlite.org/lang_vacuum.html, section 3.1).
    let copied = sqlx::query("VACUUM INTO ?")
        .bind(to.to_string_lossy().into_owned())
        .execute(&mut connection)
        .await;
    connection.close().await?;
    copied?;
    Ok(())
}
