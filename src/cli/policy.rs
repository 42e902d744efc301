//! `policy check`: says whether a request would be allowed, and why, so that policies can be tried before they are
//! live.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use url::form_urlencoded;

use super::{Failure, PolicyCheckArgs, print};
use crate::auth::unverified;
use crate::authorization::{Authorizer, Decision, Policies, Refusal, Request};
use crate::config::{Config, Sources, read_text_file};
use crate::domain::{Caller, Principal, RequestId, Scope, Stopwatch};
use crate::http::{self, RequestBounds, Requested};

pub(super) fn run(args: &PolicyCheckArgs) -> Result<ExitCode, Failure> {
    let of_file =
        |path: &Path, message: String| Failure::usage(format!("{}: {message}", path.display()));
    let text = read_text_file(&args.policy).map_err(|message| of_file(&args.policy, message))?;
    let policies = Policies::parse(&text).map_err(|faults| of_lines(&args.policy, &faults.0))?;
    for warning in policies.warnings() {
        eprintln!("image-share-gateway: {}: {warning}", args.policy.display());
    }
    let principal = principal(args)?;
    let requested =
        http::requested(&args.method, &args.path, &bounds(args)?).map_err(Failure::usage)?;
    let caller = Caller {
        principal: principal.into(),
        client_ip: Some(args.client_ip.to_canonical()),
        user_agent: None,
        request_id: RequestId::generate(),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    };
    let authorizer = Authorizer::new(Some(policies));
    let decision = match &requested {
        Requested::Change(change) => authorizer.decide(&caller, Request::Change(change)),
        Requested::ListShares(region, image_id) => {
            authorizer.decide(&caller, Request::ListShares { region, image_id })
        }
        Requested::ReadAudit => authorizer.decide(&caller, Request::ReadAudit),
        Requested::ListImages => {
            match Authorizer::check_scope(&caller.principal, Scope::SharesRead) {
                Ok(()) => {
                    print(
                        "allow: which images are listed is decided image by image, as GET of one\n",
                    )?;
                    return Ok(ExitCode::SUCCESS);
                }
                Err(refusal) => Decision::Refused(refusal),
            }
        }
        Requested::Anything => {
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

/// What requests may name: as configured, where configuration is named; else any region, and the default of
/// `upstream.region` where there is none.
fn bounds(args: &PolicyCheckArgs) -> Result<RequestBounds, Failure> {
    let sources = Sources::of_this_process(args.config.as_deref());
    let (region, mut regions) = Config::load_regions(&sources)?;
    let query = args.path.split_once('?').map_or("", |(_, query)| query);
    if args.config.is_none() {
        let mut named = form_urlencoded::parse(query.as_bytes());
        let named = named.find(|(name, _)| name == "region");
        regions.extend(named.and_then(|(_, region)| region.parse().ok()));
    }
    Ok(RequestBounds {
        region,
        regions,
        request_timeout: Duration::ZERO,
    })
}
