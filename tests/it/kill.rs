//! The process killed between an intent and its outcome, and at any other moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Call, Luck, Program, Reply, Scripted, environment, eventually, rounds};

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

    fn start_with<'a>(&self, upstream: &'a str, more: (&'static str, &'a str)) -> Program {
        let mut environment = environment(upstream);
        environment.push(more);
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
        self.page(base_url, "order=asc").await
    }

    async fn page(&self, base_url: &str, query: &str) -> Vec<Value> {
        let text = self.look(base_url, query, "application/json").await;
        let page: Value = serde_json::from_str(&text).unwrap();
        page["events"].as_array().unwrap().clone()
    }

    async fn look(&self, base_url: &str, query: &str, accept: &str) -> String {
        let request = client()
            .get(format!("{base_url}/audit/events?{query}"))
            .header("Accept", accept)
            .bearer_auth(&self.auditor);
        request.send().await.unwrap().text().await.unwrap()
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

    let mut program = setting.start(&upstream.url);
    upstream.wait_for_calls(2).await;
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0), "rows are written at once");
    let program = setting.start("http://127.0.0.1:9");
    let events = setting.events(&program.base_url().await).await;
    assert_eq!(events[0]["outcome"], "unknown");
    let log = program.log();
    assert!(
        !log.contains("left changes without an outcome"),
        "it was closed before: {log}"
    );
}

/// What a caller holds: the account of its change, and the event that a 2xx named.
type Held = (u64, String);

impl Setting {
    /// Callers that go on until the gateway is gone; gives every 2xx that they hold.
    async fn call_until_it_dies(&self, base_url: &str, next: &AtomicU64) -> Vec<Held> {
        let client = client();
        let callers = (0..16).map(|caller| {
            let (client, token) = (client.clone(), &self.token);
            async move {
                let mut held = Vec::new();
                loop {
                    let account = next.fetch_add(1, Ordering::Relaxed);
                    let url = format!("{base_url}/images/img-{}/shares/{account}", caller % 5);
                    let sent = client.put(url).bearer_auth(token).send().await;
                    let Ok(answer) = sent else {
                        return held;
                    };
                    if answer.status() == 200 {
                        let id = answer.headers()["audit-id"].to_str().unwrap().to_owned();
                        held.push((account, id));
                    }
                }
            }
        });
        let all = futures_util::future::join_all(callers).await;
        all.into_iter().flatten().collect()
    }

    /// Every event, read in one stream, once none is pending any more.
    async fn all_events(&self, base_url: &str) -> Vec<Value> {
        eventually("nothing stays pending", async || {
            let pending = self.page(base_url, "outcome=pending").await;
            pending.is_empty().then_some(())
        })
        .await;
        let text = self
            .look(base_url, "order=asc", "application/x-ndjson")
            .await;
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_under_load_lose_no_change_and_no_outcome() {
    let setting = Setting::new();
    let upstream = Scripted::start(lists_nothing).await;
    let mut luck = Luck::new();
    let (next, mut held) = (AtomicU64::new(1), Vec::new());
    for _ in 0..rounds(12, 200) {
        let mut program = setting.start(&upstream.url);
        let base_url = program.base_url().await;
        // Sometimes before the first change is through, sometimes in the middle of many.
        let calls = upstream.calls().len() + usize::try_from(luck.below(80)).unwrap();
        let steps = luck.below(200);
        let killing = async {
            upstream.wait_for_calls(calls).await;
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            program.signal(Signal::KILL);
            program.wait().await
        };
        let (holding, ended) = tokio::join!(setting.call_until_it_dies(&base_url, &next), killing);
        assert_eq!(ended, None, "ended by the signal");
        held.extend(holding);
    }
    let seed = luck.seed;
    let mut program = setting.start(&upstream.url);
    let events = setting.all_events(&program.base_url().await).await;
    let by_account: BTreeMap<u64, &Value> = events
        .iter()
        .map(|event| (event["account_id"].as_u64().unwrap(), event))
        .collect();
    assert_eq!(
        by_account.len(),
        events.len(),
        "one event a change, seed {seed}"
    );
    let mut forwarded = 0;
    for call in upstream.calls() {
        if let Some(account) = call.fields.get("AddAccounts.0") {
            forwarded += 1;
            let account: u64 = account.parse().unwrap();
            assert!(
                by_account.contains_key(&account),
                "{account} was forwarded and has no event, seed {seed}"
            );
        }
    }
    assert!(
        forwarded > 20 && held.len() > 10,
        "there was load: {forwarded} forwarded, {} held",
        held.len()
    );
    for (account, id) in held {
        let event = by_account[&account];
        assert_eq!(
            (&event["id"], &event["outcome"]),
            (&id.into(), &"succeeded".into()),
            "seed {seed}"
        );
    }
    for event in &events {
        let outcome = event["outcome"].as_str().unwrap();
        assert!(matches!(outcome, "succeeded" | "unknown"), "{event}");
    }
    program.signal(Signal::TERM);
    assert_eq!(program.wait().await, Some(0));
    let database = setting.directory.path().join("data/audit.db");
    let report = image_share_gateway::audit::verify(&database, &[])
        .await
        .unwrap();
    assert!(
        matches!(report, image_share_gateway::audit::Report::Intact(Some(_))),
        "{report:?}, seed {seed}"
    );
}

fn lists_nothing(call: &Call) -> Reply {
    if call.action().starts_with("Describe") {
        let answer = r#"{"Action":"DescribeCompShareImageShareAccountsResponse","RetCode":0,"AccountSet":[]}"#;
        Reply::Body(answer.into())
    } else {
        Reply::Done
    }
}
