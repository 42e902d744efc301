//! Every way in which the upstream can fail, through HTTP.

use serde_json::Value;

use crate::support::{Gateway, Reply, Scripted};

struct Case {
    name: &'static str,
    reply: Reply,
    status: u16,
    slug: &'static str,
    outcome: &'static str,
    effect: &'static str,
    retryable: bool,
}

fn case(
    name: &'static str,
    reply: Reply,
    (status, slug): (u16, &'static str),
    (outcome, effect, retryable): (&'static str, &'static str, bool),
) -> Case {
    Case {
        name,
        reply,
        status,
        slug,
        outcome,
        effect,
        retryable,
    }
}

const UNKNOWN: (&str, &str, bool) = ("unknown", "unknown", false);
const FAILED: (&str, &str, bool) = ("failed", "none", false);
const ERROR: (u16, &str) = (502, "upstream-error");

fn refusal(code: i64, message: &str) -> Reply {
    Reply::Body(format!(r#"{{"RetCode":{code},"Message":"{message}"}}"#))
}

fn cases() -> Vec<Case> {
    let modified = "ModifyCompShareImageShareAccountResponse";
    let foreign = format!(r#"{{"Action":"{modified}","RetCode":0,"InvalidAccounts":[999]}}"#);
    let named = format!(r#"{{"Action":"{modified}","RetCode":230,"InvalidAccounts":["7"]}}"#);
    let other = r#"{"Action":"DescribeCompShareImageShareAccountsResponse","RetCode":0}"#;
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Action\":";
    let huge = format!("{{\"padding\":\"{}\"}}", "x".repeat(5 * 1024 * 1024));
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
    vec![
        case(
            "refused by signature",
            refusal(171, "Signature VerifyAC Error"),
            ERROR,
            FAILED,
        ),
        case(
            "project missing",
            refusal(299, "no permission"),
            ERROR,
            FAILED,
        ),
        case(
            "unknown product code",
            refusal(226_606, "not verified"),
            ERROR,
            FAILED,
        ),
        case(
            "throttled",
            refusal(153, "slow down"),
            (503, "upstream-unavailable"),
            ("failed", "none", true),
        ),
        case(
            "unavailable",
            refusal(150, "later"),
            (503, "upstream-unavailable"),
            ("failed", "none", true),
        ),
        case(
            "took over 60 s",
            refusal(110, "timeout"),
            (504, "upstream-timeout"),
            ("unknown", "unknown", true),
        ),
        case(
            "gateway down",
            refusal(130, "down"),
            ERROR,
            ("unknown", "unknown", true),
        ),
        case(
            "service abnormal",
            refusal(8433, "contact support"),
            ERROR,
            ("failed", "none", true),
        ),
        case(
            "image unknown",
            refusal(230, "Params [CompShareImageId] not available"),
            (404, "not-found"),
            FAILED,
        ),
        case(
            "invalid account beats the code",
            Reply::Body(named),
            (422, "invalid-account"),
            ("invalid_account", "none", false),
        ),
        case(
            "foreign invalid account",
            Reply::Body(foreign),
            ERROR,
            UNKNOWN,
        ),
        case(
            "answer to another action",
            Reply::Body(other.into()),
            ERROR,
            UNKNOWN,
        ),
        case("no RetCode", Reply::Body("{}".into()), ERROR, UNKNOWN),
        case("no JSON", Reply::Body("<html>".into()), ERROR, UNKNOWN),
        case("huge", Reply::Body(huge), ERROR, UNKNOWN),
        case("HTTP 400", Reply::Status(400), ERROR, FAILED),
        case(
            "HTTP 429",
            Reply::Status(429),
            (503, "upstream-unavailable"),
            ("failed", "none", true),
        ),
        case("HTTP 500", Reply::Status(500), ERROR, UNKNOWN),
        case("HTTP 503", Reply::Status(503), ERROR, UNKNOWN),
        case(
            "HTTP 504",
            Reply::Status(504),
            (504, "upstream-timeout"),
            ("unknown", "unknown", true),
        ),
        case(
            "redirect",
            Reply::RawThenClose(redirect.into()),
            ERROR,
            UNKNOWN,
        ),
        case("closed without a word", Reply::Close, ERROR, UNKNOWN),
        case(
            "closed half-way",
            Reply::RawThenClose(half.into()),
            ERROR,
            UNKNOWN,
        ),
        case(
            "hangs",
            Reply::Hang,
            (504, "upstream-timeout"),
            ("unknown", "unknown", true),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_has_the_status_outcome_and_effect_of_the_contract() {
    for case in cases() {
        let reply = case.reply.clone();
        let upstream = Scripted::start(move |_| reply.clone()).await;
        let gateway = Gateway::in_front_of(&upstream.url, &[("upstream.timeout", "300ms")]).await;
        let answer = gateway.sharer().put("/images/img/shares/7").await;
        let problem = answer.assert_problem(case.status, case.slug);
        assert_eq!(problem["effect"], case.effect, "{}", case.name);
        assert_eq!(problem["retryable"], case.retryable, "{}", case.name);
        assert_eq!(
            answer.header("retry-after").is_some(),
            case.status == 503,
            "{}",
            case.name
        );
        let event = gateway.only_event().await;
        assert_eq!(event["outcome"], case.outcome, "{}", case.name);
        assert_eq!(event["http_status"], case.status, "{}", case.name);
        assert_eq!(event["upstream_calls"], 1, "{}", case.name);
        assert_eq!(upstream.calls().len(), 1, "{}", case.name);
        assert_eq!(problem["audit_id"], event["id"], "{}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_certainly_did_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Gateway::in_front_of(&format!("http://{nobody}"), &[]).await;
    let problem = gateway
        .sharer()
        .put("/images/img/shares/7")
        .await
        .assert_problem(503, "upstream-unavailable");
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("none"), Some(true))
    );
    assert_eq!(gateway.only_event().await["outcome"], "failed");
    gateway
        .sharer()
        .get("/images/img/shares")
        .await
        .assert_problem(503, "upstream-unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_from_the_same_table_and_leave_no_event() {
    for (reply, status, slug) in [
        (
            refusal(171, "Signature VerifyAC Error"),
            502,
            "upstream-error",
        ),
        (refusal(150, "later"), 503, "upstream-unavailable"),
        (Reply::Status(504), 504, "upstream-timeout"),
        (Reply::Close, 502, "upstream-error"),
    ] {
        let upstream = Scripted::start(move |_| reply.clone()).await;
        let gateway = Gateway::with_upstream(&upstream).await;
        for path in ["/images/img/shares", "/images/img/shares/7"] {
            let problem = gateway
                .sharer()
                .get(path)
                .await
                .assert_problem(status, slug);
            assert_eq!(problem.get("effect"), None);
        }
        assert_eq!(gateway.events().await, Vec::<Value>::new());
    }
}

/// A trigger stands in for a disk that refuses; the caller sees the same.
async fn sql(gateway: &Gateway, statement: &'static str) {
    use sqlx::Connection as _;
    let mut connection = gateway.connect().await;
    sqlx::raw_sql(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

const REFUSE_INTENTS: &str =
    "CREATE TRIGGER refuse BEFORE INSERT ON audit_entries BEGIN SELECT RAISE(FAIL, 'no'); END";
const REFUSE_OUTCOMES: &str = "CREATE TRIGGER refuse BEFORE INSERT ON audit_entries WHEN NEW.kind = 'outcome' \
     BEGIN SELECT RAISE(FAIL, 'no'); END";

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_not_forwarded() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    sql(&gateway, REFUSE_INTENTS).await;
    for (caller, method) in [
        (gateway.sharer(), "PUT"),
        (gateway.sharer(), "DELETE"),
        (gateway.nobody(), "PUT"),
    ] {
        let answer = caller.send(method, "/images/img/shares/7").await;
        if caller.token.is_none() {
            answer.assert_problem(401, "unauthenticated");
            continue;
        }
        let problem = answer.assert_problem(503, "audit-unavailable");
        assert_eq!(
            (problem["effect"].as_str(), problem["retryable"].as_bool()),
            (Some("none"), Some(true))
        );
        assert!(answer.header("retry-after").is_some());
    }
    gateway
        .caller("shares:read")
        .put("/images/img/shares/7")
        .await
        .assert_problem(503, "audit-unavailable");
    assert_eq!(upstream.calls(), []);
    let ready = gateway.nobody().get("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()["ready"].as_bool()),
        (503, Some(false))
    );
    sql(&gateway, "DROP TRIGGER refuse").await;
    crate::support::eventually("ready again", async || {
        (gateway.nobody().get("/readyz").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        gateway.sharer().put("/images/img/shares/7").await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_cannot_be_written_is_told_as_such_and_written_later() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    sql(&gateway, REFUSE_OUTCOMES).await;
    let answer = gateway.sharer().put("/images/img/shares/7").await;
    let problem = answer.assert_problem(503, "outcome-unrecorded");
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("done"), Some(false))
    );
    assert_eq!(gateway.only_event().await["outcome"], "pending");
    sql(&gateway, "DROP TRIGGER refuse").await;
    let event = gateway.ended_event().await;
    assert_eq!(
        (event["outcome"].as_str(), event["http_status"].as_u64()),
        (Some("succeeded"), Some(503))
    );
}

/// Holds the database's write lock, as a backup or a person with `sqlite3` may.
async fn locked(gateway: &Gateway) -> sqlx::SqliteConnection {
    let mut connection = gateway.connect().await;
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_records_the_status_that_its_caller_was_told_however_late_its_row_is() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let change = gateway
        .sharer()
        .request("PUT", "/images/img/shares/7")
        .header("Prefer", "wait=3");
    let locking = async {
        upstream.wait_for_calls(1).await;
        let lock = locked(&gateway).await;
        upstream.release(1);
        lock
    };
    let (answer, lock) = tokio::join!(crate::support::Answer::of(change), locking);
    let problem = answer.assert_problem(503, "outcome-unrecorded");
    assert_eq!(problem["effect"], "done");
    drop(lock);
    let event = gateway.ended_event().await;
    assert_eq!(
        (event["outcome"].as_str(), event["http_status"].as_u64()),
        (Some("succeeded"), Some(503))
    );
    assert!(event["duration_ms"].as_u64().unwrap() >= 3000, "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_cannot_write_an_outcome_does_not_call_itself_clean() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let mut gateway =
        Gateway::in_front_of(&upstream.url, &[("server.shutdown_timeout", "100ms")]).await;
    let change = gateway.sharer().request("PUT", "/images/img/shares/7");
    let stopping = async {
        upstream.wait_for_calls(1).await;
        let lock = locked(&gateway).await;
        upstream.release(1);
        let clean = gateway.stop().await;
        drop(lock);
        clean
    };
    let (_, clean) = tokio::join!(change.send(), stopping);
    assert!(!clean);
}
