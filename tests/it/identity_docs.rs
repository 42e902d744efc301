//! The pages under `docs/identity`: every configuration is loaded, every policy validated, and a token of the shape that the
//! page shows, signed by a key of the tests, passes through a gateway, while one that is a little other does not.

use std::path::Path;

use image_share_gateway::authorization::Policies;
use image_share_gateway::config::{Config, Sources};
use serde_json::{Value, json};

use crate::support::{Gateway, Reply, SECRET, Scripted, binary, set_of, token_with};

/// A page, the issuer's name in it, and claims that are not to pass in place of its own, each with the problem.
type Page = (
    &'static str,
    &'static str,
    &'static [(&'static str, Said, &'static str)],
);

/// What a claim says instead.
#[derive(Debug, Clone, Copy)]
enum Said {
    Text(&'static str),
    Texts(&'static [&'static str]),
    Truth(bool),
    Nothing,
}

impl Said {
    fn write(self, claims: &mut Value, claim: &str) {
        let value = match self {
            Self::Text(text) => json!(text),
            Self::Texts(texts) => json!(texts),
            Self::Truth(truth) => json!(truth),
            Self::Nothing => {
                claims.as_object_mut().unwrap().remove(claim);
                return;
            }
        };
        claims[claim] = value;
    }
}

use Said::{Nothing, Text, Texts, Truth};

const FORBIDDEN: &str = "forbidden";
const NO_SCOPE: &str = "insufficient-scope";

#[rustfmt::skip]
const PAGES: [Page; 9] = [
    ("keycloak", "", &[
        ("groups", Texts(&["/interns/vision", "vision"]), FORBIDDEN),
        ("azp", Text("account-console"), FORBIDDEN),
        ("scope", Text("openid"), NO_SCOPE),
    ]),
    ("entra-id", "entra", &[
        ("roles", Texts(&["Shares.Read"]), NO_SCOPE),
        ("roles", Nothing, NO_SCOPE),
        ("azp", Text("another"), FORBIDDEN),
        ("idtyp", Nothing, FORBIDDEN),
    ]),
    ("okta", "okta", &[
        ("groups", Texts(&["audio"]), FORBIDDEN),
        ("groups", Nothing, FORBIDDEN),
        ("scp", Texts(&["openid"]), NO_SCOPE),
    ]),
    ("auth0", "auth0", &[
        ("permissions", Texts(&[]), NO_SCOPE),
        ("https://company.example/groups", Nothing, FORBIDDEN),
    ]),
    ("ad-fs", "adfs", &[
        ("group", Texts(&["audio", "video"]), FORBIDDEN),
        ("scp", Text("openid"), NO_SCOPE),
    ]),
    ("google", "google", &[
        ("sub", Text("1"), FORBIDDEN),
        ("email", Text("other@vision-images.iam.gserviceaccount.com"), FORBIDDEN),
        ("email", Nothing, FORBIDDEN),
        ("email_verified", Truth(false), FORBIDDEN),
    ]),
    ("kubernetes", "pods", &[
        ("sub", Text("system:serviceaccount:audio:image-publisher"), FORBIDDEN),
        ("sub", Text("system:serviceaccount:vision:other"), FORBIDDEN),
    ]),
    ("github-actions", "github", &[
        ("repository", Text("acme/other"), FORBIDDEN),
        ("repository_id", Text("1"), FORBIDDEN),
        ("environment", Text("staging"), FORBIDDEN),
        ("environment", Nothing, FORBIDDEN),
    ]),
    ("gitlab-ci", "gitlab", &[
        ("project_path", Text("audio/images"), FORBIDDEN),
        ("project_id", Text("21"), FORBIDDEN),
        ("ref", Text("feature"), FORBIDDEN),
        ("ref_type", Text("tag"), FORBIDDEN),
        ("ref_protected", Text("false"), FORBIDDEN),
        ("ref_protected", Nothing, FORBIDDEN),
    ]),
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/identity")
}

/// The only block of a language on a page.
fn block(page: &str, language: &str) -> String {
    let text = std::fs::read_to_string(folder().join(format!("{page}.md"))).unwrap();
    let fence = format!("```{language}\n");
    let mut blocks = text.split(&fence).skip(1);
    let block = blocks
        .next()
        .unwrap_or_else(|| panic!("{page} has no {language}"));
    assert!(blocks.next().is_none(), "{page} has two of {language}");
    block.split("```").next().unwrap().to_owned()
}

/// What a page leaves to others, around its configuration.
fn whole(configuration: &str) -> String {
    let first =
        "[auth]\nissuer = \"https://first.example\"\naudience = \"a\"\njwks_file = \"keys.json\"\n";
    let upstream = "[upstream]\npublic_key = \"public\"\nprivate_key = \"private\"\n";
    let first = if configuration.contains("[auth]") {
        ""
    } else {
        first
    };
    format!("{upstream}{first}{configuration}")
}

fn load(configuration: &str) -> Config {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, configuration).unwrap();
    let sources = Sources {
        file: Some(file),
        ..Sources::default()
    };
    Config::load(&sources).unwrap_or_else(|faults| panic!("{:?}: {configuration}", faults.0))
}

#[test]
fn every_page_is_tested_and_named_by_the_first_one() {
    let index = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let mut pages: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    pages.sort();
    let mut tested: Vec<String> = PAGES
        .iter()
        .map(|(page, ..)| format!("{page}.md"))
        .collect();
    tested.sort();
    assert_eq!(pages, tested);
    for page in pages {
        assert!(index.contains(&format!("({page})")), "{page}");
    }
}

#[test]
fn every_configuration_is_right_and_all_of_them_are_right_together() {
    let mut together = String::new();
    for (page, name, _) in PAGES {
        let configuration = block(page, "toml");
        let auth = load(&whole(&configuration)).auth;
        let issuer = auth.issuers().last().unwrap();
        assert_eq!(
            issuer.name.as_ref().map_or("", |name| name.as_str()),
            name,
            "{page}"
        );
        let claims: Value = serde_json::from_str(&block(page, "json")).unwrap();
        assert_eq!(claims["iss"], issuer.iss.as_str(), "{page}");
        let of_auth = configuration.split("[authorization]").next().unwrap();
        together.push_str(of_auth);
    }
    together.push_str("[authorization]\npolicy_file = \"/etc/gateway/policies.cedar\"\n");
    let auth = load(&whole(&together)).auth;
    assert_eq!(auth.further.len(), PAGES.len() - 1);
    let policies: String = PAGES
        .iter()
        .map(|(page, ..)| block(page, "cedar").replace("@id(\"", &format!("@id(\"{page} ")))
        .collect();
    let policies = Policies::parse(&policies).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policies.warnings(), [""; 0]);
}

/// The blocks of `docs/identity/README.md` that name no language: a condition, and what a refused token is told.
#[test]
fn the_first_page_shows_a_condition_that_holds_and_a_refusal_as_it_is_told() {
    let text = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let bare: Vec<&str> = text
        .split("\n```\n")
        .enumerate()
        .filter_map(|(number, part)| (number % 2 == 1).then_some(part))
        .filter(|part| !part.starts_with("```"))
        .collect();
    let condition = bare.iter().find(|part| part.contains("hasTag")).unwrap();
    let policy = format!("permit (principal, action, resource) when {{ {condition} }};");
    let policies = Policies::parse(&policy).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(policies.warnings(), [""; 0]);

    let told = bare.iter().find(|part| part.contains("(iss)")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let configuration = "[auth]\nissuer = \"https://login.example.com\"\naudience = \"gateway\"\noidc_discovery = true\n";
    let token = token_with("k", SECRET, &json!({"iss": "https://login.example.com/"}));
    let checked = binary()
        .args(["policy", "check", "--method", "PUT"])
        .args(["--path", "/images/img/shares/7", "--token", &token])
        .args(["--config", &write("gateway.toml", configuration)])
        .args(["--policy", &write("policies.cedar", &policy)])
        .output()
        .unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(
        said,
        format!("deny: {told}\n"),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_as_the_pages_show_them_may_what_the_pages_say_and_others_may_not() {
    let upstream = Scripted::start(|_| Reply::Done).await;
    for (page, name, others) in PAGES {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(path("keys.json"), set_of("k", SECRET)).unwrap();
        std::fs::write(path("policies.cedar"), block(page, "cedar")).unwrap();
        // Its keys are the tests' own, and the first issuer reads claims as the page's does.
        let mut of_claims = String::new();
        let mut line = |line: &str| match line.split(" = ").next().unwrap_or_default() {
            "oidc_discovery" | "jwks_url" | "jwks_file" => {
                format!("jwks_file = \"{}\"\n", path("keys.json"))
            }
            "fetch_ca_file" | "fetch_token_file" | "policy_file" => String::new(),
            "scope_claims" | "scopes" | "groups_claim" | "policy_claims" => {
                of_claims = format!("{of_claims}{line}\n");
                format!("{line}\n")
            }
            _ => format!("{line}\n"),
        };
        let configuration: String = block(page, "toml").lines().map(&mut line).collect();
        let (file, keys) = (path("gateway.toml"), path("keys.json"));
        let all =
            whole(&configuration).replace("\"keys.json\"", &format!("\"{keys}\"\n{of_claims}"));
        std::fs::write(&file, all).unwrap();
        let policies = path("policies.cedar");
        let settings = [("authorization.policy_file", policies.as_str())];
        let gateway = Gateway::of_file(&file, &upstream.url, &settings).await;
        let mut claims: Value = serde_json::from_str(&block(page, "json")).unwrap();
        claims["exp"] = json!(jiff::Timestamp::now().as_second() + 600);
        let token = |claims: &Value| token_with("k", SECRET, claims);

        let who = gateway.with(token(&claims)).get("/whoami").await;
        assert_eq!(who.status, 200, "{page}: {who:?}");
        assert_eq!(who.json()["subject"], claims["sub"], "{page}");
        let put = gateway
            .with(token(&claims))
            .put("/images/vision-7/shares/100000001")
            .await;
        assert_eq!(put.status, 200, "{page}: {put:?}");
        let other_image = gateway
            .with(token(&claims))
            .put("/images/audio-7/shares/100000001")
            .await;
        other_image.assert_problem(403, "forbidden");
        for (claim, said, problem) in others {
            let mut other = claims.clone();
            said.write(&mut other, claim);
            let refused = gateway
                .with(token(&other))
                .put("/images/vision-7/shares/100000001")
                .await;
            assert_eq!(refused.status, 403, "{page}: {claim} {said:?}: {refused:?}");
            refused.assert_problem(403, problem);
        }
        let mut connection = gateway.connect().await;
        let row: (String, String, String) = sqlx::query_as(
            "SELECT subject, issuer, policy_ids FROM audit_log WHERE outcome = 'succeeded'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        assert_eq!(claims["sub"], row.0, "{page}");
        assert_eq!(claims["iss"], row.1, "{page}");
        assert!(row.2.len() > 4, "{page}: {}", row.2);
        // Where it may look is said by the page too.
        let looks = async |image: &str| {
            let path = format!("/images/{image}/shares");
            let answer = gateway.with(token(&claims)).get(&path).await;
            answer.status != 403
        };
        let looked = (looks("vision-7").await, looks("audio-7").await);
        assert_eq!(looked, (true, false), "{page}");
        // The page's policies are of its issuer: the same claims by another issuer, who may share, may nothing.
        let first = token_with("k", SECRET, &{
            let mut first = claims.clone();
            first["iss"] = json!("https://first.example");
            first["aud"] = json!("a");
            if first["scope"].is_null() {
                first["scope"] = json!("shares:read shares:write");
            }
            first
        });
        if !name.is_empty() {
            for (method, path) in [
                ("PUT", "/images/vision-7/shares/100000001"),
                ("GET", "/images/vision-7/shares"),
            ] {
                let refused = gateway.with(first.clone()).send(method, path).await;
                refused.assert_problem(403, "forbidden");
            }
        }
    }
}
