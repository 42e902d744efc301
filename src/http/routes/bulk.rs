//! Who may use an image, for many accounts in one request.

use std::collections::BTreeSet;

use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use utoipa::ToSchema;

use crate::domain::{AccountId, Deadline, ImageId, Operation, Reason, Region};
use crate::http::edge::Authenticated;
use crate::http::wire::params::{DryRunQuery, ImagePath, PreferHeader, RegionQuery};
use crate::http::wire::{self, Arrival, Body, Mode, Parser, Problem, RequestBounds, path};
use crate::schema;
use crate::sharing::{Bulk, Replacement, Sharing};

use super::bulk_answer::{BulkAnswer, answer, rehearsed_answer};

/// Accounts to add and to remove.
#[derive(Debug, ToSchema)]
#[schema(as = Update, example = json!({"add": [12345, 67890], "remove": [11111]}))]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "it is read member by member, so that every fault is told"
)]
pub(in crate::http) struct UpdateBody {
    /// Accounts that gain the image.
    #[schema(nullable = false, value_type = Option<schema::AccountIds>)]
    add: Option<Vec<u64>>,
    /// Accounts that lose it.
    #[schema(nullable = false, value_type = Option<schema::AccountIds>)]
    remove: Option<Vec<u64>>,
    /// Why: a ticket, a sentence; it stands in the trail.
    #[schema(nullable = false, value_type = Option<schema::Reason>)]
    reason: Option<String>,
}

/// The accounts that are to have the image, and nobody else.
#[derive(Debug, ToSchema)]
#[schema(as = Replacement, example = json!({"accounts": [12345, 67890], "max_removals": 0}))]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "it is read member by member, so that every fault is told"
)]
pub(in crate::http) struct ReplacementBody {
    /// Who is to have it; an empty list takes it from everybody.
    #[schema(value_type = schema::AccountIds)]
    accounts: Vec<u64>,
    /// Most accounts that may lose it by this; 0 unless given.
    #[schema(nullable = false, value_type = Option<schema::Count>)]
    max_removals: Option<u64>,
    /// Why: a ticket, a sentence; it stands in the trail.
    #[schema(nullable = false, value_type = Option<schema::Reason>)]
    reason: Option<String>,
}

/// Share an image with several accounts and take it back from others.
///
/// Each account is a change with an event of its own; all intents are on disk before the first is forwarded. What
/// comes of them is told account by account: one that fails does not fail the others.
#[utoipa::path(
    patch, path = path::SHARES, operation_id = "update_shares", tag = "shares",
    params(ImagePath, RegionQuery, DryRunQuery, PreferHeader),
    request_body(content = UpdateBody, content_type = "application/json"),
    responses((status = 200, description = "What came of each", body = BulkAnswer, content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "region": "cn-wlcb", "results": [
            {"account_id": 12345, "operation": "share", "outcome": "succeeded",
                "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}]}))),
)]
pub(in crate::http) async fn update_shares(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    wire::require_json(&request)?;
    let bytes = wire::read(&request, payload).await?.unwrap_or_default();
    let mut asked = BulkParser::new(&request, &bytes, &bounds);
    let list = |name: &str, asked: &mut BulkParser<'_>| {
        let accounts = asked.body.accounts(name, &mut asked.parser);
        accounts.unwrap_or_default()
    };
    let (add, remove) = (list("add", &mut asked), list("remove", &mut asked));
    wire::no_account_twice(
        [("add", &add[..]), ("remove", &remove[..])],
        &mut asked.parser,
    );
    if add.is_empty() && remove.is_empty() && !asked.parser.faults_in_body() {
        asked
            .parser
            .fault("body", "add", "add or remove must name an account");
    }
    let Common {
        image_id,
        region,
        reason,
        mode,
        deadline,
        request_id,
    } = asked.finish()?;
    caller.admit(add.len() + remove.len())?;
    let added = add.into_iter().map(|account| (Operation::Share, account));
    let removed = remove
        .into_iter()
        .map(|account| (Operation::Unshare, account));
    let bulk = Bulk {
        image_id: image_id.clone(),
        region: region.clone(),
        changes: added.chain(removed).collect(),
        reason,
    };
    let caller = caller.into_caller();
    match mode {
        Mode::Earnest => {
            let results = sharing.change_many(caller, bulk, deadline).await;
            answer(&image_id, &region, results, &request_id)
        }
        Mode::DryRun => {
            let rehearsed = sharing.rehearse(caller, bulk, deadline).await;
            rehearsed_answer(&image_id, &region, rehearsed, &request_id)
        }
    }
}

/// Make the list of accounts exactly this.
///
/// The present list is read while nothing else of this gateway may change it, and the difference is made; the
/// results are those of the accounts that had to change. Where more accounts would lose the image than
/// `max_removals` nothing is changed.
#[utoipa::path(
    put, path = path::SHARES, operation_id = "replace_shares", tag = "shares",
    params(ImagePath, RegionQuery, DryRunQuery, PreferHeader),
    request_body(content = ReplacementBody, content_type = "application/json"),
    responses((status = 200, description = "What came of each account that had to change", body = BulkAnswer,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "region": "cn-wlcb", "results": [
            {"account_id": 12345, "operation": "share", "outcome": "succeeded",
                "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}]}))),
)]
pub(in crate::http) async fn replace_shares(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    bounds: Data<RequestBounds>,
) -> Result<HttpResponse, Problem> {
    wire::require_json(&request)?;
    let bytes = wire::read(&request, payload).await?.unwrap_or_default();
    let mut asked = BulkParser::new(&request, &bytes, &bounds);
    let accounts = asked.body.accounts("accounts", &mut asked.parser);
    if accounts.is_none() && !asked.parser.faults_in_body() {
        asked.parser.fault("body", "accounts", "is required");
    }
    let accounts = accounts.unwrap_or_default();
    wire::no_account_twice([("accounts", &accounts[..])], &mut asked.parser);
    let max_removals = asked.body.count("max_removals", &mut asked.parser);
    let Common {
        image_id,
        region,
        reason,
        mode,
        deadline,
        request_id,
    } = asked.finish()?;
    caller.admit(accounts.len())?;
    let replacement = Replacement {
        image_id: image_id.clone(),
        region: region.clone(),
        accounts: accounts.into_iter().collect::<BTreeSet<AccountId>>(),
        max_removals: max_removals.unwrap_or(0),
        reason,
    };
    let caller = caller.into_caller();
    match mode {
        Mode::Earnest => {
            let results = sharing.replace_list(caller, replacement, deadline).await;
            answer(&image_id, &region, results, &request_id)
        }
        Mode::DryRun => {
            let rehearsed = sharing
                .rehearse_replacement(caller, replacement, deadline)
                .await;
            rehearsed_answer(&image_id, &region, rehearsed, &request_id)
        }
    }
}

/// A bulk request as it is read.
struct BulkParser<'a> {
    parser: Parser<'a>,
    request: &'a HttpRequest,
    body: Body,
    image_id: Option<ImageId>,
    region: Region,
    reason: Option<Reason>,
    mode: Mode,
    deadline: Deadline,
}

/// What both bulk requests ask for beside their accounts.
struct Common {
    image_id: ImageId,
    region: Region,
    reason: Option<Reason>,
    mode: Mode,
    deadline: Deadline,
    request_id: String,
}

impl<'a> BulkParser<'a> {
    fn new(request: &'a HttpRequest, bytes: &[u8], bounds: &RequestBounds) -> Self {
        let deadline = wire::deadline(request, bounds);
        let mut parser = Parser::new(request, &["region", "dry_run"]);
        let mode = parser.mode();
        let image_id = parser.segment("image_id");
        let region = parser.region(bounds);
        let mut body = Body::parse(bytes, &mut parser);
        let reason = body.reason(&mut parser);
        Self {
            parser,
            request,
            body,
            image_id,
            region,
            reason,
            mode,
            deadline,
        }
    }

    fn finish(mut self) -> Result<Common, Problem> {
        self.body.refuse_rest(&mut self.parser);
        let image_id = self.parser.finish(self.image_id)?;
        let request_id = Arrival::of(self.request).request_id.as_str().to_owned();
        Ok(Common {
            image_id,
            region: self.region,
            reason: self.reason,
            mode: self.mode,
            deadline: self.deadline,
            request_id,
        })
    }
}
