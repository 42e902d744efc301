//! The columns, once: the INSERT, the hash, verification, events, the feed, exports and the document come from this
//! list, so that what is hashed is what is stored, and what is stored is what is published.

use super::entry::Cell;

/// Gives the columns that say what happened to the macro `$then`: description, variant, name and kind of each
/// ([`super::kinds`]), in four groups, since a row of the table and a published event have them in different orders:
/// `asked`, `why`, `ended`, `more` and `asked`, `ended`, `why`, `more`.
macro_rules! event_columns {
    ($then:ident) => {
        $then! {
            asked {
                /// Who asked: the token's `sub`, or `system:…` for what the gateway does by itself.
                Subject subject: kinds::Text,
                /// The token's `iss`.
                Issuer issuer: kinds::OptionalText,
                /// The token's `jti`.
                TokenId token_id: kinds::OptionalText,
                /// Where the request came from.
                ClientIp client_ip: kinds::OptionalText,
                /// What the client called itself.
                UserAgent user_agent: kinds::OptionalText,
                /// The request's id.
                RequestId request_id: kinds::OptionalText,
                /// The caller's trace, or our own.
                TraceId trace_id: kinds::OptionalText,
                /// What was asked for; `update` where a bulk request was denied as a whole.
                Operation operation: kinds::Operation,
                /// The image.
                ImageId image_id: kinds::Text,
                /// The account; null where a bulk request was denied as a whole.
                AccountId account_id: kinds::OptionalAccount,
                /// Where the image lives; a region that is not served any more may stand here.
                Region region: kinds::Text,
            }
            why {
                /// Why, in the caller's words.
                Reason reason: kinds::OptionalText,
                /// When the share ends by itself; null: it does not.
                ExpiresAt expires_at: kinds::OptionalTime,
                /// The policies that decided; empty where scopes alone did.
                PolicyIds policy_ids: kinds::Policies,
            }
            ended {
                /// How it ended.
                Outcome outcome: kinds::Outcome,
                /// What the caller was told; null while pending, and where the process was gone before.
                HttpStatus http_status: kinds::OptionalInteger,
                /// The upstream's last `RetCode`.
                UpstreamRetCode upstream_ret_code: kinds::OptionalInteger,
                /// The upstream's name for its last answer.
                UpstreamRequestId upstream_request_id: kinds::OptionalText,
                /// Calls that carried the change; null while pending, and where that is not known.
                UpstreamCalls upstream_calls: kinds::OptionalInteger,
                /// Milliseconds from the request's arrival to the outcome; null while pending.
                DurationMs duration_ms: kinds::OptionalInteger,
            }
            more {
                /// What else an auditor should know.
                Detail detail: kinds::OptionalText,
            }
        }
    };
}
pub(super) use event_columns;

macro_rules! columns {
    ($($group:ident { $($(#[doc = $doc:literal])+ $column:ident $name:ident: $kind:ty,)+ })+) => {
        columns! {
            Version version, ChainId chain_id, Sequence sequence, Kind kind, EventId event_id, RecordedAt recorded_at,
            $($($column $name,)+)+
        }
    };
    ($($column:ident $name:ident,)+) => {
        /// A column of `audit_entries` that is hashed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Column {
            $($column,)+
        }

        impl Column {
            /// In their order in the table and in the hash.
            pub(super) const ALL: [Self; COLUMNS.len()] = [$(Self::$column),+];
        }

        /// The columns that each version of the encoding hashes, version 1 first: a later one may add some at the end of a list of its
        /// own, and rows of those before stay as they are.
        pub(super) const ENCODINGS: [&[Column]; 1] = [&Column::ALL];

        /// Their names, in their order in the table and in the hash.
        pub(super) const COLUMNS: [&str; [$(stringify!($name)),+].len()] = [$(stringify!($name)),+];
    };
}

event_columns!(columns);

/// A row in the making: a cell a column, null unless it is set.
#[derive(Debug)]
pub(super) struct Cells<'a>([Cell<'a>; COLUMNS.len()]);

impl Default for Cells<'_> {
    fn default() -> Self {
        Self([const { Cell::Null }; COLUMNS.len()])
    }
}

impl Column {
    pub(super) fn name(self) -> &'static str {
        COLUMNS[self as usize]
    }
}

impl<'a> Cells<'a> {
    /// Sets a column.
    pub(super) fn set(&mut self, column: Column, value: impl Into<Cell<'a>>) {
        self.0[column as usize] = value.into();
    }

    /// In the order of [`COLUMNS`].
    pub(super) fn into_array(self) -> [Cell<'a>; COLUMNS.len()] {
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
