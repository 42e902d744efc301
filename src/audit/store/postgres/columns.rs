//! What PostgreSQL takes each column for.

use crate::audit::columns::Column;

/// The type of a column, as a cast names it.
pub(super) fn type_of(column: Column) -> &'static str {
    match column {
        Column::Version
        | Column::Sequence
        | Column::RecordedAt
        | Column::AccountId
        | Column::ExpiresAt
        | Column::HttpStatus
        | Column::UpstreamRetCode
        | Column::UpstreamCalls
        | Column::DurationMs => "bigint",
        Column::EventId => "uuid",
        Column::ChainId
        | Column::Kind
        | Column::Subject
        | Column::Issuer
        | Column::TokenId
        | Column::ClientIp
        | Column::UserAgent
        | Column::RequestId
        | Column::TraceId
        | Column::Operation
        | Column::ImageId
        | Column::Region
        | Column::Reason
        | Column::PolicyIds
        | Column::Outcome
        | Column::UpstreamRequestId
        | Column::Detail => "text",
    }
}
