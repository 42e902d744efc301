//! `audit backup`: a verified copy of the trail.

use std::process::ExitCode;

use super::progress::Bar;
use super::serve::stop_signal;
use super::{BackupArgs, Failure, chain, print, trail_at};
use crate::audit::{BackupError, StoreError, backup};
use crate::config::TrailPlace;

pub(super) async fn run(args: BackupArgs) -> Result<ExitCode, Failure> {
    let TrailPlace::File(path) = trail_at(args.database_url, args.config.as_deref())? else {
        return Err(Failure::usage(
            "a trail in PostgreSQL is backed up by the database's own tools: pg_dump, or pg_basebackup",
        ));
    };
    let mut stop = stop_signal()?;
    let bar = Bar::on_terminal();
    let tell = |progress| bar.tell(progress);
    let copied = tokio::select! {
        copied = backup(&path, &args.to, &tell) => copied,
        () = stop.recv() => return Err(Failure::stopped("the backup was stopped; no file is left of it")),
    };
    drop(bar);
    match copied {
        Ok(Some(head)) => print(&format!("{head}\n"))?,
        Ok(None) => eprintln!("image-share-gateway: the trail has no rows; neither has the copy"),
        Err(
            error @ (BackupError::Exists(_)
            | BackupError::Name(_)
            | BackupError::Store(StoreError::Open { .. })),
        ) => {
            return Err(Failure::usage(chain(&error)));
        }
        Err(error) => return Err(Failure::could_not_run(&error)),
    }
    Ok(ExitCode::SUCCESS)
}
