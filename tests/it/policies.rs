//! Policies through HTTP, the trail and the command line; the worked examples are those of docs/policies.md.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{Answer, Gateway, Reply, SECRET, Scripted, binary, token_with};

/// A worked example out of the documentation.
fn example(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page
        .split_once(&format!("<!-- policies: {name} -->\n```cedar\n"))
        .unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

struct World {
    gateway: Gateway,
    upstream: Scripted,
    _directory: tempfile::TempDir,
    file: std::path::PathBuf,
}

async fn world(policies: &str, settings: &[(&'static str, &str)]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policies.cedar");
    std::fs::write(&file, policies).unwrap();
    let upstream = Scripted::start(|call| {
        if call.action() == "DescribeCompShareCustomImages" {
            let images = ["vision-1", "audio-1", "vision-2"]
                .map(|id| json!({"CompShareImageId": id, "Name": id}));
            let action = "DescribeCompShareCustomImagesResponse";
            let body = json!({"Action": action, "RetCode": 0, "TotalCount": 3, "ImageSet": images});
            return Reply::Body(body.to_string());
        }
        Reply::Done
    })
    .await;
    let mut all = vec![("authorization.policy_file", file.to_str().unwrap())];
    all.extend(settings);
    let gateway = Gateway::in_front_of(&upstream.url, &all).await;
    World {
        gateway,
        upstream,
        _directory: directory,
        file,
    }
}

const ALL_SCOPES: &str = "shares:read shares:write audit:read";

fn member(group: &str) -> String {
    let claims = json!({"sub": format!("of-{group}"), "scope": ALL_SCOPES, "groups": [group]});
    token_with("test", SECRET, &claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_worked_example_gives_each_team_its_prefix_and_its_partners() {
    let world = world(&example("team-images"), &[]).await;
    let team = world.gateway.with(member("vision"));
    let allowed = "/images/vision-1/shares/100000001?reason=OPS-17";
    let answer = team.put(allowed).await;
    assert_eq!(answer.status, 200);
    for (path, ids) in [
        (
            "/images/vision-1/shares/100000001",
            json!(["sharing-needs-a-ticket"]),
        ),
        (
            "/images/vision-1/shares/100000001?reason=why",
            json!(["sharing-needs-a-ticket"]),
        ),
        ("/images/vision-1/shares/100000003?reason=OPS-17", json!([])),
        ("/images/audio-1/shares/100000001?reason=OPS-17", json!([])),
    ] {
        let refused = team.put(path).await;
        let problem = refused.assert_problem(403, "forbidden");
        assert_eq!(
            problem.get("policy_ids").cloned().unwrap_or(json!([])),
            ids,
            "{path}"
        );
        assert_eq!(problem["effect"], "none");
        let dry = path.to_owned() + if path.contains('?') { "&" } else { "?" } + "dry_run=true";
        team.put(&dry).await.assert_problem(403, "forbidden");
    }
    assert_eq!(
        team.delete("/images/vision-1/shares/100000003")
            .await
            .status,
        204
    );
    team.delete("/images/audio-1/shares/1")
        .await
        .assert_problem(403, "forbidden");
    assert_eq!(team.get("/images/vision-1/shares").await.status, 200);
    team.get("/images/audio-1/shares")
        .await
        .assert_problem(403, "forbidden");
    team.get("/images/audio-1")
        .await
        .assert_problem(403, "forbidden");
    team.get("/audit/events")
        .await
        .assert_problem(403, "forbidden");
    let list: Value = serde_json::from_str(&team.get("/images").await.body).unwrap();
    let names: Vec<&str> = list["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["image_id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["vision-1", "vision-2"], "others are not listed");
    let other = world.gateway.with(member("audio"));
    other.put(allowed).await.assert_problem(403, "forbidden");
    // Only a change that was allowed reached the upstream, and the trail says by what.
    assert_eq!(world.upstream.changes(), ["+100000001", "-100000003"]);
    let told = crate::support::eventually("all is in the trail", async || {
        let events = events(&world.gateway);
        (events.len() == 8).then_some(events)
    })
    .await;
    let decided: Vec<(String, Value)> = told
        .iter()
        .map(|event| {
            (
                event["outcome"].as_str().unwrap().to_owned(),
                event["policy_ids"].clone(),
            )
        })
        .collect();
    assert_eq!(
        decided[0],
        ("succeeded".into(), json!(["vision-shares-with-partners"]))
    );
    assert_eq!(
        decided[1],
        ("denied".into(), json!(["sharing-needs-a-ticket"]))
    );
    assert_eq!(decided[3], ("denied".into(), json!([])));
    assert_eq!(
        decided[5],
        ("succeeded".into(), json!(["vision-takes-back"]))
    );
}

/// Events oldest first, from the file: who may read the trail is for the policies to say.
fn events(gateway: &Gateway) -> Vec<Value> {
    let output = binary()
        .args(["audit", "export", "--order", "asc", "--database-url"])
        .arg(format!("sqlite://{}", gateway.database().display()))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_worked_example_lets_auditors_read_from_the_office_and_change_nothing() {
    let proxies = [("server.trusted_proxies", "127.0.0.1/32")];
    let world = world(&example("read-only-auditors"), &proxies).await;
    let auditor = world.gateway.with(member("auditors"));
    let from = async |address: &str, path: &str| {
        let request = auditor
            .request("GET", path)
            .header("X-Forwarded-For", address);
        Answer::of(request).await
    };
    assert_eq!(from("10.1.2.3", "/audit/events").await.status, 200);
    let problem = from("192.0.2.7", "/audit/events")
        .await
        .assert_problem(403, "forbidden");
    assert_eq!(problem["policy_ids"], json!(["trail-from-the-office"]));
    assert_eq!(from("192.0.2.7", "/images/img/shares").await.status, 200);
    let problem = auditor
        .put("/images/img/shares/7")
        .await
        .assert_problem(403, "forbidden");
    assert_eq!(problem["policy_ids"], json!(["auditors-change-nothing"]));
    let dry = auditor.put("/images/img/shares/7?dry_run=true").await;
    dry.assert_problem(403, "forbidden");
    assert_eq!(world.upstream.changes(), Vec::<String>::new());
    assert_eq!(
        world.upstream.calls().len(),
        1,
        "a dry run that is refused asks the upstream nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_bulk_policies_decide_account_by_account() {
    let world = world(&example("team-images"), &[]).await;
    let team = world.gateway.with(member("vision"));
    let bulk = async |body: Value| {
        let request = team.request("PATCH", "/images/vision-1/shares");
        let request = request.header("Content-Type", "application/json");
        Answer::of(request.body(body.to_string())).await
    };
    let mixed = bulk(json!({"add": [100_000_001, 7], "remove": [8], "reason": "OPS-1"})).await;
    assert_eq!(mixed.status, 200);
    let results: Value = serde_json::from_str(&mixed.body).unwrap();
    let outcomes: Vec<&str> = results["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["succeeded", "denied", "succeeded"]);
    let denied = bulk(json!({"add": [7, 9], "reason": "OPS-1"})).await;
    let problem = denied.assert_problem(403, "forbidden");
    assert_eq!(problem["results"].as_array().unwrap().len(), 2);
    assert_eq!(world.upstream.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_change_nothing_learns_nothing_of_a_list_by_replacing_it() {
    let world = world(&example("team-images"), &[]).await;
    let team = world.gateway.with(member("vision"));
    let shared = team
        .put("/images/vision-1/shares/100000001?reason=OPS-1")
        .await;
    assert_eq!(shared.status, 200);
    let other = world.gateway.with(member("audio"));
    let replace = async |path: &str, accounts: Value| {
        let request = other
            .request("PUT", path)
            .header("Content-Type", "application/json");
        let body = json!({"accounts": accounts, "reason": "OPS-2"});
        Answer::of(request.body(body.to_string())).await
    };
    let path = "/images/vision-1/shares";
    let dry = "/images/vision-1/shares?dry_run=true";
    for accounts in [json!([]), json!([7]), json!([100_000_001])] {
        for path in [path, dry] {
            let refused = replace(path, accounts.clone()).await;
            refused.assert_problem(403, "forbidden");
        }
    }
    assert_eq!(world.upstream.list("vision-1"), [100_000_001]);
    let all = events(&world.gateway);
    let denied: Vec<&Value> = all
        .iter()
        .filter(|event| event["outcome"] == "denied")
        .collect();
    assert_eq!(denied.len(), 3, "one a request, but none of a dry run");
    assert!(
        denied
            .iter()
            .all(|event| event["operation"] == "update" && event["account_id"].is_null())
    );
    assert_eq!(
        world.upstream.calls().len(),
        1,
        "what is refused costs no call"
    );
}

/// Lists may be replaced by whoever may also read them; what is refused of it stands in few rows, and its answer names
/// nobody whom its caller neither named nor may list.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_replaces_a_list_may_list_it_and_what_is_denied_of_it_stands_in_few_rows() {
    let policies = r#"
        @id("anybody-lists") permit (principal, action == Action::"listShares", resource);
        @id("some-shares") permit (principal, action == Action::"share", resource)
            when { context.account_id > 100 };
        @id("some-removals") permit (principal, action == Action::"unshare", resource)
            when { context.account_id == 11 };
        @id("not-this") forbid (principal, action == Action::"listShares", resource == Image::"secret");
    "#;
    let world = world(policies, &[]).await;
    for image in ["img", "secret", "quiet"] {
        world.upstream.share(image, &[11, 12, 13]);
    }
    let send = async |scope: &str, path: &str, body: Value| {
        let claims = json!({"sub": "team", "scope": scope});
        let caller = world.gateway.with(token_with("test", SECRET, &claims));
        let request = caller
            .request("PUT", path)
            .header("Content-Type", "application/json");
        Answer::of(request.body(body.to_string())).await
    };
    let both = "shares:read shares:write";
    let all = json!({"accounts": [101], "max_removals": 1000});
    // Neither with a token that may not read, nor by a policy that forbids it, dry or not.
    for dry in ["", "?dry_run=true"] {
        let path = |image: &str| format!("/images/{image}/shares{dry}");
        for (scope, image, slug) in [
            ("shares:write", "img", "insufficient-scope"),
            ("shares:read", "img", "insufficient-scope"),
            (both, "secret", "forbidden"),
        ] {
            let refused = send(scope, &path(image), all.clone()).await;
            let problem = refused.assert_problem(403, slug);
            assert_eq!(problem.get("results"), None);
            assert_eq!(problem["audit_id"].is_string(), dry.is_empty());
            for account in ["11", "12", "13"] {
                assert!(
                    !refused.body.contains(&format!(":{account},")),
                    "{}",
                    refused.body
                );
            }
        }
        // Nothing of what is named may be shared, and nothing may be removed: no call.
        let refused = send(both, &path("quiet"), json!({"accounts": [7, 8]})).await;
        let problem = refused.assert_problem(403, "forbidden");
        assert_eq!(problem["results"].as_array().unwrap().len(), 2);
    }
    assert_eq!(world.upstream.calls(), []);
    let before = events(&world.gateway);
    assert_eq!(
        before.len(),
        3 + 2,
        "one a request, and one for each account that was named"
    );
    let answer = send(both, "/images/img/shares", all).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told: Vec<String> = answer.json()["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| {
            format!(
                "{} {}",
                result["account_id"],
                result["outcome"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        ["101 succeeded", "11 succeeded", "12 denied", "13 denied"]
    );
    assert_eq!(world.upstream.list("img"), [12, 13, 101]);
    let of_removals: Vec<Value> = answer.json()["results"].as_array().unwrap()[2..]
        .iter()
        .map(|result| result["audit_id"].clone())
        .collect();
    assert_eq!(of_removals[0], of_removals[1], "they stand together");
    let after = events(&world.gateway);
    assert_eq!(after.len(), before.len() + 3);
    let update = after
        .iter()
        .find(|event| event["id"] == of_removals[0])
        .unwrap();
    assert_eq!(
        (update["operation"].as_str(), update["account_id"].is_null()),
        (Some("update"), true)
    );
    let detail = update["detail"].as_str().unwrap();
    assert!(detail.contains("12, 13"), "{detail}");
    // All of it denied: 403 with what it named, and what it would remove, which it may list.
    let refused = send(
        both,
        "/images/img/shares",
        json!({"accounts": [7], "max_removals": 1000}),
    )
    .await;
    let problem = refused.assert_problem(403, "forbidden");
    assert_eq!(problem["results"].as_array().unwrap().len(), 4);
    assert_eq!(events(&world.gateway).len(), after.len() + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_new_policies_and_a_broken_file_keeps_the_old_ones_and_says_so() {
    let world = world("permit (principal, action, resource);", &[]).await;
    let auditor = world.gateway.auditor();
    assert_eq!(auditor.get("/audit/events").await.status, 200);
    for broken in [
        "permit (",
        "permit (principal, action == Action::\"destroy\", resource);",
    ] {
        std::fs::write(&world.file, broken).unwrap();
        let faults = world.gateway.reload().await.unwrap_err();
        assert!(
            faults[0].contains("authorization.policy_file"),
            "{faults:?}"
        );
        assert!(faults[0].contains("line 1"), "{faults:?}");
        assert_eq!(auditor.get("/audit/events").await.status, 200);
    }
    std::fs::write(
        &world.file,
        "@id(\"closed\") forbid (principal, action, resource);",
    )
    .unwrap();
    world.gateway.reload().await.unwrap();
    let problem = auditor
        .get("/audit/events")
        .await
        .assert_problem(403, "forbidden");
    assert_eq!(problem["policy_ids"], json!(["closed"]));
}

fn check(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = binary();
    command
        .current_dir(directory)
        .args(["policy", "check", "--policy", "policies.cedar"]);
    command.args(arguments).output().unwrap()
}

#[test]
fn policy_check_says_allow_or_deny_and_why_without_a_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "policies.cedar",
        &(example("team-images") + &example("read-only-auditors")),
    );
    write(
        "team.json",
        r#"{"sub":"t","scope":"shares:read shares:write","groups":["vision"]}"#,
    );
    write(
        "auditor.json",
        r#"{"sub":"a","scope":"audit:read shares:write","groups":"auditors"}"#,
    );
    let partner = "/images/vision-1/shares/100000001?reason=OPS-17";
    #[rustfmt::skip]
    let cases: [(&[&str], i32, &str); 12] = [
        (&["--claims", "team.json", "--method", "PUT", "--path", partner],
            0, "allow: permitted by vision-shares-with-partners"),
        (&["--claims", "team.json", "--method", "put", "--path", "/images/vision-1/shares/100000001"],
            1, "deny: forbidden by sharing-needs-a-ticket"),
        (&["--claims", "team.json", "--method", "PUT", "--path", "/images/x/shares/7?reason=OPS-1"],
            1, "deny: no policy permits it"),
        (&["--claims", "team.json", "--method", "DELETE", "--path", "/images/vision-1/shares/7"],
            0, "allow: permitted by vision-takes-back"),
        (&["--claims", "team.json", "--method", "GET", "--path", "/images/vision-1/shares?region=cn-sh2"],
            0, "allow: permitted by vision-takes-back"),
        (&["--claims", "team.json", "--method", "GET", "--path", "/audit/events"],
            1, "deny: the token lacks the scope audit:read"),
        (&["--claims", "auditor.json", "--method", "GET", "--path", "/audit/events"],
            1, "deny: forbidden by trail-from-the-office"),
        (&["--claims", "auditor.json", "--method", "GET", "--path", "/audit/events", "--client-ip", "10.0.0.1"],
            0, "allow: permitted by auditors-read"),
        (&["--claims", "auditor.json", "--method", "PUT", "--path", partner],
            1, "deny: forbidden by auditors-change-nothing"),
        (&["--claims", "team.json", "--method", "PATCH", "--path", "/images/vision-1/shares"], 2, ""),
        (&["--claims", "team.json", "--method", "PUT", "--path", "/images/vision-1/shares/0"], 2, ""),
        (&["--claims", "missing.json", "--method", "PUT", "--path", partner], 2, ""),
    ];
    for (arguments, code, line) in cases {
        let output = check(directory.path(), arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert_eq!(said.trim_end(), line, "{arguments:?}");
        assert_eq!(
            output.stderr.is_empty(),
            code != 2,
            "{arguments:?}: {output:?}"
        );
    }
    // A token is read and not verified.
    let token = token_with(
        "nobody",
        b"whatever it was signed with it is",
        &json!({"scope": "shares:write", "groups": ["vision"]}),
    );
    let signed = check(
        directory.path(),
        &["--token", &token, "--method", "PUT", "--path", partner],
    );
    assert_eq!(signed.status.code(), Some(0), "{signed:?}");
    for bad in ["x", "a.b.c", "e30.e30.", "e30.e30.x"] {
        let output = check(
            directory.path(),
            &["--token", bad, "--method", "PUT", "--path", partner],
        );
        assert_eq!(output.status.code(), Some(2), "{bad}: {output:?}");
    }
    write(
        "policies.cedar",
        "permit (principal, action, resource) when { context.acount == 1 };",
    );
    let faulty = check(
        directory.path(),
        &["--token", &token, "--method", "PUT", "--path", partner],
    );
    assert_eq!(faulty.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&faulty.stderr).contains("line 1"),
        "{faulty:?}"
    );
}

#[test]
fn policy_check_reads_a_token_as_its_issuers_table_says_and_says_which_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "policies.cedar",
        r#"
        @id("pipelines") permit (principal in Group::"ci:makers", action == Action::"share", resource)
        when { principal.hasTag("environment") && principal.getTag("environment") == "production" };
        @id("people") permit (principal in Group::"makers", action, resource);
        "#,
    );
    // No key is fetched, and no file of keys is read.
    write(
        "gateway.toml",
        r#"
        [auth]
        issuer = "https://login.example"
        audience = "gateway"
        oidc_discovery = true
        scopes = {"Makers" = ["shares:read", "shares:write"]}
        [[auth.issuers]]
        name = "ci"
        issuer = "https://ci.example"
        audience = "gateway"
        jwks_file = "/nowhere/keys.json"
        grant = ["shares:write"]
        policy_claims = ["environment"]
        [authorization]
        policy_file = "/nowhere/policies.cedar"
        "#,
    );
    let path = "/images/img/shares/7";
    let said = |claims: &Value, path: &str, method: &str| {
        let token = token_with("k", SECRET, claims);
        let arguments = [
            "--config",
            "gateway.toml",
            "--token",
            &token,
            "--method",
            method,
            "--path",
            path,
        ];
        let output = check(directory.path(), &arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), said)
    };
    let ci = |more: &Value| {
        let mut claims = json!({"iss": "https://ci.example", "groups": ["makers"]});
        claims
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        claims
    };
    let of_ci = "issuer: https://ci.example (auth.issuers.ci)\n";
    let of_first = "issuer: https://login.example (auth)\n";
    let first = |more: &Value| {
        let mut claims = ci(more);
        claims["iss"] = json!("https://login.example");
        claims
    };
    let production = ci(&json!({"environment": "production"}));
    for (claims, method, path, expected) in [
        (production.clone(), "PUT", path, (0, format!("allow: permitted by pipelines\n{of_ci}"))),
        (ci(&json!({"environment": "test"})), "PUT", path, (1, format!("deny: no policy permits it\n{of_ci}"))),
        (production.clone(), "DELETE", path, (1, format!("deny: no policy permits it\n{of_ci}"))),
        (first(&json!({"scope": "Makers"})), "PUT", path, (0, format!("allow: permitted by people\n{of_first}"))),
        (first(&json!({})), "PUT", path, (1, format!("deny: the token lacks the scope shares:write\n{of_first}"))),
        (production.clone(), "GET", "/whoami", (0, format!("allow: any good token may ask this\n{of_ci}"))),
        (first(&json!({"sub": "ci:x", "scope": "Makers"})), "PUT", path,
            (1, "deny: the token's claim sub begins as the subjects of the issuer ci do; sub: expected nothing that \
                begins with `ci:`, got `ci:x`\n".to_owned())),
        (json!({"iss": "https://ci.example/"}), "PUT", path,
            (1, "deny: the token's issuer (iss) is not accepted; issuer: expected one of `https://login.example`, \
                `https://ci.example`, got `https://ci.example/`\n".to_owned())),
    ] {
        assert_eq!(said(&claims, path, method), expected, "{claims} {method} {path}");
    }
    // What needs no token is for everybody, and a token names its issuer.
    let foreign = json!({"iss": "https://nobody.example"});
    let open = (0, "allow: this needs no token\n".to_owned());
    assert_eq!(said(&foreign, "/livez", "GET"), open);
    assert_eq!(said(&json!({"iss": ""}), path, "PUT").0, 2);
    write(
        "claims.json",
        r#"{"sub": "x", "scope": "Makers", "groups": "makers"}"#,
    );
    let arguments = [
        "--config",
        "gateway.toml",
        "--claims",
        "claims.json",
        "--method",
        "PUT",
        "--path",
        path,
    ];
    let output = check(directory.path(), &arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        format!("allow: permitted by people\n{of_first}"),
        "who names none is the first one's"
    );
    // One that says nothing of issuers is one without.
    write(
        "gateway.toml",
        "[auth]\nleeway = \"10s\"\n[upstream]\nregion = \"cn-sh2\"",
    );
    let output = check(directory.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // Another configuration is held to what it says of issuers.
    write(
        "gateway.toml",
        "[auth]\nissuer = \"x\"\n[[auth.issuers]]\nname = \"ci\"",
    );
    let output = check(directory.path(), &arguments);
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("auth.audience") && told.contains("auth.issuers.ci.issuer"),
        "{told}"
    );
}
