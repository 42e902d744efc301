//! Three gateways behind HAProxy, by what is shipped: deploys that fail no request, and failures that cost no promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use super::{Replica, Trail, judge, servers, verified};
use crate::support::{
    Postgres, Program, Proxy, Reply, Scripted, client, eventually, free_port, rounds, token,
};

struct Deployment<'a> {
    trail: Trail<'a>,
    addresses: Vec<String>,
    running: Vec<Option<(Program, tempfile::TempDir)>>,
    proxy: Proxy,
}

impl<'a> Deployment<'a> {
    async fn start(trail: Trail<'a>) -> Self {
        let addresses: Vec<String> = (0..3)
            .map(|_| format!("127.0.0.1:{}", free_port()))
            .collect();
        let mut shipped =
            include_str!("../../../deploy/haproxy/replicas.cfg").replace(":8443", "127.0.0.1:PORT");
        for (index, address) in addresses.iter().enumerate() {
            shipped = shipped.replace(&format!("10.0.0.{}:8080", index + 11), address);
        }
        let proxy = Proxy::haproxy(&shipped).await;
        let mut deployment = Self {
            trail,
            addresses,
            running: vec![None, None, None],
            proxy,
        };
        for index in 0..3 {
            deployment.start_one(index).await;
        }
        deployment
    }

    async fn start_one(&mut self, index: usize) {
        let key = format!("gateway-{index}");
        let started = self.trail.spawn(&key, &self.addresses[index]);
        self.running[index] = Some(started);
        let url = format!("http://{}/readyz", self.addresses[index]);
        eventually("it is ready", async || {
            let ready = client().get(&url).send().await.ok()?;
            (ready.status() == 200).then_some(())
        })
        .await;
    }

    fn program(&mut self, index: usize) -> &mut Program {
        &mut self.running[index].as_mut().unwrap().0
    }

    /// The first one, as a replica that is asked.
    fn replica(&mut self, index: usize) -> Replica {
        let (program, directory) = self.running[index].take().unwrap();
        Replica {
            program,
            url: format!("http://{}", self.addresses[index]),
            _directory: directory,
        }
    }
}

/// Callers that ask without a pause through the proxy until they are told to stop; what failed of it.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "callers that go on by themselves"
)]
fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

impl Load {
    fn start(url: &str, callers: u64) -> Self {
        let (stop, answered) = (Arc::default(), Arc::default());
        let caller = |caller: u64| {
            let (stop, answered): (Arc<AtomicBool>, Arc<AtomicUsize>) =
                (Arc::clone(&stop), Arc::clone(&answered));
            let url = url.to_owned();
            let bearer = token(&format!("team-{caller}"), "shares:write shares:read");
            spawn(async move {
                let client = client();
                let mut failed = Vec::new();
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Callers meet on images, and on accounts.
                    let path = format!(
                        "{url}/images/img-{}/shares/{}",
                        (caller + number) % 4,
                        number % 7 + 1
                    );
                    let request = if (number / 7 + caller).is_multiple_of(2) {
                        client.put(path)
                    } else {
                        client.delete(path)
                    };
                    match request.bearer_auth(&bearer).send().await {
                        Ok(answer) if answer.status().is_success() => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => {
                            failed.push(format!("{} {:?}", answer.status(), answer.text().await));
                        }
                        Err(error) => failed.push(format!("{error:?}")),
                    }
                }
                failed
            })
        };
        Self {
            callers: (0..callers).map(caller).collect(),
            stop,
            answered,
        }
    }

    /// Waits until so many more were answered.
    async fn more(&self, count: usize) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("requests are answered", async || {
            (self.answered.load(Ordering::Relaxed) >= before + count).then_some(())
        })
        .await;
    }

    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for caller in self.callers {
            failed.extend(caller.await.unwrap());
        }
        (self.answered.load(Ordering::Relaxed), failed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rolling_deploy_under_load_fails_no_request() {
    let restarts = rounds(6, 100);
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres).with("ISG__SERVER__DRAIN_DELAY", "1s");
    let mut deployment = Deployment::start(trail).await;
    let load = Load::start(&deployment.proxy.url, 8);
    for restart in 0..restarts {
        load.more(20).await;
        let index = restart as usize % 3;
        let program = deployment.program(index);
        program.signal(Signal::TERM);
        assert_eq!(program.wait().await, Some(0), "{}", program.log());
        deployment.start_one(index).await;
    }
    let (answered, failed) = load.stop().await;
    assert!(
        failed.is_empty(),
        "{} of {answered} failed: {:?}",
        failed.len(),
        &failed[..failed.len().min(5)]
    );
    let events = deployment.replica(0).ended_events().await;
    assert!(events.iter().all(|event| event["outcome"] == "succeeded"));
    judge(&events, &upstream);
    assert!(verified(&deployment.trail.database).len() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gateways_that_are_killed_or_stand_still_and_a_database_that_ends_connections_cost_no_promise()
 {
    let rounds = rounds(2, 20);
    let (mut postgres, upstream) = (
        Postgres::start().await,
        Scripted::start(|_| Reply::Done).await,
    );
    let trail = Trail::of(&upstream, &postgres)
        .with("ISG__UPSTREAM__TIMEOUT", "2s")
        .with("ISG__SERVER__REQUEST_TIMEOUT", "20s");
    let mut deployment = Deployment::start(trail).await;
    let load = Load::start(&deployment.proxy.url, 8);
    for round in 0..rounds as usize {
        load.more(100).await;
        let killed = deployment.program(round % 3);
        killed.signal(Signal::KILL);
        assert_eq!(killed.wait().await, None);
        deployment.start_one(round % 3).await;
        load.more(100).await;
        let still = (round + 1) % 3;
        deployment.program(still).signal(Signal::STOP);
        // Longer than its lease: until its chain is another's.
        eventually("it is taken over", async || {
            let log = deployment
                .running
                .iter()
                .flatten()
                .map(|(program, _)| program.log());
            let taken = log
                .filter(|log| log.contains("another gateway is gone"))
                .count();
            let ended =
                postgres.sql("SELECT COUNT(*) FROM audit_chains WHERE ended_at IS NOT NULL");
            (taken > 0 && ended.parse::<usize>().unwrap() >= 2 * (round + 1)).then_some(())
        })
        .await;
        deployment.program(still).signal(Signal::CONT);
        load.more(50).await;
        if round % 2 == 0 {
            postgres.sql("SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'image-share%'");
        } else {
            postgres.stop();
            postgres.start_again();
        }
    }
    load.more(100).await;
    let (answered, failed) = load.stop().await;
    assert!(answered > 0, "{failed:?}");
    let replica = deployment.replica(0);
    let events = replica.ended_events().await;
    judge(&events, &upstream);
    let twice = postgres.sql(
        "SELECT COUNT(*) FROM (SELECT 1 FROM audit_entries WHERE kind = 'outcome' GROUP BY event_id HAVING COUNT(*) > 1) AS t",
    );
    assert_eq!(twice, "0");
    verified(&deployment.trail.database);
}
