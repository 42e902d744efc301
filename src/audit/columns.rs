//! The columns of a row, once: the INSERT, the hash, verification and the feed come from this list, so that what is
//! hashed is what is stored.

use super::entry::Cell;

macro_rules! columns {
    ($($column:ident = $name:literal,)+) => {
        /// A column of `audit_entries` that is hashed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Column {
            $($column,)+
        }

        /// Their names, in their order in the table and in the hash.
        pub(super) const COLUMNS: [&str; [$($name),+].len()] = [$($name),+];
    };
}

columns! {
    Version = "version",
    ChainId = "chain_id",
    Sequence = "sequence",
    Kind = "kind",
    EventId = "event_id",
    RecordedAt = "recorded_at",
    Subject = "subject",
    Issuer = "issuer",
    TokenId = "token_id",
    ClientIp = "client_ip",
    UserAgent = "user_agent",
    RequestId = "request_id",
    TraceId = "trace_id",
    Operation = "operation",
    ImageId = "image_id",
    AccountId = "account_id",
    Region = "region",
    Reason = "reason",
    ExpiresAt = "expires_at",
    PolicyIds = "policy_ids",
    Outcome = "outcome",
    HttpStatus = "http_status",
    UpstreamRetCode = "upstream_ret_code",
    UpstreamRequestId = "upstream_request_id",
    UpstreamCalls = "upstream_calls",
    DurationMs = "duration_ms",
    Detail = "detail",
}

/// A row in the making: a cell a column, null unless it is set.
#[derive(Debug)]
pub(super) struct Cells([Cell; COLUMNS.len()]);

impl Default for Cells {
    fn default() -> Self {
        Self([const { Cell::Null }; COLUMNS.len()])
    }
}

impl Column {
    pub(super) fn name(self) -> &'static str {
        COLUMNS[self as usize]
    }
}

impl Cells {
    /// Sets a column.
    pub(super) fn set(&mut self, column: Column, value: impl Into<Cell>) {
        self.0[column as usize] = value.into();
    }

    /// In the order of [`COLUMNS`].
    pub(super) fn into_array(self) -> [Cell; COLUMNS.len()] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stands_where_its_column_does() {
        let mut cells = Cells::default();
        cells.set(Column::Version, 1);
        cells.set(Column::Detail, "why");
        cells.set(Column::AccountId, 7);
        let cells = cells.into_array();
        let at = |name| {
            COLUMNS
                .iter()
                .position(|column| *column == name)
                .expect("a column")
        };
        assert_eq!(cells[at("version")], Cell::from(1));
        assert_eq!(cells[at("detail")], Cell::from("why"));
        assert_eq!(cells[at("account_id")], Cell::from(7));
        assert_eq!(cells[at("reason")], Cell::Null);
    }
}
