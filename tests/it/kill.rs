//! The process killed between an intent and its outcome.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Call, Program, Reply, Scripted, eventually};

struct Setting {
    directory: tempfile::TempDir,
    token: String,
    auditor: String,
}

impl Setting {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        crate::support::keys_file(directory.path());
        let token = |scope| crate::support::token("team-a", scope);
        Self {
            directory,
            token: token("shares:read shares:write"),
            auditor: token("audit:read"),
        }
    }

    fn start(&self, upstream: &str) -> Program {
        self.start_with(upstream, ("ISG__AUTH__LEEWAY", "30s"))
    }

    fn start_with(&self, upstream: &str, more: (&str, &str)) -> Program {
        let environment = [
            ("ISG__SERVER__BIND", "127.0.0.1:0"),
            ("ISG__SERVER__ADMIN_BIND", ""),
            ("ISG__AUTH__ISSUER", "https://issuer.example"),
            ("ISG__AUTH__AUDIENCE", "image-share-gateway"),
            ("ISG__AUTH__JWKS_FILE", "keys.json"),
            ("ISG__UPSTREAM__BASE_URL", upstream),
            ("ISG__UPSTREAM__PUBLIC_KEY", "public"),
            ("ISG__UPSTREAM__PRIVATE_KEY", "private"),
            more,
        ];
        let _ = std::fs::remove_file(self.directory.path().join("log"));
        Program::spawn(self.directory.path(), &["serve"], &environment)
    }

    /// Has a change in flight killed with its gateway. Gives the event as it was just before.
    async fn kill_a_change_in_flight(&self, upstream: &Scripted) -> Value {
        let mut program = self.start(&upstream.url);
        let base_url = program.base_url().await;
        let put = client()
            .put(format!("{base_url}/images/img/shares/7"))
            .bearer_auth(&self.token)
            .send();
        let killing = async {
            upstream.wait_for_calls(1).await;
            let events = self.events(&base_url).await;
            program.signal(Signal::KILL);
            events
        };
        let (answered, events) = tokio::join!(put, killing);
        assert!(answered.is_err(), "nobody holds an answer: {answered:?}");
        assert_eq!(program.wait().await, None, "ended by the signal");
        assert_eq!(events.len(), 1);
        events[0].clone()
    }

    /// The one event, once it has ended.
    async fn ended_event(&self, base_url: &str) -> Value {
        eventually("recovery closes the event", async || {
            let events = self.events(base_url).await;
            assert_eq!(events.len(), 1);
            (events[0]["outcome"] != "pending").then(|| events[0].clone())
        })
        .await
    }

    async fn events(&self, base_url: &str) -> Vec<Value> {
        let request = client()
            .get(format!("{base_url}/audit/events?order=asc"))
            .bearer_auth(&self.auditor);
        let page: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        page["events"].as_array().unwrap().clone()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap()
}

fn lists_the_account(call: &Call) -> Reply {
    if call.action().starts_with("Describe") {
        let answer = r#"{"Action":"DescribeCompShareImageShareAccountsResponse","RetCode":0,"AccountSet":[{"AccountId":"7"}]}"#;
        Reply::Body(answer.into())
    } else {
        Reply::Hang
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_flight_at_a_kill_reads_unknown_after_the_restart() {
    let setting = Setting::new();
    let upstream = Scripted::start(lists_the_account).await;
    let before = setting.kill_a_change_in_flight(&upstream).await;
    assert_eq!(before["outcome"], "pending");

    let program = setting.start(&upstream.url);
    let event = setting.ended_event(&program.base_url().await).await;
    assert_eq!(event["id"], before["id"]);
    assert_eq!(event["outcome"], "unknown");
    let detail = event["detail"].as_str().unwrap();
    assert!(
        detail.contains("the upstream listed the account"),
        "{detail}"
    );
    assert!(event["http_status"].is_null() && event["upstream_calls"].is_null());
    let database = setting.directory.path().join("data/audit.db");
    let report = image_share_gateway::audit::verify(&database, &[])
        .await
        .unwrap();
    assert!(
        matches!(report, image_share_gateway::audit::Report::Intact(Some(_))),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_closes_events_although_the_upstream_cannot_be_asked() {
    let setting = Setting::new();
    let upstream = Scripted::start(|_| Reply::Hang).await;
    setting.kill_a_change_in_flight(&upstream).await;

    let program = setting.start("http://127.0.0.1:9");
    let event = setting.ended_event(&program.base_url().await).await;
    assert_eq!(event["outcome"], "unknown");
    let detail = event["detail"].as_str().unwrap();
    assert!(detail.contains("could not be asked"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_recovery_waits_for_rows_and_not_for_answers() {
    let setting = Setting::new();
    let upstream = Scripted::start(|_| Reply::Hang).await;
    setting.kill_a_change_in_flight(&upstream).await;

    let mut program = setting.start_with(&upstream.url, ("ISG__SERVER__SHUTDOWN_TIMEOUT", "50ms"));
    upstream.wait_for_calls(2).await;
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(1), "the time was up");
    let program = setting.start("http://127.0.0.1:9");
    let events = setting.events(&program.base_url().await).await;
    assert_eq!(events[0]["outcome"], "unknown");
    let log = program.log();
    assert!(
        !log.contains("left changes without an outcome"),
        "it was closed before: {log}"
    );
}
