//! `audit backup`: a verified copy of the trail.

use std::process::ExitCode;

use super::{BackupArgs, Failure, chain, print, trail_at};
use crate::audit::{BackupError, StoreError, backup};

pub(super) async fn run(args: BackupArgs) -> Result<ExitCode, Failure> {
    let url = args.database_url.as_deref().unwrap_or_default();
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Err(Failure::usage(
            "a trail in PostgreSQL is backed up by the database's own tools: pg_dump, or pg_basebackup",
        ));
    }
    let path = trail_at(args.database_url, args.config.as_deref())?;
    match backup(&path, &args.to).await {
        Ok(Some(head)) => print(&format!("{head}\n"))?,
        Ok(None) => eprintln!("image-share-gateway: the trail has no rows; neither has the copy"),
        Err(error @ (BackupError::Exists(_) | BackupError::Store(StoreError::Open { .. }))) => {
            return Err(Failure::usage(chain(&error)));
        }
        Err(error) => return Err(Failure::could_not_run(&error)),
    }
    Ok(ExitCode::SUCCESS)
}
