//! Every kind of problem that callers are told of: its slug, status and title.
//!
//! Plain data on the ground floor, since an audit event stores the status that its caller will be told
//! before the answer is made. How a problem is rendered (RFC 9457) is the http room's business.

/// One kind of problem; its `type` is `/problems/SLUG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// A value in the path, query, header or body is not acceptable.
    InvalidRequest,
    /// No token, or one that is not accepted.
    Unauthenticated,
    /// The token lacks the scope that this needs.
    InsufficientScope,
    /// A policy says no.
    Forbidden,
    /// No such path, event, share or image.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The caller takes none of the formats that there are.
    NotAcceptable,
    /// A body did not come in time.
    RequestTimeout,
    /// More accounts would lose access than the request allows.
    TooManyRemovals,
    /// The body is too long.
    PayloadTooLarge,
    /// The body is of a type that is not read here.
    UnsupportedMediaType,
    /// The upstream does not know the account.
    InvalidAccount,
    /// Too many requests of one subject, or failed authentications from one address.
    RateLimited,
    /// The head of the request is too large.
    HeadersTooLarge,
    /// A fault of the gateway itself.
    InternalError,
    /// The upstream refused, or answered what it should not.
    UpstreamError,
    /// The upstream cannot be reached or asks for a pause.
    UpstreamUnavailable,
    /// The trail cannot be written, so nothing was forwarded; or it cannot be read.
    AuditUnavailable,
    /// Too much is waiting already.
    Overloaded,
    /// The key source of the token's issuer has not answered yet.
    KeysUnavailable,
    /// A stream was asked for by a version of HTTP that cannot carry it.
    HttpVersionNotSupported,
    /// The change was forwarded, its outcome could not be written yet.
    OutcomeUnrecorded,
    /// The upstream did not answer in time.
    UpstreamTimeout,
}

impl ProblemKind {
    /// All kinds, in the order of their status.
    pub const ALL: [Self; 23] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::InsufficientScope,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::TooManyRemovals,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidAccount,
        Self::RateLimited,
        Self::HeadersTooLarge,
        Self::InternalError,
        Self::UpstreamError,
        Self::UpstreamUnavailable,
        Self::AuditUnavailable,
        Self::Overloaded,
        Self::KeysUnavailable,
        Self::OutcomeUnrecorded,
        Self::UpstreamTimeout,
        Self::HttpVersionNotSupported,
    ];

    /// The last segment of the problem's `type`.
    #[must_use]
    pub fn slug(self) -> &'static str {
        self.facts().0
    }

    /// The HTTP status (RFC 9110; 431 by RFC 6585).
    #[must_use]
    pub fn status(self) -> u16 {
        self.facts().1
    }

    /// A short text, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.facts().2
    }

    fn facts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid-request", 400, "The request is not valid"),
            Self::Unauthenticated => ("unauthenticated", 401, "A valid bearer token is needed"),
            Self::InsufficientScope => ("insufficient-scope", 403, "The token lacks a scope"),
            Self::Forbidden => ("forbidden", 403, "A policy forbids this"),
            Self::NotFound => ("not-found", 404, "There is no such thing"),
            Self::MethodNotAllowed => ("method-not-allowed", 405, "The method is not allowed here"),
            Self::NotAcceptable => ("not-acceptable", 406, "No such format is to be had here"),
            Self::RequestTimeout => ("request-timeout", 408, "The request did not come in time"),
            Self::TooManyRemovals => (
                "too-many-removals",
                409,
                "More accounts would lose access than may",
            ),
            Self::PayloadTooLarge => ("payload-too-large", 413, "The body is too long"),
            Self::UnsupportedMediaType => (
                "unsupported-media-type",
                415,
                "The body is of a type that is not read here",
            ),
            Self::InvalidAccount => ("invalid-account", 422, "The account does not exist"),
            Self::RateLimited => ("rate-limited", 429, "Too much is asked at once"),
            Self::HeadersTooLarge => ("headers-too-large", 431, "The request's head is too large"),
            Self::InternalError => ("internal-error", 500, "The gateway failed"),
            Self::UpstreamError => (
                "upstream-error",
                502,
                "The upstream refused or answered oddly",
            ),
            Self::UpstreamUnavailable => {
                ("upstream-unavailable", 503, "The upstream is unavailable")
            }
            Self::AuditUnavailable => ("audit-unavailable", 503, "The audit trail is unavailable"),
            Self::Overloaded => ("overloaded", 503, "Too much is waiting"),
            Self::KeysUnavailable => ("keys-unavailable", 503, "The token cannot be judged yet"),
            Self::HttpVersionNotSupported => {
                ("http-version-not-supported", 505, "Streams need HTTP/1.1")
            }
            Self::OutcomeUnrecorded => (
                "outcome-unrecorded",
                503,
                "The outcome could not be written yet",
            ),
            Self::UpstreamTimeout => (
                "upstream-timeout",
                504,
                "The upstream did not answer in time",
            ),
        }
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
