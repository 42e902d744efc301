//! Several gateways on one trail in PostgreSQL: every promise holds over all of them together (docs/replicas.md says how).

mod away;
mod conformance;
mod cut_off;
mod feed;
mod landing;
mod order;
mod pages;
mod poolers;
mod rolling;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{
    Postgres, Program, Reply, Scripted, binary, client, environment, eventually, keys_file, token,
};

/// A database, and an upstream that does what it is asked.
async fn servers() -> (Postgres, Scripted) {
    (
        Postgres::start().await,
        Scripted::start(|_| Reply::Done).await,
    )
}

/// A gateway of its own process.
struct Replica {
    program: Program,
    url: String,
    _directory: tempfile::TempDir,
}

/// What all gateways of a test have in common.
struct Trail<'a> {
    upstream: String,
    database: String,
    more: Vec<(&'static str, &'a str)>,
}

impl<'a> Trail<'a> {
    fn of(upstream: &Scripted, postgres: &Postgres) -> Self {
        Self {
            upstream: upstream.url.clone(),
            database: postgres.url("audit"),
            more: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: &'a str) -> Self {
        self.more.push((name, value));
        self
    }

    /// Starts one more; the upstream knows its calls by `key`.
    fn spawn(&self, key: &str, bind: &str) -> (Program, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        keys_file(directory.path());
        let mut settings = environment(&self.upstream);
        settings.retain(|(name, _)| {
            !matches!(*name, "ISG__SERVER__BIND" | "ISG__UPSTREAM__PUBLIC_KEY")
        });
        settings.extend([
            ("ISG__SERVER__BIND", bind),
            ("ISG__UPSTREAM__PUBLIC_KEY", key),
            ("ISG__AUDIT__DATABASE_URL", self.database.as_str()),
        ]);
        settings.extend(self.more.iter().copied());
        let program = Program::spawn(directory.path(), &["serve"], &settings);
        (program, directory)
    }

    async fn start(&self, key: &str) -> Replica {
        let (program, directory) = self.spawn(key, "127.0.0.1:0");
        Replica {
            url: program.base_url().await,
            program,
            _directory: directory,
        }
    }
}

impl Replica {
    async fn send(&self, method: &str, path: &str) -> u16 {
        self.try_send(method, path).await.unwrap()
    }

    async fn try_send(&self, method: &str, path: &str) -> Result<u16, reqwest::Error> {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = client().request(method, format!("{}{path}", self.url));
        let bearer = token("team-a", "shares:read shares:write");
        Ok(request.bearer_auth(bearer).send().await?.status().as_u16())
    }

    async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let request = client().get(format!("{}{path}", self.url));
        let answer = request.bearer_auth(token("team-a", "audit:read")).send();
        answer.await.unwrap().text().await.unwrap()
    }

    /// All events, oldest first.
    async fn events(&self) -> Vec<Value> {
        let request = client().get(format!("{}/audit/events?order=asc", self.url));
        let request = request.header("Accept", "application/x-ndjson");
        let answer = request.bearer_auth(token("team-a", "audit:read")).send();
        let text = answer.await.unwrap().text().await.unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// All events, once each has its outcome.
    async fn ended_events(&self) -> Vec<Value> {
        eventually("every event ends", async || {
            let events = self.events().await;
            let pending = events.iter().any(|event| event["outcome"] == "pending");
            (!pending).then_some(events)
        })
        .await
    }
}

/// Somebody who stands still in the middle of a transaction.
struct Sleeper(Child);

impl Sleeper {
    /// Locks the rows that `select` finds.
    async fn over(postgres: &Postgres, select: &str) -> Self {
        let statements = format!("BEGIN; {select} FOR UPDATE; SELECT pg_sleep(600)");
        let child = Command::new("psql")
            .args(["-XAtq", "-d", &postgres.url("audit"), "-c", &statements])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it sleeps", async || {
            let asleep = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            (postgres.sql(asleep) == "1").then_some(())
        })
        .await;
        Self(child)
    }

    fn wake(mut self, postgres: &Postgres) {
        let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        postgres.sql(end);
        let _ = self.0.wait();
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `audit verify` makes of a trail: a line a chain.
fn verified(database: &str) -> Vec<String> {
    let output = binary()
        .args(["audit", "verify", "--database-url", database])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// An image and an account.
type Share = (String, u64);

/// What was asked of each share, in the order of events: `+` or `-`, and how it ended.
fn told(events: &[Value]) -> BTreeMap<Share, Vec<(char, String)>> {
    let mut told: BTreeMap<Share, Vec<(char, String)>> = BTreeMap::new();
    let mut last = String::new();
    for event in events {
        let id = event["id"].as_str().unwrap().to_owned();
        assert!(id > last, "events ascend, each once");
        last = id;
        let share = (
            event["image_id"].as_str().unwrap().to_owned(),
            event["account_id"].as_u64().unwrap(),
        );
        let sign = if event["operation"] == "share" {
            '+'
        } else {
            '-'
        };
        let outcome = event["outcome"].as_str().unwrap().to_owned();
        told.entry(share).or_default().push((sign, outcome));
    }
    told
}

/// What reached the upstream for each share, in its order.
fn reached(upstream: &Scripted) -> BTreeMap<Share, Vec<char>> {
    let mut reached: BTreeMap<Share, Vec<char>> = BTreeMap::new();
    for call in upstream.calls().iter().filter(|call| call.changes()) {
        let image = &call.fields["CompShareImageId"];
        for (list, sign) in [("AddAccounts", '+'), ("RemoveAccounts", '-')] {
            for account in call.accounts(list) {
                let share = (image.clone(), account);
                reached.entry(share).or_default().push(sign);
            }
        }
    }
    reached
}

/// Holds the trail against what the upstream did: changes that succeeded took effect in the order of their events, and what stands is
/// what the last of them says, or one behind it of which nobody knows.
fn judge(events: &[Value], upstream: &Scripted) {
    let reached = reached(upstream);
    for (share, events) in told(events) {
        let calls = reached.get(&share).cloned().unwrap_or_default();
        let mut rest = calls.iter().peekable();
        let mut before = None;
        for (sign, outcome) in &events {
            if outcome != "succeeded" {
                before = None;
                continue;
            }
            // Equal changes may have shared a call.
            if before == Some(*sign) {
                continue;
            }
            assert!(
                rest.any(|call| call == sign),
                "{share:?}: {events:?} did not take effect in this order: {calls:?}"
            );
            before = Some(*sign);
        }
        let listed = upstream.list(&share.0).contains(&share.1);
        let last = events
            .iter()
            .rposition(|(_, outcome)| outcome == "succeeded");
        let from = last.unwrap_or(0);
        let explained: BTreeSet<bool> = events[from..]
            .iter()
            .filter(|(_, outcome)| outcome == "succeeded" || outcome == "unknown")
            .map(|(sign, _)| *sign == '+')
            .chain(last.is_none().then_some(false))
            .collect();
        assert!(
            explained.contains(&listed),
            "{share:?}: {events:?}, and it is listed: {listed}; calls: {calls:?}"
        );
    }
}
