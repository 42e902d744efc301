//! A share that timed out and lands after an unshare that was accepted is found and undone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Gateway, Reply, Scripted};

/// Longer than the minute after which the gateway looks.
const PATIENCE: Duration = Duration::from_mins(3);

/// An upstream that loses the first shares and lets them land when it is told to.
async fn losing_first(count: usize) -> Scripted {
    let turn = AtomicUsize::new(0);
    Scripted::start(move |call| {
        let shares = call.changes() && !call.accounts("AddAccounts").is_empty();
        let lost = shares && turn.fetch_add(1, Ordering::Relaxed) < count;
        if lost { Reply::LandsLate } else { Reply::Done }
    })
    .await
}

const SETTINGS: [(&str, &str); 2] = [("upstream.timeout", "300ms"), ("upstream.max_retries", "0")];

/// The share is lost, and the unshare after it is accepted.
async fn share_and_take_back(gateway: &Gateway, account: u64) {
    let path = format!("/images/img/shares/{account}");
    let sharer = gateway.sharer();
    let lost = sharer.put(&path).await;
    lost.assert_problem(504, "upstream-timeout");
    assert_eq!(sharer.delete(&path).await.status, 204);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a limit for failures, not a wait"
)]
async fn until_the_list_is(upstream: &Scripted, accounts: &[u64]) -> Duration {
    let begun = Instant::now();
    while upstream.list("img") != accounts {
        assert!(
            begun.elapsed() < PATIENCE,
            "{:?} still",
            upstream.list("img")
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    begun.elapsed()
}

/// The event by which the gateway took a share back, once it has ended.
async fn reconciled(gateway: &Gateway) -> Value {
    crate::support::eventually("the trail tells it", async || {
        let events = gateway.events().await;
        let last = events.last().unwrap().clone();
        (last["subject"] == "system:reconcile" && last["outcome"] != "pending").then_some(last)
    })
    .await
}

/// Both wait for their minute at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_lands_after_an_accepted_unshare_is_taken_back_by_an_event_of_its_own() {
    tokio::join!(
        in_one_run(),
        over_a_restart(),
        after_a_retry_and_over_a_restart(),
        stopped_while_it_is_taken_back(),
        the_other_way(),
        the_other_way_over_a_restart(),
        what_was_looked_after_is_so_over_a_restart(),
        a_look_that_hangs_holds_nobody_up(),
    );
}

/// Loses the first call that takes an account away; it lands when it is told to.
async fn losing_the_first_unshare() -> Scripted {
    let turn = AtomicUsize::new(0);
    let upstream = Scripted::start(move |call| {
        let unshares = call.changes() && !call.accounts("RemoveAccounts").is_empty();
        let lost = unshares && turn.fetch_add(1, Ordering::Relaxed) == 0;
        if lost { Reply::LandsLate } else { Reply::Done }
    })
    .await;
    upstream.share("img", &[1]);
    upstream
}

/// The unshare is lost, and the share after it is accepted.
async fn unshare_and_share_again(gateway: &Gateway) {
    let lost = gateway.sharer().delete("/images/img/shares/1").await;
    lost.assert_problem(504, "upstream-timeout");
    let shared = gateway.sharer().put("/images/img/shares/1").await;
    assert_eq!(shared.status, 200);
}

async fn assert_shared_again(gateway: &Gateway, upstream: &Scripted) {
    upstream.land(1);
    until_the_list_is(upstream, &[]).await;
    until_the_list_is(upstream, &[1]).await;
    let event = reconciled(gateway).await;
    assert_eq!(
        (
            event["operation"].as_str(),
            event["account_id"].as_u64(),
            event["outcome"].as_str()
        ),
        (Some("share"), Some(1), Some("succeeded"))
    );
}

async fn the_other_way() {
    let upstream = losing_the_first_unshare().await;
    let gateway = Gateway::in_front_of(&upstream.url, &SETTINGS).await;
    unshare_and_share_again(&gateway).await;
    assert_shared_again(&gateway, &upstream).await;
    assert_eq!(gateway.events().await.len(), 3);
}

async fn the_other_way_over_a_restart() {
    let upstream = losing_the_first_unshare().await;
    let gateway = Gateway::in_front_of(&upstream.url, &SETTINGS).await;
    unshare_and_share_again(&gateway).await;
    let gateway = gateway.restarted(&upstream.url, &SETTINGS).await;
    assert_shared_again(&gateway, &upstream).await;
}

/// What a stop says of changes that may land yet.
const LEFT: &str = "changes whose calls timed out may still take effect";

/// What was looked after, or needed no look, is looked after by no later run: what somebody did by other means since
/// then stands. Changes that were sent again for a neighbour's sake were never unknown.
async fn what_was_looked_after_is_so_over_a_restart() {
    use crate::support::{MISSING_ACCOUNTS, Program, environment, keys_file, token};
    use rustix::process::Signal;
    use sqlx::Connection as _;
    let upstream = Scripted::start(|call| {
        let lost = call.changes()
            && call
                .accounts("AddAccounts")
                .iter()
                .any(|account| *account < 3);
        if lost { Reply::Hang } else { Reply::Done }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    keys_file(directory.path());
    let mut environment = environment(&upstream.url);
    environment.extend([
        ("ISG__UPSTREAM__TIMEOUT", "300ms"),
        ("ISG__UPSTREAM__MAX_RETRIES", "0"),
        ("ISG__AUDIT__DATABASE_URL", "sqlite://audit.db"),
    ]);
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let run = || {
        let _ = std::fs::remove_file(directory.path().join("log"));
        Program::spawn(directory.path(), &["serve"], &environment)
    };
    let stop = async |mut program: Program| {
        program.base_url().await;
        program.signal(Signal::TERM);
        assert_eq!(program.wait().await, Some(0));
        program.log().contains(LEFT)
    };
    let send = async |base_url: &str, method: &str, path: &str, body: &'static str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = client
            .request(method, format!("{base_url}/images/img/shares{path}"))
            .bearer_auth(token("team-a", "shares:write"));
        let request = request
            .header("Content-Type", "application/json")
            .body(body);
        request.send().await.unwrap().status().as_u16()
    };
    let program = run();
    let base_url = program.base_url().await;
    // Sent again because of a neighbour: no candidate.
    let body: &'static str = format!(r#"{{"add":[5,{MISSING_ACCOUNTS}]}}"#).leak();
    assert_eq!(send(&base_url, "PATCH", "", body).await, 200);
    assert_eq!(send(&base_url, "DELETE", "/5", "").await, 204);
    assert!(!stop(program).await, "nothing may land");
    let program = run();
    let base_url = program.base_url().await;
    for account in ["/1", "/2"] {
        assert_eq!(send(&base_url, "PUT", account, "").await, 504);
    }
    assert_eq!(send(&base_url, "DELETE", "/1", "").await, 204);
    assert!(stop(program).await, "it says what is left");
    let program = run();
    program.base_url().await;
    let url = format!("sqlite://{}", directory.path().join("audit.db").display());
    let noted = async {
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        loop {
            let noted: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM audit_looked_after")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            if noted == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        connection.close().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, noted).await.unwrap();
    // Somebody shares it by other means, and the gateway is restarted.
    upstream.share("img", &[1, 2]);
    assert!(!stop(program).await);
    assert!(!stop(run()).await, "nothing is looked after again");
    assert_eq!(upstream.list("img"), [1, 2]);
}

/// While the gateway looks whether something landed, and hears nothing, changes of the image go on.
async fn a_look_that_hangs_holds_nobody_up() {
    let hangs = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let hanging = std::sync::Arc::clone(&hangs);
    let shares = AtomicUsize::new(0);
    let upstream = Scripted::start(move |call| {
        if !call.changes() {
            let hang = hanging.load(Ordering::Relaxed);
            return if hang { Reply::Hang } else { Reply::Done };
        }
        let lost = call.change() == "+1" && shares.fetch_add(1, Ordering::Relaxed) == 0;
        if lost { Reply::LandsLate } else { Reply::Done }
    })
    .await;
    let settings = [SETTINGS[1], ("upstream.timeout", "5s")];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    share_and_take_back(&gateway, 1).await;
    hangs.store(true, Ordering::Relaxed);
    let before = upstream.calls().len();
    let looked = async {
        while upstream.calls().len() == before {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.unwrap();
    let request = gateway
        .sharer()
        .request("PUT", "/images/img/shares/2")
        .header("Prefer", "wait=2");
    assert_eq!(crate::support::Answer::of(request).await.status, 200);
    hangs.store(false, Ordering::Relaxed);
    upstream.land(1);
    until_the_list_is(&upstream, &[1, 2]).await;
    until_the_list_is(&upstream, &[2]).await;
}

async fn over_a_restart() {
    let upstream = losing_first(1).await;
    let gateway = Gateway::in_front_of(&upstream.url, &SETTINGS).await;
    share_and_take_back(&gateway, 1).await;
    let gateway = gateway.restarted(&upstream.url, &SETTINGS).await;
    upstream.land(1);
    until_the_list_is(&upstream, &[1]).await;
    until_the_list_is(&upstream, &[]).await;
    let event = reconciled(&gateway).await;
    assert_eq!(event["account_id"], 1);
    assert_eq!(event["outcome"], "succeeded");
}

/// A stop that cannot wait writes down where the take-back stands.
async fn stopped_while_it_is_taken_back() {
    let (shares, unshares) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let upstream = Scripted::start(move |call| {
        let first = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed) == 0;
        match call.change().chars().next() {
            Some('+') if first(&shares) => Reply::LandsLate,
            Some('-') if !first(&unshares) => Reply::Hang,
            _ => Reply::Done,
        }
    })
    .await;
    let settings = [
        SETTINGS[1],
        ("upstream.timeout", "5s"),
        ("server.shutdown_timeout", "1s"),
    ];
    let mut gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    share_and_take_back(&gateway, 1).await;
    upstream.land(1);
    until_the_list_is(&upstream, &[1]).await;
    let begun = std::time::Duration::from_secs(90);
    let taken_back = async {
        while upstream.changes() != ["+1", "-1", "-1"] {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(begun, taken_back).await.unwrap();
    assert!(!gateway.stop().await, "it could not wait");
    let output = crate::support::binary()
        .args([
            "audit",
            "export",
            "--subject",
            "system:reconcile",
            "--database-url",
        ])
        .arg(format!("sqlite://{}", gateway.database().display()))
        .output()
        .unwrap();
    let event: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(event["outcome"], "unknown", "{event}");
}

/// The share is answered 200 by its second attempt; the first lands later.
async fn after_a_retry_and_over_a_restart() {
    let upstream = losing_first(1).await;
    let settings = [("upstream.timeout", "300ms"), ("upstream.max_retries", "1")];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let sharer = gateway.sharer();
    assert_eq!(sharer.put("/images/img/shares/1").await.status, 200);
    assert_eq!(sharer.delete("/images/img/shares/1").await.status, 204);
    let gateway = gateway.restarted(&upstream.url, &settings).await;
    upstream.land(1);
    until_the_list_is(&upstream, &[1]).await;
    until_the_list_is(&upstream, &[]).await;
    assert_eq!(reconciled(&gateway).await["account_id"], 1);
}

async fn in_one_run() {
    let upstream = losing_first(2).await;
    let gateway = Gateway::in_front_of(&upstream.url, &SETTINGS).await;
    // Two shares are lost; one of the accounts is shared again after it was unshared, and must keep it.
    for account in [1, 2] {
        share_and_take_back(&gateway, account).await;
    }
    assert_eq!(
        gateway.sharer().put("/images/img/shares/2").await.status,
        200
    );
    upstream.land(2);
    until_the_list_is(&upstream, &[1, 2]).await;
    let took = until_the_list_is(&upstream, &[2]).await;
    let event = reconciled(&gateway).await;
    assert_eq!(
        (event["operation"].as_str(), event["account_id"].as_u64()),
        (Some("unshare"), Some(1))
    );
    assert_eq!(event["outcome"], "succeeded");
    assert_eq!(event["upstream_calls"], 1);
    for of_callers in [
        "issuer",
        "token_id",
        "client_ip",
        "user_agent",
        "request_id",
        "trace_id",
        "http_status",
        "reason",
    ] {
        assert_eq!(event[of_callers], Value::Null, "{of_callers}");
    }
    assert_eq!(
        gateway.events().await.len(),
        6,
        "nothing is written of what need not be undone"
    );
    assert!(
        took > Duration::from_secs(30),
        "it looks when the time is over"
    );
    let report = image_share_gateway::audit::verify(&gateway.database(), &[])
        .await
        .unwrap();
    assert!(
        matches!(report, image_share_gateway::audit::Report::Intact(_)),
        "{report:?}"
    );
}
