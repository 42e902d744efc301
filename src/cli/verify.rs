//! `audit verify`: walks the hash chain.

use std::process::ExitCode;

use super::progress::Bar;
use super::{Failure, VerifyArgs, chain, print, trail_at};
use crate::audit::{Report, verify_and_tell};

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let path = trail_at(args.database_url, args.config.as_deref())?;
    let bar = Bar::on_terminal();
    let report = verify_and_tell(&path, &args.expect, &|progress| bar.tell(progress)).await;
    drop(bar);
    match report.map_err(|error| Failure::usage(chain(&error)))? {
        Report::Intact(Some(head)) => {
            print(&format!("{head}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Report::Intact(None) => {
            eprintln!("image-share-gateway: the trail is intact and has no rows");
            Ok(ExitCode::SUCCESS)
        }
        Report::Broken(found) => {
            print(&format!(
                "{}: broken at sequence {}: {}\n",
                found.chain_id, found.sequence, found.what
            ))?;
            Ok(ExitCode::FAILURE)
        }
    }
}
