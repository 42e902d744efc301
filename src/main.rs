//! Parses the command line, runs it, ends with its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    image_share_gateway::cli::run()
}
