//! Many callers of one image: order, coalescing, neighbours; and what it costs the upstream.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use crate::support::{Answer, Call, Gateway, Luck, MISSING_ACCOUNTS, Reply, Scripted, refusal};

/// Holds the first call until the others wait, then answers everything.
async fn held_first() -> Scripted {
    Scripted::start(|_| Reply::Held).await
}

/// Waits until so many intents are on disk.
async fn intents(gateway: &Gateway, count: usize) {
    crate::support::eventually("intents get to disk", async || {
        (gateway.events().await.len() >= count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_that_wait_behind_one_call_cost_eight() {
    let upstream = held_first().await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let put = async |account: u64| {
        sharer
            .put(&format!("/images/img/shares/{account}"))
            .await
            .status
    };
    let others = async {
        upstream.wait_for_calls(1).await;
        join_all((2..=64).map(put)).await
    };
    let releasing = async {
        intents(&gateway, 64).await;
        assert_eq!(upstream.calls().len(), 1, "one call at a time");
        upstream.release(100);
    };
    let (first, others, ()) = tokio::join!(put(1), others, releasing);
    assert_eq!(first, 200);
    assert_eq!(others, [200; 63]);
    assert_eq!(upstream.calls().len(), 8, "one and then ten at a time");
    let sent: BTreeSet<u64> = upstream
        .calls()
        .iter()
        .flat_map(|call| call.accounts("AddAccounts"))
        .collect();
    assert_eq!(sent, (1..=64).collect());
    for event in gateway.events().await {
        assert_eq!(
            (event["outcome"].as_str(), event["upstream_calls"].as_u64()),
            (Some("succeeded"), Some(1))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_changes_share_a_place_and_contradictions_split() {
    let upstream = held_first().await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let send = async |method: &str, account: u64| {
        sharer
            .send(method, &format!("/images/img/shares/{account}"))
            .await
            .status
    };
    let later = async {
        upstream.wait_for_calls(1).await;
        // Each waits for the one before to be on disk, so that their order is known.
        let one = async { send("PUT", 2).await };
        let two = async {
            intents(&gateway, 2).await;
            send("PUT", 2).await
        };
        let three = async {
            intents(&gateway, 3).await;
            send("DELETE", 2).await
        };
        let four = async {
            intents(&gateway, 4).await;
            send("PUT", 2).await
        };
        let releasing = async {
            intents(&gateway, 5).await;
            upstream.release(100);
        };
        tokio::join!(one, two, three, four, releasing)
    };
    let (first, later) = tokio::join!(send("PUT", 1), later);
    assert_eq!(
        (first, later.0, later.1, later.2, later.3),
        (200, 200, 200, 204, 200)
    );
    assert_eq!(upstream.changes(), ["+1", "+2", "-2", "+2"]);
    assert_eq!(upstream.list("img"), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_exist_fails_its_own_change_alone() {
    let upstream = held_first().await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let put = async |account: u64| {
        sharer
            .put(&format!("/images/img/shares/{account}"))
            .await
            .status
    };
    let others = async {
        upstream.wait_for_calls(1).await;
        let accounts = [2, MISSING_ACCOUNTS, 3, MISSING_ACCOUNTS + 1, 4];
        join_all(accounts.map(put)).await
    };
    let releasing = async {
        intents(&gateway, 6).await;
        upstream.release(100);
    };
    let (first, others, ()) = tokio::join!(put(1), others, releasing);
    assert_eq!(first, 200);
    assert_eq!(others, [200, 422, 200, 422, 200]);
    assert_eq!(upstream.calls().len(), 3, "the rest is sent again at once");
    assert_eq!(upstream.list("img"), [1, 2, 3, 4]);
    for event in gateway.events().await {
        let missing = event["account_id"].as_u64().unwrap() >= MISSING_ACCOUNTS;
        let outcome = if missing {
            "invalid_account"
        } else {
            "succeeded"
        };
        assert_eq!(event["outcome"], outcome);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_may_be_about_one_account_is_found_by_halves() {
    let released = std::sync::atomic::AtomicBool::new(false);
    let upstream = Scripted::start(move |call: &Call| {
        if !released.swap(true, std::sync::atomic::Ordering::Relaxed) {
            Reply::Held
        } else if call.accounts("AddAccounts").contains(&7) {
            refusal(240, "Params [AddAccounts] too large")
        } else {
            Reply::Done
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let put = async |account: u64| sharer.put(&format!("/images/img/shares/{account}")).await;
    let others = async {
        upstream.wait_for_calls(1).await;
        join_all((2..=9).map(put)).await
    };
    let releasing = async {
        intents(&gateway, 9).await;
        upstream.release(1);
    };
    let (_, others, ()) = tokio::join!(put(1), others, releasing);
    for (answer, account) in others.iter().zip(2..) {
        if account == 7 {
            answer.assert_problem(502, "upstream-error");
        } else {
            assert_eq!(answer.status, 200, "{account}: {answer:?}");
        }
    }
    assert_eq!(upstream.list("img"), [1, 2, 3, 4, 5, 6, 8, 9]);
    assert!(
        upstream.calls().len() <= 1 + 7,
        "eight accounts take three halvings: {:?}",
        upstream.changes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_was_closed_is_tried_again_at_once_over_a_fresh_one() {
    let upstream = Scripted::start(|call: &Call| {
        if call.before > 0 {
            Reply::Close
        } else {
            Reply::Done
        }
    })
    .await;
    // No retry is left: it is none.
    let gateway = Gateway::in_front_of(&upstream.url, &[("upstream.max_retries", "0")]).await;
    for account in 1..=4 {
        let path = format!("/images/img/shares/{account}");
        assert_eq!(gateway.sharer().put(&path).await.status, 200);
    }
    assert_eq!(upstream.list("img"), [1, 2, 3, 4]);
    let calls: Vec<u64> = gateway
        .events()
        .await
        .iter()
        .map(|event| event["upstream_calls"].as_u64().unwrap())
        .collect();
    assert_eq!(calls, [1, 2, 1, 2], "{:?}", upstream.changes());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_keep_to_the_budget_and_every_lane_gets_its_turn() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway =
        Gateway::in_front_of(&upstream.url, &[("upstream.requests_per_second", "20")]).await;
    let sharer = gateway.sharer();
    #[expect(clippy::disallowed_methods, reason = "what is promised is a rate")]
    let begun = std::time::Instant::now();
    // One image has thirty changes that contradict each other, so it needs thirty calls; others have one each.
    let hot = async {
        for round in 0..30 {
            let method = if round % 2 == 0 { "PUT" } else { "DELETE" };
            sharer.send(method, "/images/hot/shares/1").await;
        }
    };
    let others = async {
        upstream.wait_for_calls(2).await;
        let put = async |image: usize| {
            sharer
                .put(&format!("/images/other-{image}/shares/1"))
                .await
                .status
        };
        let statuses = join_all((0..10).map(put)).await;
        assert_eq!(statuses, [200; 10]);
        upstream.calls().len()
    };
    let ((), calls_by_then) = tokio::join!(hot, others);
    assert_eq!(upstream.calls().len(), 40);
    assert!(
        begun.elapsed().as_secs_f64() >= 39.0 / 20.0 * 0.95,
        "{:?}",
        begun.elapsed()
    );
    assert!(
        calls_by_then <= 30,
        "ten others took turns with the hot one: {calls_by_then} calls"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_rotated_sign_the_next_call_and_calls_in_flight_finish_with_the_old() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let directory = tempfile::tempdir().unwrap();
    let keys = crate::support::keys_file(directory.path());
    let key_file = directory.path().join("public.key");
    std::fs::write(&key_file, "first\n").unwrap();
    let mut environment = crate::support::environment(&upstream.url);
    environment.retain(|(name, _)| *name != "ISG__UPSTREAM__PUBLIC_KEY");
    environment.push(("ISG__UPSTREAM__PUBLIC_KEY_FILE", "public.key"));
    let program = crate::support::Program::spawn(directory.path(), &["serve"], &environment);
    let base_url = program.base_url().await;
    drop(keys);
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .unwrap();
    let put = |account: u64| {
        let url = format!("{base_url}/images/img-{account}/shares/{account}");
        let token = crate::support::token("team-a", "shares:write");
        Answer::of(client.put(url).bearer_auth(token))
    };
    let rotating = async {
        upstream.wait_for_calls(1).await;
        std::fs::write(&key_file, "second\n").unwrap();
        program.signal(rustix::process::Signal::HUP);
        program.wait_for_log("reloaded: keys").await;
        upstream.release(2);
        put(2).await
    };
    let (first, second) = tokio::join!(put(1), rotating);
    assert_eq!(
        (first.status, second.status),
        (200, 200),
        "{first:?} {second:?}"
    );
    let signed: Vec<String> = upstream
        .calls()
        .iter()
        .map(|call| call.fields["PublicKey"].clone())
        .collect();
    assert_eq!(signed, ["first", "second"]);
}

/// The steps of the machine's own property test, smaller and through HTTP: random changes of many callers against an
/// upstream that fails at random. What was answered must be true of the list in the end.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_upstream_does_the_list_is_what_was_answered() {
    const ACCOUNTS: u64 = 12;
    let mut luck = Luck::new();
    let seed = luck.seed;
    let fate = std::sync::Mutex::new(luck.clone());
    let upstream = Scripted::start(move |call: &Call| {
        if !call.changes() {
            return Reply::Done;
        }
        match fate.lock().unwrap().below(14) {
            0 => Reply::Status(503),
            1 => refusal(153, "slow down"),
            2 => Reply::Reset { done: false },
            3 => Reply::Reset { done: true },
            4 => Reply::DoneBut(Box::new(Reply::Status(500))),
            5 => refusal(150, "later"),
            6 => Reply::Later(std::time::Duration::from_millis(20), Box::new(Reply::Done)),
            _ => Reply::Done,
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    for _ in 0..crate::support::rounds(4, 40) {
        let changes: Vec<(&str, String)> = (0..48)
            .map(|_| {
                let method = if luck.below(2) == 0 { "PUT" } else { "DELETE" };
                let account = match luck.below(16) {
                    0 => MISSING_ACCOUNTS,
                    number => number % ACCOUNTS + 1,
                };
                (
                    method,
                    format!("/images/img-{}/shares/{account}", luck.below(2)),
                )
            })
            .collect();
        let answers = changes
            .iter()
            .map(|(method, path)| sharer.send(method, path));
        for answer in join_all(answers).await {
            assert!(
                matches!(answer.status, 200 | 204 | 422 | 502 | 503),
                "seed {seed}: {answer:?}"
            );
        }
    }
    // The order in which they were accepted is that of their events.
    let events = gateway.all_events().await;
    for image in 0..2 {
        let image = format!("img-{image}");
        let list = upstream.list(&image);
        for account in 1..=ACCOUNTS {
            let mut possible = BTreeSet::from([false]);
            for event in &events {
                if event["image_id"] != image.as_str() || event["account_id"] != account {
                    continue;
                }
                let gains = event["operation"] == "share";
                match event["outcome"].as_str().unwrap() {
                    "succeeded" => possible = BTreeSet::from([gains]),
                    "unknown" => drop(possible.insert(gains)),
                    "failed" => {}
                    other => panic!("seed {seed}: {other}"),
                }
            }
            let listed = list.contains(&account);
            assert!(
                possible.contains(&listed),
                "seed {seed}: {account} of {image} is listed: {listed}"
            );
        }
    }
}
