//! Recipes that others carry out: Terraform's requests as its provider sends them, and audit questions asked in three ways.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser::driven;
use crate::support::{self, Answer, Gateway, MISSING_ACCOUNTS, Reply, Scripted, refusal, token};

const EVERYTHING: &str = "shares:read shares:write audit:read";

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What Mastercard/restapi 2.0.1 sends (read in its source, its bytes seen on the wire): JSON with sorted keys and a content
/// type where there is a body, neither where there is none, and no `Accept`.
struct Provider<'a> {
    gateway: &'a Gateway,
    path: String,
    data: Value,
    ignored: Vec<String>,
    /// Whether its state has the object.
    has: bool,
}

impl Provider<'_> {
    async fn send(&self, method: &str, body: Option<&Value>) -> Answer {
        let request = self.gateway.caller(EVERYTHING).request(method, &self.path);
        let request = request.header("User-Agent", "Go-http-client/1.1");
        Answer::of(match body {
            Some(body) => request
                .header("Content-Type", "application/json")
                .body(body.to_string()),
            None => request,
        })
        .await
    }

    /// Reads twice, as it does, and finds what a plan would change.
    async fn plan(&mut self) -> Vec<String> {
        if !self.has {
            return vec!["create".to_owned()];
        }
        for _ in 0..2 {
            let read = self.send("GET", None).await;
            if read.status == 404 {
                self.has = false;
                return vec!["create".to_owned()];
            }
            assert_eq!(read.status, 200, "{read:?}");
            let found = read.json();
            let drifts = |(name, value): (&String, &Value)| {
                (!self.ignored.contains(name) && self.data.get(name) != Some(value))
                    .then(|| name.clone())
            };
            let drift: Vec<String> = found
                .as_object()
                .unwrap()
                .iter()
                .filter_map(drifts)
                .collect();
            if !drift.is_empty() {
                return drift;
            }
        }
        Vec::new()
    }

    async fn apply(&mut self) {
        let written = self.send("PUT", Some(&self.data)).await;
        assert_eq!(written.status, 200, "{written:?}");
        assert_eq!(self.send("GET", None).await.status, 200);
        self.has = true;
    }

    async fn destroy(&mut self) -> u16 {
        self.has = false;
        self.send("DELETE", None).await.status
    }
}

/// The names in a list of the page's HCL.
fn listed(hcl: &str, name: &str) -> Vec<String> {
    let (_, rest) = hcl.split_once(&format!("{name} = [")).unwrap();
    let list = rest.split(']').next().unwrap();
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn terraform_plans_applies_plans_nothing_and_destroys() {
    let page = page("docs/recipes/terraform.md");
    for sent in ["image_id ", "account_id", "shared ", "reason "] {
        assert!(page.contains(&format!("    {sent}")), "{sent}");
    }
    let gateway = Gateway::spawn().await;
    let mut provider = Provider {
        gateway: &gateway,
        path: "/images/compshareImage-sandbox1/shares/12345".into(),
        data: json!({"account_id": 12345, "image_id": "compshareImage-sandbox1", "reason": "OPS-17 <a&b>", "shared": true}),
        ignored: listed(&page, "ignore_changes_to"),
        has: false,
    };
    assert_eq!(provider.plan().await, ["create"]);
    provider.apply().await;
    assert_eq!(provider.plan().await, Vec::<String>::new());
    // Another reason is written again, and stands then.
    provider.data["reason"] = json!("OPS-18");
    assert_eq!(provider.plan().await, ["reason"]);
    provider.apply().await;
    assert_eq!(provider.plan().await, Vec::<String>::new());
    // What somebody took back is created again.
    gateway.sharer().delete(&provider.path).await;
    assert_eq!(provider.plan().await, ["create"]);
    provider.apply().await;
    assert_eq!(provider.plan().await, Vec::<String>::new());
    assert_eq!(provider.destroy().await, 204);
    assert_eq!(provider.send("GET", None).await.status, 404);
    // What is gone already is no error.
    assert_eq!(provider.destroy().await, 204);
}

/// A question: what is asked over HTTP, in SQL, and in the console.
#[derive(Debug)]
struct Question {
    title: String,
    call: String,
    query: String,
    link: String,
}

/// The questions of the page, of today instead of its day.
fn questions(today: &str, tomorrow: &str) -> Vec<Question> {
    let page = page("docs/audit-questions.md")
        .replace("2026-01-31", today)
        .replace("2026-02-01", tomorrow);
    let block = |part: &str, language: &str| {
        let (_, rest) = part.split_once(&format!("```{language}\n")).unwrap();
        rest.split("```").next().unwrap().to_owned()
    };
    let parts = page.split("\n## ").skip(1);
    parts
        .map(|part| Question {
            title: part.lines().next().unwrap().to_owned(),
            call: block(part, "sh"),
            query: block(part, "sql"),
            link: {
                let (_, rest) = part
                    .split_once("](https://gateway.example.com/console/")
                    .unwrap();
                rest.split(')').next().unwrap().to_owned()
            },
        })
        .collect()
}

async fn printed(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied());
    support::printed(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_audit_questions_have_one_answer_each_by_call_sql_and_console() {
    const IMAGE: &str = "compshareImage-1a2b";
    let upstream = Scripted::start(|call| match call.accounts("AddAccounts").first() {
        Some(55) => refusal(299, "no"),
        Some(56) => Reply::Status(500),
        _ => Reply::Done,
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let team = |subject: &str| gateway.with(token(subject, "shares:read shares:write"));
    let put = async |subject: &str, image: &str, account: u64| {
        team(subject)
            .put(&format!("/images/{image}/shares/{account}?reason=OPS-17"))
            .await;
    };
    for account in [12345, 55, 56, MISSING_ACCOUNTS] {
        put("team-a", IMAGE, account).await;
        put("team-b", "img-other", account).await;
    }
    team("team-b")
        .delete(&format!("/images/{IMAGE}/shares/12345"))
        .await;
    team("team-a")
        .delete("/images/img-other/shares/12345")
        .await;
    gateway
        .caller("shares:read")
        .put(&format!("/images/{IMAGE}/shares/12345"))
        .await;
    let bulk = team("team-a").request("PATCH", &format!("/images/{IMAGE}/shares"));
    let bulk = bulk
        .header("X-Request-Id", "nightly-sync-4711")
        .header("Content-Type", "application/json");
    Answer::of(bulk.body(r#"{"add":[12345,7,8]}"#)).await;

    let day = |offset: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * offset);
        at.strftime("%Y-%m-%d").to_string()
    };
    let questions = questions(&day(0), &day(1));
    assert_eq!(questions.len(), 10);
    let auditor = token("auditor", EVERYTHING);
    let database = gateway.database().display().to_string();
    let links: Vec<&str> = questions
        .iter()
        .map(|question| question.link.as_str())
        .collect();
    let rows = driven(
        "console_rows",
        &["--base-url", &gateway.base_url, "--token", &auditor],
        &links,
    )
    .await;
    let rows: Vec<Vec<String>> = serde_json::from_str(&rows).unwrap();
    for (question, in_console) in questions.iter().zip(&rows) {
        let environment = [
            ("GATEWAY", gateway.base_url.as_str()),
            ("TOKEN", auditor.as_str()),
        ];
        let answer = printed("bash", &["-c", &question.call], &environment).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let events = answer["events"].as_array().unwrap().iter();
        let by_call: Vec<String> = events
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect();
        let by_sql = printed("sqlite3", &["-csv", &database, &question.query], &[]).await;
        let by_sql: Vec<&str> = by_sql
            .lines()
            .map(|line| line.split(',').next().unwrap())
            .collect();
        assert!(!by_call.is_empty(), "{} has no answer", question.title);
        assert_eq!(by_call, by_sql, "{}", question.title);
        assert_eq!(by_call, *in_console, "{}", question.title);
    }
}
