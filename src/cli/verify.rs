//! `audit verify`: walks the hash chain.

use std::process::ExitCode;

use super::{Failure, VerifyArgs, chain, print, trail_at};
use crate::audit::{Report, verify};

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let path = trail_at(args.database_url, args.config.as_deref())?;
    let report = verify(&path, &args.expect).await;
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
