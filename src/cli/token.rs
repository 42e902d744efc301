//! `token`: signs a token for development.

use std::process::ExitCode;

use super::{Failure, TokenArgs, print};
use crate::auth::{Grant, Mint};
use crate::config::{Config, Sources, read_text_file};

pub(super) fn run(args: &TokenArgs) -> Result<ExitCode, Failure> {
    let defaults = Config::load_token_defaults(&Sources::of_this_process(args.config.as_deref()))?;
    let given = |given: &Option<String>, configured: Option<String>, flag: &str, key: &str| {
        let value = given.clone().or(configured);
        value.ok_or_else(|| Failure::usage(format!("give {flag}, or a configuration with {key}")))
    };
    let issuer = given(&args.iss, defaults.issuer, "--iss", "auth.issuer")?;
    let audience = given(&args.aud, defaults.audience, "--aud", "auth.audience")?;
    let file = args.jwks.clone().or(defaults.jwks_file);
    let file =
        file.ok_or_else(|| Failure::usage("give --jwks, or a configuration with auth.jwks_file"))?;
    let about_file = |message: String| Failure::usage(format!("{}: {message}", file.display()));
    let set = read_text_file(&file).map_err(about_file)?;
    let mint =
        Mint::from_set(&set, args.kid.as_deref()).map_err(|error| about_file(error.to_string()))?;
    let grant = Grant {
        subject: &args.sub,
        scope: &args.scope,
        issuer: &issuer,
        audience: &audience,
        ttl: args.ttl,
    };
    let token = mint
        .sign(&grant)
        .map_err(|error| about_file(error.to_string()))?;
    print(&format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}
