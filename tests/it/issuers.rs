//! Several issuers at once: each with its own keys, audience and claims, and none that passes for another.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    Answer, Gateway, ISSUER, KeyAnswer, KeyServer, Program, Reply, Scripted, environment,
    eventually, set_of, token_with,
};

/// An issuer of the tests: its name here, its `iss`, its audience and its secret, whose `kid` all have in common.
struct Of {
    name: &'static str,
    iss: &'static str,
    audience: &'static str,
    secret: &'static [u8],
}

const KID: &str = "shared";
/// The first has no name. The second differs from it by a slash, the last two by their audience.
const ISSUERS: [Of; 4] = [
    Of {
        name: "",
        iss: ISSUER,
        audience: "image-share-gateway",
        secret: b"the first issuer's secret, which is long enough",
    },
    Of {
        name: "slash",
        iss: "https://issuer.example/",
        audience: "image-share-gateway",
        secret: b"the second issuer's secret, which is long enough",
    },
    Of {
        name: "ci",
        iss: "https://ci.example",
        audience: "gateway-for-pipelines",
        secret: b"the third issuer's secret, which is long enough",
    },
    Of {
        name: "pods",
        iss: "https://pods.example",
        audience: "gateway-for-pods",
        secret: b"the fourth issuer's secret, which is long enough",
    },
];
const SCOPES: &str = "shares:read shares:write audit:read";

impl Of {
    /// A token of it with these claims besides what every token needs.
    fn token(&self, more: &Value) -> String {
        self.signed(more, self.secret)
    }

    fn signed(&self, more: &Value, secret: &[u8]) -> String {
        let mut claims = json!({"iss": self.iss, "aud": self.audience, "scope": SCOPES});
        let members = claims.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        token_with(KID, secret, &claims)
    }
}

/// Further issuers as TOML writes them in one line; `keys` are the lines of their key sources, by place.
fn tables(keys: &[String], more: &str) -> String {
    let tables = ISSUERS.iter().zip(keys).skip(1).map(|(of, keys)| {
        let Of {
            name,
            iss,
            audience,
            ..
        } = of;
        format!(r#"{{name = "{name}", issuer = "{iss}", audience = "{audience}", {keys}{more}}}"#)
    });
    format!("[{}]", tables.collect::<Vec<_>>().join(", "))
}

struct World {
    gateway: Gateway,
    directory: tempfile::TempDir,
}

/// A gateway that trusts all of them, their keys in files.
async fn world(url: &str, more: &str, settings: &[(&'static str, &str)]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let file = |of: &Of| {
        let path = directory.path().join(format!("keys-{}.json", of.name));
        std::fs::write(&path, set_of(KID, of.secret)).unwrap();
        path.display().to_string()
    };
    let files: Vec<String> = ISSUERS.iter().map(file).collect();
    let keys: Vec<String> = files
        .iter()
        .map(|path| format!("jwks_file = \"{path}\""))
        .collect();
    let tables = tables(&keys, more);
    let mut all = vec![
        ("auth.jwks_file", files[0].as_str()),
        ("auth.issuers", tables.as_str()),
    ];
    all.extend(settings);
    let gateway = Gateway::in_front_of(url, &all).await;
    World { gateway, directory }
}

const NOWHERE: &str = "http://127.0.0.1:9";

async fn whoami(gateway: &Gateway, token: String) -> Answer {
    gateway.with(token).get("/whoami").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_by_the_keys_and_the_audience_of_its_own_issuer_alone() {
    let world = world(NOWHERE, "", &[]).await;
    let gateway = &world.gateway;
    for of in &ISSUERS {
        let who = whoami(gateway, of.token(&json!({}))).await;
        assert_eq!(who.status, 200, "{}: {who:?}", of.name);
        assert_eq!(
            (&who.json()["issuer"], &who.json()["subject"]),
            (&of.iss.into(), &"team-a".into())
        );
        let other_iss = match of.iss.strip_suffix('/') {
            Some(without) => format!("{without}//"),
            None => format!("{}/x", of.iss),
        };
        let mut attacks = vec![
            ("another iss", of.token(&json!({"iss": other_iss}))),
            (
                "iss in upper case",
                of.token(&json!({"iss": of.iss.to_uppercase()})),
            ),
            ("no iss", of.token(&json!({"iss": null}))),
            ("another audience", of.token(&json!({"aud": "another"}))),
            ("expired", of.token(&json!({"exp": 1_700_000_000}))),
            (
                "the gateway itself",
                of.token(&json!({"sub": "system:reconcile"})),
            ),
            (
                "the gateway itself, later",
                of.token(&json!({"sub": "system:expiry"})),
            ),
            ("a control character", of.token(&json!({"sub": "a\nb"}))),
            (
                "nobody's key",
                of.signed(&json!({}), b"a secret that is nobody's, and long enough"),
            ),
            ("no algorithm", unsigned(of)),
            (
                "nothing but claims",
                format!("{}..", of.token(&json!({})).split('.').nth(1).unwrap()),
            ),
        ];
        // A trailing slash more or less is another issuer, whose key this is not.
        let slash = match of.iss.strip_suffix('/') {
            Some(without) => without.to_owned(),
            None => format!("{}/", of.iss),
        };
        attacks.push(("a slash more or less", of.token(&json!({"iss": slash}))));
        for other in ISSUERS.iter().filter(|other| other.iss != of.iss) {
            attacks.push((
                "signed with another's key of this kid",
                of.signed(&json!({}), other.secret),
            ));
            attacks.push((
                "said to be another's",
                of.token(&json!({"iss": other.iss, "aud": other.audience})),
            ));
            if other.audience != of.audience {
                attacks.push((
                    "another's audience",
                    of.token(&json!({"aud": other.audience})),
                ));
            }
        }
        for (what, token) in attacks {
            let refused = whoami(gateway, token).await;
            assert_eq!(refused.status, 401, "{}: {what}: {refused:?}", of.name);
            let challenge = refused.header("www-authenticate").unwrap();
            assert!(challenge.contains("invalid_token"), "{what}: {challenge}");
        }
        let both = of.token(&json!({"aud": ["another", of.audience]}));
        assert_eq!(
            whoami(gateway, both).await.status,
            200,
            "an audience of several"
        );
    }
    assert!(
        gateway.reader_of(&ISSUERS[0]).await.is_empty(),
        "the trail stays untouched"
    );
}

/// Whoever says `none`.
fn unsigned(of: &Of) -> String {
    use base64::Engine as _;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let token = of.token(&json!({}));
    format!("{header}.{}.", token.split('.').nth(1).unwrap())
}

impl Gateway {
    /// All events, as somebody of this issuer sees them.
    async fn reader_of(&self, of: &Of) -> Vec<Value> {
        let answer = self
            .with(of.token(&json!({})))
            .get("/audit/events?order=asc")
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["events"].as_array().unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subject_of_two_issuers_shares_nothing() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    let directory = tempfile::tempdir().unwrap();
    let policies = directory.path().join("policies.cedar");
    let text = r#"
        @id("first") permit (principal == Subject::"team-a", action, resource)
        when { principal.subject == "team-a" && principal in Group::"makers" };
        @id("pipelines") permit (principal == Subject::"ci:team-a", action, resource)
        when { principal.subject == "team-a" && principal in Group::"ci:makers" && principal.issuer == "https://ci.example" };
    "#;
    std::fs::write(&policies, text).unwrap();
    let settings = [
        ("authorization.policy_file", policies.to_str().unwrap()),
        ("limits.requests_per_second", "0.001"),
        ("limits.burst", "3"),
    ];
    let world = world(&upstream.url, "", &settings).await;
    let gateway = &world.gateway;
    let [first, _, ci, pods] = &ISSUERS;
    let claims = json!({"groups": ["makers"]});
    let mut seen = BTreeMap::new();
    for (of, status) in [(first, 200), (ci, 200), (pods, 403)] {
        // Whoever is limited at one issuer is not at another.
        for left in [2, 1, 0] {
            let answer = gateway
                .with(of.token(&claims))
                .put("/images/img/shares/7")
                .await;
            assert_eq!(answer.status, status, "{}: {answer:?}", of.name);
            let limit = answer.header("ratelimit").unwrap();
            assert!(
                limit.starts_with(&format!(r#""subject";r={left};t="#)),
                "{limit}"
            );
            let id = answer.header("audit-id").unwrap().to_owned();
            seen.insert(id, of);
        }
        let limited = gateway
            .with(of.token(&claims))
            .put("/images/img/shares/7")
            .await;
        limited.assert_problem(429, "rate-limited");
    }
    let mut connection = gateway.connect().await;
    for (id, of) in seen {
        let row: (String, String, String) =
            sqlx::query_as("SELECT subject, issuer, policy_ids FROM audit_log WHERE id = ?")
                .bind(&id)
                .fetch_one(&mut connection)
                .await
                .unwrap();
        let policy = match of.name {
            "" => r#"["first"]"#,
            "ci" => r#"["pipelines"]"#,
            _ => "[]",
        };
        assert_eq!(
            row,
            ("team-a".to_owned(), of.iss.to_owned(), policy.to_owned())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_of_the_first_issuer_takes_a_name_or_a_group_of_another() {
    let world = world(NOWHERE, "", &[]).await;
    let gateway = &world.gateway;
    let [first, _, ci, pods] = &ISSUERS;
    for subject in ["ci:team-a", "pods:x", "slash:"] {
        let token = first.token(&json!({"sub": subject}));
        let refused = whoami(gateway, token).await;
        let problem = refused.assert_problem(401, "unauthenticated");
        assert!(
            problem["detail"].as_str().unwrap().contains("sub"),
            "{problem}"
        );
        let own = whoami(gateway, pods.token(&json!({"sub": subject}))).await;
        assert_eq!(own.status, 200, "of a further issuer it says nothing");
        assert_eq!(own.json()["subject"], subject);
    }
    let groups = json!({"groups": ["ci:makers", "makers", "pods:x", "cix:y"]});
    let told = whoami(gateway, first.token(&groups)).await.json();
    assert_eq!(told["groups"], json!(["cix:y", "makers"]));
    let told = whoami(gateway, ci.token(&groups)).await.json();
    assert_eq!(told["groups"].as_array().unwrap().len(), 4);
    // Kubernetes' service accounts are none of the gateway's own.
    for of in &ISSUERS {
        let token = of.token(&json!({"sub": "system:serviceaccount:vision:publisher"}));
        assert_eq!(whoami(gateway, token).await.status, 200, "{}", of.name);
    }
}

/// A gateway that trusts all of them, their keys at these servers.
async fn with_servers(servers: &[KeyServer]) -> Gateway {
    let key_source = |server: &KeyServer| format!("jwks_url = \"{}\"", server.url);
    let keys: Vec<String> = servers.iter().map(key_source).collect();
    let tables = tables(&keys, "");
    let settings = [
        ("auth.jwks_url", servers[0].url.as_str()),
        ("auth.issuers", tables.as_str()),
    ];
    Gateway::with_keys_from(&settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_makes_only_its_own_tokens_wait() {
    let mut servers = Vec::new();
    for _ in &ISSUERS {
        servers.push(KeyServer::start(KeyAnswer::Close).await);
    }
    let gateway = with_servers(&servers).await;
    let status = async |of: &Of| whoami(&gateway, of.token(&json!({}))).await.status;
    for of in &ISSUERS {
        let answer = whoami(&gateway, of.token(&json!({}))).await;
        answer.assert_problem(503, "keys-unavailable");
        assert!(answer.header("retry-after").is_some());
        let other = of.token(&json!({"aud": "another"}));
        assert_eq!(
            whoami(&gateway, other).await.status,
            401,
            "good by no keys whatever"
        );
    }
    assert_eq!(gateway.readiness().await.status, 503);
    // One of the further issuers comes first.
    servers[2].answers(KeyAnswer::Body(
        set_of(KID, ISSUERS[2].secret),
        "max-age=60",
    ));
    let ready = eventually("one is enough", async || {
        let ready = gateway.readiness().await;
        (ready.status == 200).then_some(ready)
    })
    .await;
    let checks = ready.json()["checks"].as_array().unwrap().clone();
    let auth = checks.iter().find(|check| check["name"] == "auth").unwrap();
    let detail = auth["detail"].as_str().unwrap();
    for part in [
        format!("auth: no keys of {}", servers[0].url),
        format!("auth.issuers.slash: no keys of {}", servers[1].url),
        format!("auth.issuers.ci: keys of {}/, read ", servers[2].url),
        format!("auth.issuers.pods: no keys of {}", servers[3].url),
    ] {
        assert!(detail.contains(&part), "{part}: {detail}");
    }
    for (of, expected) in ISSUERS.iter().zip([503, 503, 200, 503]) {
        assert_eq!(status(of).await, expected, "{}", of.name);
    }
    for (of, server) in ISSUERS.iter().zip(&servers) {
        server.answers(KeyAnswer::Body(set_of(KID, of.secret), "max-age=60"));
    }
    gateway.reload_keys().await;
    for of in &ISSUERS {
        assert_eq!(status(of).await, 200, "{}", of.name);
    }
    // Away again, its last good set works on, and nobody else notices.
    servers[1].answers(KeyAnswer::Hang);
    servers[3].answers(KeyAnswer::Status(500));
    gateway.reload_keys().await;
    for of in &ISSUERS {
        let again = of.token(&json!({"jti": "again"}));
        assert_eq!(whoami(&gateway, again).await.status, 200, "{}", of.name);
    }
    let detail = gateway.readiness().await.body;
    assert!(
        detail.contains("auth.issuers.pods: keys of") && detail.contains("500"),
        "{detail}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_asked_for_at_its_own_issuer_alone() {
    let mut servers = Vec::new();
    for of in &ISSUERS {
        servers
            .push(KeyServer::start(KeyAnswer::Body(set_of(KID, of.secret), "max-age=3600")).await);
    }
    let gateway = with_servers(&servers).await;
    for of in &ISSUERS {
        eventually("its keys are read", async || {
            (whoami(&gateway, of.token(&json!({}))).await.status == 200).then_some(())
        })
        .await;
    }
    let asked = || -> Vec<usize> { servers.iter().map(KeyServer::asked).collect() };
    let before = asked();
    let of = &ISSUERS[2];
    let unknown = token_with(
        "unknown",
        of.secret,
        &json!({"iss": of.iss, "aud": of.audience}),
    );
    assert_eq!(whoami(&gateway, unknown).await.status, 401);
    let after: Vec<usize> = asked()
        .iter()
        .zip(&before)
        .map(|(now, then)| now - then)
        .collect();
    assert_eq!(after, [0, 0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_mean_what_each_issuers_table_says() {
    let directory = tempfile::tempdir().unwrap();
    let policies = directory.path().join("policies.cedar");
    let text = r#"
        @id("production") permit (principal, action == Action::"listShares", resource)
        when {
            principal.hasTag("environment") && principal.getTag("environment") == "production" &&
            principal.hasTag("run") && principal.getTag("run") == "17" &&
            principal.hasTag("protected") && principal.getTag("protected") == "true"
        };
    "#;
    std::fs::write(&policies, text).unwrap();
    let upstream = Scripted::start(|_| Reply::Done).await;
    let more = r#", grant = ["shares:read"], scope_claims = ["roles"], scopes = {"Auditor" = ["audit:read"]},
        groups_claim = "teams", policy_claims = ["environment", "run", "protected", "list", "absent"]"#;
    let settings = [("authorization.policy_file", policies.to_str().unwrap())];
    let world = world(&upstream.url, &more.replace('\n', " "), &settings).await;
    let gateway = &world.gateway;
    let claims = json!({
        "scope": "shares:write", "roles": ["Auditor", "x"], "groups": ["a"], "teams": "b", "jti": "t-1",
        "environment": "production", "run": 17, "protected": true, "list": ["x"], "exp": 4_070_908_800_u64,
    });
    let of = &ISSUERS[2];
    let told = whoami(gateway, of.token(&claims)).await;
    let expected = json!({
        "subject": "team-a", "issuer": of.iss, "token_id": "t-1", "scopes": ["audit:read", "shares:read", "x"],
        "groups": ["b"], "claims": {"environment": "production", "run": "17", "protected": "true"},
        "expires_at": "2099-01-01T00:00:00.000Z",
    });
    let mut got = told.json();
    let expires_at = got["expires_at"].as_str().unwrap().to_owned();
    assert!(
        expires_at.starts_with("2099-01-01T00:00:00") && expires_at.ends_with('Z'),
        "{expires_at}"
    );
    got["expires_at"] = expected["expires_at"].clone();
    assert_eq!(got, expected);
    // The first issuer's table is another.
    let told = whoami(gateway, ISSUERS[0].token(&claims)).await.json();
    assert_eq!(
        (&told["scopes"], &told["groups"], &told["claims"]),
        (&json!(["shares:write"]), &json!(["a"]), &json!({}))
    );
    let list = async |claims: &Value| {
        gateway
            .with(of.token(claims))
            .get("/images/img/shares")
            .await
            .status
    };
    assert_ne!(list(&claims).await, 403);
    for (claim, value) in [
        ("environment", json!("test")),
        ("run", json!("17 ")),
        ("protected", json!(false)),
        ("run", json!(17.0)),
    ] {
        let mut other = claims.clone();
        other[claim] = value;
        assert_eq!(list(&other).await, 403, "{claim}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_every_issuers_file_or_none_and_trusts_nobody_new() {
    let world = world(NOWHERE, "", &[]).await;
    let gateway = &world.gateway;
    let file = |of: &Of| {
        world
            .directory
            .path()
            .join(format!("keys-{}.json", of.name))
    };
    let new = b"a new secret of somebody, which is long enough";
    let good = async |of: &Of, secret: &[u8]| {
        whoami(gateway, of.signed(&json!({}), secret)).await.status == 200
    };
    for of in &ISSUERS {
        assert!(good(of, of.secret).await);
        std::fs::write(file(of), set_of(KID, new)).unwrap();
    }
    std::fs::write(file(&ISSUERS[3]), "{}").unwrap();
    let faults = gateway.reload().await.unwrap_err();
    assert!(
        faults[0].starts_with("auth.issuers.pods.jwks_file"),
        "{faults:?}"
    );
    for of in &ISSUERS {
        assert!(
            good(of, of.secret).await && !good(of, new).await,
            "{}",
            of.name
        );
    }
    std::fs::write(file(&ISSUERS[3]), set_of(KID, new)).unwrap();
    gateway.reload().await.unwrap();
    for of in &ISSUERS {
        assert!(
            !good(of, of.secret).await && good(of, new).await,
            "{}",
            of.name
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_whose_policies_are_gone_keeps_them_and_reads_all_else_though_issuers_grant() {
    let directory = tempfile::tempdir().unwrap();
    let policies = directory.path().join("policies.cedar");
    std::fs::write(&policies, "permit (principal, action, resource);").unwrap();
    let settings = [("authorization.policy_file", policies.to_str().unwrap())];
    let mut world = world(NOWHERE, r#", grant = ["audit:read"]"#, &settings).await;
    let of = &ISSUERS[2];
    let new = b"a new secret of somebody, which is long enough";
    let path = world.directory.path().join("keys-ci.json");
    std::fs::write(path, set_of(KID, new)).unwrap();
    world.gateway.forget("authorization.policy_file");
    world.gateway.reload().await.unwrap();
    let token = of.signed(&json!({"scope": ""}), new);
    let answer = world.gateway.with(token).get("/audit/events").await;
    assert_eq!(
        answer.status, 200,
        "its key is read, and the policies stand: {answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_slow_holds_up_no_policies_at_a_reload() {
    let of = &ISSUERS[2];
    let set = KeyAnswer::Body(set_of(KID, of.secret), "max-age=3600");
    let server = KeyServer::start(set.clone()).await;
    let directory = tempfile::tempdir().unwrap();
    let policies = directory.path().join("policies.cedar");
    std::fs::write(&policies, "permit (principal, action, resource);").unwrap();
    let keys = directory.path().join("keys.json");
    std::fs::write(&keys, set_of(KID, ISSUERS[0].secret)).unwrap();
    let tables = format!(
        r#"[{{name = "ci", issuer = "{}", audience = "{}", jwks_url = "{}"}}]"#,
        of.iss, of.audience, server.url
    );
    let settings = [
        ("auth.jwks_file", keys.to_str().unwrap()),
        ("auth.issuers", &tables),
        ("authorization.policy_file", policies.to_str().unwrap()),
    ];
    let gateway = Gateway::in_front_of(NOWHERE, &settings).await;
    let status = async || {
        let caller = gateway.with(ISSUERS[0].token(&json!({})));
        caller.get("/audit/events").await.status
    };
    assert_eq!(status().await, 200);
    std::fs::write(&policies, "forbid (principal, action, resource);").unwrap();
    let held = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    server.answers(KeyAnswer::Held(std::sync::Arc::clone(&held), Box::new(set)));
    let in_force = async {
        eventually("the policies are in force", async || {
            (status().await == 403).then_some(())
        })
        .await;
        held.add_permits(2);
    };
    let (reloaded, ()) = tokio::join!(gateway.reload(), in_force);
    reloaded.unwrap();
}

/// The program with the first issuer and a further one, `ci`, that lets so many authentications a minute fail.
fn served(failures: &str) -> (tempfile::TempDir, Program) {
    let directory = tempfile::tempdir().unwrap();
    let set = set_of(KID, ISSUERS[0].secret);
    std::fs::write(directory.path().join("keys.json"), set).unwrap();
    let tables =
        r#"[{name="ci", issuer="https://ci.example", audience="a", jwks_file="keys.json"}]"#;
    let mut variables = environment(NOWHERE);
    variables.extend([
        ("ISG__LIMITS__FAILED_AUTHENTICATIONS_PER_MINUTE", failures),
        ("ISG__AUTH__ISSUERS", tables),
    ]);
    let program = Program::spawn(directory.path(), &["serve"], &variables);
    (directory, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_limit_of_failures_the_log_still_says_why() {
    let of = &ISSUERS[0];
    let (_directory, program) = served("1");
    let base_url = program.base_url().await;
    let client = crate::support::client();
    for status in [401, 429] {
        let token = of.token(&json!({"iss": "https://issuer.example/"}));
        let get = client.get(format!("{base_url}/whoami")).bearer_auth(token);
        assert_eq!(get.send().await.unwrap().status(), status);
    }
    let line = eventually("its line", async || {
        let log = program.log();
        let line = log.lines().find(|line| line.contains("rate-limited"));
        line.map(str::to_owned)
    })
    .await;
    let logged: Value = serde_json::from_str(&line).unwrap();
    let why = logged["why"].as_str().unwrap();
    assert!(
        why.contains("from this address failed; ") && why.contains("got `https://issuer.example/`"),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_was_expected_and_what_came_and_never_a_token() {
    let of = &ISSUERS[0];
    let (directory, program) = served("0");
    let base_url = program.base_url().await;
    let large = "x".repeat(9000);
    let claims = json!({"iss": of.iss, "aud": of.audience, "sub": "s", "exp": 4_070_908_800_u64});
    let nested = of.token(&json!({}));
    let raw = |header: &str| {
        use base64::Engine as _;
        let base64 = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", base64(header), base64(&claims.to_string()));
        let key = jsonwebtoken::EncodingKey::from_secret(of.secret);
        let by = jsonwebtoken::Algorithm::HS256;
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, by).unwrap();
        format!("{message}.{signature}")
    };
    let cases = [
        (of.token(&json!({"iss": "https://ci.example/"})), "issuer (iss)",
            "issuer: expected one of `https://issuer.example`, `https://ci.example`, got `https://ci.example/`".to_owned()),
        (of.token(&json!({"iss": &large})), "issuer", "got `xxxxxxxx".to_owned()),
        (of.token(&json!({"iss": "a\nb\u{1b}[31m"})), "issuer", r"got `a\nb\u{1b}[31m`".to_owned()),
        (of.token(&json!({"iss": "eyAiYWxnIjoiSFMyNTYiIH0.eyAic3ViIjoiYSIgfQ.c2ln"})), "issuer",
            "got what looks like a token".to_owned()),
        (of.token(&json!({"sub": "system:expiry"})), "claim sub", "got `system:expiry`".to_owned()),
        (of.token(&json!({"jti": "a\u{7}"})), "claim jti", r"jti: expected no control character, got `a\u{7}`".to_owned()),
        (of.token(&json!({"exp": "4000000000"})), "claim exp", "`exp`: expected a number, got the text `4000000000`".to_owned()),
        (raw(r#"{"alg":"HS256","kid":"shared","crit":["exp"]}"#), "crit", "crit: expected no such member, got the array `[\"exp\"]`".to_owned()),
        (raw(r#"{"alg":"HS256","kid":5}"#), "kid", "kid: expected text, got the number `5`".to_owned()),
        (raw(r#"{"kid":"shared"}"#), "alg", "alg: expected text, got nothing".to_owned()),
        (raw(r#"{"alg":"HS256","alg":"none"}"#), "`alg` twice", "the token holds `alg` twice".to_owned()),
        (of.token(&json!({"iss": nested})), "issuer", "got what looks like a token".to_owned()),
        (of.token(&json!({"aud": ["one", "two"]})), "audience (aud)",
            "audience: expected `image-share-gateway`, got `one`, `two`".to_owned()),
        (of.token(&json!({"exp": 1_700_000_000})), "expired (exp)", "exp: expected after 20".to_owned()),
        (of.token(&json!({"exp": 1_700_000_000})), "expired (exp)", "Z, got 2023-11-14T22:13:20".to_owned()),
        (of.token(&json!({"nbf": 4_000_000_000_u64})), "not valid yet (nbf)", "nbf: expected 20".to_owned()),
        (of.token(&json!({"sub": 7})), "claim sub", "`sub`: expected text, got the number `7`".to_owned()),
        (of.token(&json!({"scope": {"a": 1}})), "claim scope", "`scope`: expected a text or an array of texts, got an object".to_owned()),
        (of.token(&json!({"sub": "ci:x"})), "claim sub", "sub: expected nothing that begins with `ci:`, got `ci:x`".to_owned()),
        (raw(r#"{"alg":"HS256","kid":"other"}"#), "kid",
            "kid: expected one of `shared`, got `other`".to_owned()),
        (raw(r#"{"alg":"HS256","kid":"shared","typ":"logout+jwt"}"#), "typ",
            "typ: expected `JWT` or `at+jwt`, got `logout+jwt`".to_owned()),
        (unsigned(of), "alg", "alg: expected HS256, ".to_owned()),
        (of.signed(&json!({}), b"a secret that is nobody's, and long enough"), "signature",
            "signature: expected that of the key `shared`, got another".to_owned()),
    ];
    let client = crate::support::client();
    for (token, member, words) in cases {
        let before = program.log().len();
        let get = client.get(format!("{base_url}/whoami")).bearer_auth(&token);
        let answer = Answer::of(get).await;
        let problem = answer.assert_problem(401, "unauthenticated");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(member), "{member}: {detail}");
        assert!(
            !detail.contains("expected"),
            "its holder is told no more: {detail}"
        );
        let line = eventually("its line", async || {
            let log = program.log();
            let lines: Vec<&str> = log[before..]
                .lines()
                .filter(|line| line.contains("answered"))
                .collect();
            lines.first().map(|line| (*line).to_owned())
        })
        .await;
        let logged: Value = serde_json::from_str(&line).unwrap();
        let why = logged["why"].as_str().unwrap();
        assert!(why.contains(&words), "{words}: {why}");
        assert!(
            line.len() < 2000 && !why.contains(char::is_control),
            "{line}"
        );
        let signature = token.rsplit('.').next().unwrap_or_default();
        assert!(signature.is_empty() || !line.contains(signature), "{line}");
        assert!(!line.contains(&token), "{line}");
    }
    drop(program);
    let trail = directory.path().join("data/audit.db");
    assert!(trail.exists());
    let url = format!("sqlite://{}", trail.display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    let rows: (i64,) = sqlx::query_as("SELECT count(*) FROM audit_entries")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(rows.0, 0, "the trail stays untouched");
}
