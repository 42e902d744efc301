//! Who learns what: no answer names an account that its caller neither named nor may list.

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Reply, SECRET, Scripted, token_with};

/// Accounts that have access, and that nobody names.
const HIDDEN: [u64; 3] = [7_770_001, 7_770_002, 7_770_003];

/// May do nothing but what a policy lets it: share, and not see.
const BLIND: &str = r#"
@id("shares-blindly")
permit(principal in Group::"blind", action in [Action::"share", Action::"unshare"], resource);
"#;

fn caller(group: &str, scope: &str) -> String {
    let claims = json!({"sub": format!("of-{group}"), "scope": scope, "groups": [group]});
    token_with("test", SECRET, &claims)
}

async fn ask(
    gateway: &Gateway,
    token: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Answer {
    let mut request = gateway.with(token.to_owned()).request(method, path);
    if let Some(body) = body {
        let json = request.header("Content-Type", "application/json");
        request = json.body(body.to_string());
    }
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_names_an_account_that_its_caller_neither_named_nor_may_list() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policies.cedar");
    std::fs::write(&file, BLIND).unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    upstream.share("img", &HIDDEN);
    let policies = [("authorization.policy_file", file.to_str().unwrap())];
    let narrowed = Gateway::in_front_of(&upstream.url, &policies).await;
    let by_scopes = Gateway::with_upstream(&upstream).await;
    let callers = [
        (&narrowed, caller("nobody", "shares:write")),
        (&narrowed, caller("nobody", "shares:read shares:write")),
        (&narrowed, caller("blind", "shares:write")),
        (&narrowed, caller("blind", "shares:read shares:write")),
        (&by_scopes, caller("anybody", "shares:write")),
    ];
    let bodies = [
        ("PUT", json!({"accounts": [1]})),
        ("PUT", json!({"accounts": []})),
        ("PUT", json!({"accounts": [1], "max_removals": 1})),
        ("PUT", json!({"accounts": [], "max_removals": 1000})),
        ("PATCH", json!({"add": [1], "remove": [2]})),
    ];
    for (gateway, token) in &callers {
        for query in ["", "?dry_run=true"] {
            for (method, body) in &bodies {
                let path = format!("/images/img/shares{query}");
                let answer = ask(gateway, token, method, &path, Some(body)).await;
                assert_hides(&answer, &format!("{method} {body}{query}"));
                if *method == "PUT" {
                    assert_eq!(answer.status, 403, "{answer:?}");
                    assert_eq!(answer.json().get("results"), None, "{answer:?}");
                    let is_dry = !query.is_empty();
                    assert_eq!(answer.header("audit-id").is_none(), is_dry, "{answer:?}");
                }
            }
            for method in ["PUT", "DELETE", "GET"] {
                let query = if method == "GET" { "" } else { query };
                let path = format!("/images/img/shares/1{query}");
                assert_hides(&ask(gateway, token, method, &path, None).await, method);
            }
            let list = ask(gateway, token, "GET", "/images/img/shares", None).await;
            assert_eq!(list.status, 403, "{list:?}");
            assert_hides(&list, "GET");
        }
    }
    // Who may list is told.
    let lister = caller("anybody", "shares:read shares:write");
    let body = json!({"accounts": [1]});
    let told = ask(
        &by_scopes,
        &lister,
        "PUT",
        "/images/img/shares",
        Some(&body),
    )
    .await;
    told.assert_problem(409, "too-many-removals");
    let told = ask(&by_scopes, &lister, "GET", "/images/img/shares", None).await;
    assert!(told.body.contains("7770002"), "{told:?}");
}

#[track_caller]
fn assert_hides(answer: &Answer, about: &str) {
    let whole = format!("{:?} {}", answer.headers, answer.body);
    for account in HIDDEN {
        assert!(!whole.contains(&account.to_string()), "{about}: {answer:?}");
    }
    assert!(!whole.contains("would lose access"), "{about}: {answer:?}");
    assert_ne!(answer.status, 409, "{about}: {answer:?}");
}
