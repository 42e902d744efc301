//! The OpenAPI document, Swagger UI, probes and metrics.

use serde_json::Value;

use crate::support::{Gateway, binary};

fn committed() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json")).unwrap()
}

#[test]
fn the_committed_document_is_the_printed_one() {
    let printed = binary().arg("openapi").output().unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        printed == committed(),
        "run: cargo run -- openapi > openapi/openapi.json"
    );
}

#[test]
fn yaml_is_the_same_document() {
    let printed = binary()
        .args(["openapi", "--format", "yaml"])
        .output()
        .unwrap();
    let yaml = String::from_utf8(printed.stdout).unwrap();
    assert!(
        yaml.starts_with("openapi: \"3.1.0\""),
        "{}",
        &yaml[..yaml.len().min(80)]
    );
    for path in serde_json::from_str::<Value>(&committed()).unwrap()["paths"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(yaml.contains(path.as_str()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_every_route_with_an_example_for_each_status() {
    let gateway = Gateway::spawn().await;
    let document = gateway.nobody().get("/openapi.json").await.json();
    assert_eq!(
        document,
        serde_json::from_str::<Value>(&committed()).unwrap()
    );
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
    // What Swagger UI shows first.
    assert_eq!(document["tags"][0]["name"], "identity");
    let paths = document["paths"].as_object().unwrap();
    let expected = [
        "/audit/entries",
        "/audit/events",
        "/audit/events/{id}",
        "/audit/summary",
        "/images",
        "/images/{image_id}",
        "/images/{image_id}/shares",
        "/images/{image_id}/shares/{account_id}",
        "/livez",
        "/openapi.json",
        "/readyz",
        "/whoami",
    ];
    assert_eq!(
        paths.keys().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let about = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{about}");
            let open = ["/livez", "/readyz", "/openapi.json"].contains(&path.as_str());
            let bearer = &operation["security"][0]["bearer"];
            assert_eq!(bearer.is_array(), !open, "{about}");
            let needs_scope = !open && path != "/whoami";
            assert_eq!(bearer[0].is_string(), needs_scope, "{about}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let before = ["400", "401", "406", "408", "413", "415", "431"];
                let counts = !open && !before.contains(&status.as_str());
                let of_limit = &response["headers"]["RateLimit"];
                assert_eq!(of_limit.is_object(), counts, "{about} {status}");
                if matches!(status.as_str(), "204" | "307") {
                    continue;
                }
                for (media, content) in response["content"].as_object().unwrap() {
                    assert_eq!(
                        media == "application/problem+json",
                        status != "200" && path != "/readyz" || media.contains("problem"),
                        "{about} {status}"
                    );
                    let shown = !content["example"].is_null()
                        || content["examples"]
                            .as_object()
                            .is_some_and(|all| !all.is_empty());
                    assert!(shown, "{about} {status} has no example");
                }
            }
            // The route is there: whatever it answers, it is not `no such path` and not `no such method`.
            let real = path
                .replace("{image_id}", "img")
                .replace("{account_id}", "7")
                .replace("{id}", "x");
            let answer = gateway.nobody().send(&method.to_uppercase(), &real).await;
            assert!(!matches!(answer.status, 404 | 405), "{about}: {answer:?}");
        }
    }
    let change = &document["paths"]["/images/{image_id}/shares/{account_id}"]["put"]["responses"];
    let mut statuses: Vec<&str> = change
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [
            "200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "431", "500",
            "502", "503", "504"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn swagger_ui_is_served_from_the_program_and_names_no_other_host() {
    let gateway = Gateway::spawn().await;
    for path in ["/", "/swagger-ui"] {
        let answer = gateway.nobody().get(path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (307, Some("swagger-ui/")),
            "{path}"
        );
    }
    let index = gateway.nobody().get("/swagger-ui/").await;
    assert_eq!(index.status, 200);
    assert!(
        index
            .header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    let policy = index.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for asset in [
        "swagger-ui-bundle.js",
        "swagger-ui.css",
        "swagger-initializer.js",
    ] {
        assert_eq!(
            gateway
                .nobody()
                .get(&format!("/swagger-ui/{asset}"))
                .await
                .status,
            200,
            "{asset}"
        );
    }
    gateway
        .nobody()
        .get("/swagger-ui/nothing.js")
        .await
        .assert_problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_on_both_listeners_and_metrics_on_one() {
    let gateway = Gateway::spawn().await;
    for probe in ["/livez", "/readyz"] {
        assert_eq!(gateway.nobody().get(probe).await.status, 200, "{probe}");
        let admin = reqwest::get(format!("{}{probe}", gateway.admin_url()))
            .await
            .unwrap();
        assert_eq!(admin.status(), 200, "{probe}");
    }
    gateway
        .nobody()
        .get("/metrics")
        .await
        .assert_problem(404, "not-found");
    gateway.sharer().put("/images/img/shares/7").await;
    let metrics = gateway.metrics().await;
    for line in [
        r#"isg_sharing_changes_total{operation="share",outcome="succeeded"} 1"#,
        r#"isg_upstream_calls_total{action="ModifyCompShareImageShareAccount",result="answered"} 1"#,
        "isg_audit_chain_sequence 2",
        r#"route="/images/{image_id}/shares/{account_id}",status="200""#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_answers_as_get_does_without_a_body() {
    let gateway = Gateway::spawn().await;
    gateway.sharer().put("/images/img/shares/7").await;
    let caller = gateway.caller("shares:read audit:read");
    for path in [
        "/images/img/shares/7",
        "/images/img/shares",
        "/audit/events",
        "/openapi.json",
        "/livez",
        "/swagger-ui/",
    ] {
        let (get, head) = (caller.get(path).await, caller.send("HEAD", path).await);
        assert_eq!(
            (get.status, head.status, head.body.as_str()),
            (200, 200, ""),
            "{path}"
        );
        assert_eq!(
            get.header("content-type"),
            head.header("content-type"),
            "{path}"
        );
        assert_eq!(
            get.header("content-length"),
            head.header("content-length"),
            "{path}"
        );
    }
    assert_eq!(
        caller.send("HEAD", "/images/img/shares/8").await.status,
        404
    );
}
