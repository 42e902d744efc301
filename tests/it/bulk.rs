//! Many accounts in one request: PATCH and PUT of the list.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, MISSING_ACCOUNTS, Reply, Scripted, refusal};

const SHARES: &str = "/images/img/shares";

async fn send(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Answer {
    Answer::of(gateway.sharer().request(method, path).json_body(body)).await
}

trait JsonBody {
    fn json_body(self, body: &Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json_body(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json")
            .body(body.to_string())
    }
}

fn outcomes(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let results = body["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            let sign = if result["operation"] == "share" {
                "+"
            } else {
                "-"
            };
            format!(
                "{sign}{} {}",
                result["account_id"],
                result["outcome"].as_str().unwrap()
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_added_and_removed_together_each_with_its_event() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    upstream.share("img", &[3]);
    let gateway = Gateway::with_upstream(&upstream).await;
    let body = json!({"add": [1, 2], "remove": [3], "reason": "OPS-17"});
    let answer = send(&gateway, "PATCH", SHARES, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        outcomes(&answer),
        ["+1 succeeded", "+2 succeeded", "-3 succeeded"]
    );
    assert_eq!(
        (
            answer.json()["image_id"].as_str(),
            answer.json()["region"].as_str()
        ),
        (Some("img"), Some("cn-wlcb"))
    );
    assert!(answer.header("audit-id").is_none() && answer.header("x-request-id").is_some());
    assert_eq!(upstream.changes(), ["+1 +2 -3"], "one call");
    assert_eq!(upstream.list("img"), [1, 2]);
    let events = gateway.events().await;
    let ids: Vec<&Value> = events.iter().map(|event| &event["id"]).collect();
    let body = answer.json();
    let told: Vec<&Value> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| &result["audit_id"])
        .collect();
    assert_eq!(ids, told);
    for event in &events {
        assert_eq!(event["reason"], "OPS-17");
        assert_eq!(event["http_status"], 200);
        assert_eq!(event["request_id"].as_str(), answer.header("x-request-id"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_accounts_take_a_hundred_calls_and_one_bad_account_fails_alone() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let mut add: Vec<u64> = (1..1000).collect();
    add.insert(500, MISSING_ACCOUNTS);
    let answer = send(&gateway, "PATCH", SHARES, &json!({"add": add})).await;
    let outcomes = outcomes(&answer);
    assert_eq!(outcomes.len(), 1000);
    let failed: Vec<&String> = outcomes
        .iter()
        .filter(|outcome| !outcome.ends_with("succeeded"))
        .collect();
    assert_eq!(failed, [&format!("+{MISSING_ACCOUNTS} invalid_account")]);
    let problem = &answer.json()["results"][500]["problem"];
    assert_eq!(
        (problem["type"].as_str(), problem["status"].as_u64()),
        (Some("/problems/invalid-account"), Some(422))
    );
    assert_eq!(problem["effect"], "none");
    assert_eq!(
        upstream.changes().len(),
        101,
        "a hundred, and one of nine again"
    );
    assert_eq!(upstream.list("img").len(), 999);
    assert_eq!(gateway.events().await.len(), 1000);
    let report = image_share_gateway::audit::verify(&gateway.database(), &[])
        .await
        .unwrap();
    let image_share_gateway::audit::Report::Intact(Some(head)) = report else {
        panic!("{report:?}")
    };
    assert_eq!(head.sequence, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_replaced_by_its_difference_with_the_fewest_calls() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let present: Vec<u64> = (1..=35).collect();
    upstream.share("img", &present);
    let gateway = Gateway::with_upstream(&upstream).await;
    // 25 are removed, 21 are added, 10 stay.
    let wanted: Vec<u64> = (26..=56).collect();
    let few = send(
        &gateway,
        "PUT",
        SHARES,
        &json!({"accounts": wanted, "max_removals": 24}),
    )
    .await;
    let problem = few.assert_problem(409, "too-many-removals");
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("none"), Some(false))
    );
    assert_eq!(upstream.list("img"), present);
    assert_eq!(gateway.events().await, Vec::<Value>::new());
    let before = upstream.calls().len();
    let answer = send(
        &gateway,
        "PUT",
        SHARES,
        &json!({"accounts": wanted, "max_removals": 25}),
    )
    .await;
    assert_eq!(answer.status, 200);
    assert_eq!(outcomes(&answer).len(), 46);
    assert_eq!(upstream.list("img"), wanted);
    assert_eq!(
        upstream.calls().len() - before,
        1 + 3,
        "one look, and the greater of 3 and 3 calls"
    );
    let again = send(&gateway, "PUT", SHARES, &json!({"accounts": wanted})).await;
    assert_eq!(again.json()["results"], json!([]));
    let emptied = send(
        &gateway,
        "PUT",
        SHARES,
        &json!({"accounts": [], "max_removals": 1000}),
    )
    .await;
    assert_eq!(outcomes(&emptied).len(), 31);
    assert_eq!(upstream.list("img"), Vec::<u64>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_this_gateway_comes_between_what_a_replacement_reads_and_what_it_changes() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let sharer = gateway.sharer();
    let body = json!({"accounts": [1, 2]});
    let replacing = send(&gateway, "PUT", SHARES, &body);
    let sharing = async {
        // The replacement is reading.
        upstream.wait_for_calls(1).await;
        let put = sharer.put("/images/img/shares/9");
        let releasing = async {
            until_so_many_wait(&gateway, 1).await;
            assert_eq!(upstream.calls().len(), 1, "the lane is held");
            assert_eq!(
                gateway.events().await,
                [] as [Value; 0],
                "it is accepted behind the list"
            );
            upstream.release(100);
        };
        tokio::join!(put, releasing).0
    };
    let (replaced, other) = tokio::join!(replacing, sharing);
    assert_eq!((replaced.status, other.status), (200, 200));
    assert_eq!(outcomes(&replaced), ["+1 succeeded", "+2 succeeded"]);
    assert_eq!(upstream.list("img"), [1, 2, 9], "what came later stands");
    let accounts: Vec<u64> = gateway
        .events()
        .await
        .iter()
        .map(|event| event["account_id"].as_u64().unwrap())
        .collect();
    assert_eq!(
        accounts,
        [1, 2, 9],
        "the trail tells it in the order of effect"
    );
}

/// Waits until so many changes wait for a call or for their place.
async fn until_so_many_wait(gateway: &Gateway, count: usize) {
    crate::support::eventually("changes wait", async || {
        let text = gateway.metrics().await;
        text.lines()
            .any(|line| line == format!("isg_sharing_waiting_changes {count}"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_lists_and_single_changes_take_effect_in_the_order_in_which_they_were_accepted() {
    for (present, first, between, last) in [
        (1, json!([5]), "PUT", json!([1])),
        (5, json!([1, 6]), "DELETE", json!([5])),
    ] {
        let upstream = Scripted::start(|_| Reply::Held).await;
        upstream.share("img", &[present]);
        let gateway = Gateway::with_upstream(&upstream).await;
        let sharer = gateway.sharer();
        let replace = async |accounts: &Value| {
            let body = json!({"accounts": accounts, "max_removals": 2});
            send(&gateway, "PUT", SHARES, &body).await.status
        };
        let later = async {
            upstream.wait_for_calls(1).await;
            let single = async { sharer.send(between, "/images/img/shares/1").await.status };
            let second = async {
                until_so_many_wait(&gateway, 1).await;
                replace(&last).await
            };
            let releasing = async {
                until_so_many_wait(&gateway, 2).await;
                upstream.release(100);
            };
            tokio::join!(single, second, releasing)
        };
        let (first, (single, second, ())) = tokio::join!(replace(&first), later);
        assert_eq!((first, second), (200, 200));
        assert!(single == 200 || single == 204);
        assert_eq!(
            json!(upstream.list("img")),
            last,
            "{:?}",
            upstream.changes()
        );
    }
}

/// Another's single change waits for no more than two calls of a bulk, and finds room whatever waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_of_a_thousand_stands_in_nobodys_way() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let of =
        |subject: &str| gateway.with(crate::support::token(subject, "shares:read shares:write"));
    let bulk = async |subject: &str, from: u64| {
        let add: Vec<u64> = (from..from + 1000).collect();
        let request = of(subject).request("PATCH", SHARES);
        Answer::of(request.json_body(&json!({"add": add}))).await
    };
    let single = async {
        upstream.wait_for_calls(1).await;
        until_so_many_wait(&gateway, 1990).await;
        let put = async { of("team-c").put("/images/img/shares/5000").await };
        let releasing = async {
            until_so_many_wait(&gateway, 1991).await;
            crate::support::eventually("it is on disk", async || {
                let events = gateway.all_events().await;
                events
                    .iter()
                    .any(|event| event["account_id"] == 5000)
                    .then_some(())
            })
            .await;
            upstream.release(2);
            upstream.wait_for_calls(3).await;
            let carried =
                |call: &crate::support::Call| call.accounts("AddAccounts").contains(&5000);
            assert!(
                upstream.calls()[1..3].iter().any(carried),
                "{:?}",
                upstream.changes()
            );
            upstream.release(1000);
        };
        tokio::join!(put, releasing).0.status
    };
    let (one, two, single) = tokio::join!(bulk("team-a", 1), bulk("team-b", 2001), single);
    assert_eq!((one.status, two.status, single), (200, 200, 200));
    assert_eq!(upstream.calls().len(), 201);
}

/// A caller whose time is up hears 503, and so say the rows of what was denied.
#[tokio::test(flavor = "multi_thread")]
async fn denials_of_a_bulk_that_comes_to_disk_late_say_what_their_caller_was_told() {
    use sqlx::Connection as _;
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.cedar");
    let policies = "permit(principal, action, resource) unless { context has account_id && context.account_id == 2 };";
    std::fs::write(&policy, policies).unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    let settings = [("authorization.policy_file", policy.to_str().unwrap())];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let mut person = gateway.connect().await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut person)
        .await
        .unwrap();
    let request = gateway
        .sharer()
        .request("PATCH", SHARES)
        .header("Prefer", "wait=1");
    let late = Answer::of(request.json_body(&json!({"add": [1, 2]}))).await;
    late.assert_problem(503, "audit-unavailable");
    sqlx::query("COMMIT").execute(&mut person).await.unwrap();
    person.close().await.unwrap();
    let events = crate::support::eventually("rows get to disk", async || {
        let events = gateway.events().await;
        (events.len() == 2 && events.iter().all(|event| event["outcome"] != "pending"))
            .then_some(events)
    })
    .await;
    for event in events {
        assert_eq!(event["http_status"], 503, "{event}");
    }
    assert_eq!(upstream.changes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_whose_look_fails_is_answered_as_a_read_and_leaves_no_event() {
    let upstream =
        Scripted::start(|_| refusal(230, "Params [CompShareImageId] not available")).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let answer = send(&gateway, "PUT", SHARES, &json!({"accounts": [1]})).await;
    let problem = answer.assert_problem(404, "not-found");
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("none"), Some(false))
    );
    assert_eq!(gateway.events().await, Vec::<Value>::new());
    assert_eq!(upstream.changes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_fails_is_told_account_by_account() {
    let upstream = Scripted::start(|call| {
        if call.changes() && call.accounts("AddAccounts").contains(&11) {
            refusal(171, "Signature VerifyAC Error")
        } else {
            Reply::Done
        }
    })
    .await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let add: Vec<u64> = (1..=15).collect();
    let answer = send(&gateway, "PATCH", SHARES, &json!({"add": add})).await;
    assert_eq!(answer.status, 200);
    for (outcome, account) in outcomes(&answer).iter().zip(1..) {
        let expected = if account <= 10 { "succeeded" } else { "failed" };
        assert_eq!(outcome, &format!("+{account} {expected}"));
    }
    let body = answer.json();
    let problem = &body["results"][12]["problem"];
    assert_eq!(problem["upstream"]["ret_code"], 171);
    assert_eq!(problem["audit_id"], body["results"][12]["audit_id"]);
    assert_eq!(
        problem["request_id"].as_str(),
        answer.header("x-request-id")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sent_when_the_time_is_up_ends_overloaded_and_the_rest_stands() {
    let upstream = Scripted::start(|_| Reply::Held).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let add: Vec<u64> = (1..=25).collect();
    let request = gateway
        .sharer()
        .request("PATCH", SHARES)
        .header("Prefer", "wait=2");
    upstream.release(1);
    let answer = Answer::of(request.json_body(&json!({"add": add}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let results = body["results"].as_array().unwrap();
    let slug = |index: usize| results[index]["problem"]["type"].as_str();
    assert!(
        (0..10).all(|index| results[index]["outcome"] == "succeeded"),
        "{body}"
    );
    assert!(
        (10..20).all(|index| results[index]["outcome"] == "pending"
            && slug(index) == Some("/problems/upstream-timeout")),
        "{body}"
    );
    assert!(
        (20..25).all(|index| results[index]["outcome"] == "failed"
            && slug(index) == Some("/problems/overloaded")),
        "{body}"
    );
    upstream.release(1);
    crate::support::eventually("the call ends", async || {
        let events = gateway.events().await;
        events
            .iter()
            .all(|event| event["outcome"] != "pending")
            .then_some(())
    })
    .await;
    assert_eq!(upstream.list("img").len(), 20);
    let events = gateway.events().await;
    assert_eq!(
        (
            events[12]["outcome"].as_str(),
            events[12]["http_status"].as_u64()
        ),
        (Some("succeeded"), Some(504))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_lacks_denies_the_whole_with_one_event() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    for (method, body) in [
        ("PATCH", json!({"add": [1, 2], "reason": "OPS-1"})),
        ("PUT", json!({"accounts": [1], "reason": "OPS-1"})),
    ] {
        let request = gateway
            .caller("shares:read")
            .request(method, SHARES)
            .json_body(&body);
        let answer = Answer::of(request).await;
        let problem = answer.assert_problem(403, "insufficient-scope");
        assert!(problem["audit_id"].is_string());
        assert_eq!(problem["effect"], "none");
    }
    assert_eq!(upstream.calls(), []);
    let events = gateway.events().await;
    assert_eq!(events.len(), 2);
    for event in events {
        assert_eq!(
            (event["operation"].as_str(), event["outcome"].as_str()),
            (Some("update"), Some("denied"))
        );
        assert!(event["account_id"].is_null());
        assert_eq!(event["reason"], "OPS-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_decide_account_by_account_and_if_all_are_denied_the_answer_is_403_with_results() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.cedar");
    std::fs::write(&policy, "forbid(principal, action, resource);").unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    let settings = [("authorization.policy_file", policy.to_str().unwrap())];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    let answer = send(
        &gateway,
        "PATCH",
        SHARES,
        &json!({"add": [1], "remove": [2]}),
    )
    .await;
    let problem = answer.assert_problem(403, "forbidden");
    assert_eq!(outcomes(&answer), ["+1 denied", "-2 denied"]);
    assert_eq!(
        (problem["effect"].as_str(), problem["retryable"].as_bool()),
        (Some("none"), Some(false))
    );
    let answer = send(
        &gateway,
        "PATCH",
        "/images/img/shares?dry_run=true",
        &json!({"add": [3]}),
    )
    .await;
    let problem = answer.assert_problem(403, "forbidden");
    assert_eq!(problem["results"][0]["would_change"], false);
    assert_eq!(upstream.changes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_query_and_body_are_told_together() {
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &[]).await;
    for (method, missing) in [("PATCH", "add"), ("PUT", "accounts")] {
        let answer = send(&gateway, method, "/images/img/shares?bogus=1", &json!({})).await;
        let problem = answer.assert_problem(400, "invalid-request");
        let names: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["bogus", missing], "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_body_is_400_and_named_and_nothing_happens() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let gateway = Gateway::with_upstream(&upstream).await;
    let many: Vec<u64> = (1..=1001).collect();
    let halves = (&many[..600], &many[600..]);
    let long = "x".repeat(501);
    #[rustfmt::skip]
    let cases = [
        ("PATCH", "", vec!["body"]),
        ("PATCH", "{", vec!["body"]),
        ("PATCH", "[]", vec!["body"]),
        ("PATCH", "null", vec!["body"]),
        ("PATCH", r#"{"add":[1]} x"#, vec!["body"]),
        ("PATCH", "{}", vec!["add"]),
        ("PATCH", r#"{"add":[],"remove":[]}"#, vec!["add"]),
        ("PATCH", r#"{"add":1}"#, vec!["add"]),
        ("PATCH", r#"{"add":null}"#, vec!["add"]),
        ("PATCH", r#"{"add":["1"]}"#, vec!["add[0]"]),
        ("PATCH", r#"{"add":[1,0,-1,1.5,1e3,9007199254740992,99999999999999999999,null,9007199254740990.6,1e-1]}"#,
            vec!["add[1]", "add[2]", "add[3]", "add[5]", "add[6]", "add[7]", "add[8]", "add[9]"]),
        ("PATCH", r#"{"add":[1,1]}"#, vec!["add[1]"]),
        ("PATCH", r#"{"add":[1],"remove":[2,1]}"#, vec!["remove[1]"]),
        ("PATCH", r#"{"add":[1],"add":[2]}"#, vec!["add"]),
        ("PATCH", r#"{"add":[1],"colour":"blue"}"#, vec!["colour"]),
        ("PATCH", r#"{"add":[1],"reason":""}"#, vec!["reason"]),
        ("PATCH", r#"{"add":[1],"reason":"  "}"#, vec!["reason"]),
        ("PATCH", r#"{"add":[1],"reason":7}"#, vec!["reason"]),
        ("PATCH", &format!(r#"{{"add":[1],"reason":"{long}"}}"#), vec!["reason"]),
        ("PATCH", &json!({"add": many}).to_string(), vec!["add"]),
        ("PATCH", &json!({"add": halves.0, "remove": halves.1}).to_string(), vec!["body"]),
        ("PATCH", r#"{"add":[1],"accounts":[1],"reason":5}"#, vec!["reason", "accounts"]),
        ("PUT", "{}", vec!["accounts"]),
        ("PUT", r#"{"accounts":{}}"#, vec!["accounts"]),
        ("PUT", r#"{"accounts":[2,2]}"#, vec!["accounts[1]"]),
        ("PUT", r#"{"accounts":[1],"max_removals":-1}"#, vec!["max_removals"]),
        ("PUT", r#"{"accounts":[1],"max_removals":"1"}"#, vec!["max_removals"]),
        ("PUT", r#"{"accounts":[1],"max_removals":1.5}"#, vec!["max_removals"]),
        ("PUT", r#"{"accounts":[1],"add":[1]}"#, vec!["add"]),
    ];
    for (method, body, names) in cases {
        let request = gateway
            .sharer()
            .request(method, SHARES)
            .header("Content-Type", "application/json");
        let answer = Answer::of(request.body(body.to_owned())).await;
        let problem = answer.assert_problem(400, "invalid-request");
        let told: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["name"].as_str().unwrap())
            .collect();
        assert_eq!(told, names, "{body}");
        assert!(
            problem["errors"]
                .as_array()
                .unwrap()
                .iter()
                .all(|error| error["in"] == "body")
        );
        assert_eq!(
            (problem["effect"].as_str(), problem["retryable"].as_bool()),
            (Some("none"), Some(false))
        );
    }
    let everything = gateway
        .sharer()
        .request("PATCH", "/images/.x/shares?region=no&colour=blue");
    let answer = Answer::of(everything.json_body(&json!({"add": [0], "more": 1}))).await;
    let problem = answer.assert_problem(400, "invalid-request");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 5, "{problem}");

    for media_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json5"),
    ] {
        let mut request = gateway
            .sharer()
            .request("PATCH", SHARES)
            .body(r#"{"add":[1]}"#);
        if let Some(media_type) = media_type {
            request = request.header("Content-Type", media_type);
        }
        let problem = Answer::of(request)
            .await
            .assert_problem(415, "unsupported-media-type");
        assert_eq!(
            (problem["effect"].as_str(), problem["retryable"].as_bool()),
            (Some("none"), Some(false))
        );
    }
    let large = json!({"add": [1], "reason": "x".repeat(64 * 1024)}).to_string();
    let request = gateway
        .sharer()
        .request("PATCH", SHARES)
        .header("Content-Type", "application/json");
    Answer::of(request.body(large))
        .await
        .assert_problem(413, "payload-too-large");
    let request = gateway
        .sharer()
        .request("PATCH", SHARES)
        .header("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(Answer::of(request.body(r#"{"add":[1]}"#)).await.status, 200);
    assert_eq!(upstream.changes(), ["+1"], "only what was right");
    assert_eq!(gateway.events().await.len(), 1);
}
