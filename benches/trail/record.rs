//! What recording costs, at the writer's door, without HTTP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use image_share_gateway::audit::{self, Completion, Elapsed, HttpStatus, Intent, Recalled, Writer};
use image_share_gateway::domain::{
    Author, Caller, Change, Deadline, Operation, Outcome, Principal, RequestId, Stopwatch,
};
use image_share_gateway::telemetry::Metrics;

use super::generate::Facts;
use super::process::{cpu_of, io_of};

/// Tasks that record at once.
const TASKS: usize = 64;

/// An intent as the gateway makes it, of the same kind as the generator's.
fn intent(event: u64) -> Intent {
    let facts = Facts::of(event);
    let principal = Principal {
        token_id: Some("b7f2c0ffee".into()),
        scopes: std::iter::once("shares:write".to_owned()).collect(),
        ..Principal::of_first_issuer(&facts.team, "https://login.example.com")
    };
    let caller = Caller {
        principal: Arc::new(principal),
        client_ip: "10.20.30.40".parse().ok(),
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64) image-tool/3.1".into()),
        request_id: RequestId::generate(),
        trace_id: None,
        since_arrival: Stopwatch::start(),
    };
    let change = Change {
        operation: if facts.shares {
            Operation::Share
        } else {
            Operation::Unshare
        },
        image_id: facts.image_id.parse().unwrap(),
        account_id: facts.account_id.try_into().unwrap(),
        region: "cn-wlcb".parse().unwrap(),
        reason: facts.reason.as_deref().and_then(|text| text.parse().ok()),
    };
    Intent {
        author: Author::Caller(Arc::new(caller)),
        change,
        policy_ids: Vec::new(),
    }
}

async fn change(writer: &Writer, event: u64) {
    let intent = intent(event);
    let recorded = writer.enqueue(intent.clone()).unwrap().await.unwrap();
    let completion = Completion {
        recalled: Recalled::of(&intent, recorded.event_id),
        outcome: Outcome::Succeeded,
        http_status: Some(HttpStatus::new(200)),
        upstream_ret_code: Some(0),
        upstream_request_id: Some("4f2a6c1e-0000-4000-8000-000000000001".into()),
        upstream_calls: Some(1),
        elapsed: Elapsed::Since(intent.author.caller().unwrap().since_arrival),
        detail: None,
    };
    writer.record(completion).await.unwrap();
}

/// Some tasks record for as long as `goes_on` says; gives the changes recorded.
async fn changes(
    writer: &Writer,
    tasks: usize,
    goes_on: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> u64 {
    let (next, goes_on) = (Arc::new(AtomicU64::new(0)), Arc::new(goes_on));
    let first = u64::from(std::process::id()) << 32;
    let all = (0..tasks).map(|_| {
        let (writer, next, goes_on) = (writer.clone(), Arc::clone(&next), Arc::clone(&goes_on));
        tokio::spawn(async move {
            let mut done = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if !goes_on(number) {
                    return done;
                }
                change(&writer, first + number).await;
                done += 1;
            }
        })
    });
    let done = futures_util::future::join_all(all.collect::<Vec<_>>()).await;
    done.into_iter().map(Result::unwrap).sum()
}

/// Records 64 at a time into the trail at `path`; gives CPU microseconds and KiB written for one change,
/// checkpoints among it.
pub(crate) async fn cost(path: &Path, count: u64) -> (f64, f64) {
    let audit::Doors {
        writer,
        task,
        reader,
        ..
    } = audit::open_file(path, audit::Accepted::default(), Metrics::new())
        .await
        .unwrap();
    changes(&writer, TASKS, |number| number < 5000).await;
    let (cpu, written) = (cpu_of("self"), io_of("self", "wchar: "));
    changes(&writer, TASKS, move |number| number < count).await;
    let cpu = cpu_of("self").saturating_sub(cpu).as_secs_f64() * 1e6;
    let written = (io_of("self", "wchar: ") - written) as f64 / 1024.0;
    reader.close().await;
    task.stop(Deadline::after(Duration::from_secs(30))).await;
    (cpu / count as f64, written / count as f64)
}

/// Entries made durable a second by this many tasks.
pub(crate) async fn throughput(path: &Path, tasks: usize, time: Duration) -> f64 {
    let audit::Doors {
        writer,
        task,
        reader,
        ..
    } = audit::open_file(path, audit::Accepted::default(), Metrics::new())
        .await
        .unwrap();
    changes(&writer, tasks, |number| number < 64).await;
    let begun = Instant::now();
    let done = changes(&writer, tasks, move |_| begun.elapsed() < time).await;
    let rate = done as f64 * 2.0 / begun.elapsed().as_secs_f64();
    reader.close().await;
    task.stop(Deadline::after(Duration::from_secs(30))).await;
    rate
}
