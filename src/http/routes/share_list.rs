//! Who may use an image.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::authorization::Authorizer;
use crate::domain::ImageId;
use crate::http::edge::Authenticated;
use crate::http::wire::params::{ImagePath, RegionQuery};
use crate::http::wire::{self, Parser, Problem, RequestBounds, path};
use crate::schema;
use crate::sharing::Sharing;

use super::provenance::Provenance;

/// Who has access to an image now, as the upstream says.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ShareList {
    /// The image.
    #[schema(value_type = schema::ImageId)]
    image_id: String,
    /// Where it lives.
    #[schema(value_type = schema::Region)]
    region: String,
    /// Ascending by account.
    accounts: Vec<ListedAccount>,
}

/// An account that may use an image.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct ListedAccount {
    /// The account.
    #[schema(value_type = schema::AccountId)]
    account_id: u64,
    /// Its name, where the upstream gives one.
    #[schema(required)]
    account_name: Option<String>,
    #[serde(flatten)]
    provenance: Provenance,
}

/// See who may use an image.
///
/// Every account that has it now, as the upstream says, each with what the trail knows of how it came to have it.
#[utoipa::path(
    get, path = path::SHARES, operation_id = "list_shares", tag = "shares",
    params(ImagePath, RegionQuery),
    responses((status = 200, description = "Who may use the image now, as the upstream says", body = ShareList,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "region": "cn-wlcb",
            "accounts": [
                {"account_id": 12345, "account_name": "account-12345", "origin": "gateway",
                    "shared_at": "2025-11-24T10:23:48.643121Z", "shared_by": "team-a", "reason": "OPS-17",
                    "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"},
                {"account_id": 67890, "account_name": null, "origin": "outside", "shared_at": null, "shared_by": null,
                    "reason": null, "audit_id": null}]}))),
)]
pub(in crate::http) async fn list_shares(
    caller: Authenticated,
    request: HttpRequest,
    sharing: Data<Sharing>,
    authorizer: Data<Authorizer>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["region"]);
    let (image_id, region) = (
        parser.segment::<ImageId>("image_id"),
        parser.region(&bounds),
    );
    let image_id = parser.finish(image_id)?;
    caller.admit(0)?;
    caller.may_list(&authorizer, &region, &image_id)?;
    let deadline = wire::deadline(&request, &bounds);
    let party = caller.caller().party();
    let shares = sharing.list(party, region, image_id, deadline).await?;
    let accounts = shares.accounts.into_iter();
    Ok(HttpResponse::Ok().json(ShareList {
        image_id: shares.image_id.as_str().to_owned(),
        region: shares.region.as_str().to_owned(),
        accounts: accounts
            .map(|account| ListedAccount {
                account_id: account.account_id.get(),
                account_name: account.account_name,
                provenance: account.origin.into(),
            })
            .collect(),
    }))
}
