//! Where requests come from, as the trail and policies see it behind proxies.

use serde_json::Value;

use crate::support::{Answer, Gateway, Reply, Scripted};

/// Whoever is in the office may share; nobody else.
const OFFICE: &str = r#"
@id("from-the-office")
permit(principal, action, resource) when { context.client_ip.isInRange(ip("127.0.0.0/8")) };
"#;

async fn put(gateway: &Gateway, headers: &[(&str, &str)]) -> Answer {
    let mut request = gateway.sharer().request("PUT", "/images/img/shares/7");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_that_is_not_believed_erases_no_address() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let settings = [("server.trusted_proxies", "127.0.0.0/8")];
    let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
    // A proxy that writes X-Forwarded-For passes a caller's Forwarded on.
    for forged in ["for=6.6.6.6", "for=unknown", "garbage"] {
        let answer = put(
            &gateway,
            &[("X-Forwarded-For", "192.0.2.7"), ("Forwarded", forged)],
        )
        .await;
        assert_eq!(answer.status, 200, "{forged}: {answer:?}");
    }
    assert_eq!(
        put(&gateway, &[("Forwarded", "for=6.6.6.6")]).await.status,
        200
    );
    let addresses: Vec<Value> = gateway
        .events()
        .await
        .iter()
        .map(|event| event["client_ip"].clone())
        .collect();
    assert_eq!(
        addresses,
        ["192.0.2.7", "192.0.2.7", "192.0.2.7", "127.0.0.1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_400_and_never_the_proxys_own_address() {
    let directory = tempfile::tempdir().unwrap();
    let policies = directory.path().join("policies.cedar");
    std::fs::write(&policies, OFFICE).unwrap();
    let policies = policies.to_str().unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    for (header, name, good, bad) in [
        (
            "x-forwarded-for",
            "X-Forwarded-For",
            "192.0.2.7",
            ["unknown", "", "6.6.6.6, _hidden"],
        ),
        (
            "forwarded",
            "Forwarded",
            "for=192.0.2.7",
            ["for=unknown", "for=\"_hidden\"", "proto=https"],
        ),
    ] {
        let settings = [
            ("server.trusted_proxies", "127.0.0.0/8"),
            ("server.client_address_header", header),
            ("authorization.policy_file", policies),
        ];
        let gateway = Gateway::in_front_of(&upstream.url, &settings).await;
        for value in bad {
            let answer = put(&gateway, &[(name, value)]).await;
            let problem = answer.assert_problem(400, "invalid-request");
            let fault = &problem["errors"][0];
            assert_eq!(
                (&fault["in"], &fault["name"]),
                (&"header".into(), &name.into()),
                "{value}"
            );
        }
        put(&gateway, &[(name, good)])
            .await
            .assert_problem(403, "forbidden");
        assert_eq!(
            put(&gateway, &[]).await.status,
            200,
            "the proxy asks for itself"
        );
        let reader = gateway.auditor().request("GET", "/audit/events");
        let answer = Answer::of(reader).await.json();
        let events = answer["events"].as_array().unwrap();
        assert_eq!(events.len(), 2, "what is 400 writes nothing: {events:?}");
    }
}
