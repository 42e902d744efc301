//! `completions`: prints what a shell completes commands by.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::{CommandLine, CompletionShell, Failure, write_out};

pub(super) fn run(shell: CompletionShell) -> Result<ExitCode, Failure> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(
        shell,
        &mut CommandLine::command(),
        env!("CARGO_PKG_NAME"),
        &mut script,
    );
    write_out(&script)?;
    Ok(ExitCode::SUCCESS)
}
