//! The trail through REST.

use serde_json::Value;

use crate::support::Gateway;

async fn with_changes() -> Gateway {
    let gateway = Gateway::spawn().await;
    for number in 1..=9 {
        gateway
            .sharer()
            .put(&format!("/images/img-{}/shares/{number}", number % 2))
            .await;
    }
    gateway
        .sharer()
        .put("/images/img-0/shares/9000000000000000")
        .await;
    gateway
        .caller("audit:read")
        .put("/images/img-0/shares/5")
        .await;
    gateway
}

fn ids(page: &Value) -> Vec<String> {
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_by_cursor_and_by_link() {
    let gateway = with_changes().await;
    let all = ids(&gateway.auditor().get("/audit/events").await.json());
    assert_eq!(all.len(), 11);
    let mut descending = all.clone();
    descending.sort();
    descending.reverse();
    assert_eq!(all, descending, "newest first");

    let (mut by_link, mut path) = (
        Vec::new(),
        "/audit/events?limit=4&operation=share".to_owned(),
    );
    loop {
        let answer = gateway.auditor().get(&path).await;
        by_link.extend(ids(&answer.json()));
        let Some(link) = answer.header("link") else {
            assert!(answer.json()["next_cursor"].is_null());
            break;
        };
        let next = link
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(r#">; rel="next""#))
            .unwrap();
        assert!(
            next.contains(answer.json()["next_cursor"].as_str().unwrap()),
            "{link}"
        );
        assert!(
            next.starts_with('?'),
            "relative to what was asked for: {link}"
        );
        path = format!("/audit/events{next}");
    }
    assert_eq!(by_link, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_query_is_refused() {
    let gateway = with_changes().await;
    let page = gateway
        .auditor()
        .get("/audit/events?limit=2&image_id=img-1")
        .await
        .json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let same = gateway
        .auditor()
        .get(&format!(
            "/audit/events?limit=7&image_id=img-1&cursor={cursor}"
        ))
        .await;
    assert_eq!(same.status, 200, "another limit is the same query");
    for other in [
        "",
        "&image_id=img-0",
        "&image_id=img-1&order=asc",
        "&image_id=img-1&outcome=failed",
    ] {
        let answer = gateway
            .auditor()
            .get(&format!("/audit/events?cursor={cursor}{other}"))
            .await;
        assert_eq!(
            answer.assert_problem(400, "invalid-request")["errors"][0]["name"],
            "cursor",
            "{other}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_the_page() {
    let gateway = with_changes().await;
    let count = async |query: &str| {
        ids(&gateway
            .auditor()
            .get(&format!("/audit/events?{query}"))
            .await
            .json())
        .len()
    };
    assert_eq!(count("image_id=img-1").await, 5);
    assert_eq!(count("account_id=5").await, 2);
    assert_eq!(count("outcome=succeeded").await, 9);
    assert_eq!(count("outcome=invalid_account").await, 1);
    assert_eq!(count("outcome=denied").await, 1);
    assert_eq!(count("outcome=pending").await, 0);
    assert_eq!(count("operation=unshare").await, 0);
    assert_eq!(count("operation=update").await, 0);
    assert_eq!(count("subject=team-a").await, 11);
    assert_eq!(count("subject=team-b").await, 0);
    assert_eq!(
        count("from=2000-01-01T00:00:00Z&to=2001-01-01T00:00:00Z").await,
        0
    );
    assert_eq!(count("from=2000-01-01T00:00:00%2B08:00").await, 11);
    assert_eq!(count("image_id=img-0&outcome=succeeded&order=asc").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_filters_are_named_together() {
    let gateway = Gateway::spawn().await;
    let query = "from=yesterday&to=2026-01-01&subject=&image_id=-&account_id=0&operation=steal&outcome=fine\
        &request_id=a&request_id=b&limit=1001&cursor=x&order=up&colour=blue";
    let answer = gateway
        .auditor()
        .get(&format!("/audit/events?{query}"))
        .await;
    let problem = answer.assert_problem(400, "invalid-request");
    let mut names: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    let expected = [
        "account_id",
        "colour",
        "cursor",
        "from",
        "image_id",
        "limit",
        "operation",
        "order",
        "outcome",
        "request_id",
        "subject",
        "to",
    ];
    assert_eq!(names, expected);
    for limit in ["0", "-1", "+5", "1e2", "05", "99999999999999999999"] {
        gateway
            .auditor()
            .get(&format!("/audit/events?limit={limit}"))
            .await
            .assert_problem(400, "invalid-request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_shows_its_rows_and_verification_ends_at_the_last() {
    let gateway = with_changes().await;
    let all = gateway.events().await;
    let id = all[0]["id"].as_str().unwrap();
    let event = gateway
        .auditor()
        .get(&format!("/audit/events/{id}"))
        .await
        .json();
    let entries = event["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (entries[0]["kind"].as_str(), entries[1]["kind"].as_str()),
        (Some("intent"), Some("outcome"))
    );
    for entry in entries {
        assert_eq!(entry["chain_id"], "main");
        assert_eq!(entry["hash"].as_str().unwrap().len(), 64);
        assert!(entry["recorded_at"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(event["completed_at"], entries[1]["recorded_at"]);
    let mut listed = event.clone();
    listed.as_object_mut().unwrap().remove("entries");
    assert_eq!(listed, all[0], "list and single view tell the same");

    let denied = all.last().unwrap()["id"].as_str().unwrap();
    let denied = gateway
        .auditor()
        .get(&format!("/audit/events/{denied}"))
        .await
        .json();
    assert_eq!(denied["entries"].as_array().unwrap().len(), 1);
    let last = &denied["entries"][0];
    let report = image_share_gateway::audit::verify(&gateway.database(), &[])
        .await
        .unwrap();
    let image_share_gateway::audit::Report::Intact(Some(head)) = report else {
        panic!("{report:?}")
    };
    assert_eq!(
        (last["sequence"].as_i64(), last["hash"].as_str()),
        (Some(head.sequence), Some(head.hash.to_string().as_str()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_names_no_event_is_404() {
    let gateway = Gateway::spawn().await;
    for id in [
        "no-uuid",
        "019ab3c4-d5e6-7f00-8123-456789abcdef",
        "019ab3c4d5e67f008123456789abcdef",
        "%2F",
    ] {
        gateway
            .auditor()
            .get(&format!("/audit/events/{id}"))
            .await
            .assert_problem(404, "not-found");
    }
    gateway
        .auditor()
        .get("/audit/events/x?colour=blue")
        .await
        .assert_problem(400, "invalid-request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_every_member_of_the_contract_null_or_not() {
    let gateway = with_changes().await;
    let members = [
        "account_id",
        "client_ip",
        "completed_at",
        "detail",
        "duration_ms",
        "expires_at",
        "http_status",
        "id",
        "image_id",
        "issuer",
        "occurred_at",
        "operation",
        "outcome",
        "policy_ids",
        "reason",
        "region",
        "request_id",
        "subject",
        "token_id",
        "trace_id",
        "upstream_calls",
        "upstream_request_id",
        "upstream_ret_code",
        "user_agent",
    ];
    for event in gateway.events().await {
        let found: Vec<&str> = event
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut found = found;
        found.sort_unstable();
        assert_eq!(found, members);
    }
}
