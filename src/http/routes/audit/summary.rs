//! How many changes ended how, over time.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use crate::audit::{Bucket, Buckets, Reader, Summary, SummaryBucket};
use crate::authorization::{Authorizer, Request};
use crate::domain::Timestamp;
use crate::tasks::Tasks;

use super::filter::{FILTERS, FilterParameters, read_filter};
use super::reading::on_main_runtime;
use crate::http::edge::Authenticated;
use crate::http::wire::{Parser, Problem, path};

/// Count changes by outcome over time.
///
/// A count for each outcome in each hour or day (UTC), empty ones included, at most 1000 of them: up to `to`, which
/// is now unless given, from `from`, which is 30 days before `to` unless given.
#[utoipa::path(
    get, path = path::SUMMARY, operation_id = "summarize_events", tag = "audit",
    params(
        ("bucket" = Option<SummaryBucket>, Query, description = "How much time one bucket covers.", nullable = false),
        FilterParameters,
    ),
    responses((status = 200, description = "Counts by outcome, bucket by bucket", body = Summary,
        content_type = "application/json", example = json!({"bucket": "day", "buckets": [
            {"start": "2026-01-31T00:00:00.000000Z", "counts": {"pending": 0, "succeeded": 41, "invalid_account": 1,
                "denied": 2, "failed": 0, "unknown": 0}}]}))),
)]
pub(in crate::http) async fn summarize_events(
    caller: Authenticated,
    request: HttpRequest,
    authorizer: Data<Authorizer>,
    reader: Data<Reader>,
    tasks: Data<Tasks>,
) -> Result<HttpResponse, Problem> {
    let known = [&FILTERS[..], &["bucket"]].concat();
    let mut parser = Parser::new(&request, &known);
    let filter = read_filter(&mut parser);
    let bucket = parser.parameter("bucket", str::parse::<Bucket>);
    let bucket = bucket.unwrap_or_default();
    // What is wrong with a time is told by itself.
    let buckets = if parser.is_sound() {
        Buckets::new(bucket, filter.from, filter.to, Timestamp::now())
            .map_err(|error| parser.fault("query", "from", error.to_string()))
            .ok()
    } else {
        None
    };
    let buckets = parser.finish(buckets)?;
    caller.admit(0)?;
    caller.may(&authorizer, Request::ReadAudit)?;
    let reader = reader.on_behalf_of(caller.caller().party());
    let summary = on_main_runtime(
        &tasks,
        async move { reader.summary(&filter, buckets).await },
    );
    Ok(HttpResponse::Ok().json(summary.await??))
}
