//! How an account came to have an image, as answers tell it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::sharing::Origin;

/// How an account came to have an image, as far as the trail knows.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Provenance {
    /// `gateway`, `outside` (the trail has no share of it that still stands) or `unknown` (the last change of it
    /// may have taken effect or not).
    origin: &'static str,
    /// When the gateway shared it; null where the trail does not know.
    #[schema(required, format = DateTime)]
    shared_at: Option<String>,
    /// Who asked for that.
    #[schema(required)]
    shared_by: Option<String>,
    /// Why, in their words.
    #[schema(required)]
    reason: Option<String>,
    /// That share's event in the trail.
    #[schema(required, format = "uuid")]
    audit_id: Option<String>,
}

impl From<Origin> for Provenance {
    fn from(origin: Origin) -> Self {
        let nothing_of = |origin| Self {
            origin,
            shared_at: None,
            shared_by: None,
            reason: None,
            audit_id: None,
        };
        match origin {
            Origin::Gateway(standing) => Self {
                origin: "gateway",
                shared_at: Some(standing.shared_at.to_string()),
                shared_by: Some(standing.shared_by),
                reason: standing.reason,
                audit_id: Some(standing.event_id.to_string()),
            },
            Origin::Outside => nothing_of("outside"),
            Origin::Unknown => nothing_of("unknown"),
        }
    }
}
