//! `audit verify`: walks the hash chain.

use std::process::ExitCode;

use super::{Failure, VerifyArgs, chain, print};
use crate::audit::{Report, verify};
use crate::config::{Config, Sources};

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let mut sources = Sources::of_this_process(args.config.as_deref());
    if let Some(url) = args.database_url {
        sources.environment.remove("ISG__AUDIT__DATABASE_URL_FILE");
        sources
            .environment
            .insert("ISG__AUDIT__DATABASE_URL".into(), url);
    }
    let trail = Config::load_audit(&sources)?;
    let report = verify(&trail.database, &args.expect).await;
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
