//! Every way in which the upstream can fail, through HTTP; and the table of them in docs/upstream.md, which this
//! makes (`ISG_TEST_BLESS=1` writes it anew).

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Answer, Gateway, Reply, Scripted, refusal};

struct Case {
    name: &'static str,
    /// What each call of the change gets, in turn; the last goes on.
    replies: Vec<Reply>,
    settings: &'static [(&'static str, &'static str)],
    status: u16,
    slug: &'static str,
    outcome: &'static str,
    effect: &'static str,
    retryable: bool,
    calls: usize,
}

type End = (&'static str, &'static str, bool);

const FAILED: End = ("failed", "none", false);
const FAILED_FOR_NOW: End = ("failed", "none", true);
const UNKNOWN: End = ("unknown", "unknown", false);
const UNKNOWN_FOR_NOW: End = ("unknown", "unknown", true);
const DONE_AFTER_ALL: End = ("unknown", "done", false);
const SUCCEEDED: End = ("succeeded", "", false);
const OK: (u16, &str) = (200, "");
const ERROR: (u16, &str) = (502, "upstream-error");
const UNAVAILABLE: (u16, &str) = (503, "upstream-unavailable");
const TIMEOUT: (u16, &str) = (504, "upstream-timeout");

fn case(
    name: &'static str,
    replies: Vec<Reply>,
    (status, slug): (u16, &'static str),
    (outcome, effect, retryable): End,
    calls: usize,
) -> Case {
    Case {
        name,
        replies,
        settings: &[],
        status,
        slug,
        outcome,
        effect,
        retryable,
        calls,
    }
}

fn cases() -> Vec<Case> {
    let modified = "ModifyCompShareImageShareAccountResponse";
    let foreign = format!(r#"{{"Action":"{modified}","RetCode":0,"InvalidAccounts":[999]}}"#);
    let named = format!(r#"{{"Action":"{modified}","RetCode":230,"InvalidAccounts":["7"]}}"#);
    let nothing_named = format!(r#"{{"Action":"{modified}","RetCode":0,"InvalidAccounts":{{}}}}"#);
    let other = r#"{"Action":"DescribeCompShareImageShareAccountsResponse","RetCode":0}"#;
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Action\":";
    let huge = format!("{{\"padding\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    let raw = |text: &str| Reply::RawThenClose(text.into());
    let code = |code, message| vec![refusal(code, message)];
    let short = |case: Case| Case {
        settings: &[("upstream.timeout", "300ms")],
        ..case
    };
    let done = |reply: Reply| vec![Reply::DoneBut(Box::new(reply))];
    let mut cases = vec![
        case("accepted", vec![Reply::Done], OK, SUCCEEDED, 1),
        case(
            "accepted, an empty object for the list of invalid accounts",
            vec![Reply::Body(nothing_named)],
            OK,
            SUCCEEDED,
            1,
        ),
        case(
            "HTTP 503 once, then accepted",
            vec![Reply::Status(503), Reply::Done],
            OK,
            SUCCEEDED,
            2,
        ),
        case(
            "RetCode 153 once, then accepted",
            vec![refusal(153, "slow down"), Reply::Done],
            OK,
            SUCCEEDED,
            2,
        ),
        case(
            "connection reset before the call was read, then accepted",
            vec![Reply::Reset { done: false }, Reply::Done],
            OK,
            SUCCEEDED,
            2,
        ),
        case(
            "account in InvalidAccounts",
            vec![Reply::Body(named)],
            (422, "invalid-account"),
            ("invalid_account", "none", false),
            1,
        ),
        case(
            "InvalidAccounts names nobody of the call",
            vec![Reply::Body(foreign)],
            ERROR,
            UNKNOWN,
            1,
        ),
        case(
            "RetCode 110",
            code(110, "timeout"),
            TIMEOUT,
            UNKNOWN_FOR_NOW,
            4,
        ),
        case("RetCode 130", code(130, "down"), ERROR, UNKNOWN_FOR_NOW, 4),
        case(
            "RetCode 150",
            code(150, "later"),
            UNAVAILABLE,
            FAILED_FOR_NOW,
            4,
        ),
        case(
            "RetCode 153",
            code(153, "slow down"),
            UNAVAILABLE,
            FAILED_FOR_NOW,
            4,
        ),
        case(
            "RetCode 8433",
            code(8433, "contact support"),
            ERROR,
            FAILED_FOR_NOW,
            3,
        ),
        case(
            "RetCode 8434",
            code(8434, "detaching"),
            ERROR,
            FAILED_FOR_NOW,
            4,
        ),
        case(
            "RetCode 110 once, then RetCode 171",
            vec![refusal(110, "timeout"), refusal(171, "no")],
            ERROR,
            UNKNOWN,
            2,
        ),
        case(
            "RetCode 230, the image",
            code(230, "Params [CompShareImageId] not available"),
            (404, "not-found"),
            FAILED,
            1,
        ),
        case(
            "RetCode 230, the region",
            code(230, "Params [Region] not available"),
            ERROR,
            FAILED,
            1,
        ),
        case(
            "RetCode 230, an account",
            code(230, "Params [AddAccounts.0] not available"),
            ERROR,
            FAILED,
            1,
        ),
        case(
            "RetCode 240",
            code(240, "Params [X] too large"),
            ERROR,
            FAILED,
            1,
        ),
    ];
    let refused = [
        (160, "RetCode 160"),
        (161, "RetCode 161"),
        (170, "RetCode 170"),
        (171, "RetCode 171"),
        (172, "RetCode 172"),
        (174, "RetCode 174"),
        (210, "RetCode 210"),
        (220, "RetCode 220"),
        (292, "RetCode 292"),
        (293, "RetCode 293"),
        (294, "RetCode 294"),
        (295, "RetCode 295"),
        (299, "RetCode 299"),
        (8333, "RetCode 8333"),
        (8357, "RetCode 8357"),
        (214_001, "RetCode 214001"),
        (226_601, "RetCode 226601"),
        (226_602, "RetCode 226602"),
        (226_603, "RetCode 226603"),
        (226_604, "RetCode 226604"),
        (226_605, "RetCode 226605"),
        (226_606, "RetCode 226606"),
        (9999, "RetCode that nobody knows, from 2000 up"),
        (1999, "RetCode that nobody knows, below 2000"),
    ];
    cases.extend(refused.map(|(number, name)| case(name, code(number, "no"), ERROR, FAILED, 1)));
    cases.extend([
        case(
            "answer to another action",
            vec![Reply::Body(other.into())],
            ERROR,
            UNKNOWN,
            1,
        ),
        case(
            "no RetCode",
            vec![Reply::Body("{}".into())],
            ERROR,
            UNKNOWN,
            1,
        ),
        case(
            "HTML",
            vec![Reply::Body("<html>".into())],
            ERROR,
            UNKNOWN,
            1,
        ),
        case(
            "HTML, and it was done",
            done(Reply::Body("<html>".into())),
            ERROR,
            DONE_AFTER_ALL,
            1,
        ),
        case(
            "an answer over 4 MiB",
            vec![Reply::Body(huge)],
            ERROR,
            UNKNOWN,
            1,
        ),
        case("a redirect", vec![raw(redirect)], ERROR, UNKNOWN, 1),
        case("HTTP 400", vec![Reply::Status(400)], ERROR, FAILED, 1),
        case(
            "HTTP 429",
            vec![Reply::Status(429)],
            UNAVAILABLE,
            FAILED_FOR_NOW,
            4,
        ),
        case(
            "HTTP 429 that asks for longer than the caller has",
            vec![Reply::StatusAfter(429, 3600)],
            UNAVAILABLE,
            FAILED_FOR_NOW,
            1,
        ),
        case("HTTP 500", vec![Reply::Status(500)], ERROR, UNKNOWN, 1),
        case(
            "HTTP 500, and it was done",
            done(Reply::Status(500)),
            ERROR,
            DONE_AFTER_ALL,
            1,
        ),
        case("HTTP 502", vec![Reply::Status(502)], ERROR, UNKNOWN, 4),
        case("HTTP 503", vec![Reply::Status(503)], ERROR, UNKNOWN, 4),
        case(
            "HTTP 504",
            vec![Reply::Status(504)],
            TIMEOUT,
            UNKNOWN_FOR_NOW,
            4,
        ),
        case(
            "connection closed without a word",
            vec![Reply::Close],
            ERROR,
            UNKNOWN,
            4,
        ),
        case(
            "connection reset after the call was read",
            vec![Reply::Reset { done: false }],
            ERROR,
            UNKNOWN,
            4,
        ),
        case(
            "connection reset after it was done",
            vec![Reply::Reset { done: true }],
            ERROR,
            DONE_AFTER_ALL,
            4,
        ),
        case(
            "connection closed half-way through the answer",
            vec![raw(half)],
            ERROR,
            UNKNOWN,
            4,
        ),
        short(case(
            "no answer in upstream.timeout",
            vec![Reply::Hang],
            TIMEOUT,
            UNKNOWN_FOR_NOW,
            4,
        )),
        case(
            "no answer in the caller's time",
            vec![Reply::Hang],
            TIMEOUT,
            UNKNOWN_FOR_NOW,
            1,
        ),
    ]);
    cases
}

/// How long a caller waits in these tests, and what is granted on top.
const WAIT: Duration = Duration::from_secs(9);
const GRANTED: Duration = Duration::from_secs(2);

async fn play(case: &Case) -> String {
    let replies = case.replies.clone();
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let upstream = Scripted::start(move |call| {
        if !call.changes() {
            return Reply::Done;
        }
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        replies[turn.min(replies.len() - 1)].clone()
    })
    .await;
    let gateway = Gateway::in_front_of(&upstream.url, case.settings).await;
    let name = case.name;
    let request = gateway.sharer().request("PUT", "/images/img/shares/7");
    #[expect(clippy::disallowed_methods, reason = "what is promised is a time")]
    let begun = Instant::now();
    let answer = Answer::of(request.header("Prefer", format!("wait={}", WAIT.as_secs()))).await;
    assert!(
        begun.elapsed() < WAIT + GRANTED,
        "{name}: {:?}",
        begun.elapsed()
    );
    let calls = || upstream.changes().len();
    if case.slug.is_empty() {
        assert_eq!(answer.status, case.status, "{name}: {answer:?}");
    } else {
        let problem = answer.assert_problem(case.status, case.slug);
        assert_eq!(problem["effect"], case.effect, "{name}");
        assert_eq!(problem["retryable"], case.retryable, "{name}");
        assert_eq!(
            answer.header("retry-after").is_some(),
            case.status == 503,
            "{name}"
        );
    }
    // Where the caller's time was up in flight the event ends later.
    let event = gateway.ended_event().await;
    assert_eq!(event["id"].as_str(), answer.header("audit-id"), "{name}");
    assert_eq!(event["outcome"], case.outcome, "{name}: {event}");
    assert_eq!(event["http_status"], case.status, "{name}");
    assert_eq!(
        (event["upstream_calls"].as_u64(), calls()),
        (Some(case.calls as u64), case.calls),
        "{name}"
    );
    let looks = upstream.calls().len() - calls();
    assert!(looks <= 1, "{name}: {looks} looks");
    let effect = if case.effect.is_empty() {
        "done"
    } else {
        case.effect
    };
    let slug = if case.slug.is_empty() {
        String::new()
    } else {
        format!(" `{}`", case.slug)
    };
    let retryable = if case.retryable { "yes" } else { "no" };
    format!(
        "| {name} | {}{slug} | `{}` | `{effect}` | {} | {} |\n",
        case.status,
        case.outcome,
        if case.slug.is_empty() { "" } else { retryable },
        case.calls
    )
}

/// Neighbouring rows that differ in nothing but the `RetCode` become one.
fn merged(rows: Vec<String>) -> Vec<String> {
    let mut merged: Vec<String> = Vec::new();
    for row in rows {
        let parts = row
            .strip_prefix("| RetCode ")
            .and_then(|row| row.split_once(" | "));
        let joined = parts.and_then(|(code, rest)| {
            let digits = code.bytes().all(|byte| byte.is_ascii_digit());
            let last = merged.last().filter(|_| digits)?;
            let (codes, same) = last.strip_prefix("| RetCode ")?.split_once(" | ")?;
            let plain = codes
                .bytes()
                .all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b' '));
            (plain && same == rest).then(|| format!("| RetCode {codes}, {code} | {rest}"))
        });
        match (joined, merged.last_mut()) {
            (Some(joined), Some(last)) => *last = joined,
            _ => merged.push(row),
        }
    }
    merged
}

const BEGIN: &str = "<!-- faults: made by tests/it/fault_table.rs -->\n";
const END: &str = "<!-- end of faults -->";

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_the_status_outcome_and_effect_of_the_contract_and_of_the_page() {
    let cases = cases();
    let rows = join_all(cases.iter().map(play)).await;
    let rows = merged(rows);
    let heading = "| the upstream | answer | outcome | effect | retryable | calls |\n| --- | --- | --- | --- | --- | --- |\n";
    let table = format!("{BEGIN}{heading}{}{END}", rows.concat());
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/upstream.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let begin = page
        .find(BEGIN)
        .expect("the page has a place for the table");
    let end = page.find(END).unwrap() + END.len();
    if std::env::var_os("ISG_TEST_BLESS").is_some() {
        std::fs::write(&path, format!("{}{table}{}", &page[..begin], &page[end..])).unwrap();
    } else {
        assert_eq!(&page[begin..end], table, "ISG_TEST_BLESS=1 writes it anew");
    }
}
