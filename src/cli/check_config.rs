//! `check-config`: what `serve` would make of its configuration.

use std::process::ExitCode;

use super::{CheckConfigArgs, Failure, print};
use crate::app::with_file_checks;
use crate::config::{Config, Faults, Sources};

pub(super) fn run(args: &CheckConfigArgs) -> Result<ExitCode, Failure> {
    let sources = with_file_checks(Sources::of_this_process(args.config.as_deref()));
    let checked = Config::check(&sources);
    print(&checked.effective)?;
    for warning in &checked.warnings {
        eprintln!("image-share-gateway: warning: {warning}");
    }
    if checked.faults.is_empty() {
        eprintln!("image-share-gateway: the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    Err(Faults(checked.faults).into())
}
