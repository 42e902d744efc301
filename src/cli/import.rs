//! `audit import`: moves a trail from SQLite to PostgreSQL.

use std::process::ExitCode;

use super::progress::Bar;
use super::serve::stop_signal;
use super::{Failure, ImportArgs, chain, print};
use crate::audit::{ImportError, import};
use crate::config::{TrailPlace, trail_place};

pub(super) async fn run(args: ImportArgs) -> Result<ExitCode, Failure> {
    let place =
        |name, url: &str| trail_place(url).map_err(|why| Failure::usage(format!("{name} {why}")));
    let (TrailPlace::File(from), TrailPlace::Server(to)) =
        (place("FROM", &args.from)?, place("TO", &args.to)?)
    else {
        return Err(Failure::usage(
            "a trail is imported from sqlite://PATH into postgres://HOST/DATABASE",
        ));
    };
    let mut stop = stop_signal()?;
    let bar = Bar::on_terminal();
    let tell = |progress| bar.tell(progress);
    let copied = tokio::select! {
        copied = import(&from, &to, &tell) => copied,
        () = stop.recv() => return Err(Failure::stopped("the import was stopped; the database holds none of it")),
    };
    drop(bar);
    // From here on a stop would leave it open whether the copy is there.
    let imported = match copied {
        Ok(copied) => copied.commit().await,
        Err(error) => Err(error),
    };
    match imported {
        Ok(Some(head)) => print(&format!("{head}\n"))?,
        Ok(None) => {
            eprintln!("image-share-gateway: the trail has no rows; the database is ready for some");
        }
        Err(error @ ImportError::Start(_)) => return Err(Failure::usage(chain(&error))),
        Err(error) => return Err(Failure::could_not_run(&error)),
    }
    Ok(ExitCode::SUCCESS)
}
