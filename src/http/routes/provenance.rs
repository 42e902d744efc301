//! How an account came to have an image, as answers tell it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::schema::{self, named_schemas, one_of};
use crate::sharing::Origin;

const GATEWAY: &str = "gateway";
const OUTSIDE: &str = "outside";
const UNKNOWN: &str = "unknown";

named_schemas! {
    /// How an account came to have an image. `gateway`: the gateway shared it. `outside`: the trail has no share of it that
    /// still stands. `unknown`: the last change of it may have taken effect or not.
    pub(in crate::http) ShareOrigin = one_of([GATEWAY, OUTSIDE, UNKNOWN]);
}

/// How an account came to have an image, as far as the trail knows.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Provenance {
    /// How the account came to have the image.
    #[schema(value_type = ShareOrigin)]
    origin: &'static str,
    /// When the gateway shared it; null where the trail does not know.
    #[schema(required, value_type = Option<schema::Time>)]
    shared_at: Option<String>,
    /// Who asked for that.
    #[schema(required)]
    shared_by: Option<String>,
    /// Why, in their words.
    #[schema(required)]
    reason: Option<String>,
    /// That share's event in the trail.
    #[schema(required, value_type = Option<schema::EventId>)]
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
                origin: GATEWAY,
                shared_at: Some(standing.shared_at.to_string()),
                shared_by: Some(standing.shared_by),
                reason: standing.reason,
                audit_id: Some(standing.event_id.to_string()),
            },
            Origin::Outside => nothing_of(OUTSIDE),
            Origin::Unknown => nothing_of(UNKNOWN),
        }
    }
}
