//! Who may use an image: change it, see it.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::authorization::{Authorizer, Request};
use crate::domain::{AccountId, Change, Deadline, ImageId, Operation, Reason, Region};
use crate::problem::ProblemKind;
use crate::sharing::{Bulk, Origin, RehearsalError, Sharing};

use super::Rules;
use super::caller::Authenticated;
use super::params::{AccountPath, DryRunQuery, ImagePath, PreferHeader, ReasonQuery, RegionQuery};
use super::parse::{self, Parser};
use super::path;
use super::problem::{AUDIT_ID, Problem};
use super::rate_limit::Cost;

/// An account's share of an image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Share {
    /// The image.
    image_id: String,
    /// The account that may use it.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: u64,
    /// Where the image lives.
    region: String,
    /// Always true: who has no access has no share.
    shared: bool,
    /// The event of the change just made.
    #[schema(format = "uuid")]
    audit_id: String,
}

/// What a change would do.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the members of the API")]
pub(super) struct DryRun {
    /// The image.
    image_id: String,
    /// The account.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: u64,
    /// Where the image lives.
    region: String,
    /// Always true.
    dry_run: bool,
    /// Whether the change would change anything.
    would_change: bool,
}

/// The share, or with `dry_run=true` what would be done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum ShareOrDryRun {
    /// What was done.
    Share(Share),
    /// What would be done.
    DryRun(DryRun),
}

/// A share that stands, and what the trail knows of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StandingShare {
    /// The image.
    image_id: String,
    /// The account that may use it.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: u64,
    /// Where the image lives.
    region: String,
    /// Always true: who has no access has no share.
    shared: bool,
    #[serde(flatten)]
    provenance: Provenance,
}

/// How an account came to have an image, as far as the trail knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Provenance {
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

/// Who has access to an image now, as the upstream says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShareList {
    /// The image.
    image_id: String,
    /// Where it lives.
    region: String,
    /// Ascending by account.
    accounts: Vec<ListedAccount>,
}

/// An account that may use an image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListedAccount {
    /// The account.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: u64,
    /// Its name, where the upstream gives one.
    #[schema(required)]
    account_name: Option<String>,
    #[serde(flatten)]
    provenance: Provenance,
}

/// Share an image with an account.
///
/// Idempotent: sharing what is shared already succeeds. The intent is written to the audit trail before
/// anything is forwarded, the outcome before the answer.
#[utoipa::path(
    put, path = path::SHARE, operation_id = "put_share", tag = "shares",
    params(ImagePath, AccountPath, RegionQuery, ReasonQuery, DryRunQuery, PreferHeader),
    responses((status = 200, description = "The account may use the image", body = ShareOrDryRun,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb",
            "shared": true, "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}))),
    security(("bearer" = ["shares:write"]))
)]
pub(super) async fn put_share(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    rules: Data<Rules>,
) -> Result<HttpResponse, Problem> {
    let (change, mode, deadline) =
        parse_change(Operation::Share, &request, payload, &rules).await?;
    caller.admit(Cost::ONE)?;
    if mode == Mode::DryRun {
        return rehearse(&sharing, caller, change, deadline).await;
    }
    let receipt = sharing
        .change(caller.into_caller(), change.clone(), deadline)
        .await?;
    let audit_id = receipt.event_id.to_string();
    let share = Share {
        image_id: change.image_id.as_str().to_owned(),
        account_id: change.account_id.get(),
        region: change.region.as_str().to_owned(),
        shared: true,
        audit_id: audit_id.clone(),
    };
    Ok(HttpResponse::Ok()
        .insert_header((AUDIT_ID, audit_id))
        .json(ShareOrDryRun::Share(share)))
}

/// Take an image back from an account.
///
/// Idempotent: taking back what is not shared succeeds.
#[utoipa::path(
    delete, path = path::SHARE, operation_id = "delete_share", tag = "shares",
    params(ImagePath, AccountPath, RegionQuery, ReasonQuery, DryRunQuery, PreferHeader),
    responses(
        (status = 200, description = "With `dry_run=true`: what would be done", body = DryRun,
            content_type = "application/json",
            example = json!({"image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb",
                "dry_run": true, "would_change": true})),
        (status = 204, description = "The account may not use the image"),
    ),
    security(("bearer" = ["shares:write"]))
)]
pub(super) async fn delete_share(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    rules: Data<Rules>,
) -> Result<HttpResponse, Problem> {
    let (change, mode, deadline) =
        parse_change(Operation::Unshare, &request, payload, &rules).await?;
    caller.admit(Cost::ONE)?;
    if mode == Mode::DryRun {
        return rehearse(&sharing, caller, change, deadline).await;
    }
    let receipt = sharing
        .change(caller.into_caller(), change, deadline)
        .await?;
    Ok(HttpResponse::NoContent()
        .insert_header((AUDIT_ID, receipt.event_id.to_string()))
        .finish())
}

/// See whether an account may use an image.
#[utoipa::path(
    get, path = path::SHARE, operation_id = "get_share", tag = "shares",
    params(ImagePath, AccountPath, RegionQuery),
    responses((status = 200, description = "The account may use the image", body = StandingShare,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb",
            "shared": true, "origin": "gateway", "shared_at": "2025-11-24T10:23:48.643121Z", "shared_by": "team-a",
            "reason": "OPS-17", "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}))),
    security(("bearer" = ["shares:read"]))
)]
pub(super) async fn get_share(
    caller: Authenticated,
    request: HttpRequest,
    sharing: Data<Sharing>,
    authorizer: Data<Authorizer>,
    rules: Data<Rules>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["region"]);
    let (image_id, account_id) = (
        parser.segment::<ImageId>("image_id"),
        parser.segment::<AccountId>("account_id"),
    );
    let region = parser.region(&rules);
    let (image_id, account_id) = parser.finish(image_id.zip(account_id))?;
    may_list(&caller, &authorizer, &region, &image_id)?;
    let deadline = parse::deadline(&request, &rules);
    let found = sharing
        .find(
            caller.caller().party(),
            region.clone(),
            image_id.clone(),
            account_id,
            deadline,
        )
        .await?;
    let absent = || {
        Problem::new(
            ProblemKind::NotFound,
            "the image is not shared with the account",
        )
    };
    let access = found.ok_or_else(absent)?;
    Ok(HttpResponse::Ok().json(StandingShare {
        image_id: image_id.as_str().to_owned(),
        account_id: account_id.get(),
        region: region.as_str().to_owned(),
        shared: true,
        provenance: access.origin.into(),
    }))
}

/// See who may use an image.
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
    security(("bearer" = ["shares:read"]))
)]
pub(super) async fn list_shares(
    caller: Authenticated,
    request: HttpRequest,
    sharing: Data<Sharing>,
    authorizer: Data<Authorizer>,
    rules: Data<Rules>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["region"]);
    let (image_id, region) = (parser.segment::<ImageId>("image_id"), parser.region(&rules));
    let image_id = parser.finish(image_id)?;
    may_list(&caller, &authorizer, &region, &image_id)?;
    let deadline = parse::deadline(&request, &rules);
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

/// Whether a change is made or only rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Earnest,
    DryRun,
}

impl Mode {
    pub(super) fn of(parser: &mut Parser<'_>) -> Self {
        if parser.dry_run() {
            Self::DryRun
        } else {
            Self::Earnest
        }
    }
}

async fn rehearse(
    sharing: &Sharing,
    caller: Authenticated,
    change: Change,
    deadline: Deadline,
) -> Result<HttpResponse, Problem> {
    let bulk = Bulk {
        image_id: change.image_id.clone(),
        region: change.region.clone(),
        changes: vec![(change.operation, change.account_id)],
        reason: change.reason,
    };
    let rehearsed = sharing.rehearse(caller.into_caller(), bulk, deadline).await;
    let rehearsed = rehearsed.map_err(|error| match error {
        // It is the one change that was refused.
        RehearsalError::AllDenied(refused) => {
            refused.into_iter().find_map(|one| one.refusal).map_or_else(
                || RehearsalError::AllDenied(Vec::new()),
                RehearsalError::Denied,
            )
        }
        other => other,
    })?;
    Ok(HttpResponse::Ok().json(ShareOrDryRun::DryRun(DryRun {
        image_id: change.image_id.as_str().to_owned(),
        account_id: change.account_id.get(),
        region: change.region.as_str().to_owned(),
        dry_run: true,
        would_change: rehearsed.iter().any(|one| one.would_change),
    })))
}

async fn parse_change(
    operation: Operation,
    request: &HttpRequest,
    payload: Payload,
    rules: &Rules,
) -> Result<(Change, Mode, Deadline), Problem> {
    let deadline = parse::deadline(request, rules);
    let mut parser = Parser::new(request, &["region", "reason", "dry_run"]);
    let mode = Mode::of(&mut parser);
    let (image_id, account_id) = (parser.segment("image_id"), parser.segment("account_id"));
    let region = parser.region(rules);
    let reason = parser.parameter("reason", str::parse::<Reason>);
    parser.no_body(payload).await?;
    let (image_id, account_id) = parser.finish(image_id.zip(account_id))?;
    Ok((
        Change {
            operation,
            image_id,
            account_id,
            region,
            reason,
        },
        mode,
        deadline,
    ))
}

/// Whether the caller may see an image and who may use it, by limit, scope and policy.
pub(super) fn may_list(
    caller: &Authenticated,
    authorizer: &Authorizer,
    region: &Region,
    image_id: &ImageId,
) -> Result<(), Problem> {
    caller.admit(Cost::ONE)?;
    let request = Request::ListShares { region, image_id };
    Ok(authorizer.check(caller.caller(), request)?)
}
