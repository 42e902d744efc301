//! What looking costs: pages, summaries, verification, exports, the feed, a start.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image_share_gateway::audit::{Bucket, Buckets, Filter, Order, Reader};
use image_share_gateway::auth::{Grant, Mint};
use image_share_gateway::config::TrailPlace;
use image_share_gateway::domain::{EventId, Outcome, Timestamp};

use super::generate::{BEGIN, Facts, STEP, account_id, event_id, image_id, team};
use super::process::{AUDIENCE, ISSUER, KEYS, Process, memory_kib};

/// Events of a page.
const PAGE: usize = 100;
/// Looks at each page; the median counts.
const LOOKS: u64 = 60;

/// A page by name and its median milliseconds.
pub(crate) type Timed = (&'static str, f64);

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The filter of a page, for the look of this number.
type MakeFilter = fn(u64, u64) -> Filter;

/// Each single filter and some pairs, over values that fill a page in the smallest trail.
const FILTERS: [(&str, MakeFilter); 12] = [
    ("subject", |look, _| Filter {
        subject: Some(team(look % 10)),
        ..Filter::default()
    }),
    ("image_id", |look, _| Filter {
        image_id: image_id(look % 10).parse().ok(),
        ..Filter::default()
    }),
    ("account_id", |look, _| Filter {
        account_id: account_id(look % 10).try_into().ok(),
        ..Filter::default()
    }),
    ("operation", |look, _| Filter {
        operation: (if look % 2 == 0 { "share" } else { "unshare" })
            .parse()
            .ok(),
        ..Filter::default()
    }),
    ("request_id", |look, events| Filter {
        request_id: Some(Facts::of(look * (events / LOOKS)).request_id),
        ..Filter::default()
    }),
    ("outcome=succeeded", |_, _| Filter {
        outcome: Some(Outcome::Succeeded.into()),
        ..Filter::default()
    }),
    ("outcome=failed", |_, _| Filter {
        outcome: Some(Outcome::Failed.into()),
        ..Filter::default()
    }),
    ("outcome=denied", |_, _| Filter {
        outcome: Some(Outcome::Denied.into()),
        ..Filter::default()
    }),
    ("outcome=pending", |_, _| Filter {
        outcome: Some(Outcome::Pending.into()),
        ..Filter::default()
    }),
    ("from, to", |look, events| {
        let middle = BEGIN + i64::try_from(events / 4 + look).unwrap() * STEP;
        Filter {
            from: Some(Timestamp::from_micros(middle)),
            to: Some(Timestamp::from_micros(middle + 2000 * STEP)),
            ..Filter::default()
        }
    }),
    ("subject, outcome=succeeded", |look, _| Filter {
        subject: Some(team(look % 10)),
        outcome: Some(Outcome::Succeeded.into()),
        ..Filter::default()
    }),
    ("image_id, operation", |look, _| Filter {
        image_id: image_id(look % 10).parse().ok(),
        operation: "share".parse().ok(),
        ..Filter::default()
    }),
];

/// Every kind of page of the trail of this many events.
pub(crate) async fn pages(place: &TrailPlace, events: u64) -> Vec<Timed> {
    let reader = Reader::open(place).await.unwrap();
    let deep: EventId = EventId::new(event_id(events / 2).parse().unwrap());
    let every: [(&str, MakeFilter); 2] = [
        ("first", |_, _| Filter::default()),
        ("deep", |_, _| Filter::default()),
    ];
    let mut timed = Vec::new();
    for (name, make) in every.into_iter().chain(FILTERS) {
        let after = (name == "deep").then_some(deep);
        let mut took = Vec::new();
        for look in 0..LOOKS * 2 {
            let filter = make(look % LOOKS, events);
            let begun = Instant::now();
            let page = reader
                .page(&filter, Order::Descending, PAGE, after)
                .await
                .unwrap();
            let few = matches!(name, "request_id" | "outcome=pending");
            assert!(
                few || page.events.len() >= PAGE.min(90),
                "{name}: a full page"
            );
            // The first round warms the caches.
            if look >= LOOKS {
                took.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        timed.push((name, median(took)));
    }
    timed
}

/// Median milliseconds in which it is found who shared an image with 25 accounts.
pub(crate) async fn provenance(place: &TrailPlace) -> f64 {
    let reader = Reader::open(place).await.unwrap();
    let region = "cn-wlcb".parse().unwrap();
    let mut took = Vec::new();
    for look in 0..LOOKS * 2 {
        let image = image_id(look % 10).parse().unwrap();
        let accounts: Vec<_> = (0..25)
            .map(|number| account_id(number).try_into().unwrap())
            .collect();
        let begun = Instant::now();
        let found = reader.last_changes(&region, &image, &accounts).await;
        assert!(found.unwrap().len() > 5, "hot images have hot accounts");
        if look >= LOOKS {
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    median(took)
}

/// Milliseconds of a summary by day over the first `share` of the trail; of one team where it is named.
pub(crate) async fn summary(path: &Path, events: u64, share: f64, subject: Option<String>) -> f64 {
    let reader = Reader::open(&TrailPlace::File(path.into())).await.unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "microseconds of a year")]
    let length = (events as f64 * STEP as f64 * share) as i64;
    let time = |micros| Some(Timestamp::from_micros(micros));
    let buckets = Buckets::new(
        Bucket::Day,
        time(BEGIN),
        time(BEGIN + length),
        Timestamp::now(),
    );
    let filter = Filter {
        subject,
        ..Filter::default()
    };
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        reader.summary(&filter, buckets.unwrap()).await.unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    median(took)
}

/// Seconds that a command takes with its output thrown away, and its most memory in KiB.
pub(crate) fn run(command: &mut Command) -> (f64, u64) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    loop {
        peak = memory_kib(child.id(), "VmHWM:").unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{command:?}");
            return (begun.elapsed().as_secs_f64(), peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_image-share-gateway"))
}

/// Seconds and most memory of a copy into a server's database.
pub(crate) fn import(from: &str, to: &str) -> (f64, u64) {
    run(program().args(["audit", "import", from, to]))
}

pub(crate) fn verify(url: &str) -> (f64, u64) {
    run(program().args(["audit", "verify", "--database-url", url]))
}

pub(crate) fn export(url: &str, format: &str) -> (f64, u64) {
    run(program().args(["audit", "export", "--format", format, "--database-url", url]))
}

/// Seconds in which `sqlite3` selects what verification reads.
pub(crate) fn sqlite3_rows(path: &Path) -> f64 {
    sqlite3(path, "SELECT * FROM audit_entries ORDER BY sequence")
}

/// Seconds in which `sqlite3` selects what an export reads, without making times of it.
pub(crate) fn sqlite3_events(path: &Path) -> f64 {
    sqlite3(
        path,
        "SELECT f.event_id, o.recorded_at, f.subject, f.issuer, f.token_id, f.client_ip, f.user_agent, f.request_id, \
         f.trace_id, f.operation, f.image_id, f.account_id, f.region, COALESCE(o.outcome, f.outcome), \
         COALESCE(o.http_status, f.http_status), COALESCE(o.upstream_ret_code, f.upstream_ret_code), \
         COALESCE(o.upstream_request_id, f.upstream_request_id), COALESCE(o.upstream_calls, f.upstream_calls), \
         COALESCE(o.duration_ms, f.duration_ms), f.reason, f.expires_at, f.policy_ids, COALESCE(o.detail, f.detail) \
         FROM audit_entries AS f INDEXED BY audit_entries_event \
         LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome' \
         WHERE f.kind IN ('intent', 'denial') ORDER BY f.event_id DESC",
    )
}

fn sqlite3(path: &Path, statement: &str) -> f64 {
    run(Command::new("sqlite3")
        .arg("-readonly")
        .arg(path)
        .arg(statement))
    .0
}

/// Median milliseconds from the start of the program to its serving, and the most bytes that it read until then.
pub(crate) fn start(directory: &Path, url: &str) -> (f64, u64) {
    let (mut took, mut read) = (Vec::new(), 0);
    for _ in 0..7 {
        let begun = Instant::now();
        let trail = [("ISG__AUDIT__DATABASE_URL", url)];
        let gateway = Process::gateway_with(directory, "http://127.0.0.1:9", &trail);
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        read = gateway.read_bytes().max(read);
    }
    (median(took), read)
}

/// Reads `rows` rows of the feed; gives rows a second and the gateway's most memory in KiB.
pub(crate) fn feed(directory: &Path, path: &Path, rows: usize) -> (f64, u64) {
    let gateway = Process::gateway_with_trail(directory, "http://127.0.0.1:9", path);
    let mint = Mint::from_set(KEYS, None).unwrap();
    let grant = Grant {
        subject: "auditor",
        scope: "audit:read",
        issuer: ISSUER,
        audience: AUDIENCE,
        ttl: Duration::from_hours(1),
    };
    let token = mint.sign(&grant).unwrap();
    let address = gateway.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /audit/entries HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let begun = Instant::now();
    let mut lines = 0;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    while lines < rows {
        let filled = reader.fill_buf().unwrap();
        assert!(!filled.is_empty(), "the feed ended after {lines} rows");
        lines += filled.split(|byte| *byte == b'\n').count() - 1;
        let length = filled.len();
        reader.consume(length);
    }
    let rate = lines as f64 / begun.elapsed().as_secs_f64();
    // A slow reader: nothing is taken any more, and nothing piles up.
    std::thread::sleep(Duration::from_secs(1));
    let peak = gateway.peak_kib();
    drop(reader);
    (rate, peak)
}
