//! `policy check`: says whether a request would be allowed, and why, so that policies can be tried before they are
//! live. Tokens are read by the rules of the configured issuers, and of which one a token is is said too.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use url::form_urlencoded;

use super::{Failure, PolicyCheckArgs, print};
use crate::auth::{TokenError, unverified};
use crate::authorization::{Authorizer, Decision, Policies, Refusal, Request};
use crate::config::{Config, Sources, read_text_file, section_of};
use crate::domain::{Caller, Principal, RequestId, Scope, Stopwatch};
use crate::http::{self, RequestBounds, Requested};
use crate::telemetry::Metrics;

pub(super) fn run(args: &PolicyCheckArgs) -> Result<ExitCode, Failure> {
    let of_file =
        |path: &Path, message: String| Failure::usage(format!("{}: {message}", path.display()));
    let text = read_text_file(&args.policy).map_err(|message| of_file(&args.policy, message))?;
    let policies = Policies::parse(&text).map_err(|faults| of_lines(&args.policy, &faults.0))?;
    for warning in policies.warnings() {
        eprintln!("image-share-gateway: {}: {warning}", args.policy.display());
    }
    let requested =
        http::requested(&args.method, &args.path, &bounds(args)?).map_err(Failure::usage)?;
    let (principal, of) = match who(args)? {
        _ if requested == Requested::Anything => return allow("this needs no token", ""),
        Who::Refused(why) => {
            print(&format!("deny: {why}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
        Who::Known { principal, of } => (principal, of),
    };
    let caller = Caller {
        principal: principal.into(),
        client_ip: Some(args.client_ip.to_canonical()),
        user_agent: None,
        request_id: RequestId::generate(),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    };
    let authorizer = Authorizer::new(Some(policies), Metrics::new());
    let decision = match &requested {
        Requested::Change(change) => authorizer.decide(&caller, Request::Change(change)),
        Requested::ListShares(region, image_id) => {
            authorizer.decide(&caller, Request::ListShares { region, image_id })
        }
        Requested::ReadAudit => authorizer.decide(&caller, Request::ReadAudit),
        Requested::ListImages => {
            match authorizer.check_scope(&caller.principal, Scope::SharesRead) {
                Ok(()) => {
                    let how = "which images are listed is decided image by image, as GET of one";
                    return allow(how, &of);
                }
                Err(refusal) => Decision::Refused(refusal),
            }
        }
        Requested::Anything | Requested::Itself => {
            return allow("any good token may ask this", &of);
        }
    };
    let (line, code) = told(&decision);
    print(&format!("{line}\n{of}"))?;
    Ok(code)
}

fn allow(why: &str, of: &str) -> Result<ExitCode, Failure> {
    print(&format!("allow: {why}\n{of}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Whose token it is.
enum Who {
    /// A subject of an issuer.
    Known {
        principal: Principal,
        /// Which issuer, in a line; nothing where the claims name none.
        of: String,
    },
    /// Nobody whom the gateway would take it from.
    Refused(String),
}

fn of_lines(path: &Path, faults: &[String]) -> Failure {
    let lines = faults
        .iter()
        .map(|fault| format!("{}: {fault}", path.display()));
    Failure::usages(lines.collect())
}

/// Reads the token or the claims by the rules of their issuer.
fn who(args: &PolicyCheckArgs) -> Result<Who, Failure> {
    let (what, text) = match (&args.token, &args.claims) {
        (Some(token), _) => ("--token".to_owned(), token.clone()),
        (None, Some(path)) => {
            let about_file = |message| Failure::usage(format!("{}: {message}", path.display()));
            let text = read_text_file(path).map_err(about_file)?;
            (path.display().to_string(), text)
        }
        (None, None) => return Err(Failure::usage("give --token or --claims")),
    };
    let configured = Config::load_auth(&Sources::of_this_process(args.config.as_deref()))?;
    match unverified(&text, configured.as_ref()) {
        Ok(principal) => {
            let place = match &configured {
                None => "none is configured".to_owned(),
                Some(_) => section_of(principal.issuer_name.as_ref()),
            };
            let of = match principal.issuer.escape_debug().to_string() {
                unnamed if unnamed.is_empty() => String::new(),
                issuer => format!("issuer: {issuer} ({place})\n"),
            };
            Ok(Who::Known { principal, of })
        }
        Err(refusal)
            if matches!(
                refusal.error,
                TokenError::OtherIssuer
                    | TokenError::SystemSubject
                    | TokenError::OtherIssuersSubject(_)
            ) =>
        {
            Ok(Who::Refused(refusal.for_log()))
        }
        Err(refusal) => Err(Failure::usage(format!("{what}: {}", refusal.for_log()))),
    }
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
