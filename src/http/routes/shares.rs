//! One account's use of an image: give it, take it back, see it.

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::authorization::Authorizer;
use crate::domain::{AccountId, Change, Deadline, ImageId, Operation, Reason, Region};
use crate::http::edge::Authenticated;
use crate::http::wire::params::{
    AccountPath, DryRunQuery, ImagePath, PreferHeader, ReasonQuery, RegionQuery,
};
use crate::http::wire::{self, AUDIT_ID, Body, Mode, Parser, Problem, RequestBounds, path};
use crate::problem::ProblemKind;
use crate::schema;
use crate::sharing::{Bulk, RehearsalError, Sharing};

use super::provenance::Provenance;

/// What PUT may say in a body.
#[derive(Debug, ToSchema)]
#[expect(
    dead_code,
    reason = "it is read member by member, so that every fault is told"
)]
// Nobody who tries it out shall say what they did not write.
#[schema(example = json!({}))]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ShareBody {
    /// Why: a ticket, a sentence; it stands in the trail.
    #[schema(nullable = false, value_type = Option<schema::Reason>)]
    reason: Option<String>,
    /// The image of the path.
    #[schema(nullable = false, value_type = Option<schema::ImageId>)]
    image_id: Option<String>,
    /// The account of the path.
    #[schema(nullable = false, value_type = Option<schema::AccountId>)]
    account_id: Option<u64>,
    /// The region of the query, or the default.
    #[schema(nullable = false, value_type = Option<schema::Region>)]
    region: Option<String>,
    /// True: `DELETE` takes the image back.
    #[schema(nullable = false)]
    shared: Option<bool>,
}

/// What was done: `shared` and `audit_id` are there. Or in a dry run what would be: `dry_run` and `would_change` are.
// One object for both, since clients of some languages cannot tell the two apart otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct Share {
    /// The image.
    #[schema(value_type = schema::ImageId)]
    image_id: String,
    /// The account.
    #[schema(value_type = schema::AccountId)]
    account_id: u64,
    /// Where the image lives.
    #[schema(value_type = schema::Region)]
    region: String,
    /// True: the account may use the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    shared: Option<bool>,
    /// The event of the change just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<schema::EventId>)]
    audit_id: Option<String>,
    /// True in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dry_run: Option<bool>,
    /// In a dry run: whether the change would change anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    would_change: Option<bool>,
}

/// What a change would do.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the members of the API")]
pub(in crate::http) struct DryRun {
    /// The image.
    #[schema(value_type = schema::ImageId)]
    image_id: String,
    /// The account.
    #[schema(value_type = schema::AccountId)]
    account_id: u64,
    /// Where the image lives.
    #[schema(value_type = schema::Region)]
    region: String,
    /// Always true.
    dry_run: bool,
    /// Whether the change would change anything.
    would_change: bool,
}

/// A share that stands, and what the trail knows of it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::http) struct StandingShare {
    /// The image.
    #[schema(value_type = schema::ImageId)]
    image_id: String,
    /// The account that may use it.
    #[schema(value_type = schema::AccountId)]
    account_id: u64,
    /// Where the image lives.
    #[schema(value_type = schema::Region)]
    region: String,
    /// Always true: who has no access has no share.
    shared: bool,
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
    request_body(content = ShareBody, content_type = "application/json",
        description = "Optional, and `null` says nothing. All but `reason` repeats what path and query say, and has to agree with \
            them."),
    responses((status = 200, description = "The account may use the image; with `dry_run=true` what would be done", body = Share,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb",
            "shared": true, "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}))),
)]
pub(in crate::http) async fn put_share(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    let (change, mode, deadline) =
        parse_change(Operation::Share, &request, payload, &bounds).await?;
    caller.admit(1)?;
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
        shared: Some(true),
        audit_id: Some(audit_id.clone()),
        dry_run: None,
        would_change: None,
    };
    Ok(HttpResponse::Ok()
        .insert_header((AUDIT_ID, audit_id))
        .json(share))
}

/// Take an image back from an account.
///
/// Idempotent: taking back what is not shared succeeds. As for sharing, the intent is in the trail before anything is
/// forwarded, and the outcome before the answer.
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
)]
pub(in crate::http) async fn delete_share(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    let (change, mode, deadline) =
        parse_change(Operation::Unshare, &request, payload, &bounds).await?;
    caller.admit(1)?;
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
///
/// As the upstream says now, with what the trail knows of it; 404 where it may not.
#[utoipa::path(
    get, path = path::SHARE, operation_id = "get_share", tag = "shares",
    params(ImagePath, AccountPath, RegionQuery),
    responses((status = 200, description = "The account may use the image", body = StandingShare,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "account_id": 12345, "region": "cn-wlcb",
            "shared": true, "origin": "gateway", "shared_at": "2025-11-24T10:23:48.643121Z", "shared_by": "team-a",
            "reason": "OPS-17", "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}))),
)]
pub(in crate::http) async fn get_share(
    caller: Authenticated,
    request: HttpRequest,
    sharing: Data<Sharing>,
    authorizer: Data<Authorizer>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    let mut parser = Parser::new(&request, &["region"]);
    let (image_id, account_id) = (
        parser.segment::<ImageId>("image_id"),
        parser.segment::<AccountId>("account_id"),
    );
    let region = parser.region(&bounds);
    let (image_id, account_id) = parser.finish(image_id.zip(account_id))?;
    caller.admit(0)?;
    caller.may_list(&authorizer, &region, &image_id)?;
    let deadline = wire::deadline(&request, &bounds);
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
    Ok(HttpResponse::Ok().json(DryRun {
        image_id: change.image_id.as_str().to_owned(),
        account_id: change.account_id.get(),
        region: change.region.as_str().to_owned(),
        dry_run: true,
        would_change: rehearsed.iter().any(|one| one.would_change),
    }))
}

/// What a request for one account's change asks for. PUT may say it once more in a body, as tools do that write whole
/// objects; what is said twice has to agree.
async fn parse_change(
    operation: Operation,
    request: &HttpRequest,
    payload: Payload,
    bounds: &RequestBounds,
) -> Result<(Change, Mode, Deadline), Problem> {
    let deadline = wire::deadline(request, bounds);
    let mut parser = Parser::new(request, &["region", "reason", "dry_run"]);
    let mode = parser.mode();
    let (image_id, account_id) = (parser.segment("image_id"), parser.segment("account_id"));
    let region = parser.region(bounds);
    let has_reason = parser.has("reason");
    let mut reason = parser.parameter("reason", str::parse::<Reason>);
    match operation {
        Operation::Share => {
            let bytes = wire::read(request, payload).await?;
            // Generated clients say so that they say nothing.
            let bytes = bytes.filter(|bytes| bytes.trim_ascii() != b"null");
            if let Some(bytes) = bytes {
                let mut body = Body::parse(&bytes, &mut parser);
                let told = body.reason(&mut parser);
                if told.is_some() && has_reason {
                    parser.fault("body", "reason", "must not stand in the query too");
                }
                reason = reason.or(told);
                let named = Named {
                    image_id: image_id.as_ref(),
                    account_id,
                    region: &region,
                };
                named.check(body, &mut parser);
            }
        }
        Operation::Unshare => wire::no_body(payload, &mut parser).await?,
    }
    let (image_id, account_id) = parser.finish(image_id.zip(account_id))?;
    let change = Change {
        operation,
        image_id,
        account_id,
        region,
        reason,
    };
    Ok((change, mode, deadline))
}

/// What path and query name; `None` is a value whose fault was noted.
struct Named<'a> {
    image_id: Option<&'a ImageId>,
    account_id: Option<AccountId>,
    region: &'a Region,
}

impl Named<'_> {
    /// Finds what a body says otherwise.
    fn check(&self, mut body: Body, parser: &mut Parser<'_>) {
        let differs = "must be that of the request, where it is given";
        let (image_id, region) = (body.text("image_id", parser), body.text("region", parser));
        let told = image_id.as_deref().zip(self.image_id);
        if told.is_some_and(|(told, named)| told != named.as_str()) {
            parser.fault("body", "image_id", differs);
        }
        let told = body.account("account_id", parser).zip(self.account_id);
        if told.is_some_and(|(told, named)| told != named) {
            parser.fault("body", "account_id", differs);
        }
        if region.is_some_and(|told| told != self.region.as_str()) {
            parser.fault("body", "region", differs);
        }
        if body.flag("shared", parser) == Some(false) {
            let detail = "must be true: DELETE takes the image back";
            parser.fault("body", "shared", detail);
        }
        body.refuse_rest(parser);
    }
}
