//! What else can fail: no upstream, reads, the trail's disk. Every fault of the upstream is in `fault_table`.

use serde_json::Value;

use crate::support::{Gateway, Reply, Scripted, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_certainly_did_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let retries = [("upstream.max_retries", "1")];
    let gateway = Gateway::in_front_of(&format!("http://{nobody}"), &retries).await;
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
        let retries = [("upstream.max_retries", "0")];
        let gateway = Gateway::in_front_of(&upstream.url, &retries).await;
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
