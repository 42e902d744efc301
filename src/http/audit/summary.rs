//! How many changes ended how, over time.

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use crate::audit::{Bucket, Buckets, Reader, Summary};
use crate::authorization::Authorizer;
use crate::domain::Timestamp;
use crate::tasks::Tasks;

use super::{FILTERS, may_read, on_main_runtime, read_filter};
use crate::http::caller::Authenticated;
use crate::http::parse::Parser;
use crate::http::path;
use crate::http::problem::Problem;

/// Count changes by outcome over time.
///
/// A count for each outcome in each hour or day (UTC), the last 30 days unless asked otherwise, empty buckets
/// included.
#[utoipa::path(
    get, path = path::SUMMARY, operation_id = "summarize_events", tag = "audit",
    params(
        ("bucket" = Option<String>, Query, description = "`hour` or `day` (the default)", nullable = false,
            pattern = "^(hour|day)$"),
        ("from" = Option<String>, Query, description = "Events at or after this time (RFC 3339); 30 days back unless given",
            nullable = false, format = DateTime),
        ("to" = Option<String>, Query, description = "Events before this time (RFC 3339); now unless given",
            nullable = false, format = DateTime),
        ("subject" = Option<String>, Query, description = "Who asked, exactly", nullable = false),
        ("image_id" = Option<String>, Query, description = "The image", nullable = false),
        ("account_id" = Option<u64>, Query, description = "The account", nullable = false, minimum = 1,
            maximum = 9_007_199_254_740_991_u64),
        ("operation" = Option<String>, Query, description = "`share`, `unshare` or `update`", nullable = false,
            pattern = "^(share|unshare|update)$"),
        ("outcome" = Option<String>, Query, nullable = false,
            description = "`pending`, `succeeded`, `invalid_account`, `denied`, `failed` or `unknown`",
            pattern = "^(pending|succeeded|invalid_account|denied|failed|unknown)$"),
        ("request_id" = Option<String>, Query, description = "The request's id, exactly", nullable = false),
    ),
    responses((status = 200, description = "Counts by outcome, bucket by bucket", body = Summary,
        content_type = "application/json", example = json!({"bucket": "day", "buckets": [
            {"start": "2026-01-31T00:00:00.000000Z", "counts": {"pending": 0, "succeeded": 41, "invalid_account": 1,
                "denied": 2, "failed": 0, "unknown": 0}}]}))),
    security(("bearer" = ["audit:read"]))
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
    let bucket = parser.parameter("bucket", |word| {
        Bucket::from_word(word).ok_or("must be hour or day")
    });
    let bucket = bucket.unwrap_or_default();
    let buckets = Buckets::new(bucket, filter.from, filter.to, Timestamp::now());
    let buckets = buckets
        .map_err(|error| parser.fault("query", "from", error.to_string()))
        .ok();
    let buckets = parser.finish(buckets)?;
    may_read(&caller, &authorizer)?;
    let summary = on_main_runtime(
        &tasks,
        async move { reader.summary(&filter, buckets).await },
    );
    Ok(HttpResponse::Ok().json(summary.await??))
}
