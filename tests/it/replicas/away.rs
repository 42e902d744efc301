//! The database away: nothing is forwarded, and all is well again by itself.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Replica, Sleeper, Trail, judge, servers, verified};
use crate::storage::SmallDisk;
use crate::support::{Postgres, Reply, Scripted, client, eventually};

impl Replica {
    async fn probe(&self, path: &str) -> u16 {
        let answer = client().get(format!("{}{path}", self.url)).send().await;
        answer.unwrap().status().as_u16()
    }

    /// Waits until changes are refused, and all that is promised of that.
    async fn refuses(&self, upstream: &Scripted) {
        eventually("it is not ready", async || {
            (self.probe("/readyz").await == 503).then_some(())
        })
        .await;
        let before = upstream.changes().len();
        let bearer = crate::support::token("team-a", "shares:write");
        let put = client()
            .put(format!("{}/images/away/shares/1", self.url))
            .header("Prefer", "wait=5")
            .bearer_auth(bearer);
        let answer = put.send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        let problem = answer.text().await.unwrap();
        let problem: serde_json::Value = serde_json::from_str(&problem).unwrap();
        assert_eq!(problem["type"], "/problems/audit-unavailable", "{problem}");
        assert_eq!(upstream.changes().len(), before, "nothing was forwarded");
        assert_eq!(self.probe("/livez").await, 200);
    }

    /// Waits until changes succeed; says how long that took.
    #[expect(clippy::disallowed_methods, reason = "what is promised is a time")]
    async fn is_well_again(&self) -> Duration {
        let begun = Instant::now();
        eventually("it is well again", async || {
            (self.send("PUT", "/images/again/shares/1").await == 200).then_some(())
        })
        .await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert_eq!(self.probe("/readyz").await, 200);
        took
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_away_at_the_start_or_later_comes_back_by_itself() {
    let (mut postgres, upstream) = (
        Postgres::start().await,
        Scripted::start(|_| Reply::Done).await,
    );
    let trail = Trail::of(&upstream, &postgres);
    postgres.stop();
    let replica = trail.start("one").await;
    replica.refuses(&upstream).await;
    postgres.start_again();
    replica.is_well_again().await;
    // Stopped, and started again.
    postgres.stop();
    replica.refuses(&upstream).await;
    postgres.start_again();
    replica.is_well_again().await;
    // Standing still.
    postgres.signal_all(Signal::STOP);
    replica.refuses(&upstream).await;
    postgres.signal_all(Signal::CONT);
    replica.is_well_again().await;
    judge(&replica.ended_events().await, &upstream);
    verified(&trail.database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_ended_and_a_standby_cost_no_promise() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    let replica = trail.start("one").await;
    assert_eq!(replica.send("PUT", "/images/img/shares/1").await, 200);
    // 57P01, again and again, under load.
    let ending = async {
        for _ in 0..10 {
            postgres.sql("SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'image-share%'");
            tokio::task::yield_now().await;
        }
    };
    let changing = async {
        let mut statuses = Vec::new();
        for number in 0..200 {
            let method = if number % 2 == 0 { "PUT" } else { "DELETE" };
            let path = format!("/images/img-{}/shares/7", number % 5);
            statuses.push(replica.send(method, &path).await);
        }
        statuses
    };
    let (statuses, ()) = tokio::join!(changing, ending);
    assert!(
        statuses
            .iter()
            .all(|status| matches!(status, 200 | 204 | 503)),
        "{statuses:?}"
    );
    replica.is_well_again().await;
    // A failover to a server that is not the first yet: 25006.
    postgres.sql("ALTER DATABASE audit SET default_transaction_read_only = on");
    postgres.sql("SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'image-share%'");
    replica.refuses(&upstream).await;
    let writable = postgres.psql(
        "postgres",
        "ALTER DATABASE audit SET default_transaction_read_only = off",
    );
    assert!(writable.status.success(), "{writable:?}");
    replica.is_well_again().await;
    judge(&replica.ended_events().await, &upstream);
    assert_eq!(verified(&trail.database).len(), 1, "the chain went on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_whose_disk_is_full_refuses_and_is_well_again_with_room() {
    let (postgres, upstream) = servers().await;
    let Some(disk) = SmallDisk::mount(postgres.folder().join("small"), "40m") else {
        return;
    };
    let place = postgres.own("small");
    postgres.sql(&format!("CREATE TABLESPACE small LOCATION '{place}'"));
    postgres.sql("CREATE DATABASE full_one TABLESPACE small");
    let trail = Trail {
        database: postgres.url("full_one"),
        ..Trail::of(&upstream, &postgres)
    };
    let replica = trail.start("one").await;
    assert_eq!(replica.send("PUT", "/images/img/shares/1").await, 200);
    disk.fill();
    // What has room in pages that are there still fits.
    eventually("it cannot be written", async || {
        (replica.send("PUT", "/images/img/shares/2").await == 503).then_some(())
    })
    .await;
    replica.refuses(&upstream).await;
    disk.free();
    replica.is_well_again().await;
    judge(&replica.ended_events().await, &upstream);
    verified(&trail.database);
    drop(replica);
    drop(postgres);
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_that_cannot_settle_who_has_an_image_is_not_ready() {
    let (postgres, upstream) = servers().await;
    let trail = Trail::of(&upstream, &postgres);
    let replica = trail.start("one").await;
    assert_eq!(replica.send("PUT", "/images/img/shares/1").await, 200);
    eventually("it is let go", async || {
        (postgres.sql("SELECT COUNT(holder) FROM lane_locks") == "0").then_some(())
    })
    .await;
    let sleeper = Sleeper::over(&postgres, "SELECT 1 FROM lane_locks").await;
    let changing = replica.send("PUT", "/images/img/shares/2");
    let readiness = async {
        eventually("it is not ready", async || {
            (replica.probe("/readyz").await == 503).then_some(())
        })
        .await;
        sleeper.wake(&postgres);
    };
    let (status, ()) = tokio::join!(changing, readiness);
    assert_eq!(status, 200, "it waited");
    replica.is_well_again().await;
}
