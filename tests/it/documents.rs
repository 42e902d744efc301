//! Swagger UI, probes and metrics.

use crate::support::Gateway;

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
