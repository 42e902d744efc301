//! The OpenAPI document before those who judge documents, and clients that are made of it.
//!
//! A document for a client is that of a gateway that knows its own address, since a client has to.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Answer, Gateway, beside_python, committed_document, node_modules, printed, python, said, token,
};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
const EVERYTHING: &str = "shares:read shares:write audit:read";
/// What OpenAPI Generator says of every document of this version.
const OF_THE_VERSION: &str = "OpenAPI 3.1 support is still in beta";

/// What every client prints of the same twelve steps.
const TWELVE_STEPS: &str = "\
1 whoami: team-a
2 dry run: would change
3 share: shared
4 list: 12345 gateway
5 bulk: 2 succeeded
6 event: succeeded, 2 rows
7 page: 2 events, more
8 cursor: 3 events
9 stream: 6 rows
10 problem: /problems/invalid-account none not again
11 invalid: path image_id
12 unshare: 204 /problems/not-found
";

/// A program of the tests' npm packages, which tells nobody of it.
fn of_node(name: &str) -> Command {
    let mut command = Command::new(node_modules().join(".bin").join(name));
    command
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn spectral_redocly_and_the_specifications_validator_find_nothing() {
    let mut spectral = of_node("spectral");
    let ruleset = format!("{FILES}/spectral.yaml");
    spectral.args([
        "lint",
        DOCUMENT,
        "--ruleset",
        &ruleset,
        "--fail-severity",
        "hint",
    ]);
    let told = said(spectral).await;
    assert!(told.contains("No results"), "{told}");

    // One that a gateway of other regions serves.
    let elsewhere = [
        ("upstream.regions", "cn-sh2, hk"),
        ("upstream.region", "hk"),
    ];
    let gateway = Gateway::in_front_of("http://127.0.0.1:9", &elsewhere).await;
    let served = gateway.directory.path().join("served.json");
    std::fs::write(&served, gateway.nobody().get("/openapi.json").await.body).unwrap();
    let mut spectral = of_node("spectral");
    spectral
        .arg("lint")
        .arg(served)
        .args(["--ruleset", &ruleset, "--fail-severity", "hint"]);
    let told = said(spectral).await;
    assert!(told.contains("No results"), "{told}");

    let mut redocly = of_node("redocly");
    // The rules of `recommended`, whose warnings fail too.
    redocly.args(["lint", DOCUMENT, "--extends=recommended-strict"]);
    let told = said(redocly).await;
    assert!(told.contains("Your API description is valid"), "{told}");

    let mut validator = beside_python("openapi-spec-validator");
    validator.args(["--validation-errors", "all", DOCUMENT]);
    let told = said(validator).await;
    assert!(told.contains("OK"), "{told}");
}

#[test]
fn a_rust_crate_reads_the_document() {
    let document = oas3::from_json(committed_document().to_string()).unwrap();
    document.validate_version().unwrap();
    assert_eq!(document.operations().count(), operations());
    let committed = committed_document();
    let schemas = committed["components"]["schemas"].as_object().unwrap();
    assert_eq!(document.components.unwrap().schemas.len(), schemas.len());
}

fn operations() -> usize {
    let document = committed_document();
    let paths = document["paths"].as_object().unwrap();
    let counts = paths.values().map(|item| item.as_object().unwrap().len());
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_but_what_no_schema_can_say() {
    let gateway = Gateway::spawn().await;
    let share = gateway.sharer().put("/images/img/shares/7").await;
    let mut schemathesis = beside_python("schemathesis");
    let configuration = format!("{FILES}/schemathesis.toml");
    schemathesis
        .args(["--config-file", &configuration, "run", DOCUMENT])
        .args(["--url", &gateway.base_url, "--no-color"])
        .env("ISG_TOKEN", token("team-a", EVERYTHING))
        .env("ISG_EVENT", share.header("audit-id").unwrap())
        .current_dir(gateway.directory.path());
    let told = said(schemathesis).await;
    let operations = operations();
    let all = format!("Selected: {operations}/{operations}\n  Tested: {operations}\n");
    assert!(told.contains(&all), "{told}");
}

/// A document whose server is at a known address.
fn addressed(directory: &Path) -> PathBuf {
    let mut document = committed_document();
    document["servers"][0]["url"] = "https://gateway.example".into();
    let path = directory.join("openapi.json");
    std::fs::write(&path, document.to_string()).unwrap();
    path
}

fn everything() -> String {
    token("team-a", EVERYTHING)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_is_made_is_typed_and_takes_twelve_steps() {
    let gateway = Gateway::spawn().await;
    let directory = gateway.directory.path();
    let client = directory.join("client");
    let mut generate = beside_python("openapi-python-client");
    generate
        .args(["generate", "--meta", "setup", "--fail-on-warning", "--path"])
        .arg(addressed(directory))
        .args([
            "--config",
            &format!("{FILES}/python-client.yaml"),
            "--output-path",
        ])
        .arg(&client);
    said(generate).await;
    std::fs::copy(format!("{FILES}/scenario.py"), client.join("scenario.py")).unwrap();
    let mut mypy = beside_python("mypy");
    mypy.args(["--strict", "image_share_gateway_client", "scenario.py"])
        .current_dir(&client);
    said(mypy).await;
    let mut scenario = Command::new(python());
    scenario
        .args(["scenario.py", &gateway.base_url, &everything()])
        .current_dir(&client);
    assert_eq!(printed(scenario).await, TWELVE_STEPS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typescript_client_is_made_is_typed_and_takes_twelve_steps() {
    let gateway = Gateway::spawn().await;
    let directory = gateway.directory.path();
    for file in ["scenario.ts", "tsconfig.json"] {
        std::fs::copy(format!("{FILES}/{file}"), directory.join(file)).unwrap();
    }
    std::fs::write(directory.join("package.json"), r#"{"type":"module"}"#).unwrap();
    std::os::unix::fs::symlink(node_modules(), directory.join("node_modules")).unwrap();
    let mut generate = of_node("openapi-typescript");
    generate.arg(addressed(directory)).arg("--output");
    generate.arg(directory.join("api.d.ts"));
    let told = said(generate).await;
    assert!(!told.to_lowercase().contains("warn"), "{told}");
    let mut compile = of_node("tsc");
    compile.args(["--project", "."]).current_dir(directory);
    said(compile).await;
    let mut scenario = Command::new("node");
    scenario
        .args(["dist/scenario.js", &gateway.base_url, &everything()])
        .current_dir(directory);
    assert_eq!(printed(scenario).await, TWELVE_STEPS);
}

/// Makes a client by OpenAPI Generator, which warns of nothing but the document's version.
async fn generate(language: &str, document: &Path, to: &Path, more: &[&str]) {
    let mut generate = beside_python("openapi-generator-cli");
    generate
        .args(["generate", "-g", language, "-i"])
        .arg(document)
        .arg("-o")
        .arg(to)
        .args(more);
    let told = said(generate).await;
    let warns = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    let warnings: Vec<&str> = told.lines().filter(warns).collect();
    let others = warnings
        .iter()
        .filter(|line| !line.contains(OF_THE_VERSION));
    assert_eq!(others.count(), 0, "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_go_client_is_made_without_a_warning_and_takes_twelve_steps() {
    let gateway = Gateway::spawn().await;
    let directory = gateway.directory.path();
    let source = directory.join("go/src");
    let client = source.join("gatewayclient");
    let options = [
        "--global-property=apiTests=false",
        "--additional-properties=enumClassPrefix=true,packageName=gatewayclient,withGoMod=false",
    ];
    generate("go", &addressed(directory), &client, &options).await;
    let scenario = source.join("scenario");
    std::fs::create_dir_all(&scenario).unwrap();
    std::fs::copy(format!("{FILES}/scenario.go"), scenario.join("main.go")).unwrap();
    // Its one module lies where Debian puts modules.
    let path = format!("{}:/usr/share/gocode", directory.join("go").display());
    let mut build = Command::new("go");
    build
        .args(["build", "-o", "scenario", "."])
        .env("GO111MODULE", "off")
        .env("GOPATH", path)
        .env("GOFLAGS", "")
        .env("GOCACHE", directory.join("go-cache"))
        .current_dir(&scenario);
    said(build).await;
    let mut steps = Command::new(scenario.join("scenario"));
    steps.args([&gateway.base_url, &everything()]);
    assert_eq!(printed(steps).await, TWELVE_STEPS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_client_is_made_without_a_warning_and_takes_twelve_steps() {
    let gateway = Gateway::spawn().await;
    let directory = gateway.directory.path();
    let client = directory.join("java");
    let options = [
        "--library=native",
        "--global-property=apiTests=false,modelTests=false,apiDocs=false,modelDocs=false",
        "--additional-properties=openApiNullable=false,useJakartaEe=true,hideGenerationTimestamp=true",
    ];
    generate("java", &addressed(directory), &client, &options).await;
    // The generator has Jackson in it, as its own clients need it.
    let mut find = Command::new(python());
    find.args([
        "-c",
        "import openapi_generator_cli as it, os; print(os.path.dirname(it.__file__))",
    ]);
    let generator = printed(find).await;
    let classes = directory.join("classes");
    let class_path = format!(
        "{}:{}/openapi-generator.jar:/usr/share/java/jakarta-annotation-api.jar",
        classes.display(),
        generator.trim()
    );
    let mut compile = Command::new("javac");
    compile
        .args(["-nowarn", "-d"])
        .arg(&classes)
        .args(["-cp", &class_path, "-sourcepath"])
        .arg(client.join("src/main/java"))
        .arg(format!("{FILES}/Scenario.java"));
    said(compile).await;
    let mut steps = Command::new("java");
    steps.args([
        "-cp",
        &class_path,
        "Scenario",
        &gateway.base_url,
        &everything(),
    ]);
    assert_eq!(printed(steps).await, TWELVE_STEPS);
}

/// What generated clients send that say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_null_says_nothing() {
    let gateway = Gateway::spawn().await;
    for body in ["null", " null\n"] {
        let request = gateway.sharer().request("PUT", "/images/img/shares/7");
        let request = request.header("Content-Type", "application/json");
        assert_eq!(Answer::of(request.body(body)).await.status, 200, "{body:?}");
    }
}
