//! The OpenAPI document: whole, the same wherever it is had, and with what people need of it.

use serde_json::{Map, Value};

use crate::support::{Answer, Gateway, binary, committed_document, resolved};

const OPEN: [&str; 6] = [
    "/livez",
    "/readyz",
    "/openapi.json",
    "/openapi.yaml",
    "/problems",
    "/problems/{slug}",
];

/// One that has the regions of the defaults.
async fn default_region_gateway() -> Gateway {
    let regions = [("upstream.regions", "cn-wlcb")];
    Gateway::in_front_of("http://127.0.0.1:9", &regions).await
}

fn printed(format: &str) -> String {
    let printed = binary()
        .args(["openapi", "--format", format])
        .output()
        .unwrap();
    assert!(printed.status.success());
    String::from_utf8(printed.stdout).unwrap()
}

#[test]
fn the_committed_document_is_the_printed_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let (printed, committed) = (printed("json"), std::fs::read_to_string(path).unwrap());
    if std::env::var_os("ISG_TEST_BLESS").is_some() {
        std::fs::write(path, printed).unwrap();
        return;
    }
    assert!(
        printed == committed,
        "run: cargo run -- openapi > openapi/openapi.json"
    );
}

/// Read by a reader of YAML 1.1 (the tests' Python), for which `12:30:00`, `2026-01-31` and `no` are no texts.
#[tokio::test(flavor = "multi_thread")]
async fn yaml_is_the_same_document_for_readers_of_yaml_1_1_and_1_2() {
    let gateway = default_region_gateway().await;
    let served = gateway.nobody().get("/openapi.yaml").await;
    assert_eq!(served.header("content-type"), Some("application/yaml"));
    assert_eq!(served.body, printed("yaml"));
    let as_1_2: Value = serde_saphyr::from_str(&served.body).unwrap();
    assert_eq!(as_1_2, committed_document());
    let read = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let as_1_1 = crate::support::python_with(&["-c", read], &served.body);
    assert_eq!(
        serde_json::from_str::<Value>(&as_1_1).unwrap(),
        committed_document()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_tells_every_route_with_an_example_for_each_status() {
    let gateway = default_region_gateway().await;
    let document = gateway.nobody().get("/openapi.json").await.json();
    assert_eq!(document, committed_document());
    assert_eq!(document["openapi"], "3.1.0");
    let scheme = &document["components"]["securitySchemes"]["bearer"];
    assert_eq!(scheme["scheme"], "bearer");
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
        "/openapi.yaml",
        "/problems",
        "/problems/{slug}",
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
            assert!(operation["description"].is_string(), "{about}");
            let open = OPEN.contains(&path.as_str());
            assert_eq!(
                operation["security"][0]["bearer"].is_array(),
                !open,
                "{about}"
            );
            let needs_scope = !open && path != "/whoami";
            assert_eq!(operation["x-scopes"][0].is_string(), needs_scope, "{about}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolved(&document, response);
                check_answer(&document, path, status, response, &about);
            }
            // The route is there: whatever it answers, it is not `no such path` and not `no such method`.
            let real = path
                .replace("{image_id}", "img")
                .replace("{account_id}", "7")
                .replace("{slug}", "not-found")
                .replace("{id}", "x");
            let answer = gateway.nobody().send(&method.to_uppercase(), &real).await;
            assert!(!matches!(answer.status, 404 | 405), "{about}: {answer:?}");
        }
    }
}

fn check_answer(document: &Value, path: &str, status: &str, response: &Value, about: &str) {
    let open = OPEN.contains(&path);
    let headers = response["headers"].as_object().unwrap();
    let has = |name: &str| headers.contains_key(name);
    assert!(has("X-Request-Id"), "{about} {status}");
    if status == "304" {
        assert!(has("ETag"), "{about}");
        return;
    }
    let before = ["400", "401", "406", "408", "413", "415", "431"];
    // Whether a cursor is one of this trail is looked at late.
    let late = path == "/audit/entries" && status == "400";
    let counts = !open && (late || !before.contains(&status));
    assert_eq!(has("RateLimit"), counts, "{about} {status}");
    assert_eq!(has("RateLimit-Policy"), counts, "{about} {status}");
    assert_eq!(
        has("WWW-Authenticate"),
        matches!(status, "401" | "403"),
        "{about} {status}"
    );
    assert_eq!(
        has("Retry-After"),
        matches!(status, "429" | "503") && !open,
        "{about} {status}"
    );
    for header in headers.values() {
        assert!(
            resolved(document, header)["description"].is_string(),
            "{about} {status}"
        );
    }
    if status == "204" {
        return;
    }
    for (media, content) in response["content"].as_object().unwrap() {
        let is_problem = status != "200" && path != "/readyz" || media.contains("problem");
        assert_eq!(
            media == "application/problem+json",
            is_problem,
            "{about} {status}"
        );
        let shown = content["examples"]
            .as_object()
            .filter(|all| !all.is_empty());
        assert!(
            !content["example"].is_null() || shown.is_some(),
            "{about} {status} has no example"
        );
        for example in shown.into_iter().flat_map(Map::values) {
            let problem = &resolved(document, example)["value"];
            assert_eq!(problem["status"].to_string(), status, "{about} {problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_serves_its_own_regions_and_address() {
    let changes = [
        ("upstream.regions", "cn-wlcb, cn-sh2"),
        ("upstream.region", "cn-sh2"),
        ("server.public_url", "https://images.example.com/gateway"),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &changes).await;
    let document = gateway.nobody().get("/openapi.json").await.json();
    let region = &document["components"]["schemas"]["Region"];
    assert_eq!(region["enum"], serde_json::json!(["cn-wlcb", "cn-sh2"]));
    assert_eq!(region["default"], "cn-sh2");
    assert_eq!(
        document["servers"][0]["url"],
        "https://images.example.com/gateway"
    );
    let of_path = |path: &str| {
        let parameters = document["paths"][path]["get"]["parameters"]
            .as_array()
            .unwrap();
        let all = parameters
            .iter()
            .map(|parameter| resolved(&document, parameter));
        all.clone()
            .find(|parameter| parameter["name"] == "region")
            .cloned()
    };
    for path in ["/images", "/images/{image_id}", "/images/{image_id}/shares"] {
        let parameter = of_path(path).unwrap();
        assert_eq!(
            resolved(&document, &parameter["schema"])["default"],
            "cn-sh2",
            "{path}"
        );
    }
}

/// Everything in the document that has few values says which.
#[test]
fn words_are_enums_and_every_reference_leads_somewhere() {
    let document = committed_document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for word in [
        "ChangeOperation",
        "EventOperation",
        "ChangeOutcome",
        "ChangeEffect",
        "EntryKind",
        "ShareOrigin",
        "EventOrder",
        "SummaryBucket",
        "RequestPart",
        "Region",
    ] {
        assert!(schemas[word]["enum"].is_array(), "{word}");
    }
    let mut seen = 0;
    walk(&document, &mut |value| {
        if let Some(reference) = value["$ref"].as_str() {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            seen += 1;
        }
    });
    assert!(seen > 100);
}

/// What the table of routes says of scopes is what the routes do: with all that are named an operation is allowed, with one
/// less it is not.
#[tokio::test(flavor = "multi_thread")]
async fn each_operation_needs_the_scopes_that_it_names_and_no_others() {
    let gateway = Gateway::spawn().await;
    let share = "/images/compshareImage-sandbox1/shares/12345";
    gateway.sharer().put(share).await;
    let mut seen = 0;
    for (path, item) in committed_document()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scopes = operation["x-scopes"].as_array();
            let scopes: Vec<&str> = scopes
                .into_iter()
                .flatten()
                .map(|scope| scope.as_str().unwrap())
                .collect();
            let real = path
                .replace("{image_id}", "compshareImage-sandbox1")
                .replace("{account_id}", "12345")
                .replace("{slug}", "not-found")
                .replace("{id}", "019ab3c4-d5e6-7f00-8123-456789abcdef");
            let body = match (method.as_str(), path.ends_with("/shares")) {
                ("put", true) => r#"{"accounts":[12345],"max_removals":9}"#,
                ("patch", _) => r#"{"add":[12345]}"#,
                _ => "",
            };
            let ask = async |scope: &str| {
                let request = gateway.caller(scope).request(&method.to_uppercase(), &real);
                let request = request.header("Content-Type", "application/json");
                Answer::of(request.body(body)).await.status
            };
            let about = format!("{method} {path} {scopes:?}");
            assert_ne!(ask(&scopes.join(" ")).await, 403, "{about}");
            for missing in &scopes {
                let rest: Vec<&str> = scopes
                    .iter()
                    .filter(|scope| *scope != missing)
                    .copied()
                    .collect();
                assert_eq!(ask(&rest.join(" ")).await, 403, "{about} without {missing}");
                seen += 1;
            }
        }
    }
    assert!(seen > 12, "{seen}");
}

#[test]
fn descriptions_are_sentences_without_holes() {
    let document = committed_document();
    let mut seen = 0;
    walk(&document, &mut |value| {
        if let Some(text) = value["description"].as_str() {
            assert!(!text.contains("  ") && !text.trim().is_empty(), "{text}");
            seen += 1;
        }
    });
    assert!(seen > 200, "{seen}");
}

fn walk(value: &Value, see: &mut impl FnMut(&Value)) {
    see(value);
    match value {
        Value::Object(members) => members.values().for_each(|member| walk(member, see)),
        Value::Array(items) => items.iter().for_each(|item| walk(item, see)),
        _ => {}
    }
}
