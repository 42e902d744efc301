//! Who may use an image, for many accounts in one request.

use std::collections::BTreeSet;

use actix_web::web::{Data, Payload};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::authorization::Refusal;
use crate::domain::{AccountId, Deadline, ImageId, Operation, Reason, Region};
use crate::sharing::{
    Bulk, BulkError, BulkResult, RehearsalError, Rehearsed, Replacement, Sharing,
};

use super::Rules;
use super::body::{self, Body};
use super::caller::Authenticated;
use super::observe::Arrival;
use super::params::{DryRunQuery, ImagePath, PreferHeader, RegionQuery};
use super::parse::{self, Parser};
use super::path;
use super::problem::{Problem, ProblemBody};
use super::rate_limit::Cost;
use super::shares::Mode;

/// Accounts to add and to remove.
#[derive(Debug, ToSchema)]
#[schema(as = Update)]
#[expect(
    dead_code,
    reason = "it is read member by member, so that every fault is told"
)]
pub(super) struct UpdateBody {
    /// Accounts that gain the image.
    #[schema(
        nullable = false,
        minimum = 1,
        maximum = 9_007_199_254_740_991_u64,
        max_items = 1000
    )]
    add: Option<Vec<u64>>,
    /// Accounts that lose it.
    #[schema(
        nullable = false,
        minimum = 1,
        maximum = 9_007_199_254_740_991_u64,
        max_items = 1000
    )]
    remove: Option<Vec<u64>>,
    /// Why: a ticket, a sentence; it stands in the trail.
    #[schema(nullable = false, min_length = 1, max_length = 500)]
    reason: Option<String>,
}

/// The accounts that are to have the image, and nobody else.
#[derive(Debug, ToSchema)]
#[schema(as = Replacement)]
#[expect(
    dead_code,
    reason = "it is read member by member, so that every fault is told"
)]
pub(super) struct ReplacementBody {
    /// Who is to have it; an empty list takes it from everybody.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64, max_items = 1000)]
    accounts: Vec<u64>,
    /// Most accounts that may lose it by this; 0 unless given.
    #[schema(nullable = false, minimum = 0)]
    max_removals: Option<u64>,
    /// Why: a ticket, a sentence; it stands in the trail.
    #[schema(nullable = false, min_length = 1, max_length = 500)]
    reason: Option<String>,
}

/// What came of one account's change.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Result)]
pub(super) struct ResultBody {
    /// The account.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    account_id: u64,
    /// `share` or `unshare`.
    operation: &'static str,
    /// As in the trail; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcome: Option<&'static str>,
    /// The change's event; absent in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uuid")]
    audit_id: Option<String>,
    /// In a dry run: whether it would change anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    would_change: Option<bool>,
    /// Why it is not as asked, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, no_recursion)]
    problem: Option<Box<ProblemBody>>,
}

/// What came of each account's change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Results)]
pub(super) struct BulkAnswer {
    /// The image.
    image_id: String,
    /// Where it lives.
    region: String,
    /// True in a dry run, else absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dry_run: bool,
    /// One for each account.
    results: Vec<ResultBody>,
}

/// Share an image with several accounts and take it back from others.
///
/// Each account is a change with an event of its own; all intents are on disk before the first is forwarded. What
/// comes of them is told account by account: one that fails does not fail the others.
#[utoipa::path(
    patch, path = path::SHARES, operation_id = "update_shares", tag = "shares",
    params(ImagePath, RegionQuery, DryRunQuery, PreferHeader),
    request_body(content = UpdateBody, content_type = "application/json",
        example = json!({"add": [12345, 67890], "remove": [11111], "reason": "OPS-17"})),
    responses((status = 200, description = "What came of each", body = BulkAnswer, content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "region": "cn-wlcb", "results": [
            {"account_id": 12345, "operation": "share", "outcome": "succeeded",
                "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}]}))),
    security(("bearer" = ["shares:write"]))
)]
pub(super) async fn update_shares(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    rules: Data<Rules>,
) -> Result<HttpResponse, Problem> {
    let bytes = body::read(&request, payload).await?;
    let mut asked = Asked::new(&request, &bytes, &rules);
    let list = |name: &str, asked: &mut Asked<'_>| {
        let value = asked.body.take(name, &mut asked.parser);
        value.map_or_else(Vec::new, |value| {
            body::accounts(&value, name, &mut asked.parser)
        })
    };
    let (add, remove) = (list("add", &mut asked), list("remove", &mut asked));
    body::no_account_twice(
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
    caller.admit(Cost::of_accounts(add.len() + remove.len()))?;
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
    request_body(content = ReplacementBody, content_type = "application/json",
        example = json!({"accounts": [12345, 67890], "max_removals": 1, "reason": "OPS-17"})),
    responses((status = 200, description = "What came of each account that had to change", body = BulkAnswer,
        content_type = "application/json",
        example = json!({"image_id": "compshareImage-sandbox1", "region": "cn-wlcb", "results": [
            {"account_id": 12345, "operation": "share", "outcome": "succeeded",
                "audit_id": "019ab3c4-d5e6-7f00-8123-456789abcdef"}]}))),
    security(("bearer" = ["shares:read", "shares:write"]))
)]
pub(super) async fn replace_shares(
    caller: Authenticated,
    request: HttpRequest,
    payload: Payload,
    sharing: Data<Sharing>,
    rules: Data<Rules>,
) -> Result<HttpResponse, Problem> {
    let bytes = body::read(&request, payload).await?;
    let mut asked = Asked::new(&request, &bytes, &rules);
    let named = asked.body.take("accounts", &mut asked.parser);
    if named.is_none() && !asked.parser.faults_in_body() {
        asked.parser.fault("body", "accounts", "is required");
    }
    let accounts = named.map_or_else(Vec::new, |value| {
        body::accounts(&value, "accounts", &mut asked.parser)
    });
    body::no_account_twice([("accounts", &accounts[..])], &mut asked.parser);
    let max_removals = asked.body.take("max_removals", &mut asked.parser);
    let max_removals = max_removals.map_or(0, |value| {
        let number = value
            .as_u64()
            .and_then(|number| usize::try_from(number).ok());
        number.unwrap_or_else(|| {
            let detail = "must be an integer from 0 up";
            asked.parser.fault("body", "max_removals", detail);
            0
        })
    });
    let Common {
        image_id,
        region,
        reason,
        mode,
        deadline,
        request_id,
    } = asked.finish()?;
    caller.admit(Cost::of_accounts(accounts.len()))?;
    let replacement = Replacement {
        image_id: image_id.clone(),
        region: region.clone(),
        accounts: accounts.into_iter().collect::<BTreeSet<AccountId>>(),
        max_removals,
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
struct Asked<'a> {
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

impl<'a> Asked<'a> {
    fn new(request: &'a HttpRequest, bytes: &[u8], rules: &Rules) -> Self {
        let deadline = parse::deadline(request, rules);
        let mut parser = Parser::new(request, &["region", "dry_run"]);
        let mode = Mode::of(&mut parser);
        let image_id = parser.segment("image_id");
        let region = parser.region(rules);
        let mut body = Body::parse(bytes, &mut parser);
        let reason = body.take("reason", &mut parser);
        let reason = reason.and_then(|value: Value| body::reason(&value, &mut parser));
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
        let extensions = self.request.extensions();
        let request_id = extensions
            .get::<Arrival>()
            .map_or_else(String::new, |arrival| {
                arrival.request_id.as_str().to_owned()
            });
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

fn answer(
    image_id: &ImageId,
    region: &Region,
    results: Result<Vec<BulkResult>, BulkError>,
    request_id: &str,
) -> Result<HttpResponse, Problem> {
    let shown = |result: BulkResult| shown(result, request_id);
    match results {
        Ok(results) => Ok(HttpResponse::Ok().json(BulkAnswer {
            image_id: image_id.as_str().to_owned(),
            region: region.as_str().to_owned(),
            dry_run: false,
            results: results.into_iter().map(shown).collect(),
        })),
        Err(BulkError::AllDenied(results)) => {
            let results: Vec<ResultBody> = results.into_iter().map(shown).collect();
            Err(all_denied(results))
        }
        Err(error) => Err(error.into()),
    }
}

fn shown(result: BulkResult, request_id: &str) -> ResultBody {
    let outcome = result.outcome();
    let problem = result.result.err().map(Problem::from);
    ResultBody {
        account_id: result.account_id.get(),
        operation: result.operation.as_str(),
        outcome: Some(outcome.as_str()),
        audit_id: Some(result.event_id.to_string()),
        would_change: None,
        problem: problem.map(|problem| Box::new(problem.body(request_id, true))),
    }
}

fn rehearsed_answer(
    image_id: &ImageId,
    region: &Region,
    rehearsed: Result<Vec<Rehearsed>, RehearsalError>,
    request_id: &str,
) -> Result<HttpResponse, Problem> {
    let shown = |one: Rehearsed| {
        let problem = one.refusal.map(|refusal: Refusal| Problem::from(refusal));
        ResultBody {
            account_id: one.account_id.get(),
            operation: one.operation.as_str(),
            outcome: None,
            audit_id: None,
            would_change: Some(one.would_change),
            problem: problem.map(|problem| Box::new(problem.body(request_id, true))),
        }
    };
    match rehearsed {
        Ok(rehearsed) => Ok(HttpResponse::Ok().json(BulkAnswer {
            image_id: image_id.as_str().to_owned(),
            region: region.as_str().to_owned(),
            dry_run: true,
            results: rehearsed.into_iter().map(shown).collect(),
        })),
        Err(RehearsalError::AllDenied(rehearsed)) => {
            Err(all_denied(rehearsed.into_iter().map(shown).collect()))
        }
        Err(error) => Err(error.into()),
    }
}

/// 403 with the policies that decided, each once.
fn all_denied(results: Vec<ResultBody>) -> Problem {
    let problems = results.iter().filter_map(|result| result.problem.as_ref());
    let policy_ids: BTreeSet<&String> = problems.flat_map(|problem| problem.policy_ids()).collect();
    let policy_ids = policy_ids.into_iter().cloned().collect();
    Problem::all_denied(results, policy_ids)
}
