//! Which events a query asks for.

use utoipa::IntoParams;

use crate::audit::{EventOperationSchema, Filter};
use crate::domain::{Outcome, Timestamp};
use crate::http::wire::Parser;
use crate::schema;

/// [`read_filter`]'s parameters, as the document tells them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only the document reads it")]
pub(super) struct FilterParameters {
    /// Events at or after this time (RFC 3339), as 2026-01-31T00:00:00Z.
    #[param(nullable = false, value_type = Option<schema::Time>)]
    from: Option<String>,
    /// Events before this time (RFC 3339).
    #[param(nullable = false, value_type = Option<schema::Time>)]
    to: Option<String>,
    /// Who asked, exactly.
    #[param(nullable = false, min_length = 1)]
    subject: Option<String>,
    /// The image.
    #[param(nullable = false, value_type = Option<schema::ImageId>)]
    image_id: Option<String>,
    /// The account.
    #[param(nullable = false, value_type = Option<schema::AccountId>)]
    account_id: Option<u64>,
    /// What was asked for.
    #[param(nullable = false, value_type = Option<EventOperationSchema>)]
    operation: Option<String>,
    /// How it ended.
    #[param(nullable = false, value_type = Option<schema::ChangeOutcome>)]
    outcome: Option<String>,
    /// The request's id, exactly.
    #[param(nullable = false, min_length = 1)]
    request_id: Option<String>,
}

/// The names of [`read_filter`]'s parameters.
pub(super) const FILTERS: [&str; 8] = [
    "from",
    "to",
    "subject",
    "image_id",
    "account_id",
    "operation",
    "outcome",
    "request_id",
];

/// Which events the query asks for.
pub(super) fn read_filter(parser: &mut Parser<'_>) -> Filter {
    let text = |text: &str| Ok::<_, &str>(text.to_owned());
    let (from, to) = (time(parser, "from"), time(parser, "to"));
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        parser.fault("query", "from", "must be before to");
    }
    Filter {
        from,
        to,
        subject: parser.parameter("subject", text),
        image_id: parser.parameter("image_id", str::parse),
        account_id: parser.parameter("account_id", str::parse),
        operation: parser.parameter("operation", str::parse),
        outcome: parser
            .parameter("outcome", str::parse::<Outcome>)
            .map(Into::into),
        request_id: parser.parameter("request_id", text),
    }
}

fn time(parser: &mut Parser<'_>, name: &str) -> Option<Timestamp> {
    parser.parameter(name, |text| {
        Timestamp::parse_rfc3339(text).map_err(|error| {
            // In a query a plus is a space, and it is easily forgotten before an offset.
            let hint = if text.contains(' ') {
                "; a + of an offset is written %2B in a query"
            } else {
                ""
            };
            format!("{error}{hint}")
        })
    })
}
