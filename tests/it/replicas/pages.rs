//! Pages upwards, over chains that others write: all of what is there, or a failure.

use super::{Sleeper, Trail};
use crate::support::{Postgres, Reply, Scripted, client, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_page_upwards_that_cannot_be_whole_is_refused() {
    let (postgres, upstream) = (
        Postgres::start().await,
        Scripted::start(|_| Reply::Done).await,
    );
    let trail = Trail::of(&upstream, &postgres);
    let (one, two) = (trail.start("one").await, trail.start("two").await);
    for account in 1..=3 {
        let path = format!("/images/img-1/shares/{account}");
        assert_eq!(one.send("PUT", &path).await, 200);
    }
    let first = "SELECT 1 FROM audit_chains WHERE number = (SELECT MIN(number) FROM audit_chains)";
    let sleeper = Sleeper::over(&postgres, first).await;
    for account in 1..=5 {
        let path = format!("/images/img-2/shares/{account}");
        assert_eq!(two.send("PUT", &path).await, 200);
    }
    let request = client().get(format!("{}/audit/events?order=asc", two.url));
    let answer = request.bearer_auth(token("team-a", "audit:read"));
    let answer = answer.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("audit-unavailable"), "{text}");
    sleeper.wake(&postgres);
    assert_eq!(two.ended_events().await.len(), 8);
}
