//! `openapi`: prints the document.

use std::process::ExitCode;

use super::{DocumentFormat, Failure, print};
use crate::http::{document, yaml};

pub(super) fn run(format: DocumentFormat) -> Result<ExitCode, Failure> {
    let text = match format {
        DocumentFormat::Json => {
            document()
                .to_pretty_json()
                .map_err(|error| Failure::could_not_run(&error))?
                + "\n"
        }
        DocumentFormat::Yaml => {
            yaml(&document()).map_err(|error| Failure::could_not_run(&error))?
        }
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
