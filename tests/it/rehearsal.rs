//! Dry runs: what they say before equals what the change does after.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Luck, Reply, Scripted, rounds};

async fn send(gateway: &Gateway, method: &str, path: &str, body: Option<&Value>) -> Answer {
    let mut request = gateway.sharer().request(method, path);
    if let Some(body) = body {
        request = request
            .header("Content-Type", "application/json")
            .body(body.to_string());
    }
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_writes_nothing_and_says_what_would_be() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    upstream.share("img", &[1]);
    let gateway = Gateway::with_upstream(&upstream).await;
    for (method, account, would_change) in [
        ("PUT", 1, false),
        ("PUT", 2, true),
        ("DELETE", 1, true),
        ("DELETE", 2, false),
    ] {
        let path = format!("/images/img/shares/{account}?dry_run=true&reason=OPS-1");
        let answer = send(&gateway, method, &path, None).await;
        let expected = json!({"image_id": "img", "account_id": account, "region": "cn-wlcb", "dry_run": true,
            "would_change": would_change});
        assert_eq!(
            (answer.status, answer.json()),
            (200, expected),
            "{method} {account}"
        );
        assert!(answer.header("audit-id").is_none());
    }
    let denied = gateway
        .caller("shares:read")
        .put("/images/img/shares/2?dry_run=true")
        .await;
    let problem = denied.assert_problem(403, "insufficient-scope");
    assert_eq!(problem.get("audit_id"), None);
    let body = json!({"add": [1, 2], "remove": [3]});
    let bulk = send(
        &gateway,
        "PATCH",
        "/images/img/shares?dry_run=true",
        Some(&body),
    )
    .await;
    let expected = json!({"image_id": "img", "region": "cn-wlcb", "dry_run": true, "results": [
        {"account_id": 1, "operation": "share", "would_change": false},
        {"account_id": 2, "operation": "share", "would_change": true},
        {"account_id": 3, "operation": "unshare", "would_change": false}]});
    assert_eq!((bulk.status, bulk.json()), (200, expected));
    let body = json!({"accounts": [2]});
    let list = send(
        &gateway,
        "PUT",
        "/images/img/shares?dry_run=true",
        Some(&body),
    )
    .await;
    list.assert_problem(409, "too-many-removals");
    let body = json!({"accounts": [2], "max_removals": 1});
    let list = send(
        &gateway,
        "PUT",
        "/images/img/shares?dry_run=true",
        Some(&body),
    )
    .await;
    assert_eq!(
        list.json()["results"],
        json!([
        {"account_id": 2, "operation": "share", "would_change": true},
        {"account_id": 1, "operation": "unshare", "would_change": true}])
    );
    let missing = send(&gateway, "PUT", "/images/img/shares/7?dry_run=false", None).await;
    assert_eq!(missing.status, 200, "false is no dry run");
    assert_eq!(upstream.changes(), ["+7"]);
    assert_eq!(gateway.only_event().await["account_id"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_waits_for_what_was_accepted_before() {
    let upstream = Scripted::start(|call| {
        if call.changes() {
            Reply::Held
        } else {
            Reply::Done
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let sharing = async { sharer.put("/images/img/shares/1").await.status };
    let rehearsing = async {
        upstream.wait_for_calls(1).await;
        let rehearsal = send(&gateway, "PUT", "/images/img/shares/1?dry_run=true", None);
        let releasing = async {
            upstream.release(1);
        };
        tokio::join!(rehearsal, releasing).0.json()
    };
    let (done, rehearsed) = tokio::join!(sharing, rehearsing);
    assert_eq!(done, 200);
    assert_eq!(rehearsed["would_change"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dry_run_says_is_what_the_change_does() {
    let mut luck = Luck::new();
    let seed = luck.seed;
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    for round in 0..rounds(60, 1000) {
        let image = format!("img-{round}");
        let some = |luck: &mut Luck| -> BTreeSet<u64> {
            (1..=15).filter(|_| luck.below(2) == 0).collect()
        };
        let present = some(&mut luck);
        upstream.share(&image, &present.iter().copied().collect::<Vec<_>>());
        let list = format!("/images/{image}/shares");
        let (method, path, body) = match luck.below(4) {
            0 => ("PUT", format!("{list}/{}", luck.below(15) + 1), None),
            1 => ("DELETE", format!("{list}/{}", luck.below(15) + 1), None),
            2 => {
                let (add, remove) = (some(&mut luck), some(&mut luck));
                let remove: Vec<u64> = remove.difference(&add).copied().collect();
                if add.is_empty() && remove.is_empty() {
                    continue;
                }
                ("PATCH", list, Some(json!({"add": add, "remove": remove})))
            }
            _ => (
                "PUT",
                list,
                Some(json!({"accounts": some(&mut luck), "max_removals": luck.below(8)})),
            ),
        };
        let told = send(
            &gateway,
            method,
            &format!("{path}?dry_run=true"),
            body.as_ref(),
        )
        .await;
        assert_eq!(
            upstream.list(&image),
            present.iter().copied().collect::<Vec<_>>(),
            "seed {seed}"
        );
        let done = send(&gateway, method, &path, body.as_ref()).await;
        let after: BTreeSet<u64> = upstream.list(&image).into_iter().collect();
        let changed: BTreeSet<u64> = present.symmetric_difference(&after).copied().collect();
        if told.status != 200 {
            assert_eq!(
                (told.status, done.status),
                (409, 409),
                "seed {seed}: {told:?} {done:?}"
            );
            assert_eq!(changed, BTreeSet::new());
            continue;
        }
        let told = told.json();
        let would: BTreeSet<u64> = match told.get("results") {
            None => {
                let account = told["account_id"].as_u64().unwrap();
                Some(account)
                    .filter(|_| told["would_change"] == true)
                    .into_iter()
                    .collect()
            }
            Some(results) => results
                .as_array()
                .unwrap()
                .iter()
                .filter(|result| result["would_change"] == true)
                .map(|result| result["account_id"].as_u64().unwrap())
                .collect(),
        };
        assert_eq!(would, changed, "seed {seed}: {method} {path} {body:?}");
    }
}
