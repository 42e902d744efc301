//! Every kind of problem that callers are told of: its slug, status and title, what it means and what helps.
//!
//! Plain data on the ground floor, since an audit event stores the status that its caller will be told
//! before the answer is made. How a problem is rendered (RFC 9457), and the catalogue at `/problems/`, are the http room's
//! business.

/// Makes the kinds of this one list: what each means, its slug, status and title, and what helps.
macro_rules! problem_kinds {
    ($($(#[doc = $meaning:literal])+ $kind:ident = $slug:literal, $status:literal, $title:literal, $remedy:literal;)+) => {
        /// One kind of problem; its `type` is `/problems/SLUG`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $($(#[doc = $meaning])+ $kind,)+
        }

        impl ProblemKind {
            /// All kinds, in the order of their status.
            pub const ALL: [Self; [$($slug),+].len()] = [$(Self::$kind),+];

            fn facts(self) -> Facts {
                match self {
                    $(Self::$kind => Facts {
                        slug: $slug,
                        status: $status,
                        title: $title,
                        meaning: concat!($($meaning),+),
                        remedy: $remedy,
                    },)+
                }
            }
        }
    };
}

struct Facts {
    slug: &'static str,
    status: u16,
    title: &'static str,
    meaning: &'static str,
    remedy: &'static str,
}

problem_kinds! {
    /// A value in the path, the query, a header or the body is not acceptable. All of them are listed in `errors`, up to a
    /// hundred. Nothing was forwarded and nothing written.
    InvalidRequest = "invalid-request", 400, "The request is not valid",
        "Mend what `errors` names. Sending the same again changes nothing.";
    /// There is no token, or one that is not accepted; `detail` and `WWW-Authenticate` say why.
    Unauthenticated = "unauthenticated", 401, "A valid bearer token is needed",
        "Send `Authorization: Bearer TOKEN` with a token of an issuer that the gateway trusts, for its audience, that has not \
         ended. `GET /whoami` shows what is made of one.";
    /// The token is good, but means no scope that this needs; `WWW-Authenticate` names it. A change that is so refused
    /// stands in the trail as `denied`.
    InsufficientScope = "insufficient-scope", 403, "The token lacks a scope",
        "Ask whoever issues your tokens for the scope. `GET /whoami` shows those that you have.";
    /// A policy forbids it, or none allows it; `policy_ids` names those that decided. A change that is so refused stands in
    /// the trail as `denied`, and of a bulk `results` says it for each account.
    Forbidden = "forbidden", 403, "A policy forbids this",
        "Ask whoever runs the gateway; the policy's id says which rule it is.";
    /// There is no such path, event, share or image. On a change the upstream does not know the image.
    NotFound = "not-found", 404, "There is no such thing",
        "Check the id and the region.";
    /// The path exists, but not with this method; `Allow` lists those that do.
    MethodNotAllowed = "method-not-allowed", 405, "The method is not allowed here",
        "Use one of the methods in `Allow`.";
    /// The path answers in several formats, and `Accept` takes none of them.
    NotAcceptable = "not-acceptable", 406, "No such format is to be had here",
        "Send an `Accept` header with one of the formats that `detail` names, or none.";
    /// The body did not come in time.
    RequestTimeout = "request-timeout", 408, "The request did not come in time",
        "Send it again.";
    /// The list as it was to be would take the image from more accounts than `max_removals` allows. Nothing was changed.
    TooManyRemovals = "too-many-removals", 409, "More accounts would lose access than may",
        "Look at the present list. If so many are to lose the image, raise `max_removals`.";
    /// The body is longer than 64 KiB.
    PayloadTooLarge = "payload-too-large", 413, "The body is too long",
        "Split the request; one may name a thousand accounts.";
    /// The body is not JSON by its `Content-Type`, or has none.
    UnsupportedMediaType = "unsupported-media-type", 415, "The body is of a type that is not read here",
        "Send `Content-Type: application/json`.";
    /// The upstream says that the account does not exist. It did nothing.
    InvalidAccount = "invalid-account", 422, "The account does not exist",
        "Check the account's number. Sending the same again changes nothing.";
    /// The subject has asked for more than its limit, or too many authentications from one address have failed.
    /// `Retry-After` says when there is room again.
    RateLimited = "rate-limited", 429, "Too much is asked at once",
        "Wait for as long as `Retry-After` says. Many accounts of one image go in one `PATCH`.";
    /// The head of the request, its lines together, is larger than 32 KiB.
    HeadersTooLarge = "headers-too-large", 431, "The request's head is too large",
        "Send fewer or shorter headers.";
    /// A fault of the gateway. Where an intent was written, `effect` is `unknown` and the trail says how it ended.
    InternalError = "internal-error", 500, "The gateway failed",
        "Tell whoever runs it the `request_id`. Changes are idempotent: sending the same again does no harm.";
    /// The upstream refused the call, or answered what it should not; `upstream` says in which words. `effect` says whether
    /// the change may stand.
    UpstreamError = "upstream-error", 502, "The upstream refused or answered oddly",
        "Where `retryable` is true send it again. Otherwise tell whoever runs the gateway the `request_id`.";
    /// The upstream cannot be reached, asks for a pause, or has failed so often that nobody is let through for a moment.
    UpstreamUnavailable = "upstream-unavailable", 503, "The upstream is unavailable",
        "Send it again after `Retry-After`.";
    /// The trail cannot be written, so nothing was forwarded; or it cannot be read.
    AuditUnavailable = "audit-unavailable", 503, "The audit trail is unavailable",
        "Send it again after `Retry-After`. A query that takes too long asks for less: by a time range or another filter.";
    /// Too much waits already, or the change's time was up while it waited. It was not forwarded.
    Overloaded = "overloaded", 503, "Too much is waiting",
        "Send it again after `Retry-After`.";
    /// The keys of the token's issuer have not been had yet, so that the token can be neither accepted nor refused.
    KeysUnavailable = "keys-unavailable", 503, "The token cannot be judged yet",
        "Send it again after `Retry-After`.";
    /// The change was forwarded, but how it ended could not be written to the trail yet; `effect` says how it went. The
    /// gateway writes it when it can.
    OutcomeUnrecorded = "outcome-unrecorded", 503, "The outcome could not be written yet",
        "Look at the event that `audit_id` names. Sending the same again does no harm.";
    /// The upstream did not answer in time, or the caller's time was up while the change was in flight. It may have taken
    /// effect, and its event says how it ended as soon as that is known.
    UpstreamTimeout = "upstream-timeout", 504, "The upstream did not answer in time",
        "Look at the event that `audit_id` names, or send the same again: it does no harm.";
    /// A stream was asked for by HTTP/1.0, in which nobody can tell a whole one from one that was cut off.
    HttpVersionNotSupported = "http-version-not-supported", 505, "Streams need HTTP/1.1",
        "Ask by HTTP/1.1. A proxy in front may speak 1.0 unless it is told (`proxy_http_version 1.1`).";
}

impl ProblemKind {
    /// The kind of this slug.
    #[must_use]
    pub fn of_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.slug() == slug)
    }

    /// The last segment of the problem's `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.facts().slug
    }

    /// The HTTP status (RFC 9110; 431 by RFC 6585).
    #[must_use]
    pub fn status(self) -> u16 {
        self.facts().status
    }

    /// A short text, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.facts().title
    }

    /// When it occurs and what it says, in sentences; names of members and headers stand between backticks.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        self.facts().meaning.trim()
    }

    /// What helps, in the same form.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        self.facts().remedy
    }
}

/// Whether a change that ended in a problem took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It certainly did not.
    None,
    /// It may have.
    Unknown,
    /// It did.
    Done,
}

impl Effect {
    /// All effects.
    pub const ALL: [Self; 3] = [Self::None, Self::Unknown, Self::Done];

    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Done => "done",
        }
    }
}
