//! What came of each account of a bulk, as it is told.

use std::collections::BTreeSet;

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{ImageId, Region};
use crate::http::wire::{Problem, ResultBody};
use crate::schema;
use crate::sharing::{BulkError, BulkResult, RehearsalError, Rehearsed};

/// What came of each account's change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BulkResults)]
pub(in crate::http) struct BulkAnswer {
    /// The image.
    #[schema(value_type = schema::ImageId)]
    image_id: String,
    /// Where it lives.
    #[schema(value_type = schema::Region)]
    region: String,
    /// True in a dry run, else absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    dry_run: bool,
    /// One for each account.
    results: Vec<ResultBody>,
}

pub(super) fn answer(
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

pub(super) fn rehearsed_answer(
    image_id: &ImageId,
    region: &Region,
    rehearsed: Result<Vec<Rehearsed>, RehearsalError>,
    request_id: &str,
) -> Result<HttpResponse, Problem> {
    let shown = |one: Rehearsed| {
        let problem = one.refusal.map(Problem::from);
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
