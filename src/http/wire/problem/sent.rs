//! Problem details as they are sent.

use serde::Serialize;
use utoipa::ToSchema;

use crate::schema::{self, named_schemas, one_of};

named_schemas! {
    /// Where in a request a value stands.
    pub(in crate::http) RequestPart = one_of(["path", "query", "header", "body"]);
}

/// One value of a request that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::http) struct FieldError {
    /// Where it stands.
    #[serde(rename = "in")]
    #[schema(value_type = RequestPart)]
    pub(in crate::http) place: &'static str,
    /// The parameter, header or member.
    pub(in crate::http) name: String,
    /// What it should be.
    pub(in crate::http) detail: String,
}

/// What the upstream said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct UpstreamBody {
    /// The upstream's `RetCode`.
    pub(super) ret_code: i64,
    /// The upstream's message; null where it gave none.
    #[schema(required)]
    pub(super) message: Option<String>,
}

/// Problem details as they are sent (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(in crate::http) struct ProblemBody {
    /// `/problems/SLUG`; the slug tells problems apart.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    pub(super) kind: String,
    /// The same for every problem of this type.
    pub(super) title: &'static str,
    /// The HTTP status.
    pub(super) status: u16,
    /// What happened this time.
    pub(super) detail: String,
    /// Names the request in logs and the trail.
    pub(super) request_id: String,
    /// Every value of the request that is not acceptable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) errors: Vec<FieldError>,
    /// What the upstream said, where it refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) upstream: Option<UpstreamBody>,
    /// On changes: whether it took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schema::ChangeEffect>)]
    pub(super) effect: Option<&'static str>,
    /// On changes: whether sending the same again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) retryable: Option<bool>,
    /// The event in the trail, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schema::EventId>)]
    pub(super) audit_id: Option<String>,
    /// The policies that decided, where any did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) policy_ids: Vec<String>,
    /// What came of each change of a bulk, where a policy refused all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, no_recursion)]
    pub(super) results: Vec<ResultBody>,
}

impl ProblemBody {
    /// The policies that decided, where any did.
    pub(in crate::http) fn policy_ids(&self) -> &[String] {
        &self.policy_ids
    }
}

/// What came of one account's change.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChangeResult)]
pub(in crate::http) struct ResultBody {
    /// The account.
    #[schema(value_type = schema::AccountId)]
    pub(in crate::http) account_id: u64,
    /// What was to happen.
    #[schema(value_type = schema::ChangeOperation)]
    pub(in crate::http) operation: &'static str,
    /// As in the trail; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schema::ChangeOutcome>)]
    pub(in crate::http) outcome: Option<&'static str>,
    /// The change's event; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schema::EventId>)]
    pub(in crate::http) audit_id: Option<String>,
    /// In a dry run: whether it would change anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::http) would_change: Option<bool>,
    /// Why it is not as asked, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, no_recursion)]
    pub(in crate::http) problem: Option<Box<ProblemBody>>,
}
