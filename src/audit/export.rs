//! Events as lines: the one format of streams over HTTP and of `audit export`.
//!
//! An export reads the trail a page at a time, so it takes the memory of a page and holds no read transaction
//! open, however many events there are.

use super::event::{CSV_COLUMNS, Event};
use super::filter::{Filter, Order};
use super::line::append_line;
use super::reader::{Page, Reader};
use super::store::StoreError;
use crate::domain::EventId;

/// Events of one page, and of one chunk.
const PAGE_EVENTS: usize = 500;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// RFC 4180 with a header row.
    Csv,
    /// The same behind a byte order mark, without which Excel takes it for the text of an older code page.
    CsvWithMark,
}

impl Format {
    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv | Self::CsvWithMark => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// All events that fit a filter, chunk by chunk.
#[derive(Debug)]
pub struct Export {
    reader: Reader,
    filter: Filter,
    order: Order,
    format: Format,
    /// Events that may still be read; none: all there are.
    left: Option<usize>,
    next: Next,
    begun: bool,
    given: u64,
}

#[derive(Debug)]
enum Next {
    /// To be read, behind this event.
    After(Option<EventId>),
    /// Read, not written yet.
    Read(Page),
    /// There is no more.
    End,
}

impl Export {
    /// Begins behind `after`; at most `limit` events, or all.
    #[must_use]
    pub fn new(
        reader: Reader,
        filter: Filter,
        order: Order,
        format: Format,
        after: Option<EventId>,
        limit: Option<usize>,
    ) -> Self {
        Self {
            reader: reader.exporting(),
            filter,
            order,
            format,
            left: limit,
            next: Next::After(after),
            begun: false,
            given: 0,
        }
    }

    /// How many events there will be, as far as that can be said now.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn count(&self) -> Result<u64, StoreError> {
        let counts = self.reader.counts(&self.filter).await?;
        let all: i64 = counts.iter().map(|(_, count)| count).sum();
        let all = u64::try_from(all).unwrap_or_default();
        let limit = self.left.map(|left| left as u64);
        Ok(limit.map_or(all, |limit| limit.min(all)))
    }

    /// How many events were given.
    #[must_use]
    pub fn given(&self) -> u64 {
        self.given
    }

    /// The next chunk of whole lines; `None` at the end.
    ///
    /// # Errors
    /// Where the database cannot be read or holds what the gateway never writes.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let page = match std::mem::replace(&mut self.next, Next::End) {
            Next::After(after) => self.read(after).await?,
            Next::Read(page) => page,
            Next::End => return Ok(None),
        };
        self.left = self.left.map(|left| left.saturating_sub(page.events.len()));
        self.given += page.events.len() as u64;
        let more = page.next.filter(|_| self.left != Some(0));
        let header = !std::mem::replace(&mut self.begun, true);
        let format = self.format;
        // The next page is read while this one is written.
        let (next, lines) = match more {
            Some(last) => {
                let (next, lines) = futures_util::join!(self.read(Some(last)), async {
                    lines(format, header, &page)
                });
                (Next::Read(next?), lines)
            }
            None => (Next::End, lines(format, header, &page)),
        };
        self.next = next;
        Ok(Some(lines))
    }

    async fn read(&self, after: Option<EventId>) -> Result<Page, StoreError> {
        let limit = self.left.unwrap_or(PAGE_EVENTS).min(PAGE_EVENTS);
        self.reader
            .page(&self.filter, self.order, limit, after)
            .await
    }
}

const BYTE_ORDER_MARK: &str = "\u{feff}";

pub(super) fn lines(format: Format, header: bool, page: &Page) -> Vec<u8> {
    match format {
        Format::Ndjson => {
            let mut lines = Vec::with_capacity(page.events.len() * 700);
            for event in &page.events {
                append_line(&mut lines, event);
                lines.push(b'\n');
            }
            lines
        }
        Format::Csv | Format::CsvWithMark => {
            let mut text = Vec::with_capacity(page.events.len() * 400);
            if header && format == Format::CsvWithMark {
                text.extend_from_slice(BYTE_ORDER_MARK.as_bytes());
            }
            let mut writer = csv::WriterBuilder::new()
                .terminator(csv::Terminator::CRLF)
                .from_writer(text);
            if header {
                // Memory takes what is written.
                let _ = writer.write_record(CSV_COLUMNS.iter().map(|(name, _)| name));
            }
            for event in &page.events {
                let _ = writer.write_record(cells(event));
            }
            writer.into_inner().unwrap_or_default()
        }
    }
}

fn cells(event: &Event) -> impl Iterator<Item = String> {
    CSV_COLUMNS.iter().map(|(_, cell)| harmless(cell(event)))
}

/// A spreadsheet takes a cell that begins so for a formula (OWASP, CSV injection), Chinese and Japanese ones also where
/// the sign is of full width; a leading `'` makes it text. Spaces and what cannot be seen may stand before it.
fn harmless(cell: String) -> String {
    let unseen = |c: char| {
        c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
    };
    let signs = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    if cell.starts_with(['\t', '\r']) || cell.trim_start_matches(unseen).starts_with(signs) {
        format!("'{cell}")
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(reason: &str) -> Event {
        Event {
            id: "019ab3c4-d5e6-7f00-8123-456789abcdef".into(),
            occurred_at: "2026-01-31T12:00:00.000000Z".into(),
            completed_at: None,
            subject: reason.into(),
            issuer: None,
            token_id: None,
            client_ip: None,
            user_agent: Some(reason.into()),
            request_id: None,
            trace_id: None,
            operation: "share".into(),
            image_id: "img".into(),
            account_id: Some(7),
            region: "cn-wlcb".into(),
            outcome: "failed".into(),
            http_status: Some(502),
            upstream_ret_code: Some(-1),
            upstream_request_id: None,
            upstream_calls: Some(1),
            duration_ms: Some(3),
            reason: Some(reason.into()),
            expires_at: None,
            policy_ids: vec!["p1".into(), "p2".into()],
            detail: None,
        }
    }

    #[test]
    fn columns_are_the_events_members_in_their_order() {
        let event = serde_json::to_string(&event("x")).expect("serializes");
        let mut places = Vec::new();
        for (column, _) in CSV_COLUMNS {
            places.push(event.find(&format!("\"{column}\":")).expect(column));
        }
        assert!(places.is_sorted());
        assert_eq!(event.matches("\":").count(), CSV_COLUMNS.len());
    }

    #[test]
    fn formulas_become_text_and_quotes_are_doubled() {
        let page = Page {
            events: vec![event("=1+\"1\",2")],
            next: None,
        };
        let text = String::from_utf8(lines(Format::Csv, true, &page)).expect("text");
        let (header, row) = text.split_once("\r\n").expect("two lines");
        let names: Vec<&str> = CSV_COLUMNS.iter().map(|(name, _)| *name).collect();
        assert_eq!(header, names.join(","));
        let expected = "019ab3c4-d5e6-7f00-8123-456789abcdef,2026-01-31T12:00:00.000000Z,,\"'=1+\"\"1\"\",2\",,,,\
            \"'=1+\"\"1\"\",2\",,,share,img,7,cn-wlcb,failed,502,'-1,,1,3,\"'=1+\"\"1\"\",2\",,p1 p2,\r\n";
        assert_eq!(row, expected);
    }

    #[test]
    fn a_mark_stands_once_and_in_front() {
        let page = Page {
            events: vec![event("x")],
            next: None,
        };
        let csv = |header| lines(Format::CsvWithMark, header, &page);
        assert!(csv(true).starts_with("\u{feff}id,".as_bytes()));
        assert_eq!(csv(false), lines(Format::Csv, false, &page));
    }

    proptest! {
        #[test]
        fn whatever_a_cell_holds_reads_back_and_is_no_formula(text in "[=+@＝＋－＠,\"\t\r\n' \u{3000}\u{a0}\u{feff}a-]{0,8}|\\PC{0,8}") {
            let page = Page { events: vec![event(&text), event("x")], next: None };
            let csv = lines(Format::Csv, false, &page);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv.as_slice());
            let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("reads");
            prop_assert_eq!(rows.len(), 2);
            let cell = &rows[0][3];
            let quoted = format!("'{text}");
            prop_assert!(cell == text || cell == quoted);
            let seen = cell.trim_start_matches([' ', '\u{3000}', '\u{a0}', '\u{feff}', '\n', '\t', '\r']);
            prop_assert!(!seen.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{:?}", cell);
            prop_assert!(!cell.starts_with(['\t', '\r']));
        }
    }
}
