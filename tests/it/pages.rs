//! The files of the pages: all of them are served, as a browser takes them, and what is others' is as they made it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{Answer, Gateway, node_modules};

const CONSOLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/pages/console");

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// `.ci/vendor` copies them.
#[test]
fn what_the_console_has_of_others_is_what_the_lock_names() {
    let uplot = node_modules().join("uplot");
    for (copy, original) in [
        ("uPlot.esm.js", "dist/uPlot.esm.js"),
        ("uPlot.min.css", "dist/uPlot.min.css"),
        ("uPlot.LICENSE", "LICENSE"),
    ] {
        let copy = std::fs::read(Path::new(CONSOLE).join("vendor").join(copy)).unwrap();
        assert!(
            copy == std::fs::read(uplot.join(original)).unwrap(),
            "{original}"
        );
    }
    let manifest = std::fs::read_to_string(uplot.join("package.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/package-lock.json");
    let lock: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(lock).unwrap()).unwrap();
    let locked = &lock["packages"]["node_modules/uplot"];
    assert_eq!(manifest["version"], locked["version"]);
    assert!(locked["integrity"].is_string());
    assert_eq!(files(&Path::new(CONSOLE).join("vendor")).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_the_console_is_served_plain_or_gzipped_and_asked_for_again_is_not_sent() {
    let gateway = Gateway::spawn().await;
    for file in files(Path::new(CONSOLE)) {
        let name = file.strip_prefix(CONSOLE).unwrap().to_str().unwrap();
        let path = format!("/console/{name}");
        let plain = gateway.nobody().get(&path).await;
        assert_eq!(plain.status, 200, "{path}");
        assert_eq!(
            plain.body.as_bytes(),
            std::fs::read(&file).unwrap(),
            "{path}"
        );
        assert_eq!(plain.header("vary"), Some("Accept-Encoding"), "{path}");
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let policy = plain.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        let again = gateway.nobody().request("GET", &path);
        let again = Answer::of(again.header("If-None-Match", plain.header("etag").unwrap())).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        if plain.body.len() >= 1024 {
            let packed = gateway.nobody().request("GET", &path);
            let packed = Answer::of(packed.header("Accept-Encoding", "gzip")).await;
            assert_eq!(packed.header("content-encoding"), Some("gzip"), "{path}");
            assert_ne!(packed.header("etag"), plain.header("etag"), "{path}");
        }
    }
    for nothing in [
        "/console/nothing.js",
        "/console/../main.rs",
        "/console/vendor/",
    ] {
        gateway
            .nobody()
            .get(nothing)
            .await
            .assert_problem(404, "not-found");
    }
    let led = gateway.nobody().get("/console").await;
    assert_eq!(
        (led.status, led.header("location")),
        (307, Some("console/"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_in_earnest_offers_no_tokens() {
    let gateway = Gateway::spawn().await;
    let offered = gateway.nobody().get("/console/sandbox-tokens.json").await;
    assert_eq!((offered.status, offered.body.as_str()), (200, "[]"));
    assert_eq!(offered.header("cache-control"), Some("no-store"));
}

/// The same keys in both languages, none of them unused, and none used that is not there.
#[test]
fn every_word_of_the_console_is_there_in_both_languages() {
    let words = std::fs::read_to_string(Path::new(CONSOLE).join("words.js")).unwrap();
    let english = words.find("  en: {").unwrap();
    let chinese = words.find("  zh: {").unwrap();
    let end = words.find("\n};").unwrap();
    let keys = |part: &str| -> BTreeSet<String> {
        let lines = part
            .lines()
            .filter_map(|line| line.trim().strip_prefix('"'));
        lines
            .map(|line| line.split('"').next().unwrap().to_owned())
            .collect()
    };
    let (english, chinese) = (keys(&words[english..chinese]), keys(&words[chinese..end]));
    assert_eq!(english, chinese);
    assert!(english.len() > 100);
    let is_ours = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "js")
            && !path.to_str().unwrap().contains("vendor")
    };
    let ours = files(Path::new(CONSOLE))
        .into_iter()
        .filter(is_ours)
        .filter(|path| !path.ends_with("words.js"));
    let scripts: String = ours
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    // What is put together of parts begins so.
    let parts: Vec<&str> = scripts
        .match_indices("say(`")
        .map(|(at, _)| {
            let rest = &scripts[at + 5..];
            &rest[..rest.find("${").unwrap()]
        })
        .collect();
    let unused = english.iter().filter(|key| {
        let said = scripts.contains(&format!("\"{key}\""));
        !said
            && !parts
                .iter()
                .any(|part| !part.is_empty() && key.starts_with(part))
            && !is_heading(key)
    });
    assert_eq!(unused.collect::<Vec<_>>(), Vec::<&String>::new());
    for at in scripts.match_indices("say(\"") {
        let key = scripts[at.0 + 5..].split('"').next().unwrap();
        assert!(english.contains(key), "{key}");
    }
}

/// Said by the name of a column or filter, or of a view.
fn is_heading(key: &str) -> bool {
    let columns = [
        "image_id",
        "account_id",
        "subject",
        "from",
        "to",
        "operation",
        "outcome",
        "request_id",
        "occurred_at",
        "reason",
    ];
    columns.contains(&key) || key.rsplit('.').next() == Some("title")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_has_a_page_and_an_answer_for_every_kind_of_problem() {
    let gateway = Gateway::spawn().await;
    let ask = async |path: &str, accept: Option<&str>| {
        let request = gateway.nobody().request("GET", path);
        Answer::of(match accept {
            Some(accept) => request.header("Accept", accept),
            None => request,
        })
        .await
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let all = ask("/problems/", Some("application/json")).await.json();
    let problems = all["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 23);
    for problem in problems {
        let kind = problem["type"].as_str().unwrap();
        let json = ask(kind, Some("application/json")).await;
        assert_eq!(json.json(), *problem);
        for accept in [None, Some("*/*"), Some(browser)] {
            let page = ask(kind, accept).await;
            assert_eq!(page.status, 200, "{kind}");
            assert_eq!(
                page.header("content-type"),
                Some("text/html; charset=utf-8")
            );
            assert!(
                page.body
                    .contains(&format!("<h1>{}</h1>", problem["title"].as_str().unwrap())),
                "{}",
                page.body
            );
            assert!(
                !page
                    .header("content-security-policy")
                    .unwrap()
                    .contains("unsafe")
            );
        }
    }
    for path in ["/problems", "/problems/"] {
        assert!(
            ask(path, Some(browser)).await.body.contains("<h2>"),
            "{path}"
        );
    }
    ask("/problems/nothing", None)
        .await
        .assert_problem(404, "not-found");
    ask("/problems/not-found", Some("image/png"))
        .await
        .assert_problem(406, "not-acceptable");
    ask("/problems/not-found?x=1", None)
        .await
        .assert_problem(400, "invalid-request");
}
