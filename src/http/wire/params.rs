//! Parameters that several routes take, as the OpenAPI document describes them. They are read in [`super::parser`].

#![allow(
    dead_code,
    reason = "described here, read by a parser that lists every fault"
)]

use utoipa::IntoParams;

use crate::schema;

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct ImagePath {
    /// The image.
    #[param(example = "compshareImage-sandbox1", value_type = schema::ImageId)]
    image_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct AccountPath {
    /// The account.
    #[param(example = 12345, value_type = schema::AccountId)]
    account_id: u64,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct RegionQuery {
    /// Where the image lives; the default unless given.
    #[param(nullable = false, value_type = Option<schema::Region>)]
    region: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ReasonQuery {
    /// Why: a ticket, a sentence; it stands in the trail.
    #[param(nullable = false, value_type = Option<schema::Reason>)]
    reason: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DryRunQuery {
    /// With `true` nothing is changed and no event is written: the answer says what would be.
    #[param(nullable = false, default = json!(false))]
    dry_run: Option<bool>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct PreferHeader {
    /// `wait=SECONDS` (RFC 7240) lowers the time that the change may take, its time in a queue included. Whatever else it
    /// says is ignored.
    #[param(rename = "Prefer", nullable = false)]
    prefer: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct IfNoneMatchHeader {
    /// The `ETag` of the one that you have.
    #[param(rename = "If-None-Match", nullable = false)]
    if_none_match: Option<String>,
}
