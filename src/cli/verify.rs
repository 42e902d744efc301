//! `audit verify`: walks the hash chains.

use std::process::ExitCode;

use super::progress::Bar;
use super::{Failure, VerifyArgs, chain, print, trail_at};
use crate::audit::{Report, verify_all};

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let place = trail_at(args.database_url, args.config.as_deref())?;
    let bar = Bar::on_terminal();
    let reports = verify_all(&place, &args.expect, &|progress| bar.tell(progress)).await;
    drop(bar);
    let reports = reports.map_err(|error| Failure::usage(chain(&error)))?;
    let lines: String = reports.iter().filter_map(line).collect();
    if lines.is_empty() {
        eprintln!("image-share-gateway: the trail is intact and has no rows");
    }
    print(&lines)?;
    let broken = |report: &Report| matches!(report, Report::Broken(_));
    Ok(if reports.iter().any(broken) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn line(report: &Report) -> Option<String> {
    match report {
        Report::Intact(head) => head.as_ref().map(|head| format!("{head}\n")),
        Report::Broken(found) => Some(format!(
            "{}: broken at sequence {}: {}\n",
            found.chain_id, found.sequence, found.what
        )),
    }
}
