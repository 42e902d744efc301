//! Parameters that several routes take, as the OpenAPI document describes them. They are read in [`super::parse`].

#![allow(
    dead_code,
    reason = "described here, read by a parser that lists every fault"
)]

use utoipa::IntoParams;

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct ImagePath {
    /// The image
    #[param(
        example = "compshareImage-sandbox1",
        pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
    )]
    image_id: String,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct AccountPath {
    /// The account
    #[param(example = 12345, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: u64,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct RegionQuery {
    /// Where the image lives; one that the gateway serves
    #[param(nullable = false)]
    region: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ReasonQuery {
    /// Why: a ticket, a sentence; it stands in the trail
    #[param(nullable = false, min_length = 1, max_length = 500)]
    reason: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DryRunQuery {
    /// With `true` nothing is changed and no event is written: the answer says what would be
    #[param(nullable = false)]
    dry_run: Option<bool>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct PreferHeader {
    /// `wait=SECONDS` lowers the time that the change may take
    #[param(rename = "Prefer", nullable = false)]
    prefer: Option<String>,
}
