//! What a row of the table of routes says.

use actix_web::http::Method;

use crate::domain::{Operation, Scope};
use crate::problem::ProblemKind;

/// Paths, as the router, the document, the metrics and the log name them.
pub(in crate::http) mod path {
    pub(in crate::http) const SHARE: &str = "/images/{image_id}/shares/{account_id}";
    pub(in crate::http) const IMAGES: &str = "/images";
    pub(in crate::http) const IMAGE: &str = "/images/{image_id}";
    pub(in crate::http) const SHARES: &str = "/images/{image_id}/shares";
    pub(in crate::http) const EVENTS: &str = "/audit/events";
    pub(in crate::http) const EVENT: &str = "/audit/events/{id}";
    pub(in crate::http) const ENTRIES: &str = "/audit/entries";
    pub(in crate::http) const SUMMARY: &str = "/audit/summary";
    pub(in crate::http) const WHOAMI: &str = "/whoami";
    pub(in crate::http) const OPENAPI: &str = "/openapi.json";
    pub(in crate::http) const OPENAPI_YAML: &str = "/openapi.yaml";
    pub(in crate::http) const PROBLEMS_BARE: &str = "/problems";
    pub(in crate::http) const PROBLEMS: &str = "/problems/";
    pub(in crate::http) const PROBLEM: &str = "/problems/{slug}";
    pub(in crate::http) const CONSOLE: &str = "/console";
    /// The page itself; [`CONSOLE_FILE`] serves it.
    pub(in crate::http) const CONSOLE_PAGE: &str = "/console/";
    pub(in crate::http) const CONSOLE_FILE: &str = "/console/{file:.*}";
    pub(in crate::http) const SANDBOX_TOKENS: &str = "/console/sandbox-tokens.json";
    pub(in crate::http) const LIVEZ: &str = "/livez";
    pub(in crate::http) const READYZ: &str = "/readyz";
    pub(in crate::http) const METRICS: &str = "/metrics";
    pub(in crate::http) const ROOT: &str = "/";
    pub(in crate::http) const SWAGGER_UI: &str = "/swagger-ui";
    /// The page itself; [`SWAGGER_UI_FILE`] serves it.
    pub(in crate::http) const SWAGGER_UI_PAGE: &str = "/swagger-ui/";
    pub(in crate::http) const SWAGGER_UI_FILE: &str = "/swagger-ui/{file:.*}";
}

/// What a route lets its caller do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Permission {
    /// Nobody has to be anybody for it.
    Anybody,
    /// Learns who it is: any good token will do.
    KnowItself,
    /// Changes one account's share.
    Change(Operation),
    /// Changes several accounts' shares, each decided by itself.
    ChangeMany,
    /// Makes a list exactly this: it shows the list, and each change is decided by itself.
    ReplaceList,
    /// Lists images, each of them decided by itself.
    ListImages,
    /// Shows an image and who may use it.
    ListShares,
    /// Reads the trail.
    ReadAudit,
}

impl Permission {
    /// Scopes without which nobody may do it.
    pub(in crate::http) fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Anybody | Self::KnowItself => &[],
            Self::Change(_) | Self::ChangeMany => &[Scope::SharesWrite],
            Self::ReplaceList => &[Scope::SharesRead, Scope::SharesWrite],
            Self::ListImages | Self::ListShares => &[Scope::SharesRead],
            Self::ReadAudit => &[Scope::AuditRead],
        }
    }

    /// Whether it asks for changes.
    pub(in crate::http) fn changes(self) -> bool {
        match self {
            Self::Change(_) | Self::ChangeMany | Self::ReplaceList => true,
            Self::Anybody
            | Self::KnowItself
            | Self::ListImages
            | Self::ListShares
            | Self::ReadAudit => false,
        }
    }
}

/// What a request takes from its subject's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Cost {
    /// Nothing: nobody is known.
    Nothing,
    /// One.
    Request,
    /// A tenth of the accounts that it names, rounded up.
    Accounts,
}

/// One method of a path.
#[derive(Debug)]
pub(in crate::http) struct Route {
    /// `GET` stands for `HEAD` too.
    pub(in crate::http) method: Method,
    /// Who answers.
    pub(in crate::http) handler: fn() -> actix_web::Route,
    /// What it lets its caller do.
    pub(in crate::http) permission: Permission,
    /// What it costs.
    pub(in crate::http) cost: Cost,
    /// The media types of its answers, the first where a caller does not say.
    pub(in crate::http) formats: &'static [&'static str],
    /// What can go wrong beside what the rest of the row implies; by what the route has in common with others.
    pub(in crate::http) problems: &'static [&'static [ProblemKind]],
}

/// What can go wrong on every route.
const EVERYWHERE: &[ProblemKind] = &[ProblemKind::HeadersTooLarge, ProblemKind::InternalError];
/// What can go wrong wherever somebody has to be somebody.
const OF_CALLERS: &[ProblemKind] = &[
    ProblemKind::InvalidRequest,
    ProblemKind::Unauthenticated,
    ProblemKind::RateLimited,
    ProblemKind::KeysUnavailable,
];
/// What can go wrong where not everybody may.
const OF_RIGHTS: &[ProblemKind] = &[ProblemKind::InsufficientScope, ProblemKind::Forbidden];
/// Of streams.
const OF_STREAMS: &[ProblemKind] = &[
    ProblemKind::Overloaded,
    ProblemKind::HttpVersionNotSupported,
];
/// Media types that are made while they are sent.
pub(in crate::http) const STREAMED: [&str; 3] =
    ["application/x-ndjson", "text/csv", "text/event-stream"];

impl Route {
    /// All that can go wrong, by status, each once.
    pub(in crate::http) fn all_problems(&self) -> Vec<ProblemKind> {
        let (of_callers, of_rights) = match self.permission {
            Permission::Anybody => (&[][..], &[][..]),
            Permission::KnowItself => (OF_CALLERS, &[][..]),
            _ => (OF_CALLERS, OF_RIGHTS),
        };
        let several: &[ProblemKind] = if self.formats.len() > 1 {
            &[ProblemKind::NotAcceptable]
        } else {
            &[]
        };
        let streams = self.formats.iter().any(|format| STREAMED.contains(format));
        let of_streams = if streams { OF_STREAMS } else { &[] };
        let of_route = self.problems.concat();
        let said = [
            EVERYWHERE, of_callers, of_rights, several, of_streams, &of_route,
        ]
        .concat();
        let mut kinds: Vec<ProblemKind> = ProblemKind::ALL.into();
        kinds.retain(|kind| said.contains(kind));
        kinds.sort_by_key(|kind| kind.status());
        kinds
    }
}

/// A path and all that may be asked of it.
#[derive(Debug)]
pub(in crate::http) struct Resource {
    /// The pattern.
    pub(in crate::http) path: &'static str,
    /// Its methods.
    pub(in crate::http) routes: &'static [Route],
}

impl Resource {
    /// The route of a method.
    pub(in crate::http) fn route(&self, method: &Method) -> Option<&'static Route> {
        let asked = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        self.routes.iter().find(|route| route.method == *asked)
    }

    /// The header `Allow` (RFC 9110, section 10.2.1).
    pub(in crate::http) fn allow(&self) -> String {
        let mut methods: Vec<&str> = self
            .routes
            .iter()
            .map(|route| route.method.as_str())
            .collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.sort_unstable();
        methods.join(", ")
    }
}
