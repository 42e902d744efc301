//! `policy check`: says whether a request would be allowed, and why, so that policies can be tried before they are
//! live.

use std::path::Path;
use std::process::ExitCode;

use url::form_urlencoded;

use super::{Failure, PolicyCheckArgs, print};
use crate::auth::unverified;
use crate::authorization::{Authorizer, Decision, Policies, Refusal, Request};
use crate::config::read_text_file;
use crate::domain::{
    Caller, Change, ImageId, Operation, Principal, Reason, Region, RequestId, Scope, Stopwatch,
};

/// The region of a path that names none: the default of `upstream.region`.
const REGION: &str = "cn-wlcb";

/// What a method on a path asks for.
enum Asked {
    Change(Change),
    ListShares(Region, ImageId),
    /// Which images are listed is decided image by image.
    ListImages,
    ReadAudit,
    /// Nobody has to be anybody for it.
    Anybody,
}

pub(super) fn run(args: &PolicyCheckArgs) -> Result<ExitCode, Failure> {
    let of_file =
        |path: &Path, message: String| Failure::usage(format!("{}: {message}", path.display()));
    let text = read_text_file(&args.policy).map_err(|message| of_file(&args.policy, message))?;
    let policies = Policies::parse(&text).map_err(|faults| of_lines(&args.policy, &faults.0))?;
    for warning in policies.warnings() {
        eprintln!("image-share-gateway: {}: {warning}", args.policy.display());
    }
    let principal = principal(args)?;
    let asked = asked(&args.method, &args.path).map_err(Failure::usage)?;
    let caller = Caller {
        principal: principal.into(),
        client_ip: Some(args.client_ip.to_canonical()),
        user_agent: None,
        request_id: RequestId::generate(),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    };
    let authorizer = Authorizer::new(Some(policies));
    let decision = match &asked {
        Asked::Change(change) => authorizer.decide(&caller, Request::Change(change)),
        Asked::ListShares(region, image_id) => {
            authorizer.decide(&caller, Request::ListShares { region, image_id })
        }
        Asked::ReadAudit => authorizer.decide(&caller, Request::ReadAudit),
        Asked::ListImages => match Authorizer::check_scope(&caller.principal, Scope::SharesRead) {
            Ok(()) => {
                print("allow: which images are listed is decided image by image, as GET of one\n")?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(refusal) => Decision::Refused(refusal),
        },
        Asked::Anybody => {
            print("allow: this needs no token\n")?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let (line, code) = told(&decision);
    print(&format!("{line}\n"))?;
    Ok(code)
}

fn of_lines(path: &Path, faults: &[String]) -> Failure {
    let lines = faults
        .iter()
        .map(|fault| format!("{}: {fault}", path.display()));
    Failure::usages(lines.collect())
}

fn principal(args: &PolicyCheckArgs) -> Result<Principal, Failure> {
    let (what, text) = match (&args.token, &args.claims) {
        (Some(token), _) => ("--token".to_owned(), token.clone()),
        (None, Some(path)) => {
            let about_file = |message| Failure::usage(format!("{}: {message}", path.display()));
            let text = read_text_file(path).map_err(about_file)?;
            (path.display().to_string(), text)
        }
        (None, None) => return Err(Failure::usage("give --token or --claims")),
    };
    unverified(&text).map_err(|error| Failure::usage(format!("{what}: {error}")))
}

fn told(decision: &Decision) -> (String, ExitCode) {
    let named = |ids: &[String]| ids.join(", ");
    match decision {
        Decision::Allowed { policy_ids } => {
            let line = format!("allow: permitted by {}", named(policy_ids));
            (line, ExitCode::SUCCESS)
        }
        Decision::Refused(refusal) => {
            let why = match refusal {
                Refusal::InsufficientScope(scope) => {
                    format!("the token lacks the scope {}", scope.as_str())
                }
                Refusal::Forbidden { policy_ids } if policy_ids.is_empty() => {
                    "no policy permits it".to_owned()
                }
                Refusal::Forbidden { policy_ids } => format!("forbidden by {}", named(policy_ids)),
            };
            (format!("deny: {why}"), ExitCode::FAILURE)
        }
    }
}

/// Reads what a request asks for, as the routes do.
fn asked(method: &str, path: &str) -> Result<Asked, String> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut region: Region = REGION.parse().map_err(|_| "no default region")?;
    let mut reason = None;
    let mut seen = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if seen.contains(&name) {
            return Err(format!("the parameter {name} is given twice"));
        }
        seen.push(name.clone());
        match name.as_ref() {
            "region" => region = value.parse().map_err(|error| format!("region {error}"))?,
            "reason" => {
                reason = Some(
                    value
                        .parse::<Reason>()
                        .map_err(|error| format!("reason {error}"))?,
                );
            }
            "dry_run" | "limit" | "cursor" => {}
            other if path.starts_with("/images") => {
                return Err(format!("{other} is no parameter of this path"));
            }
            _ => {}
        }
    }
    let method = method.to_ascii_uppercase();
    let reads = matches!(method.as_str(), "GET" | "HEAD");
    let segments: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let image = |text: &str| -> Result<ImageId, String> {
        text.parse().map_err(|error| format!("image_id {error}"))
    };
    let wrong_method = || format!("{method} is not allowed at {path}");
    match segments.as_slice() {
        ["images", image_id, "shares", account_id] => {
            let operation = match method.as_str() {
                "PUT" => Operation::Share,
                "DELETE" => Operation::Unshare,
                _ if reads => return Ok(Asked::ListShares(region, image(image_id)?)),
                _ => return Err(wrong_method()),
            };
            let account_id = account_id.parse().map_err(|error| format!("account_id {error}"))?;
            Ok(Asked::Change(Change {
                operation,
                image_id: image(image_id)?,
                account_id,
                region,
                reason,
            }))
        }
        ["images", _, "shares"] if matches!(method.as_str(), "PATCH" | "PUT") => Err(
            "a bulk request is decided account by account: check PUT or DELETE of /images/ID/shares/ACCOUNT"
                .to_owned(),
        ),
        ["images", image_id, "shares"] | ["images", image_id] if reads => {
            Ok(Asked::ListShares(region, image(image_id)?))
        }
        ["images"] if reads => Ok(Asked::ListImages),
        ["audit", "events" | "entries" | "summary"] | ["audit", "events", _] if reads => {
            Ok(Asked::ReadAudit)
        }
        ["" | "openapi.json" | "livez" | "readyz"] | ["swagger-ui", ..] if reads => {
            Ok(Asked::Anybody)
        }
        ["images" | "audit", ..] => Err(wrong_method()),
        _ => Err(format!("there is nothing at {path}")),
    }
}
