//! What a request would ask for, as the routes read it: for whoever tries policies without a gateway.

use actix_web::dev::{Path, ResourceDef, Url};
use actix_web::http::header::HeaderMap;
use actix_web::http::{Method, Uri};

use crate::domain::{AccountId, Change, ImageId, Operation, Reason, Region};

use super::routes::audit::events::LIMIT_MAX as LIMIT_MAX_EVENTS;
use super::routes::images::LIMIT_MAX as LIMIT_MAX_IMAGES;
use super::wire::{FieldError, Parser, Permission, RequestBounds, Resource};
use super::{document, table};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requested {
    /// Nobody has to be anybody for it.
    Anything,
    /// Who the token says that its holder is.
    Itself,
    /// One change.
    Change(Change),
    /// An image and who may use it.
    ListShares(Region, ImageId),
    /// Images; which are listed is decided one by one.
    ListImages,
    /// The trail.
    ReadAudit,
}

/// Why nothing can be said of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRequested {
    /// No method of HTTP.
    #[error("{0} is no method")]
    NoMethod(String),
    /// No path.
    #[error("{0} is no path")]
    NoPath(String),
    /// 404.
    #[error("there is nothing at {0}")]
    NoSuchPath(String),
    /// 405.
    #[error("{method} is not allowed at {path}, but {allow}")]
    MethodNotAllowed {
        /// What was asked.
        method: Method,
        /// Where.
        path: &'static str,
        /// What is allowed.
        allow: String,
    },
    /// A bulk request.
    #[error(
        "a bulk request is decided account by account: check PUT or DELETE of /images/ID/shares/ACCOUNT"
    )]
    Bulk,
    /// 400.
    #[error("{}", told(.0))]
    Faults(Vec<(&'static str, String, String)>),
}

fn told(faults: &[(&'static str, String, String)]) -> String {
    let told = faults
        .iter()
        .map(|(place, name, detail)| format!("{place} {name} {detail}"));
    told.collect::<Vec<_>>().join("; ")
}

/// What `method` on `target` (a path, and perhaps a query) asks for.
///
/// # Errors
/// See [`NotRequested`].
pub fn requested(
    method: &str,
    target: &str,
    bounds: &RequestBounds,
) -> Result<Requested, NotRequested> {
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .map_err(|_| NotRequested::NoMethod(method.to_owned()))?;
    let uri: Uri = target
        .parse()
        .ok()
        .filter(|uri: &Uri| uri.path().starts_with('/'))
        .ok_or_else(|| NotRequested::NoPath(target.to_owned()))?;
    let query = uri.query().unwrap_or_default().to_owned();
    let mut segments = Path::new(Url::new(uri));
    let resource = table::rest()
        .find(|resource| ResourceDef::new(resource.path).capture_match_info(&mut segments));
    let resource = resource.ok_or_else(|| NotRequested::NoSuchPath(target.to_owned()))?;
    let route = resource.route(&method).ok_or_else(|| {
        let (path, allow) = (resource.path, resource.allow());
        NotRequested::MethodNotAllowed {
            method,
            path,
            allow,
        }
    })?;
    let (headers, known) = (
        HeaderMap::new(),
        document::query_parameters(resource.path, &route.method),
    );
    let mut parser = Parser::of(&segments, &query, &headers, &known);
    match route.permission {
        Permission::Anybody => Ok(Requested::Anything),
        Permission::KnowItself => finish(parser, Some(Requested::Itself)),
        Permission::ReadAudit => {
            parser.whole_number("limit", 1..=LIMIT_MAX_EVENTS);
            finish(parser, Some(Requested::ReadAudit))
        }
        Permission::ChangeMany | Permission::ReplaceList => Err(NotRequested::Bulk),
        Permission::Change(operation) => change(operation, parser, bounds),
        Permission::ListImages => {
            parser.region(bounds);
            parser.whole_number("limit", 1..=LIMIT_MAX_IMAGES);
            finish(parser, Some(Requested::ListImages))
        }
        Permission::ListShares => list_shares(resource, parser, bounds),
    }
}

fn change(
    operation: Operation,
    mut parser: Parser<'_>,
    bounds: &RequestBounds,
) -> Result<Requested, NotRequested> {
    let image_id = parser.segment::<ImageId>("image_id");
    let account_id = parser.segment::<AccountId>("account_id");
    let region = parser.region(bounds);
    let reason = parser.parameter("reason", str::parse::<Reason>);
    parser.mode();
    let change = image_id
        .zip(account_id)
        .map(|(image_id, account_id)| Change {
            operation,
            image_id,
            account_id,
            region,
            reason,
        });
    finish(parser, change.map(Requested::Change))
}

fn list_shares(
    resource: &Resource,
    mut parser: Parser<'_>,
    bounds: &RequestBounds,
) -> Result<Requested, NotRequested> {
    let image_id = parser.segment::<ImageId>("image_id");
    let region = parser.region(bounds);
    // Of one account too: its number has to be one.
    if resource.path.contains("{account_id}") {
        parser.segment::<AccountId>("account_id");
    }
    let asked = image_id.map(|image_id| Requested::ListShares(region, image_id));
    finish(parser, asked)
}

fn finish(parser: Parser<'_>, read: Option<Requested>) -> Result<Requested, NotRequested> {
    parser.read(read).map_err(|faults| {
        let told = |fault: FieldError| (fault.place, fault.name, fault.detail);
        NotRequested::Faults(faults.into_iter().map(told).collect())
    })
}
